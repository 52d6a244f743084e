"""All process-wide state.

Every object that outlives a call and is shared by runs, threads and event loops is kept here: made
once, closed at the interpreter's exit, and dropped in a forked process, which must not use its
parent's resources.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

PARSER_STACK = 16 << 20  # bytes; only the pages in use take memory

T = TypeVar("T")
P = ParamSpec("P")


@runtime_checkable
class Closable(Protocol):
    """A shared object that holds resources of the operating system."""

    def close(self) -> None:
        """Release everything at the interpreter's exit. Called once; takes at most two seconds."""

    def abandon(self) -> None:
        """Release inherited resources in a forked process, without disturbing the parent."""


_lock = threading.RLock()
_shared: dict[Hashable, Any] = {}
# A lock for each object that is being made: a slow one must not delay the others
_making: dict[Hashable, threading.RLock] = {}
# Objects that a forked process dropped: kept, because finalizers would act on the parent's
# resources
_inherited: list[Any] = []


def shared(key: Hashable, make: Callable[[], T]) -> T:
    """The process's object for this key, made by `make` at the first call."""
    with _lock:
        if key in _shared:
            return cast("T", _shared[key])
        making = _making.setdefault(key, threading.RLock())
    with making:
        with _lock:
            if key in _shared:
                return cast("T", _shared[key])
        thing = make()
        with _lock:
            _shared[key] = thing
            _making.pop(key, None)
        return thing


def peek(key: Hashable) -> object:
    """The process's object for this key, or None if it is not made yet."""
    return _shared.get(key)


def forget(key: Hashable, thing: object) -> None:
    """Drop this object, so that the next `shared` makes a new one; the caller closes it.

    Another thread may have been first.
    """
    with _lock:
        if _shared.get(key) is thing:
            del _shared[key]


class _Threads(ThreadPoolExecutor):
    """A few threads for the library's own short work. Never for user code, which may wait for more
    user code.
    """

    def close(self) -> None:
        self.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """Threads do not survive a fork; there is nothing to release."""


def threads(name: str, count: int) -> ThreadPoolExecutor:
    """The process's threads of this name, for the library's own short work."""
    return shared(
        ("threads", name), lambda: _Threads(max_workers=count, thread_name_prefix=f"rlm-{name}")
    )


def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Run short work of the library off the event loop: encoding, hashing, parsing, starting a
    process.

    Await the future that it returns. Cancelling that wait does not stop work that has begun; its
    result is lost (see `cleanup`).
    """
    return asyncio.wrap_future(threads("work", 4).submit(function, *args, **kwargs))


def open_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """`offload` in threads that only open sessions and read documents, so that no other work delays
    them.
    """
    return asyncio.wrap_future(threads("opening", 4).submit(function, *args, **kwargs))


def close_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """`offload` in threads that only release resources, so that a run's end never waits for other
    work.
    """
    return asyncio.wrap_future(threads("closing", 4).submit(function, *args, **kwargs))


def parse_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """`offload` in a thread whose stack is large enough for Python's parser, which recurses in C
    and would crash the process otherwise.
    """
    return asyncio.wrap_future(shared("parser", _parser).submit(function, *args, **kwargs))


def parse_waiting(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`parse_apart` for a thread that may block."""
    return shared("parser", _parser).submit(function, *args, **kwargs).result()


def _parser() -> ThreadPoolExecutor:
    executor = _Threads(max_workers=1, thread_name_prefix="rlm-parser")
    before = threading.stack_size()
    threading.stack_size(max(before, PARSER_STACK))
    try:
        # Starts its thread with this stack size; the user's size is restored below
        executor.submit(int).result()
    finally:
        threading.stack_size(before)
    return executor


def _close_all() -> None:
    while _shared:
        with _lock:
            # The portal first: its tasks use the rest to clean up. Then the newest first, because
            # newer objects may use older ones.
            thing = _shared.pop("portal" if "portal" in _shared else next(reversed(_shared)))
        if isinstance(thing, Closable):
            thing.close()


def _drop_all() -> None:
    # Another thread of the parent may have held it at the fork, and does not exist here
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _making.clear()
    things = list(_shared.values())
    _shared.clear()
    _inherited.extend(things)
    for thing in things:
        if isinstance(thing, Closable):
            thing.abandon()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_drop_all)
