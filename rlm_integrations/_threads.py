"""Foreign synchronous code, off the event loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What foreign synchronous code returns or raises, run in a thread of its own with the caller's context variables.

    Never in a shared pool: such code may wait for more of its kind. How many there are at once is for the caller to bound. Where the
    wait is cancelled before the code began, it does not begin; what has begun is left behind, because nothing can stop it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if isinstance(error, StopIteration):  # no future takes that one
            error = RuntimeError(f"StopIteration: {error}")
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # None is the result then

    def run() -> None:
        if done.cancelled():
            return
        result, error = None, None
        try:
            result = context.run(function, *args, **kwargs)
        except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
            error = raised
        with suppress(RuntimeError):  # the loop has ended without waiting
            loop.call_soon_threadsafe(finish, result, error)
        del error  # its traceback holds this frame

    threading.Thread(target=run, daemon=True, name=f"rlm-{getattr(function, '__name__', 'call')}").start()
    return await done
