"""Foreign synchronous code, off the event loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What foreign synchronous code returns or raises, run in a thread of its own with the caller's
    context variables.

    Never in a shared pool: such code may wait for more of its kind. How many there are at once is
    for the caller to bound. Where the wait is cancelled before the code began, it does not begin;
    what has begun is left behind, because nothing can stop it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    call = partial(copy_context().run, function, *args, **kwargs)
    name = f"rlm-{getattr(function, '__name__', 'call')}"
    threading.Thread(target=_run, args=(call, done, loop), daemon=True, name=name).start()
    try:
        return await done
    finally:
        del done  # it holds the exception, whose traceback holds this frame


def _run(call: Callable[[], T], done: "asyncio.Future[T]", loop: asyncio.AbstractEventLoop) -> None:
    if done.cancelled():
        return
    try:
        finish = partial(done.set_result, call())
    except StopIteration as error:  # no future takes that one
        finish = partial(done.set_exception, RuntimeError(f"StopIteration: {error}"))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
        finish = partial(done.set_exception, error)
    with suppress(RuntimeError):  # the loop has ended without waiting
        loop.call_soon_threadsafe(_finish, done, finish)


def _finish(done: "asyncio.Future[Any]", finish: Callable[[], None]) -> None:
    if not done.done():
        finish()
