"""Cleanup that no cancellation cuts short.

A task may be cancelled at every await, those of its cleanup included: for the first time while it
closes what it has done with, or again while it still unwinds. Whoever gives something back
therefore waits for that by one of these, and the cancellation goes on afterwards.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_until_done(*futures: asyncio.Future[Any]) -> None:
    """Wait until all of these are done, whatever becomes of them, and however often the waiting
    task is cancelled meanwhile.

    Raises:
        CancelledError: The waiting task was cancelled; they are done all the same.
    """
    cancellation: asyncio.CancelledError | None = None
    try:
        while pending := {each for each in futures if not each.done()}:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as error:
                cancellation = error
        for each in futures:
            _ = each.cancelled() or each.exception()  # looked at, or asyncio complains of it
        if cancellation is not None:
            raise cancellation
    finally:
        del cancellation  # its traceback holds this frame


async def finish_despite_cancel(work: Awaitable[T]) -> T:
    """What this gives or raises, once it is done, however often the waiting task is cancelled
    meanwhile.

    Raises:
        CancelledError: The waiting task was cancelled; it is done all the same.
    """
    future = asyncio.ensure_future(work)
    try:
        await wait_until_done(future)
        return future.result()
    finally:
        del future  # it may hold an exception, whose traceback holds this frame
