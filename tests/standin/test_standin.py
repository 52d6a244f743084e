"""The stand-in: its answers, its configured faults, and its counts."""

import asyncio
import gc
import json
import socket
import time
import warnings
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.standin import (
    Ask,
    Fault,
    Reply,
    Settings,
    StandIn,
    answer_to,
    serve,
    serve_in_process,
    serve_in_thread,
)


def body(prompt: str, model: str = "sub", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


async def ask(
    session: aiohttp.ClientSession, server: Any, prompt: str, **more: Any
) -> tuple[int, Any]:
    async with session.post(
        f"{server.base_url}/chat/completions", json=body(prompt, **more)
    ) as response:
        return response.status, await response.json()


def text(answer: Any) -> str:
    return answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("form", [serve_in_thread, serve_in_process])
async def test_the_forms_answer_and_count_alike(form: Any) -> None:
    """Thread and process form have the same answers, settings at run time, statistics and reset as
    the form on the loop.
    """
    with form(latency=0.01, keep_requests=True) as server:
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(*(ask(session, server, f"p{n}") for n in range(20)))
            assert [text(answer) for _, answer in answers] == [
                answer_to(f"p{n}") for n in range(20)
            ]
            stats = server.stats()
            assert (stats.calls, stats.in_flight, stats.aborted) == (20, 0, 0)
            assert 1 < stats.most_in_flight <= 20
            assert {kept.body["messages"][0]["content"] for kept in server.requests()} == {
                f"p{n}" for n in range(20)
            }
            assert all(call.ended - call.arrived >= 0.009 for call in server.calls())
            server.change(
                faults=[Fault("server", at=(20,))],
                scripts={"root": ["one", Reply("two", "length")]},
            )
            assert (await ask(session, server, "x"))[0] == 500
            assert text((await ask(session, server, "x", model="root"))[1]) == "one"
            server.reset()
            assert server.stats().calls == 0


async def test_models_are_listed() -> None:
    """`GET /v1/models` lists the names of the settings."""
    async with (
        serve(models=["a", "b"]) as server,
        aiohttp.request("GET", f"{server.base_url}/models") as response,
    ):
        assert [each["id"] for each in (await response.json())["data"]] == ["a", "b"]


async def test_a_script_follows_the_turn_of_its_conversation() -> None:
    """A list of replies is indexed by the number of assistant messages, so parallel runs and
    retries agree; a function gets the whole request.
    """
    async with (
        serve(scripts={"root": ["one", "two"], "loud": shout}) as server,
        aiohttp.ClientSession() as session,
    ):
        said = {"role": "assistant", "content": "one"}
        second = {
            "model": "root",
            "messages": [
                {"role": "user", "content": "q"},
                said,
                {"role": "user", "content": "out"},
            ],
        }
        for _ in range(2):
            assert text((await ask(session, server, "q", model="root"))[1]) == "one"
            async with session.post(f"{server.base_url}/chat/completions", json=second) as response:
                assert text(await response.json()) == "two"
        assert text((await ask(session, server, "hello", model="loud"))[1]) == "HELLO"


@pytest.mark.parametrize("form", [serve_in_thread, serve_in_process])
async def test_a_scripted_tool_call(form: Any) -> None:
    """A reply may call tools: each call has a unique id, and its arguments are a string of JSON."""
    calls = [("look", {"key": "ä"}), ("look", {})]
    with form(scripts={"agent": [Reply(None, "tool_calls", tool_calls=calls)]}) as server:
        async with aiohttp.ClientSession() as session:
            (choice,) = (await ask(session, server, "x", model="agent"))[1]["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    made = choice["message"]["tool_calls"]
    assert [
        (each["id"], each["function"]["name"], json.loads(each["function"]["arguments"]))
        for each in made
    ] == [
        ("call_0_0", "look", {"key": "ä"}),
        ("call_0_1", "look", {}),
    ]


async def test_rates_are_exact_and_seeded() -> None:
    """Of every hundred calls exactly the configured share fails, the same calls in every run."""
    faults = [Fault("rate_limit", rate=0.1, retry_after=1), Fault("server", rate=0.07)]

    async def statuses(seed: int) -> list[int]:
        async with serve(faults=faults, seed=seed) as server, aiohttp.ClientSession() as session:
            for n in range(200):
                async with session.post(
                    f"{server.base_url}/chat/completions", json=body(str(n))
                ) as response:
                    assert (response.status == 429) == ("retry-after" in response.headers)
            return [call.status for call in server.calls()]

    first, again, other = await statuses(1), await statuses(1), await statuses(2)
    assert first == again != other
    for block in (first[:100], first[100:]):
        assert (block.count(429), block.count(500), block.count(200)) == (10, 7, 83)


async def test_faults_by_schedule_match_and_times() -> None:
    """A fault applies to the calls of its numbers, or those whose prompt contains its text, and at
    most `times` times.
    """
    faults = [Fault("server", at=(1,)), Fault("rate_limit", match="needle", times=1)]
    async with serve(faults=faults) as server, aiohttp.ClientSession() as session:
        found = [
            (await ask(session, server, prompt))[0] for prompt in ("a", "b", "a needle", "a needle")
        ]
        assert found == [200, 500, 429, 200]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [({"kind": "typo"}, "no fault"), ({"kind": "hang", "rate": 0.005}, "per cents")],
)
def test_a_wrong_fault_is_refused(wrong: dict[str, Any], hint: str) -> None:
    """A fault that could never apply is an error of its constructor."""
    with pytest.raises(ValueError, match=hint):
        Fault(**wrong)


async def test_answers_that_are_not_usable() -> None:
    """Every kind of unusable answer looks like a provider's."""
    kinds = [
        "empty_choices",
        "null_content",
        "refusal",
        "tool_calls",
        "length",
        "content_filter",
        "no_usage",
        "error_body",
    ]
    async with (
        serve(faults=[Fault(kind, match=kind) for kind in kinds]) as server,
        aiohttp.ClientSession() as session,
    ):
        got = {kind: (await ask(session, server, kind))[1] for kind in kinds}
    assert got["empty_choices"]["choices"] == []
    assert got["null_content"]["choices"][0]["message"]["content"] is None
    assert got["refusal"]["choices"][0]["message"]["refusal"]
    assert (
        got["tool_calls"]["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look_up"
    )
    assert got["length"]["choices"][0]["finish_reason"] == "length"
    assert got["content_filter"]["choices"][0]["finish_reason"] == "content_filter"
    assert "usage" not in got["no_usage"]
    assert "choices" not in got["error_body"]


async def raw(server: StandIn, prompt: str, patience: float = 60, **more: Any) -> bytes:
    """All bytes of the answer, on the test's own connection."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(server.base_url.split(":")[2].split("/")[0])
    )
    data = json.dumps(body(prompt, **more)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )
    try:
        return await asyncio.wait_for(reader.read(), patience)
    finally:
        writer.close()


async def test_answers_that_break_off() -> None:
    """A reset, truncated JSON, a body shorter than announced, a page of HTML and a hanging call are
    sent as configured.
    """
    kinds = ["truncated", "cut", "content_type", "hang", "reset"]
    async with serve(faults=[Fault(kind, match=kind) for kind in kinds]) as server:
        with pytest.raises(ConnectionResetError):
            await raw(server, "reset")
        assert b"text/html" in await asyncio.wait_for(closing(server, "content_type"), 60)
        cut = await raw(server, "cut")
        head, _, rest = cut.partition(b"\r\n\r\n")
        assert f"content-length: {len(rest) + 9}".encode() in head
        with pytest.raises(ValueError, match=r"delimiter|Unterminated|Expecting"):
            json.loads((await closing(server, "truncated")).partition(b"\r\n\r\n")[2])
        with pytest.raises(TimeoutError):
            await raw(server, "hang", 0.1)


async def closing(server: StandIn, prompt: str) -> bytes:
    """The answer's bytes up to the announced length."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(server.base_url.split(":")[2].split("/")[0])
    )
    data = json.dumps(body(prompt)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    finally:
        writer.close()


async def test_a_client_that_disconnects_is_counted() -> None:
    """Calls whose client disconnects are soon counted as aborted."""
    async with serve(faults=[Fault("hang")]) as server, aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(ask(session, server, str(n))) for n in range(5)]
        while server.stats().in_flight < 5:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(60):
            while server.stats().aborted < 5:
                await asyncio.sleep(0.001)
        assert server.stats().in_flight == 0
        assert all(call.aborted for call in server.calls())


async def test_streams() -> None:
    """A stream has the answer in pieces, the usage if requested, and ends with [DONE]."""
    async with serve(piece=5) as server, aiohttp.ClientSession() as session:
        asked = body("p", stream=True, stream_options={"include_usage": True})
        async with session.post(f"{server.base_url}/chat/completions", json=asked) as response:
            lines = [line[6:] for line in (await response.text()).split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(
        c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]
    ) == answer_to("p")
    assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_capacity_and_overload() -> None:
    """Above its capacity it refuses at once; above `slow_above` it is slower."""
    async with serve(latency=0.02, capacity=3) as server, aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(ask(session, server, str(n)) for n in range(5)))
        assert sorted(status for status, _ in answers) == [200, 200, 200, 429, 429]
        server.change(capacity=None, slow_above=1)
        start = time.monotonic()
        await asyncio.gather(*(ask(session, server, str(n)) for n in range(5)))
        assert time.monotonic() - start > 0.09


async def test_a_key_can_be_required() -> None:
    """With `api_key` set, a request without it gets 401."""
    async with serve(api_key="right") as server, aiohttp.ClientSession() as session:
        assert (await ask(session, server, "x"))[0] == 401


def shout(asked: Ask) -> str:
    return asked.prompt.upper()


async def test_a_function_answers_in_another_process() -> None:
    """The process form takes a function by its name; a function object is refused with an
    explanation.
    """
    with serve_in_process(scripts={"loud": "tests.standin.test_standin:shout"}) as server:
        async with aiohttp.ClientSession() as session:
            assert text((await ask(session, server, "hello", model="loud"))[1]) == "HELLO"
        with pytest.raises(TypeError, match="module:function"):
            server.change(scripts={"loud": shout})


def test_nothing_is_left_behind() -> None:
    """Thread and process end with their `with` block, even if clients are waiting."""
    with ExitStack() as stack:
        for form in (serve_in_thread, serve_in_process):
            server = stack.enter_context(form(Settings(faults=[Fault("hang")])))
            client = socket.create_connection(
                ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
            )
            stack.callback(client.close)
            client.sendall(b"GET /v1/models HTTP/1.1\r\n\r\n")
            assert client.recv(10)


@pytest.mark.parametrize("steps", range(8))
def test_a_client_accepted_at_the_stop_is_closed(steps: int) -> None:
    """A connection accepted while it stops is closed like the others."""

    async def main() -> socket.socket:
        async with serve() as server:
            client = socket.create_connection(
                (urlsplit(server.base_url).hostname, urlsplit(server.base_url).port)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
        return client

    gc.collect()  # left by other tests
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main()).close()
        gc.collect()
    assert [str(each.message) for each in caught] == []
