"""Ctrl-C for work that the main thread waits for in other threads.

Python raises KeyboardInterrupt in the main thread alone. LangChain's batches and LangGraph's tools
call us in worker threads of a pool, and the main thread leaves the pool's `with` block only when
its workers are done: all their calls would still be made, and paid. So a wait on behalf of a worker
thread also checks whether the main thread is leaving.
"""

import gc
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import thread
from types import FrameType

LEAVING = "__exit__"


def is_worker() -> bool:
    """Whether this thread is a worker of a pool of `concurrent.futures`."""
    # There is no public way
    return getattr(threading.current_thread(), "_target", None) is thread._worker  # noqa: SLF001


def is_main_thread_interrupted() -> bool:
    """Whether the main thread is leaving a `with` block because of Ctrl-C, which it can do only
    once the work that it waits for has ended.
    """
    frame: FrameType | None = _frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == LEAVING and _is_interrupt(frame):
            return True
        frame = frame.f_back
    return False


def _frames() -> Mapping[int, FrameType]:
    """The frame that runs in each thread.

    CPython 3.11 makes them while it holds the lock of its list of threads. A garbage collection
    that began meanwhile would need that lock to free a `threading.local`, and every thread would
    wait forever (github.com/python/cpython/issues/106883).
    """
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001 - the documented way to other threads' stacks
    finally:
        if is_collecting:
            gc.enable()


def _is_interrupt(frame: FrameType) -> bool:
    """Whether the first argument after `self`, the exception class passed to `__exit__`, is
    KeyboardInterrupt.
    """
    code = frame.f_code
    kind = frame.f_locals.get(code.co_varnames[1]) if code.co_argcount > 1 else None
    return isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)
