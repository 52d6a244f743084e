"""One resource for each event loop that uses it, closed by that loop's own shutdown."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations._concurrency.runtime import shared
from rlm_integrations._concurrency.threads import in_thread

T = TypeVar("T")

SECONDS_TO_CLOSE = 1.0


class PerLoop(Generic[T]):
    """Makes a resource at its first use on a loop, and closes it on that loop.

    An async generator holds the resource: `asyncio.run`, and all else that ends a loop properly,
    closes it, and its `finally` closes the resource. Where this object goes first, or the
    interpreter ends before the loop, the generator is closed from here.

    Args:
        make: Makes the resource; runs off the loop, because it may take long. If it ends when
            nobody waits for it any more, what it made is dropped unclosed.
        close: Closes it; runs on its loop.
    """

    __slots__ = ("__weakref__", "_close", "_entries", "_make")

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        # Each is touched by its loop's thread alone
        self._entries: dict[asyncio.AbstractEventLoop, _Entry[T]] = {}
        weakref.finalize(self, _dropped, self._entries).atexit = False

    async def get(self) -> T:
        """The running loop's resource."""
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None:
            _held().end_dead()
            entry = self._entries[loop] = _Entry(loop, self._make, self._close, self._entries)
        if entry.resource is not None:
            return entry.resource
        # Shared: one caller's cancellation is not another's
        return await asyncio.shield(entry.opening)


class _Entry(Generic[T]):
    """A loop's resource, the generator that holds it, and the tasks that open and close it."""

    __slots__ = ("ending", "holder", "loop", "opening", "resource")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], T],
        close: Callable[[T], Awaitable[None]],
        entries: "dict[asyncio.AbstractEventLoop, _Entry[T]]",
    ) -> None:
        self.loop = loop
        self.resource: T | None = None
        self.holder = self._hold(make, close, entries)
        self.ending: asyncio.Task[None] | None = None
        # In no context of a caller's: the task stays as long as the resource, and what such a
        # context holds may hold whose resource it is.
        self.opening = loop.create_task(self._open(), context=Context())

    async def _open(self) -> T:
        self.resource = await anext(self.holder)
        return self.resource

    async def _hold(
        self,
        make: Callable[[], T],
        close: Callable[[T], Awaitable[None]],
        entries: "dict[asyncio.AbstractEventLoop, _Entry[T]]",
    ) -> AsyncGenerator[T, None]:
        held, resource = _held(), None
        held.entries.add(self)
        try:
            # In a thread that the interpreter's end does not wait for: loading an SDK may take
            # seconds.
            resource = await in_thread(make)
            yield resource
        finally:
            entries.pop(self.loop, None)
            held.entries.discard(self)
            if resource is not None:
                await close(resource)

    async def _end(self) -> None:
        self.opening.cancel()  # if it is still being made, nobody waits for it any more
        await wait_until_done(self.opening)
        await self.holder.aclose()

    def end_soon(self) -> None:
        """Close it on its loop, a moment later: a loop that is about to end does so itself, and
        would cancel us in the middle.

        One whose loop stands still is left to the end of that loop.
        """
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(
                self.loop.call_later, SECONDS_TO_CLOSE, self._start_to_end
            )

    def _start_to_end(self) -> None:
        self.ending = self.loop.create_task(self._end())

    def end_dead(self) -> None:
        """Release what belongs to a closed loop: by hand, nobody else will; what would have to wait
        for the loop waits in vain.
        """
        with suppress(StopIteration, RuntimeError):
            self.holder.aclose().__await__().send(None)

    def end_now(self) -> None:
        """Close it from outside its loop, and wait for that."""
        with suppress(Exception):
            if self.loop.is_closed():
                self.end_dead()
            elif self.loop.is_running():
                asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(SECONDS_TO_CLOSE)
            else:
                self.loop.run_until_complete(asyncio.wait_for(self._end(), SECONDS_TO_CLOSE))


class _Held:
    """All that is open in this process.

    A client is so never garbage together with what would close it. In a forked process the parent's
    list is kept for ever and not
    touched: to close what it holds would reach into the parent's loops.
    """

    def __init__(self) -> None:
        self.entries: set[_Entry[Any]] = set()

    def end_dead(self) -> None:
        """Release what belongs to loops that were closed without closing their generators."""
        for entry in list(self.entries):
            if entry.loop.is_closed():
                entry.end_dead()

    def close(self) -> None:
        """The interpreter ends."""
        for entry in list(self.entries):
            entry.end_now()

    def abandon(self) -> None:
        """See above."""


def _held() -> _Held:
    return shared("open clients", _Held)


def _dropped(entries: dict[asyncio.AbstractEventLoop, _Entry[Any]]) -> None:
    for entry in list(entries.values()):
        if entry in _held().entries:  # else it is the parent's
            entry.end_soon()
