"""The stand-in's other APIs: the answers for Anthropic's and Gemini's clients, with the same
scripts, counts and faults for all.
"""

import asyncio
import json
from typing import Any, get_args

import aiohttp
import pytest

from tests.standin import Ask, Fault, FaultKind, Reply, answer_to, serve, serve_in_process
from tests.standin.settings import Usage
from tests.standin.wire_anthropic import ANTHROPIC
from tests.standin.wire_gemini import GEMINI
from tests.standin.wire_openai import OPENAI
from tests.standin.wires import wire_of

WIRES = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}
EACH = pytest.mark.parametrize("name", list(WIRES))
OTHERS = pytest.mark.parametrize("name", ["anthropic", "gemini"])

CONVERSATION = [("system", "be {brief}"), ("user", "one"), ("assistant", "1"), ("user", "two")]


def asked(
    name: str, messages: list[tuple[str, str]], *, stream: bool = False, model: str = "m"
) -> tuple[str, dict[str, Any]]:
    """The path and body of a request."""
    if name == "gemini":
        contents = [
            {"role": {"assistant": "model"}.get(r, r), "parts": [{"text": text}]}
            for r, text in messages
            if r != "system"
        ]
        system = [{"text": text} for role, text in messages if role == "system"]
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        body: dict[str, Any] = {"contents": contents, "generationConfig": {"maxOutputTokens": 77}}
        return f"/v1beta/models/{model}:{method}", body | (
            {"systemInstruction": {"parts": system}} if system else {}
        )
    told = [
        {"role": role, "content": text}
        for role, text in messages
        if name == "openai" or role != "system"
    ]
    body = {"model": model, "messages": told} | ({"stream": True} if stream else {})
    if name == "openai":
        more = {"stream_options": {"include_usage": True}} if stream else {}
        return "/v1/chat/completions", body | {"max_completion_tokens": 77} | more
    system = [text for role, text in messages if role == "system"]
    return "/v1/messages", body | {"max_tokens": 77} | ({"system": system[0]} if system else {})


async def ask(
    server: Any, name: str, prompt: str, *, stream: bool = False, **headers: str
) -> tuple[int, Any, Any]:
    """Status, body and headers; of a stream the parsed events."""
    path, body = asked(name, [("user", prompt)], stream=stream)
    async with aiohttp.request(
        "POST", server.base_url.removesuffix("/v1") + path, json=body, headers=headers
    ) as response:
        if response.content_type != "text/event-stream":
            return response.status, await response.json(), response.headers
        lines = (await response.text()).splitlines()
        return (
            response.status,
            [json.loads(line[6:]) for line in lines if line.startswith("data: {")],
            response.headers,
        )


def text_of(name: str, answer: Any) -> str:
    """The text of a plain answer."""
    if name == "openai":
        return answer["choices"][0]["message"]["content"]
    blocks = (
        answer["content"] if name == "anthropic" else answer["candidates"][0]["content"]["parts"]
    )
    return "".join(block["text"] for block in blocks)


async def test_scripts_see_the_same_on_every_wire() -> None:
    """Messages, turn, prompt and reply bound reach a script in the same form, and the received
    requests are kept.
    """
    seen: dict[str, Ask] = {}

    def note(ask: Ask) -> str:
        seen[names[ask.number]] = ask
        return "noted"

    names = list(WIRES)
    async with (
        serve(scripts={"m": note}, keep_requests=True) as server,
        aiohttp.ClientSession() as session,
    ):
        sent = {}
        for name in names:
            path, sent[name] = asked(name, CONVERSATION)
            async with session.post(
                server.base_url.removesuffix("/v1") + path, json=sent[name]
            ) as response:
                assert text_of(name, await response.json()) == "noted"
        kept = {names[each.number]: each for each in server.requests()}
    for name in names:
        body = seen[name].body
        assert [
            (message["role"], message["content"]) for message in body["messages"]
        ] == CONVERSATION
        assert (
            seen[name].model,
            seen[name].turn,
            seen[name].prompt,
            body["max_completion_tokens"],
        ) == ("m", 1, "two", 77)
        assert (kept[name].body, wire_of(kept[name].path)) == (sent[name], WIRES[name])


async def test_texts_in_blocks() -> None:
    """Anthropic's and Gemini's texts may be in blocks; blocks that are not text are ignored."""
    async with serve() as server, aiohttp.ClientSession() as session:
        root = server.base_url.removesuffix("/v1")
        blocks = [
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "1", "name": "f", "input": {}},
            {"type": "text", "text": "b"},
        ]
        body = {
            "model": "m",
            "max_tokens": 1,
            "system": [{"type": "text", "text": "s"}],
            "messages": [{"role": "user", "content": blocks}],
        }
        async with session.post(f"{root}/v1/messages", json=body) as response:
            assert text_of("anthropic", await response.json()) == answer_to("ab")
        parts = [
            {"text": "a"},
            {"text": "hm", "thought": True},
            {"functionCall": {"name": "f"}},
            {"text": "b"},
        ]
        async with session.post(
            f"{root}/v1beta/models/m:generateContent",
            json={"contents": [{"role": "user", "parts": parts}]},
        ) as response:
            assert text_of("gemini", await response.json()) == answer_to("ab")


COUNTS = Usage(input=9, output=5, cached=4, reasoning=3)


async def test_answers_in_each_providers_words() -> None:
    """Anthropic counts cached tokens separately from its input, Gemini thinking tokens separately
    from its output; each has its own finish reasons.
    """
    async with serve(scripts={"m": [Reply("so", usage=COUNTS)]}) as server:
        _, anthropic, _ = await ask(server, "anthropic", "x")
        _, gemini, _ = await ask(server, "gemini", "x")
        server.change(scripts={"m": [Reply("so", "length")]})
        assert (await ask(server, "anthropic", "x"))[1]["stop_reason"] == "max_tokens"
        assert (await ask(server, "gemini", "x"))[1]["candidates"][0][
            "finishReason"
        ] == "MAX_TOKENS"
    assert (anthropic["type"], anthropic["role"], anthropic["model"], anthropic["stop_reason"]) == (
        "message",
        "assistant",
        "m",
        "end_turn",
    )
    assert anthropic["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    assert gemini["candidates"] == [
        {
            "content": {"parts": [{"text": "so"}], "role": "model"},
            "finishReason": "STOP",
            "index": 0,
        }
    ]
    assert gemini["modelVersion"] == "m"
    assert gemini["usageMetadata"] == {
        "promptTokenCount": 9,
        "candidatesTokenCount": 2,
        "totalTokenCount": 14,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
    }


async def test_streams_of_anthropic() -> None:
    """A stream has named events from message_start to message_stop: one block with the text in
    pieces, then reason and counts.
    """
    async with serve(piece=5) as server:
        _, events, headers = await ask(server, "anthropic", "p", stream=True)
        assert (headers["content-type"], server.calls()[0].stream) == ("text/event-stream", True)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event["delta"]["text"] for event in events[2:-3]) == answer_to("p")
    assert (events[0]["message"]["content"], events[-2]["delta"]["stop_reason"]) == ([], "end_turn")
    assert events[-2]["usage"]["output_tokens"] > 1


async def test_streams_of_gemini() -> None:
    """A stream has responses with pieces of the text; the last has the reason. Requests without
    alt=sse are refused.
    """
    async with serve(piece=5) as server:
        _, events, _ = await ask(server, "gemini", "p", stream=True)
        assert server.calls()[0].stream
        path, body = asked("gemini", [("user", "p")], stream=True)
        async with aiohttp.request(
            "POST", server.base_url.removesuffix("/v1") + path.partition("?")[0], json=body
        ) as response:
            assert (response.status, server.stats().calls) == (400, 1)
            assert "alt=sse" in (await response.json())["error"]["message"]
    candidates = [event["candidates"][0] for event in events]
    assert "".join(
        part["text"] for each in candidates for part in each["content"]["parts"]
    ) == answer_to("p")
    assert [each.get("finishReason") for each in candidates] == [None] * (len(candidates) - 1) + [
        "STOP"
    ]
    assert all(event["usageMetadata"]["totalTokenCount"] > 0 for event in events)


ERRORS = [
    ("anthropic", "rate_limit", 429, "rate_limit_error"),
    ("anthropic", "quota", 402, "billing_error"),
    ("anthropic", "server", 500, "api_error"),
    ("anthropic", "unavailable", 529, "overloaded_error"),
    ("anthropic", "auth", 401, "authentication_error"),
    ("anthropic", "bad_request", 400, "invalid_request_error"),
    ("anthropic", "context_length", 400, "invalid_request_error"),
    ("anthropic", "not_found", 404, "not_found_error"),
    ("gemini", "rate_limit", 429, "RESOURCE_EXHAUSTED"),
    ("gemini", "server", 500, "INTERNAL"),
    ("gemini", "unavailable", 503, "UNAVAILABLE"),
    ("gemini", "auth", 400, "INVALID_ARGUMENT"),
    ("gemini", "bad_request", 400, "INVALID_ARGUMENT"),
    ("gemini", "context_length", 400, "INVALID_ARGUMENT"),
    ("gemini", "not_found", 404, "NOT_FOUND"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "kind", "status", "word"), ERRORS)
async def test_errors_in_each_providers_shape(
    name: str, kind: Any, status: int, word: str, stream: bool
) -> None:
    """An error has the provider's status and body, for a stream too; the time to wait is where the
    provider puts it.
    """
    async with serve(faults=[Fault(kind, retry_after=1.5)]) as server:
        got, body, headers = await ask(server, name, "x", stream=stream)
        assert (got, server.calls()[0].status, server.calls()[0].fault) == (status, status, kind)
    if name == "anthropic":
        assert (body["type"], body["error"]["type"], headers["retry-after"]) == (
            "error",
            word,
            "1.5",
        )
    else:
        assert (body["error"]["code"], body["error"]["status"]) == (status, word)
        assert body["error"]["details"][-1]["retryDelay"] == "1.5s"
        assert "retry-after" not in headers


async def test_a_wrong_key_has_googles_reason() -> None:
    """For Google, a wrong key is an invalid argument, with a reason in the details."""
    async with serve(faults=[Fault("auth")]) as server:
        _, body, _ = await ask(server, "gemini", "x")
    assert [each["reason"] for each in body["error"]["details"]] == ["API_KEY_INVALID"]


@OTHERS
async def test_a_key_can_be_required(name: str) -> None:
    """With `api_key` set a request needs it, in the header that the provider's clients use."""
    headers = {
        "anthropic": [{"x-api-key": "right"}, {"authorization": "Bearer right"}],
        "gemini": [{"x-goog-api-key": "right"}],
    }
    async with serve(api_key="right") as server:
        for each in headers[name]:
            assert (await ask(server, name, "x", **each))[0] == 200
        assert (await ask(server, name, "x", **dict.fromkeys(headers[name][0], "wrong")))[
            0
        ] == WIRES[name].errors["auth"][0]
        server.change(faults=[Fault("echo_key")], api_key=None)
        assert (
            "no such key: secret"
            in (await ask(server, name, "x", **dict.fromkeys(headers[name][0], "secret")))[1][
                "error"
            ]["message"]
        )


KINDS = get_args(FaultKind)


@OTHERS
@pytest.mark.parametrize("kind", sorted(OPENAI.lacks | ANTHROPIC.lacks | GEMINI.lacks))
async def test_a_fault_without_a_form_is_refused(name: str, kind: Any) -> None:
    """A kind of fault that an API cannot express is an error that says so; with the other APIs it
    works.
    """
    async with serve(faults=[Fault(kind)]) as server:
        status, body, _ = await ask(server, name, "x")
    if kind in WIRES[name].lacks:
        assert (status, body["error"]["message"]) == (
            400,
            f"the stand-in has no fault {kind!r} on {WIRES[name].name}'s wire",
        )
    else:
        assert "the stand-in has no fault" not in str(body)


def test_every_kind_of_fault_is_handled() -> None:
    """Every kind of fault is an error status, a changed or broken answer, or listed as not
    supported.
    """
    below = {"hang", "reset", "close", "truncated", "cut", "content_type", "no_stream"}
    answers = {
        "empty_choices",
        "null_content",
        "refusal",
        "tool_calls",
        "length",
        "content_filter",
        "no_usage",
    }
    for wire in WIRES.values():
        assert wire.errors.keys() | wire.lacks | below | answers == set(KINDS)
        assert not wire.errors.keys() & wire.lacks


async def test_answers_that_are_not_usable() -> None:
    """Unusable answers have each provider's form."""
    kinds: list[Any] = [
        "null_content",
        "refusal",
        "tool_calls",
        "length",
        "content_filter",
        "error_body",
        "empty_choices",
        "no_usage",
    ]
    async with serve(faults=[Fault(kind, match=kind) for kind in kinds]) as server:
        anthropic = {kind: (await ask(server, "anthropic", kind))[1] for kind in kinds}
        gemini = {kind: (await ask(server, "gemini", kind))[1] for kind in kinds}
    assert (anthropic["null_content"]["content"], anthropic["null_content"]["stop_reason"]) == (
        [],
        "end_turn",
    )
    assert (anthropic["refusal"]["content"], anthropic["refusal"]["stop_reason"]) == ([], "refusal")
    assert (
        anthropic["tool_calls"]["content"][0]["name"],
        anthropic["tool_calls"]["stop_reason"],
    ) == ("look_up", "tool_use")
    assert anthropic["length"]["stop_reason"] == "max_tokens"
    assert anthropic["error_body"]["type"] == "error"
    assert gemini["null_content"]["candidates"] == [{"finishReason": "STOP", "index": 0}]
    assert (gemini["refusal"]["promptFeedback"], "candidates" in gemini["refusal"]) == (
        {"blockReason": "PROHIBITED_CONTENT"},
        False,
    )
    assert (
        gemini["tool_calls"]["candidates"][0]["content"]["parts"][0]["functionCall"]["name"]
        == "look_up"
    )
    assert gemini["length"]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert gemini["content_filter"]["candidates"] == [{"finishReason": "SAFETY", "index": 0}]
    assert "candidates" not in gemini["empty_choices"]
    assert "usageMetadata" not in gemini["no_usage"]
    assert gemini["error_body"]["error"]["status"] == "INTERNAL"


ODD_STREAMS = [
    ("anthropic", "error_body", ["message_start", "error"]),
    ("anthropic", "truncated", ["message_start", "content_block_start", "content_block_delta"]),
    ("anthropic", "refusal", ["message_start", "message_delta", "message_stop"]),
    ("gemini", "error_body", ["error"]),
    ("gemini", "truncated", ["answer 2d71"]),
    ("gemini", "refusal", ["PROHIBITED_CONTENT"]),
    ("gemini", "content_filter", ["SAFETY"]),
]


@pytest.mark.parametrize(("name", "kind", "expected"), ODD_STREAMS)
async def test_odd_streams(name: str, kind: Any, expected: list[str]) -> None:
    """A stream with an error in it, one that ends early, and streams without text have each
    provider's form.
    """
    async with serve(faults=[Fault(kind)], piece=11) as server:
        _, events, _ = await ask(server, name, "x", stream=True)
    if name == "anthropic":
        assert [event["type"] for event in events] == expected
    else:
        assert len(events) == len(expected)
        assert all(word in json.dumps(event) for word, event in zip(expected, events, strict=True))


async def test_a_tool_call_is_streamed() -> None:
    """Anthropic sends its arguments in pieces of JSON, Gemini the complete call."""
    async with serve(faults=[Fault("tool_calls")], piece=4) as server:
        _, events, _ = await ask(server, "anthropic", "x", stream=True)
        deltas = [
            event["delta"]["partial_json"]
            for event in events
            if event["type"] == "content_block_delta"
        ]
        assert (json.loads("".join(deltas)), len(deltas) > 1) == ({"key": 1}, True)
        assert events[-2]["delta"]["stop_reason"] == "tool_use"
        _, events, _ = await ask(server, "gemini", "x", stream=True)
        assert events[-1]["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {
            "key": 1
        }


@EACH
@pytest.mark.parametrize("kind", ["cut", "reset", "hang"])
async def test_a_stream_breaks_off_after_its_first_text(name: str, kind: Any) -> None:
    """With every API the client has one piece of the text when a stream is truncated, reset, or
    hangs.
    """
    async with serve(faults=[Fault(kind)], piece=11) as server, aiohttp.ClientSession() as session:
        path, body = asked(name, [("user", "x")], stream=True)
        async with session.post(server.base_url.removesuffix("/v1") + path, json=body) as response:
            read = b""
            while b"answer 2d71" not in read:
                read += await asyncio.wait_for(response.content.readany(), 60)
            assert b"1642b726b04" not in read
            if kind == "hang":
                assert server.stats().in_flight == 1
            else:
                with pytest.raises(aiohttp.ClientError):
                    await asyncio.wait_for(response.content.read(), 60)


@OTHERS
async def test_a_client_that_disconnects_is_counted(name: str) -> None:
    """Hanging calls are in flight until their client disconnects, and then aborted."""
    async with serve(faults=[Fault("hang")]) as server:
        tasks = [asyncio.create_task(ask(server, name, str(number))) for number in range(3)]
        async with asyncio.timeout(60):
            while server.stats().in_flight < 3:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            while server.stats().aborted < 3:
                await asyncio.sleep(0.001)
        assert all(call.aborted for call in server.calls())


@EACH
async def test_a_scripts_own_mistake(name: str) -> None:
    """An exception of a script is a server error in the provider's form, with its message."""

    def wrong(_: Ask) -> str:
        raise ZeroDivisionError("by nothing")

    async with serve(scripts={"m": wrong}) as server:
        status, body, _ = await ask(server, name, "x")
    assert status == 500
    assert "by nothing" in body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # No reply bound
        ("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/messages", {"model": "m", "messages": [], "max_tokens": 1}),
        ("/v1/messages", []),
        ("/v1beta/models/m:generateContent", {"contents": "x"}),
        ("/v1beta/models/m:generateContent", {"contents": [{"role": "user"}]}),
    ],
)
async def test_invalid_requests(path: str, body: Any) -> None:
    """An invalid body is refused in the provider's form, and is not counted as a call."""
    async with serve() as server:
        async with aiohttp.request(
            "POST", server.base_url.removesuffix("/v1") + path, json=body
        ) as response:
            assert response.status == 400
            assert "Not a chat completion" in (await response.json())["error"]["message"]
        assert server.stats().calls == 0


async def test_gemini_models() -> None:
    """Gemini's list has the models of the settings, and any model has a card, which LlamaIndex's
    class requests.
    """
    async with serve(models=["a", "b"]) as server, aiohttp.ClientSession() as session:
        root = server.base_url.removesuffix("/v1")
        async with session.get(f"{root}/v1beta/models") as response:
            assert [each["name"] for each in (await response.json())["models"]] == [
                "models/a",
                "models/b",
            ]
        async with session.get(f"{root}/v1beta/models/c") as response:
            assert (await response.json())["outputTokenLimit"] > 0
        async with session.get(f"{root}/v1/models/c") as response:
            assert response.status == 404


async def test_another_process_speaks_them_too() -> None:
    """The process form has the same APIs, and its records are complete."""
    with serve_in_process(keep_requests=True, scripts={"m": [Reply("so", usage=COUNTS)]}) as server:
        for name in WIRES:
            assert text_of(name, (await ask(server, name, "x"))[1]) == "so"
        assert [wire_of(each.path) for each in server.requests()] == list(WIRES.values())
        assert [call.status for call in server.calls()] == [200] * 3


def test_unknown_addresses() -> None:
    """An API is selected by the whole path."""
    for path in (
        "/v1/messages/count_tokens",
        "/v1beta/models/m:countTokens",
        "/v1beta/m:generateContent",
        "/chat/completions",
    ):
        assert wire_of(path) is None
