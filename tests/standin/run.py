"""The three ways to run the stand-in."""

import asyncio
import dataclasses
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.standin.server import StandIn
from tests.standin.settings import Settings
from tests.standin.stats import Call, Kept, Stats

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def serve(settings: Settings | None = None, /, **fields: Any) -> AsyncIterator[StandIn]:
    """The stand-in on the running loop."""
    standin = StandIn(dataclasses.replace(settings or Settings(), **fields))
    await standin.start()
    try:
        yield standin
    finally:
        await standin.stop()


@contextmanager
def serve_in_thread(settings: Settings | None = None, /, **fields: Any) -> Iterator[StandIn]:
    """The stand-in on a loop in a new thread."""
    standin = StandIn(dataclasses.replace(settings or Settings(), **fields))
    started, loops = threading.Event(), []
    stop = asyncio.Event()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await standin.start()
        started.set()
        await stop.wait()
        await standin.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="stand-in")
    thread.start()
    started.wait()
    try:
        yield standin
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def serve_in_process(
    settings: Settings | None = None, /, **fields: Any
) -> Iterator["RemoteStandIn"]:
    """The stand-in in a new process, which always ends with this one."""
    settings = dataclasses.replace(settings or Settings(), **fields)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.standin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(_encode(dataclasses.asdict(settings)) + b"\n")
        process.stdin.flush()
        base_url = process.stdout.readline().decode().strip()
        if not base_url:
            raise RuntimeError("the stand-in's process did not start")
        yield RemoteStandIn(base_url, process.pid)
    finally:
        process.stdin.close()  # it ends at the end of its input
        process.stdout.close()
        process.wait(timeout=60)


class RemoteStandIn:
    """A stand-in in another process; each method is one short request that blocks."""

    def __init__(self, base_url: str, pid: int) -> None:
        self.base_url = base_url
        self.pid = pid

    def change(self, **fields: Any) -> None:
        """Change these settings; the others stay."""
        self._ask("change", fields)

    def reset(self) -> None:
        """Clear all counts and records."""
        self._ask("reset")

    def stats(self) -> Stats:
        """The counts."""
        return Stats(**self._ask("stats"))

    def calls(self) -> list[Call]:
        """One record for each chat completion, in order of arrival."""
        return [Call(**each) for each in self._ask("calls")]

    def requests(self) -> list[Kept]:
        """The received requests, if `keep_requests` is set."""
        return [Kept(**each) for each in self._ask("requests")]

    def _ask(self, verb: str, fields: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.base_url).netloc, timeout=30)
        try:
            connection.request("POST", f"/control/{verb}", _encode(fields or {}))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, default=_plain).encode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Callable):
        raise TypeError(f"in a process of its own, give {value!r} as 'module:function'")
    raise TypeError(f"not for another process: {value!r}")
