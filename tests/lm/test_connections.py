"""Failures before a request reaches its server have a precise message, are not charged if nothing
was sent, and are not retried endlessly.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rlm_integrations import allm_batch
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.openai import OpenAILM, client
from rlm_integrations.lm.openai.failures import proxy_of
from rlm_integrations.lm.openai.reply_bound import ReplyBound
from rlm_integrations.records import Request
from tests.lm.conftest import request_of
from tests.lm.test_openai_wire import certificate  # noqa: F401 - a fixture
from tests.standin import Fault, Reply, StandIn, answer_to, serve

TRANSPORTS = pytest.mark.parametrize("transport", ["aiohttp", "sdk"])


async def failure_of(base_url: str, transport: Any = "aiohttp") -> ModelError:
    with pytest.raises(ModelError) as caught:
        await OpenAILM("m", base_url=base_url, api_key="a-key", transport=transport).complete(
            request_of("x")
        )
    return caught.value


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and length is not None and len(body) >= int(length[1])


@asynccontextmanager
async def raw_server(
    answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads the first bytes and sends a given answer; yields its address and the
    received bytes.
    """
    seen: list[bytes] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                while data.startswith(b"POST") and not _is_whole(data):
                    data += await reader.read(65_536)
                seen.append(data)
                await answer(data, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


@TRANSPORTS
async def test_a_closed_port_refuses_connections(transport: str) -> None:
    """A refused connection sent nothing and is retried, because the server may start late."""
    failure = await failure_of("http://127.0.0.1:9/v1", transport)
    assert str(failure) == "'m' at http://127.0.0.1:9/v1 cannot be reached: it refuses connections"
    assert (failure.type, failure.retryable, failure.sent) == ("connection", True, False)


@TRANSPORTS
async def test_a_certificate_that_is_not_trusted(
    certificate: tuple[str, str],  # noqa: F811
    transport: str,
) -> None:
    """An untrusted certificate is not retried; the message says how to trust it."""
    async with serve(certificate=certificate) as server:
        failure = await failure_of(server.base_url, transport)
    assert "its certificate is not trusted: self-signed certificate" in str(failure)
    assert "SSL_CERT_FILE" in str(failure)
    assert (failure.type, failure.retryable, failure.sent) == ("connection", False, False)


@TRANSPORTS
async def test_http_to_a_port_of_tls(certificate: tuple[str, str], transport: str) -> None:  # noqa: F811
    """If a server closes the connection, a probe checks whether it speaks TLS; a batch sends the
    request once.
    """
    async with serve(certificate=certificate) as server:
        lm = OpenAILM(
            "m",
            base_url=server.base_url.replace("https", "http"),
            api_key="a-key",
            transport=transport,
        )  # type: ignore[arg-type]
        (reply,) = await allm_batch(["x"], lm)
    assert str(reply).endswith(
        "cannot be reached: the server speaks TLS on this port: write https:// in base_url"
    )
    assert (reply.type, reply.retries) == ("connection", 0)


@TRANSPORTS
async def test_tls_to_a_port_of_http(transport: str) -> None:
    """A server that answers a TLS handshake with plain HTTP is reported as such."""

    async def refuse(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with raw_server(refuse) as (address, _):
        failure = await failure_of(f"https://{address}/v1", transport)
    assert str(failure).endswith(
        "the server does not speak TLS on this port: write http:// in base_url"
    )
    assert (failure.type, failure.retryable, failure.sent) == ("connection", False, False)


async def test_tls_to_a_silent_port_of_http(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a server does not answer a TLS handshake, the connection times out, and a probe checks
    whether it speaks plain HTTP.
    """
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    failure = await failure_of(server.base_url.replace("http", "https"))
    assert str(failure).endswith(
        "the server does not speak TLS on this port: write http:// in base_url"
    )
    assert not failure.retryable


@TRANSPORTS
async def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """If the proxy cannot be reached, the error names the proxy, not the server."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    failure = await failure_of("http://model.invalid/v1", transport)
    assert "the proxy http://127.0.0.1:9, from the environment, refuses connections" in str(failure)
    assert (failure.type, failure.retryable, failure.sent) == ("connection", False, False)


def test_the_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message shows only the proxy's address."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.test:3128")
    assert proxy_of("https://model.test/v1") == "http://proxy.test:3128"
    assert proxy_of("http://model.test/v1") is None


async def test_a_socks_proxy_needs_the_other_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport "aiohttp" does not support SOCKS: the error names the transport that does."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    failure = await failure_of("http://model.invalid/v1")
    assert "is a SOCKS proxy, which transport='aiohttp' cannot use: set transport='sdk'" in str(
        failure
    )


# Redirects.


@TRANSPORTS
async def test_a_redirect_loop_ends_soon(transport: str) -> None:
    """A redirect loop ends after a few requests, is not retried, and is named in the message."""

    async def redirect(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 307 T\r\nlocation: /v1/chat/completions\r\ncontent-length: 0\r\n\r\n"
        )

    async with raw_server(redirect) as (address, seen):
        lm = OpenAILM("m", base_url=f"http://{address}/v1", api_key="a-key", transport=transport)  # type: ignore[arg-type]
        (reply,) = await allm_batch(["x"], lm)
    assert str(reply).endswith("the server redirects in a loop (check base_url)")
    assert reply.retries == 0
    assert sum(data.count(b"POST /v1/chat/completions") for data in seen) <= 8


@TRANSPORTS
async def test_a_prompt_is_not_redirected_to_another_host(server: StandIn, transport: str) -> None:
    """A redirect to another host is refused, and that host gets nothing. A redirect on the same
    host is followed.
    """
    port = server.base_url.rpartition(":")[2]

    async def redirect(_: bytes, writer: asyncio.StreamWriter) -> None:
        location = f"http://localhost:{port}/chat/completions".encode()
        writer.write(b"HTTP/1.1 307 T\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n")

    async with raw_server(redirect) as (address, _):
        failure = await failure_of(f"http://{address}/v1", transport)
    assert "the server redirects to another host, localhost, which would receive the prompt" in str(
        failure
    )
    assert not failure.retryable
    assert server.stats().calls == 0
    moved = OpenAILM(
        "m",
        base_url=server.base_url.replace("/v1", "/moved/v1"),
        api_key="a-key",
        transport=transport,
    )  # type: ignore[arg-type]
    assert (await moved.complete(request_of("x"))).text == answer_to("x")


# The parameter of a reply's bound.


def bounded(params: dict[str, Any], **fields: Any) -> Request:
    return request_of(
        "x", params={"max_completion_tokens": 500, **params}, reply_tokens=500, **fields
    )


@pytest.mark.parametrize(
    ("base_url", "own", "expected"),
    [
        ("https://api.openai.com/v1", {}, {"max_completion_tokens": 500}),
        ("https://me.openai.azure.com/openai/v1", {}, {"max_completion_tokens": 500}),
        ("http://localhost:11434/v1", {}, {"max_completion_tokens": 500, "max_tokens": 500}),
        ("http://localhost:11434/v1", {"max_tokens": 300}, {"max_tokens": 300}),
        (
            "https://api.openai.com/v1",
            {"max_completion_tokens": 300},
            {"max_completion_tokens": 300},
        ),
        ("https://api.openai.com/v1", {"max_tokens": 9_000}, {"max_tokens": 500}),
    ],
)
def test_the_parameter_of_the_reply_bound(
    base_url: str, own: dict[str, int], expected: dict[str, int]
) -> None:
    """OpenAI gets one name of the reply bound, because it refuses both; other servers get both; a
    user's own name is kept, with the smaller bound.
    """
    bound = ReplyBound(base_url, own)
    assert bound.written({**own, "max_completion_tokens": 500}, bounded({})) == expected
    assert bound.written({"max_tokens": 7}, request_of("x", params={"max_tokens": 7})) == {
        "max_tokens": 7
    }


@pytest.mark.parametrize(
    ("refuses", "message", "sent"),
    [
        (
            {"max_completion_tokens"},
            "body.max_completion_tokens: Extra inputs are not permitted",
            [["both"], ["max_tokens"], ["max_tokens"]],
        ),
        (
            {"max_tokens"},
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            [["both"], ["max_completion_tokens"], ["max_completion_tokens"]],
        ),
    ],
)
async def test_a_server_that_refuses_a_parameter_gets_the_other(
    refuses: set[str], message: str, sent: list[list[str]]
) -> None:
    """A refused parameter costs one request, and is remembered: the second call uses the other
    one.
    """
    names = {"max_tokens", "max_completion_tokens"}
    seen: list[list[str]] = []

    async def answer(data: bytes, writer: asyncio.StreamWriter) -> None:
        body = json.loads(data.partition(b"\r\n\r\n")[2])
        given = names & body.keys()
        seen.append(["both"] if given == names else sorted(given))
        if given & refuses:
            status, reply = b"400 Bad Request", {"error": {"message": message}}
        else:
            status, reply = (
                b"200 OK",
                {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]},
            )
        packed = json.dumps(reply).encode()
        writer.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(packed), packed)
        )

    async with raw_server(answer) as (address, _):
        lm = OpenAILM("m", base_url=f"http://{address}/v1", api_key="a-key")
        for _ in range(2):
            assert (await lm.complete(bounded({}))).text == "fine"
    assert seen == sent


async def test_another_bad_request_is_not_repeated(server: StandIn) -> None:
    """A request that is refused for another reason is sent once."""
    server.change(faults=[Fault("bad_request")])
    with pytest.raises(ModelError, match="Invalid value"):
        await OpenAILM("m", base_url=server.base_url, api_key="a-key").complete(bounded({}))
    assert server.stats().calls == 1


async def test_an_answer_of_many_megabytes_is_read_off_the_loop(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large body is parsed in a thread."""
    loops: list[bool] = []
    real = client.json.loads

    def loads(data: bytes) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loops.append(False)
        else:
            loops.append(True)
        return real(data)

    server.change(
        scripts={"m": lambda ask: Reply("é" * 1_000_000 if ask.prompt == "long" else "short")}
    )
    monkeypatch.setattr(client.json, "loads", loads)
    lm = OpenAILM("m", base_url=server.base_url, api_key="a-key")
    replies = await allm_batch(["long"], lm, retry=Retry())
    assert len(replies[0]) == 1_000_000
    assert False in loops
