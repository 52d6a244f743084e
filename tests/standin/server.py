"""The server: one asyncio protocol per connection, timers instead of tasks, so that a call costs a
few dozen microseconds.
"""

import asyncio
import dataclasses
import gzip
import json
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tests.standin.faults import Chooser
from tests.standin.replies import faulty, head, reply_to
from tests.standin.settings import Ask, Fault, Reply, Settings, revive
from tests.standin.stats import Call, Kept, Stats
from tests.standin.wire import Wire
from tests.standin.wire_openai import OPENAI
from tests.standin.wires import listing, wire_of

JSON = {"content-type": "application/json"}
BAD_REQUEST = Fault("bad_request")
# Steps of the loop after which an accepted connection is known here; asyncio needs three
ACCEPTING = 5
# LangChain keeps one HTTP client for an address, also when the event loop of its connections is gone
USED_PORTS: set[int] = set()
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST


class StandIn:
    """The stand-in on one event loop; its methods may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.base_url = ""
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.reset()

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        loop = asyncio.get_running_loop()
        tls = None
        if self.settings.certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*self.settings.certificate)
        while True:
            self._server = await loop.create_server(
                lambda: Connection(self, loop),
                "127.0.0.1",
                self.settings.port,
                backlog=2048,
                ssl=tls,
            )
            port = self._server.sockets[0].getsockname()[1]
            if self.settings.port or port not in USED_PORTS:
                break
            self._server.close()
        USED_PORTS.add(port)
        self.base_url = f"http{'s' if tls else ''}://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        """Close the port and every connection, answered or not."""
        assert self._server is not None
        # When a server is closed, asyncio loses connections that it is about to accept
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        self._server.close()
        for connection in list(self.connections):
            connection.end()
        while self.connections:
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def change(self, **fields: Any) -> None:
        """Change these settings; the others stay."""
        settings = dataclasses.replace(self.settings, **fields)
        if "faults" in fields or "seed" in fields:
            self._chooser = Chooser(settings)
        self.settings = settings

    def reset(self) -> None:
        """Clear all counts and records; open calls continue, uncounted."""
        self._chooser = Chooser(self.settings)
        self._jitter = random.Random(self.settings.seed)
        self._calls: list[Call] = []
        self._kept: list[Kept] = []
        self._open: set[int] = set()
        self.counts = {
            "most_in_flight": 0,
            "aborted": 0,
            "bytes_in": 0,
            "bytes_out": 0,
            "connections": 0,
        }

    def stats(self) -> Stats:
        """The counts."""
        return Stats(calls=len(self._calls), in_flight=len(self._open), **self.counts)

    def calls(self) -> list[Call]:
        """One record for each chat completion, in order of arrival."""
        return list(self._calls)

    def requests(self) -> list[Kept]:
        """The received requests, if `keep_requests` is set."""
        return list(self._kept)

    def control(self, verb: str, body: bytes) -> Any:
        """The same methods for the process form."""
        match verb:
            case "change":
                return self.change(**revive(json.loads(body)))
            case "reset":
                return self.reset()
            case "stats":
                return dataclasses.asdict(self.stats())
            case "calls":
                return [dataclasses.asdict(call) for call in self.calls()]
            case _:
                return [dataclasses.asdict(kept) for kept in self.requests()]

    def arrived(self, ask_model: str, stream: bool) -> Call:
        """Record a call that has just been read."""
        call = Call(len(self._calls), ask_model, time.monotonic(), stream=stream)
        self._calls.append(call)
        self._open.add(id(call))
        self.counts["most_in_flight"] = max(self.counts["most_in_flight"], len(self._open))
        return call

    def ended(self, call: Call, *, aborted: bool = False) -> None:
        """Record that a call has ended."""
        call.ended = time.monotonic()
        call.aborted = aborted
        if id(call) in self._open:  # not one from before a reset
            self._open.discard(id(call))
            self.counts["aborted"] += aborted

    def keep(self, kept: Kept) -> None:
        self._kept.append(kept)

    def fault_of(self, ask: Ask, wire: Wire) -> Fault | None:
        """The fault of this call, if any."""
        settings = self.settings
        if settings.api_key is not None and wire.key(ask.headers) != settings.api_key:
            return Fault("auth")
        if settings.capacity is not None and len(self._open) > settings.capacity:
            return Fault("rate_limit")
        return self._chooser.choose(ask.number, ask.prompt)

    def delay(self) -> float:
        """Seconds until the answer of the call that has just arrived."""
        settings = self.settings
        delay = settings.latency
        if settings.jitter:
            delay = max(0.0, delay + self._jitter.uniform(-settings.jitter, settings.jitter))
        if settings.slow_above:
            delay *= max(1.0, len(self._open) / settings.slow_above)
        return delay


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after another."""

    transport: asyncio.Transport

    def __init__(self, standin: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        self._standin = standin
        self._loop = loop
        self._buffer = bytearray()
        # Method, path, headers, total length
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._call: Call | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._standin.connections.add(self)
        self._standin.counts["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._standin.connections.discard(self)
        self._stop(aborted=True)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def end(self) -> None:
        """Called when the server stops."""
        self._stop()
        self.transport.abort()

    def _stop(self, *, aborted: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._call is not None:
            call, self._call = self._call, None
            self._standin.ended(call, aborted=aborted)

    def _read(self) -> None:
        while self._call is None and not self.transport.is_closing():
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                lines = self._buffer[:end].decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ", 2)
                pairs = (line.partition(":") for line in lines[1:])
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                self._head = (
                    method,
                    path,
                    headers,
                    end + 4 + int(headers.get("content-length", 0)),
                )
            method, path, headers, total = self._head
            if len(self._buffer) < total:
                return
            body = bytes(self._buffer[total - int(headers.get("content-length", 0)) : total])
            del self._buffer[:total]
            self._head = None
            self._route(method, path, headers, body, total)

    def _route(
        self, method: str, path: str, headers: dict[str, str], body: bytes, size: int
    ) -> None:
        standin = self._standin
        if path.startswith("/control/"):
            self.transport.write(
                self._json(200, standin.control(path.removeprefix("/control/"), body))
            )
            return
        standin.counts["bytes_in"] += size
        target = urlsplit(path)  # a proxy receives complete addresses
        path = target.path
        if path.startswith("/moved/"):
            self._send(head(307, {"location": path.removeprefix("/moved"), "content-length": "0"}))
        elif "transfer-encoding" in headers:
            self._send(
                self._json(411, OPENAI.error(BAD_REQUEST, "a body needs a content-length here")[2])
            )
            self.transport.close()
        elif method == "POST" and (wire := wire_of(path)) is not None:
            self._chat(wire, target, headers, body)
        elif method == "GET" and (listed := listing(path, standin.settings.models)) is not None:
            self._send(self._json(200, listed))
        else:
            self._send(
                self._json(
                    404, OPENAI.error(BAD_REQUEST, f"Unknown request URL: {method} {path}")[2]
                )
            )

    def _chat(self, wire: Wire, target: SplitResult, headers: dict[str, str], raw: bytes) -> None:
        standin = self._standin
        try:
            given = json.loads(raw)
            model, stream, body = wire.read(target, given)
            prompt = str(body["messages"][-1]["content"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._send(
                self._json(400, wire.error(BAD_REQUEST, f"Not a chat completion: {error!r}")[2])
            )
            return
        call = self._call = standin.arrived(model, stream)
        ask = Ask(call.number, model, prompt, body, headers)
        if standin.settings.keep_requests:
            standin.keep(Kept(call.number, headers, given, target.path))
        fault = standin.fault_of(ask, wire)
        call.fault = fault.kind if fault else None
        if delay := standin.delay():
            self._timer = self._loop.call_later(delay, self._answer, wire, call, ask, fault)
        else:
            self._answer(wire, call, ask, fault)

    def _answer(self, wire: Wire, call: Call, ask: Ask, fault: Fault | None) -> None:
        kind = call.fault
        if kind in wire.lacks:
            self._fail(
                call, wire, BAD_REQUEST, f"the stand-in has no fault {kind!r} on {wire.name}'s wire"
            )
            return
        if kind == "content_type":
            self._finish(
                call,
                200,
                b"<html><body>Sign in to the network</body></html>",
                {"content-type": "text/html"},
            )
            return
        if fault is not None and kind in wire.errors and not (call.stream and kind == "error_body"):
            self._fail(
                call,
                wire,
                fault,
                f"no such key: {wire.key(ask.headers)}" if kind == "echo_key" else "",
            )
            return
        if not call.stream and kind == "hang":
            return
        if not call.stream and kind == "reset":
            self._reset()
            return
        try:
            reply = faulty(reply_to(ask, self._standin.settings.scripts.get(ask.model)), kind)
        except Exception as error:  # noqa: BLE001 - a script's own mistake, told to whoever runs the test
            self._fail(call, wire, Fault("server"), f"the script raised {error!r}")
            return
        if call.stream and kind != "no_stream":
            self._stream(wire, call, ask, reply)
            return
        body = json.dumps(wire.completion(ask, reply, kind)).encode()
        if kind == "truncated":
            body = body[: len(body) // 2]
        more = {"content-length": str(len(body) + 9)} if kind == "cut" else {}
        if self._standin.settings.compress and "gzip" in ask.headers.get("accept-encoding", ""):
            body, more = gzip.compress(body), {"content-encoding": "gzip"}
        self._finish(call, 200, body, JSON | more)
        if kind in {"close", "cut"}:
            self.transport.close()

    def _fail(self, call: Call, wire: Wire, fault: Fault, message: str) -> None:
        status, headers, body = wire.error(fault, message)
        self._finish(call, status, json.dumps(body).encode(), JSON | headers)

    def _stream(self, wire: Wire, call: Call, ask: Ask, reply: Reply) -> None:
        call.status = 200
        self._send(
            head(
                200,
                {
                    "content-type": "text/event-stream",
                    "transfer-encoding": "chunked",
                    **self._standin.settings.headers,
                },
            )
        )
        self._piece(
            call, wire.events(ask, reply, call.fault, self._standin.settings.piece), wire.opening
        )

    def _piece(self, call: Call, pieces: Iterator[bytes], opening: int) -> None:
        interval = self._standin.settings.piece_interval
        for piece in pieces:
            self._send(b"%x\r\n%b\r\n" % (len(piece), piece))
            opening -= 1
            if opening == 0 and call.fault == "hang":
                return
            if opening == 0 and call.fault == "cut":
                self._stop()
                self.transport.close()
                return
            if opening == 0 and call.fault == "reset":
                # A moment, so that the client reads what came before
                self._timer = self._loop.call_later(0.01, self._reset)
                return
            if interval:
                self._timer = self._loop.call_later(interval, self._piece, call, pieces, opening)
                return
        self._done(b"0\r\n\r\n")

    def _finish(self, call: Call, status: int, body: bytes, headers: dict[str, str]) -> None:
        call.status = status
        self._done(
            head(
                status,
                {"content-length": str(len(body)), **headers, **self._standin.settings.headers},
            )
            + body
        )

    def _done(self, data: bytes) -> None:
        # Before the last bytes are sent: a client that has read them must not see the call counted
        # as open
        self._stop()
        self._send(data)
        if self._buffer:
            self._read()

    def _reset(self) -> None:
        self._stop()
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, RESET
        )
        self.transport.abort()

    def _send(self, data: bytes) -> None:
        self._standin.counts["bytes_out"] += len(data)
        self.transport.write(data)

    def _json(self, status: int, value: Any) -> bytes:
        body = json.dumps(value).encode()
        return (
            head(
                status, {"content-length": str(len(body)), **JSON, **self._standin.settings.headers}
            )
            + body
        )
