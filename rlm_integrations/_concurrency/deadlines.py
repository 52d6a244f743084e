"""Deadlines whose timers hold no context of the caller.

An event loop keeps a cancelled timer until it is due, and a timer keeps the context variables of the
code that started it. LangChain's configuration is such a variable: it refers to an agent, its tools
and their documents.
"""

import asyncio
from contextvars import Context


def end_after(timeout: asyncio.Timeout, seconds: float | None) -> None:
    """Let an entered timeout expire after this number of seconds, or never."""
    if seconds is not None:
        when = asyncio.get_running_loop().time() + seconds
        Context().run(timeout.reschedule, when)
