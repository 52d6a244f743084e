"""What a page that follows a run does, without a browser."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

GUARD = 250.0


class Page:
    """It reads the events of an address, and applies the changes that it is sent.

    Attributes:
        states: How many whole states it got.
        changes: How often it got changes.
        number: The number of its state.
        data: Its state.
        has_ended: Whether the server said so.
    """

    def __init__(self, address: str, path: str = "events", last: int | None = None) -> None:
        self.states = 0
        self.changes = 0
        self.number = last
        self.data: Any = {}
        self.has_ended = False
        more = "" if last is None else f"Last-Event-ID: {last}\r\n"
        self._socket = connected(address)
        self._socket.sendall(get(address, path, more))
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass

    def until(self, condition: Callable[["Page"], bool]) -> "Page":
        """Read until it is true."""
        while not condition(self):
            fields: dict[str, str] = {}
            while line := self._file.readline().decode().rstrip("\n"):
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            self._take(fields)
        return self

    def _take(self, fields: dict[str, str]) -> None:
        assert fields, "the stream has ended"
        self.number = int(fields.get("id", self.number or 0))
        match fields.get("event"):
            case "state":
                self.states += 1
                self.data = json.loads(fields["data"])
            case "changes":
                self.changes += 1
                self.take_changes(json.loads(fields["data"]))
            case "end":
                self.has_ended = True

    def take_changes(self, changes: list[Any]) -> None:
        """Apply changes to the state."""
        for change in changes:
            self._apply(**change)

    def _apply(self, at: list[str | int], **change: Any) -> None:
        *places, last = at
        place = self.data
        for key in places:
            place = place[key]
        if "add" in change:
            place[last] += change["add"]
        else:
            place[last] = change["set"]

    @property
    def run(self) -> Any:
        return self.data.get("run", {})

    def calls(self) -> int:
        """How many answered calls it has."""
        return sum(
            len(block.get("subcalls", ()))
            for turn in self.run.get("trajectory", ())
            for block in turn.get("executions", ())
        )

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def browse(address: str) -> None:
    """What a user does with an address: look until a run has ended; at a list once, and then press
    Ctrl-C.
    """
    page = Page(address).until(lambda page: page.has_ended or "runs" in page.data)
    page.close()
    if not page.has_ended:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def connected(address: str) -> socket.socket:
    url = urlsplit(address)
    return socket.create_connection((url.hostname, url.port or 0), timeout=GUARD)


def get(address: str, path: str = "", more: str = "") -> bytes:
    """A request for a path below the address."""
    url = urlsplit(address)
    return f"GET {url.path}{path} HTTP/1.1\r\nHost: {url.netloc}\r\n{more}\r\n".encode()


def exchange(address: str, request: bytes) -> bytes:
    """All that comes back for these bytes."""
    got = b""
    # The server may not read a request to its end
    with connected(address) as connection, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        while piece := connection.recv(65536):
            got += piece
    return got


def fetched(address: str, path: str = "") -> str:
    """The answer to a request for a path below the address, head included."""
    return exchange(address, get(address, path)).decode()
