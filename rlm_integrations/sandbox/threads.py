"""How many threads model code may start: one too many is an error of the code, as on any machine
that is full.

This is for code that means no harm. The host counts the process's threads as the kernel does, and
ends a process that has more.
"""

import _thread
import threading
from collections.abc import Callable, Mapping
from typing import Any


class Threads:
    """Counts the threads that Python code starts.

    Args:
        most: How many there may be at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._lock = _thread.allocate_lock()

    def bound(self) -> None:
        """Count from now on, whichever way threads are started."""
        for module in (_thread, threading):
            for name in ("start_new_thread", "start_new", "start_joinable_thread"):
                for each in (name, f"_{name}"):
                    if hasattr(module, each):
                        setattr(module, each, self._counting(getattr(module, each)))

    def _counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def start(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return self.start(real, function, args, kwargs)

        return start

    def start(
        self,
        real: Callable[..., Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Start a thread, if there is room for one more."""
        with self._lock:
            if self._count >= self._most:
                raise RuntimeError("can't start new thread")  # as Python says it
            self._count += 1

        def run(*run_args: Any, **run_kwargs: Any) -> None:
            try:
                function(*run_args, **run_kwargs)
            finally:
                self._leave()

        try:
            return real(run, *args, **kwargs)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            self._count -= 1
