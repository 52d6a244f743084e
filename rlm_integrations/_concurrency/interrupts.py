"""Ctrl-C for work that the main thread waits for in other threads.

Python raises KeyboardInterrupt in the main thread alone. LangChain's batches and LangGraph's tools
call us in worker threads of a pool, and the main thread leaves the pool's `with` block only when
its workers are done: all their calls would still be made, and paid. So a wait on behalf of a worker
thread also checks whether the main thread is leaving.
"""

import sys
import threading
from concurrent.futures import thread
from types import FrameType

LEAVING = "__exit__"


def is_worker() -> bool:
    """Whether this thread is a worker of a pool of `concurrent.futures`."""
    return getattr(threading.current_thread(), "_target", None) is thread._worker  # noqa: SLF001 - there is no public way


def is_main_thread_interrupted() -> bool:
    """Whether the main thread is leaving a `with` block because of Ctrl-C, which it can do only
    once the work that it waits for has ended.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the documented way to other threads' stacks
    while frame is not None:
        if frame.f_code.co_name == LEAVING and _is_interrupt(frame):
            return True
        frame = frame.f_back
    return False


def _is_interrupt(frame: FrameType) -> bool:
    """Whether the first argument after `self`, the exception class passed to `__exit__`, is
    KeyboardInterrupt.
    """
    code = frame.f_code
    kind = frame.f_locals.get(code.co_varnames[1]) if code.co_argcount > 1 else None
    return isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)
