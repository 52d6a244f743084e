"""One resource for each event loop that uses it, closed by that loop's own shutdown."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from rlm_integrations._runtime import offload

T = TypeVar("T")


class _Open(Generic[T]):
    """A loop's resource, the generator that holds it open, and the task that opens it."""

    __slots__ = ("holder", "opening", "resource")

    resource: T | None
    holder: AsyncGenerator[T, None]
    opening: asyncio.Task[T]

    async def open(self) -> T:
        self.resource = await anext(self.holder)
        return self.resource


class PerLoop(Generic[T]):
    """Makes a resource at its first use on a loop, and closes it on that loop.

    An async generator holds the resource: `asyncio.run`, and all else that ends a loop properly, closes it, and its `finally` closes
    the resource. Where this object goes first, the generator's own finalizer does the same.

    Args:
        make: Makes the resource; runs off the loop, because it may take long.
        close: Closes it; runs on its loop.
    """

    __slots__ = ("__weakref__", "_by_loop", "_close", "_make")

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._by_loop: dict[asyncio.AbstractEventLoop, _Open[T]] = {}  # each entry is touched by its loop's thread alone
        weakref.finalize(self, _finish_dead, self._by_loop)

    async def get(self) -> T:
        """The running loop's resource."""
        loop = asyncio.get_running_loop()
        entry = self._by_loop.get(loop)
        if entry is None:
            _finish_dead(self._by_loop)
            entry = self._by_loop[loop] = _Open()
            entry.resource = None
            entry.holder = _hold(self._make, self._close, self._by_loop, loop)
            entry.opening = loop.create_task(entry.open())
        if entry.resource is not None:
            return entry.resource
        return await asyncio.shield(entry.opening)  # shared: one caller's cancellation is not another's


async def _hold(
    make: Callable[[], T],
    close: Callable[[T], Awaitable[None]],
    by_loop: dict[asyncio.AbstractEventLoop, _Open[T]],
    loop: asyncio.AbstractEventLoop,
) -> AsyncGenerator[T, None]:
    """Knows nothing of the `PerLoop`, which can so be collected while this waits."""
    resource = None
    try:
        resource = await offload(make)
        yield resource
    finally:
        by_loop.pop(loop, None)
        if resource is not None:
            await close(resource)


def _finish_dead(by_loop: dict[asyncio.AbstractEventLoop, _Open[T]]) -> None:
    """Release what belongs to loops that were closed without closing their generators: driven by hand, nobody else will."""
    for loop in list(by_loop):
        if loop.is_closed():
            entry = by_loop.pop(loop)
            with suppress(StopIteration, RuntimeError):
                entry.holder.aclose().send(None)
