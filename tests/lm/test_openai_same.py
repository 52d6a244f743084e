"""A plain call without the SDK sends what the SDK sends, and reports what it reports: both are run
against one server and compared.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.errors import ModelError
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.lm.openai.transport import httpx
from rlm_integrations.lm.openai.wire import trusted_certificates
from tests._script import run_script
from tests.lm.conftest import request_of

KEY = "sk-0123456789"
FINE = json.dumps(
    {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}], "model": "m"}
).encode()
JSON = {"content-type": "application/json"}
# Without a body, by the rules of HTTP
EMPTY = {204, 304}
REDIRECTS = (301, 302, 303, 307, 308)
# Each client names itself, and what it can decompress
OWN = ("user-agent", "x-stainless-", "accept-encoding", "connection")


class Server:
    """Sends one response to every request, and keeps the requests."""

    def __init__(self) -> None:
        self.port = 0
        self.closes = False  # the connection, after each response
        self.seen: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.answer(200, FINE, JSON)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        body = b"" if status in {*EMPTY, 205} else body
        length = f"content-length: {len(body)}\r\n" if status not in EMPTY else ""
        head = f"HTTP/1.1 {status} Said\r\n{''.join(lines)}{length}\r\n"
        self.response = head.encode("latin-1") + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (begin := await reader.read(1)) in {b"P", b"G"}:  # POST or GET, not TLS
                head = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip("\r\n").split("\r\n")
                headers = [
                    (name.lower(), value.strip())
                    for name, _, value in (line.partition(":") for line in lines)
                ]
                body = await reader.readexactly(int(dict(headers).get("content-length", 0)))
                kept = sorted(each for each in headers if not each[0].startswith(OWN))
                self.seen.append((first, kept, body))
                writer.write(self.response)
                if self.closes:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def fixed() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


def models(port: int, path: str = "/v1", **options: Any) -> list[OpenAILM]:
    """One model without the SDK, and one that calls by the SDK alone."""
    given = {"base_url": f"http://127.0.0.1:{port}{path}", "api_key": KEY, **options}
    return [OpenAILM("m", transport=transport, **given) for transport in ("aiohttp", "sdk")]


async def told(lm: OpenAILM) -> object:
    """All that a caller can see of one call."""
    try:
        return await lm.complete(request_of("x"))
    except ModelError as error:
        return error.type, str(error), error.retryable, error.retry_after, error.sent


async def both(server: Server, lms: list[OpenAILM], calls: int = 1) -> list[object]:
    """What each says and sends, asserted to be the same; what they say is returned."""
    found = []
    for lm in lms:
        server.seen.clear()
        said = [await told(lm) for _ in range(calls)]
        found.append((said, list(server.seen)))
    (said, sent), others = found
    assert said == others[0]
    assert sent == others[1]
    return said


async def test_every_status_is_reported_alike(fixed: Server) -> None:
    """Whatever the status, with an error object, a text, a page or an answer as body."""
    lms = models(fixed.port)
    error = json.dumps({"error": {"message": "no", "code": "quota", "type": "t"}}).encode()
    kinds = set()
    for status in range(200, 600):
        fixed.answer(status, error if status >= 300 else FINE, JSON)
        (said,) = await both(fixed, lms)
        kinds.add(said[0] if isinstance(said, tuple) else "fine")
    assert kinds == {
        "fine",
        "auth",
        "bad_request",
        "bad_response",
        "context_length",
        "not_found",
        "overloaded",
        "quota",
        "rate_limit",
        "server",
        "timeout",
    }


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"plain", {"content-type": "text/plain"}),
        ("schön".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"}),
        (b"\xff\xfe", {"content-type": "text/plain; charset=nothing"}),
        (b"<html>busy</html>", {"content-type": "text/html"}),
        (b'{"error": "text"}', JSON),
        (b'{"error": null}', JSON),
        (b'{"message": "m", "code": 5}', JSON),
        (b'["list"]', JSON),
        (b'{"cut', JSON),
        (b"  \n padded \n", {}),
        (f'{{"error": {{"message": "the key {KEY}"}}}}'.encode(), JSON),
        (b'{"error": {"message": "x", "code": 429}}', JSON),
        ("{'ä".encode(), JSON),
    ],
)
async def test_every_form_of_body_is_reported_alike(
    fixed: Server, body: bytes, headers: dict[str, str]
) -> None:
    """The message, type and advice of an error come from its body, in any form."""
    lms = models(fixed.port)
    for status in (200, 400, 404, 500):
        fixed.answer(status, body, headers)
        (said,) = await both(fixed, lms)
        assert isinstance(said, tuple)
        assert KEY not in str(said)


async def test_headers_of_an_error_are_read_alike(fixed: Server) -> None:
    """Those that say whether and when to retry, and those that mean nothing."""
    lms = models(fixed.port)
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    waits = []
    for name, value in [
        ("Retry-After", "7"),
        ("retry-after", "0.5"),
        ("retry-after", "soon"),
        ("retry-after", date),
        ("Retry-After-Ms", "1500"),
        ("x-should-retry", "true"),
        ("X-Should-Retry", "false"),
        ("x-request-id", "r"),
    ]:
        for status in (400, 429, 503):
            fixed.answer(status, b"{}", {**JSON, "date": date, name: value})
            (said,) = await both(fixed, lms)
            assert isinstance(said, tuple)
            waits.append((said[2], said[3]))
    assert set(waits[::3]) == {(False, each) for each in (7, 0.5, None, 0, 1.5)} | {(True, None)}


@pytest.mark.parametrize("status", REDIRECTS)
async def test_redirects_are_followed_alike(fixed: Server, status: int) -> None:
    """In a loop, to another host, and to another port, which gets no key."""
    lms = models(fixed.port)
    for location in (
        "/v1/chat/completions",
        "again?x=%20#y",
        f"http://127.0.0.1:{fixed.port}",
        f"http://localhost:{fixed.port}/v1/chat/completions",
        "//other.test",
    ):
        fixed.answer(status, b"", {"location": location})
        (said,) = await both(fixed, lms)
        assert isinstance(said, tuple)
        assert said[0] == "connection"
    second = Server()
    async with await asyncio.start_server(second.serve, "127.0.0.1", 0) as elsewhere:
        port = elsewhere.sockets[0].getsockname()[1]
        fixed.answer(status, b"", {"location": f"http://127.0.0.1:{port}/v2"})
        await both(fixed, lms)
        assert second.seen[0] == second.seen[1]
        assert "authorization" not in dict(second.seen[0][1])


async def test_cookies_are_kept_alike(fixed: Server) -> None:
    """A cookie of a response is sent with the next call of the same client."""
    fixed.answer(200, FINE, {**JSON, "set-cookie": "a=b; Path=/"})
    await both(fixed, models(fixed.port, base_url=f"http://localhost:{fixed.port}/v1"), calls=2)
    assert dict(fixed.seen[-1][1])["cookie"] == "a=b"


VARIABLES = [
    {"OPENAI_API_KEY": "sk-environment"},
    {"OPENAI_API_KEY": ""},
    {"OPENAI_ADMIN_KEY": "sk-admin"},
    {"OPENAI_ORG_ID": "org-1"},
    {"OPENAI_ORG_ID": ""},
    {"OPENAI_PROJECT_ID": "proj-1", "OPENAI_ORG_ID": "org-1"},
    {"OPENAI_PROJECT_ID": ""},
    {"OPENAI_WEBHOOK_SECRET": "whsec"},
    {"OPENAI_CUSTOM_HEADERS": "X-One: 1\nX-Two:  2: 3 \nnone\n X-Three :"},
    {"OPENAI_CUSTOM_HEADERS": "OpenAI-Organization: other", "OPENAI_ORG_ID": "org-1"},
    {"OPENAI_CUSTOM_HEADERS": "Authorization: Basic abc"},
    {"OPENAI_CUSTOM_HEADERS": "Accept: */*\nContent-Type: application/json; charset=utf-8"},
    {"OPENAI_CUSTOM_HEADERS": ""},
    {"OPENAI_API_VERSION": "1", "AZURE_OPENAI_API_KEY": "k", "OPENAI_API_TYPE": "azure"},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
@pytest.mark.parametrize("key", [KEY, None])
async def test_variables_act_alike(
    fixed: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], key: str | None
) -> None:
    """Every variable that the SDK reads changes the request as it does with the SDK; with a key
    and without one, which a server may not need.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await both(fixed, models(fixed.port, api_key=key))
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{fixed.port}/other/")
    await both(fixed, models(fixed.port, api_key=key, base_url=None))
    assert fixed.seen[-1][0] == "POST /other/chat/completions HTTP/1.1"


async def test_the_log_of_the_sdk(
    fixed: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With OPENAI_LOG, the SDK makes the calls, because only it writes that log."""
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    await both(fixed, models(fixed.port)[:1] * 2)
    assert "HTTP Request" in caplog.text


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": "PROXY"},
        {"http_proxy": "PROXY"},
        {"ALL_PROXY": "PROXY"},
        {"HTTPS_PROXY": "PROXY"},
        {"HTTP_PROXY": "PROXY", "NO_PROXY": "127.0.0.1"},
        {"HTTP_PROXY": "PROXY", "NO_PROXY": "*"},
        {"HTTP_PROXY": "PROXY", "no_proxy": "other.test, 127.0.0.1"},
        {"HTTP_PROXY": "PROXY", "NO_PROXY": "other.test"},
        {"HTTP_PROXY": "http://127.0.0.1:9"},
    ],
    ids=str,
)
async def test_proxies_act_alike(
    fixed: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """The variables for a proxy, and for its exceptions."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PROXY", f"http://127.0.0.1:{fixed.port}"))
    await both(fixed, models(fixed.port))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/",
        "/a//b",
        "/a%20b",
        "/a b",
        "/ä",
        "/a%2Fb",
        "/%7Ea",
        "/a;b=c,d",
        "/a+b@c:d",
        "/[a]|b^c\\d",
        '/a"<b>`{c}',
    ],
)
async def test_addresses_are_read_alike(fixed: Server, path: str) -> None:
    """The path of the address is sent as the SDK sends it."""
    await both(fixed, models(fixed.port, path))


async def test_headers_of_a_call_act_alike(fixed: Server) -> None:
    """They are added, and replace others."""
    given = {"x-rlm-call": "r.1", "Authorization": "Bearer other", "Accept": "text/plain"}
    await both(fixed, models(fixed.port, headers=lambda _: given))
    assert (
        given.items()
        <= {
            name.title() if name != "x-rlm-call" else name: value
            for name, value in fixed.seen[0][1]
        }.items()
    )


@pytest.mark.parametrize(
    ("response", "retryable"),
    [
        (b"", True),
        (b"nothing of HTTP\r\n\r\n", True),
        (b"HTTP/1.1 200 Said\r\n", True),
        (b"HTTP/1.1 200 Said\r\ncontent-length: 9\r\n\r\ncut", True),
        (b"HTTP/1.1 307 Said\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n", False),
    ],
)
async def test_broken_connections_are_reported_alike(
    fixed: Server, response: bytes, retryable: bool
) -> None:
    """The type of the error, whether to retry, and whether the request was sent; the reason is in
    the words of each client.
    """
    fixed.response = response
    fixed.closes = True
    assert await kinds_of(models(fixed.port)) == [("connection", retryable, None, True)] * 2


async def test_an_invalid_header_is_reported_alike(fixed: Server) -> None:
    """A header of a call that HTTP cannot carry is an error of that call."""
    lms = models(fixed.port, headers=lambda _: {"x-own": "two\nlines"})
    assert await kinds_of(lms) == [("connection", True, None, True)] * 2
    assert not fixed.seen


async def kinds_of(lms: list[OpenAILM]) -> list[object]:
    """What a caller can see of a failure, without its message."""
    said = [await told(lm) for lm in lms]
    return [each[:1] + each[2:] for each in said if isinstance(each, tuple)]


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_are_trusted_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None
) -> None:
    """The same authorities as by the HTTP client of the installed SDK."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    authority = Path(__file__).parents[1] / "authority.pem"
    if variable is not None:
        monkeypatch.setenv(variable, str(authority if variable == "SSL_CERT_FILE" else tmp_path))
    ours, theirs = trusted_certificates(), httpx.create_ssl_context()
    assert ours.get_ca_certs() == theirs.get_ca_certs()
    assert (ours.verify_mode, ours.check_hostname) == (theirs.verify_mode, theirs.check_hostname)


def test_a_plain_call_does_not_load_the_sdk() -> None:
    """Neither does a run or a batch with plain calls, nor what they import."""
    code = (
        "import sys, rlm_integrations as r\n"
        "lm = r.OpenAILM('m', base_url='http://127.0.0.1:9/v1')\n"
        "never = r.Retry(failures=0)\n"
        "(reply,) = r.llm_batch(['x'], lm, retry=never)\n"
        "print(reply.type)\n"
        "try:\n"
        "    r.RLM(lm, retry=never).completion('q', 't')\n"
        "except r.ModelError as error:\n"
        "    print(error.type)\n"
        "print({'openai', 'httpx', 'httpx2'} & sys.modules.keys())"
    )
    assert run_script(code).stdout == "connection\nconnection\nset()\n"
