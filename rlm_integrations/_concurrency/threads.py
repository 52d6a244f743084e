"""Runs foreign synchronous code off the event loop."""

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
    """Run foreign synchronous code in a new thread, with the caller's context variables, and return
    or raise what it does.

    Never in a shared pool: such code may wait for more of its kind. The caller bounds the number of
    threads. If the wait is cancelled before the code has begun, it never runs; code that has begun
    cannot be stopped, and finishes by itself.
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
    except StopIteration as error:  # a future cannot hold a StopIteration
        finish = partial(done.set_exception, RuntimeError(f"StopIteration: {error}"))
    except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
        finish = partial(done.set_exception, error)
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_finish, done, finish)


def _finish(done: "asyncio.Future[Any]", finish: Callable[[], None]) -> None:
    if not done.done():
        finish()
