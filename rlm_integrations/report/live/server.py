"""A server for the pages of this user, on this machine alone.

It listens on the loopback address, and answers only below a path that has a random token; the
`Host` of a request must be its own address, so that no other site can reach it by a name that it
points here.
"""

import asyncio
import math
import re
import secrets
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Final, Protocol, Self
from urllib.parse import parse_qsl

from rlm_integrations.errors import RLMError
from rlm_integrations.events import logger
from rlm_integrations.report.live.feed import PageMessage

_HOST: Final = "127.0.0.1"
_TOKEN_BYTES: Final = 24
_MAX_HEAD_BYTES: Final = 16_384
_MAX_CONNECTIONS: Final = 100
_STEPS_TO_ACCEPT: Final = 5  # of the loop; asyncio needs three
_SECONDS_TO_ASK: Final = 10.0
_SECONDS_TO_READ: Final = 10.0  # a browser that reads nothing for so long is dropped
_SECONDS_OF_A_WAIT: Final = 1.0  # Ctrl-C just before a wait is seen only after it
_PIECE_BYTES: Final = 65_536
_REQUEST: Final = re.compile(r"([A-Z]+) (/[!-~]*) HTTP/1\.[01]")
_HEADERS: Final = (
    "Cache-Control: no-store",
    "Connection: close",
    "Content-Security-Policy: frame-ancestors 'none'",  # the page has the rest
    "Cross-Origin-Opener-Policy: same-origin",
    "Cross-Origin-Resource-Policy: same-origin",
    "Referrer-Policy: no-referrer",
    "X-Content-Type-Options: nosniff",
)


@dataclass(frozen=True, slots=True)
class WebPage:
    """A page of HTML."""

    html: str


@dataclass(frozen=True, slots=True)
class EventStream:
    """Messages to a page that stays open; after the last one the page closes the connection."""

    messages: AsyncGenerator[PageMessage, None]


class Site(Protocol):
    """What a server shows. All its methods run on the server's event loop."""

    async def run(self) -> None:
        """Work as long as the server runs."""

    async def find(self, path: str, after: int) -> WebPage | EventStream | None:
        """The page or the stream of this path, which begins after the token; None if there is none.

        Args:
            path: The path, such as "" or "events".
            after: The number of the state that the page has; -1 if it has none.
        """


class PageServer:
    """Serves a site in a thread of its own, as a context manager.

    Args:
        site: What it shows.

    Attributes:
        address: Where; the token in it is the right to read it.
    """

    def __init__(self, site: Site) -> None:
        self.address = ""
        self._site = site
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._hosts: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._streams = 0  # that are open
        self._delivered = False  # whether a page has had a final state
        # For the thread that waits: look again. A queue, as it is written in C: Ctrl-C inside
        # `threading.Event.wait` may become a RuntimeError, and inside `Thread.is_alive` it makes a
        # running thread look ended.
        self._has_ended = False
        self._news: SimpleQueue[None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._serve, name="rlm-pages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._news.get()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once; the port is free then."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def is_shown(self) -> bool:
        """Whether a page has its final state."""
        return self._delivered

    def wait_until_shown(self, *, for_a_page: bool, seconds: float = math.inf) -> None:
        """Wait until every open page has its final state, or was dropped.

        Args:
            for_a_page: Whether to wait for a page that nobody has opened yet.
            seconds: How long at most.
        """
        until = time.monotonic() + seconds
        while (
            not self._has_ended
            and (self._streams or (for_a_page and not self._delivered))
            and (left := until - time.monotonic()) > 0
        ):
            self._wait(min(_SECONDS_OF_A_WAIT, left))

    def wait(self) -> None:
        """Wait until it ends, or Ctrl-C."""
        while not self._has_ended:
            self._wait(_SECONDS_OF_A_WAIT)

    def _wait(self, seconds: float) -> None:
        with suppress(Empty):
            self._news.get(timeout=seconds)

    # On the server's own event loop.

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        finally:
            self._has_ended = True
            self._news.put(None)

    async def _run(self) -> None:
        try:
            server = await asyncio.start_server(
                self._accept, _HOST, 0, limit=_MAX_HEAD_BYTES, backlog=_MAX_CONNECTIONS
            )
        except OSError as error:
            self._error = error
            return
        port = server.sockets[0].getsockname()[1]
        self._hosts = frozenset({f"{_HOST}:{port}", f"localhost:{port}"})
        self.address = f"http://{_HOST}:{port}/{self._token}/"
        self._loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._site.run())
        self._news.put(None)
        try:
            await self._stop.wait()
        finally:
            # When a server is closed, asyncio loses connections that it is about to accept
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(_STEPS_TO_ACCEPT):
                await asyncio.sleep(0)
            server.close()
            for task in [work, *self._tasks]:
                task.cancel()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(work, *self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a connection, in a task of our own: asyncio's reports its cancellation."""
        self._writers.add(writer)
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # a drained writer has sent everything
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, RLMError):
            writer.transport.abort()  # the browser is gone, or does not read
        except Exception:  # noqa: BLE001 - the other pages go on
            logger.exception("a page could not be shown")
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) > _MAX_CONNECTIONS:
            await _refuse(writer, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            async with asyncio.timeout(_SECONDS_TO_ASK):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _refuse(writer, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        found = self._read(head)
        if isinstance(found, HTTPStatus):
            await _refuse(writer, found)
            return
        try:
            shown = await self._site.find(*found)
        except RLMError as error:
            await _refuse(writer, HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return
        match shown:
            case None:
                await _refuse(writer, HTTPStatus.NOT_FOUND)
            case WebPage(html):
                body = html.encode("utf-8", "replace")
                kind = "text/html; charset=utf-8"
                await _write(writer, _head(HTTPStatus.OK, kind, f"Content-Length: {len(body)}"))
                await _write(writer, body)
            case EventStream(messages):
                await self._stream(reader, writer, messages)

    def _read(self, head: bytes) -> tuple[str, int] | HTTPStatus:
        """The path of a request, after the token, and the state that the page has; or why it is
        refused.
        """
        first, *lines = head.decode("latin-1")[:-4].split("\r\n")
        request = _REQUEST.fullmatch(first)
        pairs = [line.partition(":") for line in lines]
        if request is None or any(not colon or name != name.strip() for name, colon, _ in pairs):
            return HTTPStatus.BAD_REQUEST
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return HTTPStatus.MISDIRECTED_REQUEST
        method, target = request.groups()
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED
        if any(
            (name == "content-length" and value != "0") or name == "transfer-encoding"
            for name, value in headers
        ):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        path, _, query = target.partition("?")
        token, slash, rest = path[1:].partition("/")
        if not secrets.compare_digest(token.encode(), self._token.encode()) or not slash:
            return HTTPStatus.NOT_FOUND
        return rest, _number(dict(headers).get("last-event-id") or _after(query))

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        messages: AsyncGenerator[PageMessage, None],
    ) -> None:
        is_delivered = False
        self._count(1)
        try:
            await _write(writer, _head(HTTPStatus.OK, "text/event-stream"), b"retry: 1000\n\n")
            async with aclosing(messages):
                async for message in messages:
                    if reader.at_eof():
                        return
                    await _write(writer, _event(message))
            await _write(writer, b"event: end\ndata:\n\n")
            writer.write_eof()
            async with asyncio.timeout(_SECONDS_TO_READ):
                with suppress(ConnectionError):  # a page may close like this, too
                    while await reader.read(_PIECE_BYTES):
                        pass  # until the page has read the end, and closes
            is_delivered = True
        finally:
            self._count(-1, is_delivered=is_delivered)

    def _count(self, by: int, *, is_delivered: bool = False) -> None:
        self._streams += by
        self._delivered = self._delivered or is_delivered
        self._news.put(None)


def _after(query: str) -> str:
    return dict(parse_qsl(query)).get("after", "")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _event(message: PageMessage) -> bytes:
    if not message.kind:
        return b":\n\n"  # so that a browser that is gone is noticed
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        message.number,
        message.kind.encode(),
        message.data,
    )


def _head(status: HTTPStatus, kind: str, *more: str) -> bytes:
    first = f"HTTP/1.1 {status.value} {status.phrase}"
    lines = [first, f"Content-Type: {kind}", *_HEADERS, *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _refuse(writer: asyncio.StreamWriter, status: HTTPStatus, why: str = "") -> None:
    body = f"{status.value} {why or status.phrase}\n".encode("utf-8", "replace")
    allow = ["Allow: GET"] if status == HTTPStatus.METHOD_NOT_ALLOWED else []
    length = f"Content-Length: {len(body)}"
    await _write(writer, _head(status, "text/plain; charset=utf-8", length, *allow), body)


async def _write(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    """Write as fast as the browser reads.

    Raises:
        TimeoutError: It reads nothing.
    """
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            writer.write(part[start : start + _PIECE_BYTES])
            async with asyncio.timeout(_SECONDS_TO_READ):
                await writer.drain()
