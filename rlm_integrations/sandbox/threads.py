"""Limits how many threads model code may start: one too many raises an error, as on a machine
without free threads. This is for well-behaved code.

The host also reads the kernel's thread count, and kills a process that exceeds the limit.
"""

import _thread
import threading
from collections.abc import Callable, Mapping
from typing import Any


class Threads:
    """Counts the threads that Python code starts.

    Args:
        most: The maximum number of threads at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._lock = _thread.allocate_lock()

    def bound(self) -> None:
        """Start to count, however threads are started."""
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
                raise RuntimeError("can't start new thread")  # Python's own message
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
