"""Cleanup that cancellation does not interrupt.

A task can be cancelled at any await, also during its own cleanup. Await cleanup through these
helpers: they finish the work first, then re-raise the cancellation.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_until_done(*futures: asyncio.Future[Any]) -> None:
    """Wait until all futures are done, whatever their outcome, and however often the waiting task
    is cancelled meanwhile.

    Raises:
        CancelledError: The waiting task was cancelled; the futures are done nevertheless.
    """
    cancellation: asyncio.CancelledError | None = None
    try:
        while pending := {each for each in futures if not each.done()}:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as error:
                cancellation = error
        for each in futures:
            _ = each.cancelled() or each.exception()  # retrieved, or asyncio logs it
        if cancellation is not None:
            raise cancellation
    finally:
        del cancellation  # its traceback holds this frame


async def finish_despite_cancel(work: Awaitable[T]) -> T:
    """Return or raise the work's outcome, however often the waiting task is cancelled meanwhile.

    Raises:
        CancelledError: The waiting task was cancelled; the work is done nevertheless.
    """
    future = asyncio.ensure_future(work)
    try:
        await wait_until_done(future)
        return future.result()
    finally:
        del future  # it may hold an exception, whose traceback holds this frame


async def acquire(work: Awaitable[T], release: Callable[[T], Awaitable[object]]) -> T:
    """Return or raise the work's outcome. If the waiting task is cancelled meanwhile, the work is
    finished nevertheless, and its result is released.

    Raises:
        CancelledError: The waiting task was cancelled; nothing is left to release.
    """
    future = asyncio.ensure_future(work)
    try:
        try:
            await wait_until_done(future)
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                await finish_despite_cancel(release(future.result()))
            raise
        return future.result()
    finally:
        del future  # it may hold an exception, whose traceback holds this frame
