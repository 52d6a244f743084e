"""Deadlines and waits whose timers hold no context of the caller.

An event loop keeps a cancelled timer until it is due, and a timer keeps the context variables of
the code that started it. LangChain's configuration is such a variable: it refers to an agent, its tools
and their documents.
"""

import asyncio
from contextvars import Context


def end_after(timeout: asyncio.Timeout, seconds: float | None) -> None:
    """Let an entered timeout expire after this number of seconds, or never."""
    if seconds is not None:
        when = asyncio.get_running_loop().time() + seconds
        Context().run(timeout.reschedule, when)


async def sleep(seconds: float) -> None:
    """Wait this number of seconds. The timer of `asyncio.sleep` would keep the caller's context,
    if the wait is cancelled, until it is due.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _finish, over, context=Context())
    try:
        await over
    finally:
        timer.cancel()


def _finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
