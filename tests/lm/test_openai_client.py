"""A user's client of the SDK makes the calls with its own configuration."""

import asyncio
import pickle
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest

from rlm_integrations import llm_batch
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.lm.openai.transport import httpx
from rlm_integrations.records import Completion
from tests.lm.conftest import request_of
from tests.lm.test_openai_same import Server, fixed  # noqa: F401 - a fixture
from tests.standin import Fault, StandIn, answer_to, serve_in_thread

TRANSPORTS = pytest.mark.parametrize("transport", ["aiohttp", "sdk"])


def tokens() -> Callable[[], Any]:
    """A provider of tokens: another one at each call."""
    made: list[str] = []

    async def token() -> str:
        made.append(f"token-0123456789-{len(made)}")
        return made[-1]

    return token


@TRANSPORTS
@pytest.mark.parametrize("deployment", [None, "deployed"])
async def test_azure_with_tokens_that_change(
    fixed: Server,  # noqa: F811
    transport: Any,
    deployment: str | None,
) -> None:
    """The request is that of the SDK's own method, with a new token for each call."""
    client = openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{fixed.port}",
        azure_deployment=deployment,
        api_version="2024-10-21",
        azure_ad_token_provider=tokens(),
    )
    async with client:
        await client.chat.completions.create(
            model="my model", messages=[{"role": "user", "content": "x"}]
        )
    lm = OpenAILM("my model", client=client, transport=transport)
    for _ in range(2):
        assert (await lm.complete(request_of("x"))).text == "fine"
    theirs, *ours = [(first, dict(headers)) for first, headers, _ in fixed.seen]
    assert [first for first, _ in ours] == [theirs[0]] * 2
    assert [headers["authorization"][-1] for _, headers in (theirs, *ours)] == ["0", "1", "2"]


@TRANSPORTS
def test_the_client_s_configuration_on_several_loops(transport: Any) -> None:
    """Its token, organisation, headers and query are sent from each loop that uses it, plain calls
    and streams; its retries are off, and no error shows a token.
    """
    with serve_in_thread(keep_requests=True) as server:
        client = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=tokens(),
            organization="org-1",
            default_headers={"x-own": "1"},
            default_query={"q": "2"},
        )
        lm = OpenAILM("sub", client=client, transport=transport)

        async def ask() -> list[Any]:
            pieces = [piece async for piece in lm.astream(request_of("x"))]
            return [await lm.complete(request_of("x")), pieces[-1]]

        for _ in range(2):
            assert [each.text for each in asyncio.run(ask())] == [answer_to("x")] * 2
        assert llm_batch(["a", "b"], lm) == [answer_to("a"), answer_to("b")]
        sent = [kept.headers for kept in server.requests()]
        assert len({headers["authorization"] for headers in sent}) == len(sent) == 6
        assert {(each["openai-organization"], each["x-own"]) for each in sent} == {("org-1", "1")}
        server.reset()
        server.change(faults=[Fault("echo_key")])
        with pytest.raises(ModelError, match=r"\[key\]") as caught:
            asyncio.run(lm.complete(request_of("x")))
        assert "token-" not in repr(caught.value)
        assert server.stats().calls == 1


async def test_a_client_with_its_own_http_client(server: StandIn) -> None:
    """Its HTTP client sends the calls, on the loop that uses it; on another loop at the same time
    it is refused with an explanation, and the next loop may have it afterwards.
    """
    sent: list[str] = []

    async def note(request: Any) -> None:
        sent.append(str(request.url))

    http_client = httpx.AsyncClient(event_hooks={"request": [note]})
    client = openai.AsyncOpenAI(
        base_url=server.base_url, api_key="sk-0123456789", http_client=http_client
    )
    lm = OpenAILM("sub", client=client)
    elsewhere: list[Completion | ModelError] = []

    def ask_elsewhere() -> None:
        try:
            elsewhere.append(asyncio.run(lm.complete(request_of("x"))))
        except ModelError as error:
            elsewhere.append(error)

    for _ in range(2):  # the first time nobody else uses it
        thread = threading.Thread(target=ask_elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert (await lm.complete(request_of("x"))).text == answer_to("x")
    first, second = elsewhere
    assert isinstance(first, Completion)
    assert isinstance(second, ModelError)
    assert second.type == "input"
    assert "another event loop" in str(second)
    assert sent == [f"{server.base_url}/chat/completions"] * 3
    assert not http_client.is_closed
    await client.close()


@pytest.mark.parametrize(
    ("client", "more", "hint"),
    [
        (openai.OpenAI(api_key="x"), {}, "AsyncOpenAI, not OpenAI"),
        ("sk-0123456789", {}, "AsyncOpenAI, not str"),
        (openai.AsyncOpenAI(api_key="x"), {"api_key": "y"}, "leave these arguments out"),
        (openai.AsyncOpenAI(api_key="x"), {"base_url": "http://y"}, "leave these arguments out"),
    ],
)
def test_an_invalid_client_is_refused(client: Any, more: dict[str, Any], hint: str) -> None:
    """One that is not the SDK's async client, and one beside arguments that it has itself."""
    with pytest.raises(InputError, match=hint):
        OpenAILM("m", client=client, **more)


def test_a_model_with_a_client_cannot_be_pickled() -> None:
    """The client may hold functions and connections."""
    with pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(OpenAILM("m", client=openai.AsyncOpenAI(api_key="x")))
