"""A fixed number of workers that pull items from any iterable: no task per item, so that a long
source takes no more memory.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar, cast

T = TypeVar("T")

YIELD_AFTER_ITEMS = 64  # items after which other tasks get a turn
_END = object()


async def pool(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[int, T], Awaitable[None]], count: int
) -> None:
    """Do the work on every item, `count` at a time; returns when all is done.

    If the source raises, work under way is finished first. If the work raises, or this is
    cancelled, all of it is cancelled and has ended before the exception propagates.

    Args:
        items: Pulled one by one, when a worker is free, on this event loop.
        work: Receives an item's index, from 0, and the item.
        count: How many workers there are.
    """
    source = _Source(items)

    async def worker() -> None:
        while (pulled := await source.pull()) is not None:
            await work(*pulled)
            if pulled[0] % YIELD_AFTER_ITEMS == 0:
                # Work that never awaits, such as refusing an item, would block the loop
                await asyncio.sleep(0)

    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        failure = errors.exceptions[0]
    failure = failure or source.error
    if failure is not None:
        raise failure


class _Source(Generic[T]):
    """Numbers the items of an iterable. Workers pull from an async one in turn."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self.error: Exception | None = None
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._pulled = 0
        self._ended = False
        self._turn = asyncio.Lock()

    async def pull(self) -> tuple[int, T] | None:
        """The next item and its number, or None at the end."""
        try:
            item = await self._next()
        except Exception as error:  # noqa: BLE001 - raised by `pool`, once work under way is done
            self.error = error
            item = _END
        if item is _END:
            self._ended = True
            return None
        self._pulled += 1
        return self._pulled - 1, cast("T", item)

    async def _next(self) -> object:
        if not isinstance(self._items, AsyncIterator):
            return _END if self._ended else next(self._items, _END)
        async with self._turn:
            return _END if self._ended else await anext(self._items, _END)
