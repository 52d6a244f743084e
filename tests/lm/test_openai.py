"""OpenAILM sends what it is told to, and refuses invalid arguments at once."""

import asyncio
import copy
import pickle
from typing import Any

import pytest

from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.base import LM, RateLimited, StreamingLM
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.records import Message, Request, Usage
from tests.lm.conftest import request_of
from tests.standin import Reply, StandIn, answer_to
from tests.standin.settings import Usage as Claim

KEY = "sk-test-0123456789"


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
async def test_parallel_answers_are_those_of_their_prompts(server: StandIn, transport: Any) -> None:
    """Fifty concurrent calls each get their own answer, with the provider's model name, finish
    reason and token counts.
    """
    lm = OpenAILM("sub", base_url=server.base_url, api_key=KEY, transport=transport)
    answers = await asyncio.gather(*(lm.complete(request_of(f"prompt {n}")) for n in range(50)))
    assert [answer.text for answer in answers] == [answer_to(f"prompt {n}") for n in range(50)]
    assert {(answer.model, answer.finish_reason) for answer in answers} == {("sub", "stop")}
    assert all(answer.usage and answer.usage.input_tokens == 3 for answer in answers)
    assert server.stats().calls == 50


async def test_a_hundred_calls_are_in_flight_at_once(server: StandIn) -> None:
    """The transport sends a hundred calls at once; the SDK's default transport in openai 2 sends
    half of them.
    """
    server.change(latency=60)
    lm = OpenAILM("sub", base_url=server.base_url, api_key=KEY)
    tasks = [asyncio.create_task(lm.complete(request_of(str(n)))) for n in range(100)]
    async with asyncio.timeout(60):
        while server.stats().in_flight < 100:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_whole_request_is_sent(server: StandIn) -> None:
    """All messages are sent in order, with the key, the default parameters, and a request's own
    parameters, which override them.
    """
    lm = OpenAILM(
        "sub",
        base_url=server.base_url + "/",
        api_key=f"{KEY}\n",
        params={"temperature": 0, "seed": 1},
    )
    messages = (
        Message("system", "be short"),
        Message("user", "a \u00e4 \U0001f600 \x00"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    await lm.complete(Request(messages, params={"seed": 2}))
    sent = server.requests()[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.body == {
        "model": "sub",
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "temperature": 0,
        "seed": 2,
    }


async def test_headers_of_a_call(server: StandIn) -> None:
    """`headers` receives the request and can add headers; without it none are added."""
    named = OpenAILM(
        "sub",
        base_url=server.base_url,
        api_key=KEY,
        headers=lambda request: {"x-rlm-call": request.path},
    )
    await named.complete(request_of("x", path="r.2/b.17"))
    await OpenAILM("sub", base_url=server.base_url, api_key=KEY).complete(
        request_of("x", path="r.2/b.17")
    )
    assert [sent.headers.get("x-rlm-call") for sent in server.requests()] == ["r.2/b.17", None]


async def test_cached_and_reasoning_tokens_are_counted(server: StandIn) -> None:
    """The provider's counts of cached and reasoning tokens are in the usage."""
    server.change(
        scripts={"sub": [Reply("x", usage=Claim(input=100, output=20, cached=64, reasoning=12))]}
    )
    answer = await OpenAILM("sub", base_url=server.base_url, api_key=KEY).complete(request_of("x"))
    assert answer.usage == Usage(
        input_tokens=100, output_tokens=20, cached_tokens=64, reasoning_tokens=12
    )


async def test_a_large_prompt(server: StandIn) -> None:
    """A prompt above a megabyte is sent completely, without aiohttp's warning about large bodies
    (warnings are errors here).
    """
    prompt = "\u00e4" * 1_500_000
    answer = await OpenAILM("sub", base_url=server.base_url, api_key=KEY).complete(
        request_of(prompt)
    )
    assert answer.text == answer_to(prompt)


async def test_a_self_hosted_server_needs_no_key(server: StandIn) -> None:
    """Without a key, no authorization header is sent."""
    lm = OpenAILM("sub", base_url=server.base_url)
    assert (await lm.complete(request_of("x"))).text == answer_to("x")
    async for _ in lm.astream(request_of("x")):
        pass
    assert ["authorization" in sent.headers for sent in server.requests()] == [False, False]


async def test_key_and_address_come_from_the_environment(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_API_KEY and OPENAI_BASE_URL are the defaults."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    await OpenAILM("sub").complete(request_of("x"))
    await OpenAILM("sub", api_key="sk-other").complete(request_of("x"))
    assert [sent.headers["authorization"] for sent in server.requests()] == [
        f"Bearer {KEY}",
        "Bearer sk-other",
    ]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"api_key": " "}, "leave it out"),
        ({"api_key": "sk-\u2026"}, "invalid characters"),
        ({"api_key": "sk a"}, "invalid characters"),
        ({"model": ""}, "gpt-5-mini"),
        ({"model": " gpt-5-mini"}, "gpt-5-mini"),
        ({"model": None}, "gpt-5-mini"),
        ({"base_url": "localhost:8000/v1"}, "http://localhost"),
        ({"base_url": "http://"}, "http://localhost"),
        ({"base_url": "http://host:port/v1"}, "http://localhost"),
        ({"base_url": "http://host/v1?x=1"}, "http://localhost"),
        ({"base_url": 5}, "http://localhost"),
        ({"base_url": ""}, "http://localhost"),
        ({"base_url": "http://host/v1/chat/completions"}, "leave '/chat/completions' out"),
        ({"base_url": "http://user:secret@host/v1"}, "api_key"),
        ({"transport": "httpx"}, "'aiohttp', 'sdk'"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"context_window": 0}, "context_window"),
        ({"params": {"stream": True}}, "'stream'"),
    ],
)
def test_invalid_arguments_are_refused_by_the_constructor(wrong: dict[str, Any], hint: str) -> None:
    """A missing key, an empty name, an invalid address and an unknown transport are errors of the
    constructor that say what to do.
    """
    options = {"model": "gpt-5-mini", **({} if not wrong else {"api_key": KEY}), **wrong}
    with pytest.raises(InputError) as caught:
        OpenAILM(options.pop("model"), **options)
    assert hint in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "sk" not in str(caught.value).replace("ask", "")


@pytest.mark.parametrize(
    ("prompt", "params", "hint"),
    [
        ("half \ud800 a pair", {}, "half ' is followed by '\\ud800'"),
        ("x", {"temperature": float("nan")}, "JSON"),
        ("x", {"tools": object()}, "JSON"),
        ("x", {"stream": True}, "'stream'"),
    ],
)
async def test_a_request_that_cannot_be_sent(
    server: StandIn, prompt: str, params: dict[str, Any], hint: str
) -> None:
    """Text that is not valid Unicode and parameters that are not JSON are errors of type "input",
    and nothing is sent.
    """
    lm = OpenAILM("sub", base_url=server.base_url, api_key=KEY)
    with pytest.raises(ModelError) as caught:
        await lm.complete(request_of(prompt, params=params))
    assert (caught.value.type, caught.value.retryable) == ("input", False)
    assert hint in str(caught.value)
    assert server.stats().calls == 0


def test_it_implements_the_protocols() -> None:
    """OpenAILM implements the protocols LM, StreamingLM and RateLimited."""
    lm = OpenAILM("gpt-5-mini", api_key=KEY, context_window=400_000)
    assert isinstance(lm, LM)
    assert isinstance(lm, StreamingLM)
    assert isinstance(lm, RateLimited)
    assert (lm.name, lm.context_window) == ("gpt-5-mini", 400_000)


def test_the_limit_key() -> None:
    """Two objects with the same address, key and model share a limit key; otherwise they do not."""
    keys = [
        OpenAILM("a", api_key=KEY).limit_key,
        OpenAILM(
            "a", api_key=KEY, base_url="https://api.openai.com/v1/", transport="sdk"
        ).limit_key,
        OpenAILM("b", api_key=KEY).limit_key,
        OpenAILM("a", api_key="sk-other").limit_key,
        OpenAILM("a", api_key=KEY, base_url="http://localhost/v1").limit_key,
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert KEY not in str(keys)


async def test_the_key_is_not_pickled(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle has the options and no key: the loading process takes the key from its environment,
    or gets an error.
    """
    lm = OpenAILM(
        "sub",
        base_url=server.base_url,
        api_key=KEY,
        params={"seed": 1},
        timeout=3,
        context_window=9,
    )
    await lm.complete(request_of("x"))
    data = pickle.dumps(lm)
    assert KEY.encode() not in data
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    loaded = pickle.loads(data)
    assert (await loaded.complete(request_of("x"))).text == answer_to("x")
    assert server.requests()[-1].headers["authorization"] == "Bearer sk-theirs"
    assert (loaded.params, loaded.timeout, loaded.context_window) == ({"seed": 1}, 3, 9)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        pickle.loads(pickle.dumps(OpenAILM("sub", api_key=KEY)))


def test_copies_are_the_same_model() -> None:
    """Copies and deep copies, which frameworks make, keep key and clients."""
    lm = OpenAILM("sub", api_key=KEY)
    assert copy.copy(lm) is lm
    assert copy.deepcopy({"model": lm})["model"] is lm


def test_the_repr_shows_only_model_and_address() -> None:
    """The repr shows model and address, not the key."""
    assert (
        repr(OpenAILM("sub", api_key=KEY))
        == "OpenAILM('sub', base_url='https://api.openai.com/v1')"
    )
