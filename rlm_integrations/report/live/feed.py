"""What changes, for any number of pages: each gets the whole state once, then the changes."""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from rlm_integrations.report.live.state import State, changes, plain_state

_MAX_LOG_BYTES: Final = 16_000_000  # of changes; a page that is further behind gets the state
_LOOK_SECONDS: Final = 0.2  # between two looks at a source
_SHARE: Final = 0.2  # of the time that looking may take, if it is slow
_PING_SECONDS: Final = 15.0


class StateSource(Protocol):
    """Something that changes.

    Attributes:
        is_over: Whether the last state was the final one.
    """

    is_over: bool

    def look(self) -> State | None:
        """The state, if it changed since the last look; otherwise None. Blocks."""


class PageMessage(NamedTuple):
    """A message to a page: the number of the state that it has then, its kind, and JSON."""

    number: int
    kind: str
    data: bytes


class Feed:
    """Follows a source, and keeps the latest changes. It belongs to one event loop.

    Attributes:
        number: The number of the state; it grows by one with each change.
        state: The latest state; None before the first.
        is_over: Whether the state is final.
    """

    def __init__(self, source: StateSource) -> None:
        # Not that of an earlier feed of the same run, whose number a page may still have
        self.number = secrets.randbelow(100_000_000)
        self.state: State | None = None
        self.is_over = False
        self._source = source
        self._log: deque[PageMessage] = deque()
        self._bytes = 0
        self._oldest = 0  # the number of the state before the first message of the log
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    async def follow(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Look at the source until it is over, or not wanted any more.

        Raises:
            Exception: The source raised it; those who wait for messages get it, too.
        """
        try:
            await self._follow(is_wanted)
        except Exception as error:
            self._error = error
            self._wake()
            raise

    async def _follow(self, is_wanted: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_over and is_wanted():
            begun = loop.time()
            found = await asyncio.to_thread(self._look)
            took = loop.time() - begun
            if found is not None:
                self._publish(*found)
            self.is_over = self._source.is_over
            self._wake()
            if not self.is_over:
                await asyncio.sleep(max(_LOOK_SECONDS, took / _SHARE))

    def _look(self) -> tuple[State, bytes | None] | None:
        """The state, if there is a new one, and what changed since the last; in a thread."""
        state = self._source.look()
        if state is None:
            return None
        if self.state is None:
            return state, None
        found = list(changes(self.state, state))
        return (state, _encoded(found)) if found else None

    def _publish(self, state: State, changed: bytes | None) -> None:
        self.state = state
        self.number += 1
        if changed is None:
            self._oldest = self.number
            return
        self._log.append(PageMessage(self.number, "changes", changed))
        self._bytes += len(changed)
        while self._bytes > _MAX_LOG_BYTES:
            dropped = self._log.popleft()
            self._bytes -= len(dropped.data)
            self._oldest = dropped.number

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def begun(self) -> State:
        """The state, once there is one."""
        while self.state is None:
            self._check()
            await self._changed.wait()
        return self.state

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def messages(self, after: int) -> AsyncGenerator[PageMessage, None]:
        """What a page needs, until the state is final.

        Args:
            after: The number of the state that the page has; -1 if it has none.
        """
        await self.begun()
        while True:
            self._check()
            changed = self._changed
            if self._oldest <= after <= self.number:
                for message in [each for each in self._log if each.number > after]:
                    yield message
                    after = message.number
            else:
                after, state = self.number, self.state
                yield PageMessage(after, "state", await asyncio.to_thread(_encoded_state, state))
            if after != self.number:
                continue
            if self.is_over:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_PING_SECONDS):
                    await changed.wait()
                continue
            yield PageMessage(after, "", b"")


def _encoded_state(state: State | None) -> bytes:
    return _encoded(plain_state(state or {}))


def _encoded(value: Any) -> bytes:
    """JSON on one line; what no browser can decode is escaped."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
