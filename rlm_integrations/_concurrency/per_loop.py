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

    An async generator holds the resource: a loop's regular shutdown, as in `asyncio.run`, closes
    the generator, whose `finally` closes the resource. If this object is collected first, or the
    interpreter exits before the loop, this module closes the generator.

    Args:
        make: Makes the resource; runs off the loop, because it may be slow. If no task waits for
            it any more when it returns, the result is dropped unclosed.
        close: Closes it; runs on its loop.
    """

    __slots__ = ("__weakref__", "_close", "_entries", "_make")

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        # Only a loop's own thread touches its entry
        self._entries: dict[asyncio.AbstractEventLoop, _Entry[T]] = {}
        weakref.finalize(self, _end_all_soon, self._entries).atexit = False

    async def get(self) -> T:
        """The running loop's resource."""
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None:
            _open_entries().end_dead()
            entry = self._entries[loop] = _Entry(loop, self._make, self._close, self._entries)
        if entry.resource is not None:
            return entry.resource
        # Shared by callers: cancelling one must not cancel the others
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
        # In an empty context: the task lives as long as the resource, and a caller's context may
        # refer to the resource's owner.
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
        open_entries, resource = _open_entries(), None
        open_entries.entries.add(self)
        try:
            # In a daemon thread: loading an SDK may take seconds, and must not delay the exit.
            resource = await in_thread(make)
            yield resource
        finally:
            entries.pop(self.loop, None)
            open_entries.entries.discard(self)
            if resource is not None:
                await close(resource)

    async def _end(self) -> None:
        self.opening.cancel()  # if it is still being made, no task waits for it any more
        await wait_until_done(self.opening)
        await self.holder.aclose()

    def end_soon(self) -> None:
        """Close it on its loop after a moment: a loop that is about to end closes it by itself, and
        would cancel this in the middle.

        If the loop is not running, its shutdown closes the resource.
        """
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(
                self.loop.call_later, SECONDS_TO_CLOSE, self._start_to_end
            )

    def _start_to_end(self) -> None:
        self.ending = self.loop.create_task(self._end())

    def end_dead(self) -> None:
        """Release the resource of a closed loop by one manual step of its generator: cleanup that
        would have to await cannot run any more.
        """
        with suppress(StopIteration, RuntimeError):
            self.holder.aclose().__await__().send(None)

    def end_now(self) -> None:
        """Close it from outside its loop, and wait until it is closed."""
        with suppress(Exception):
            if self.loop.is_closed():
                self.end_dead()
            elif self.loop.is_running():
                asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(SECONDS_TO_CLOSE)
            else:
                self.loop.run_until_complete(asyncio.wait_for(self._end(), SECONDS_TO_CLOSE))


class _OpenEntries:
    """All open resources of this process.

    A strong reference, so that a client and the generator that closes it are never collected
    together. A forked process keeps its parent's list forever and does not touch it: closing these
    resources would act on the parent's loops.
    """

    def __init__(self) -> None:
        self.entries: set[_Entry[Any]] = set()

    def end_dead(self) -> None:
        """Release the resources of loops that were closed without closing their generators."""
        for entry in list(self.entries):
            if entry.loop.is_closed():
                entry.end_dead()

    def close(self) -> None:
        """Close everything at the interpreter's exit."""
        for entry in list(self.entries):
            entry.end_now()

    def abandon(self) -> None:
        """Do nothing, as the class says."""


def _open_entries() -> _OpenEntries:
    return shared("open clients", _OpenEntries)


def _end_all_soon(entries: dict[asyncio.AbstractEventLoop, _Entry[Any]]) -> None:
    for entry in list(entries.values()):
        if entry in _open_entries().entries:  # else it belongs to the parent process
            entry.end_soon()
