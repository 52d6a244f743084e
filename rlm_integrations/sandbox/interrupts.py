"""Where an interrupt is raised in the child: in model code, at any of its steps, and nowhere in the
machinery around it.

The host sends SIGINT and sends it again until the block has ended. A signal may come at any step of
the main thread: before the block's code has begun, in the middle of a frame, after the code has
ended. The handler therefore looks at the stack, which tells for certain where it is, and passes the
signal over where an exception would do harm.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any

# Functions of the library that would leave a lock held, or a loop running, if an exception hit a
# step of their own
_FRAGILE = (
    (threading.Condition, "__enter__"),
    (threading.Condition, "__exit__"),
    (asyncio.BaseEventLoop, "run_forever"),
    (asyncio.BaseEventLoop, "_run_forever_setup"),
    (asyncio.BaseEventLoop, "_run_forever_cleanup"),
)


class Interrupts:
    """The handler of SIGINT.

    Args:
        whole: Functions that run model code, and whose caller catches whatever comes: raised in
            them and in all that they call.
        below: Functions that catch whatever comes from what they call: raised in that, but not in
            their own steps.
        undivided: Functions that are not to be left half done, such as the writing of a frame. One
            of them calls `raise_late` at its end.
    """

    def __init__(
        self,
        whole: Iterable[Callable[..., Any]],
        below: Iterable[Callable[..., Any]],
        undivided: Iterable[Callable[..., Any]],
    ) -> None:
        self._whole = frozenset(map(_code, whole))
        self._below = frozenset(map(_code, below))
        self._undivided = frozenset(map(_code, undivided))
        self._fragile = frozenset(
            _code(getattr(owner, name)) for owner, name in _FRAGILE if hasattr(owner, name)
        )
        self._late = False
        self.raised = False  # whether one was raised since the block began

    def add_undivided(self, function: Callable[..., Any]) -> None:
        """One more function that is not to be left half done."""
        self._undivided |= {_code(function)}

    def begin(self) -> None:
        """A block begins."""
        self._late = self.raised = False
        self.listen()

    def listen(self) -> None:
        """Take signals from now on, whatever model code has made of them."""
        signal.signal(signal.SIGINT, self._handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def raise_late(self) -> None:
        """Raise the interrupt that came while something undivided ran, if model code is what ran
        it.
        """
        if not self._late or threading.current_thread() is not threading.main_thread():
            return
        self._late = False
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented, and what a handler is handed by itself
        while frame is not None:
            if frame.f_code in self._whole:
                self._raise()
            if frame.f_code in self._below:
                return
            frame = frame.f_back

    def _handle(self, _number: int, innermost: FrameType | None) -> None:
        frame = innermost
        undivided = frame is not None and frame.f_code in self._fragile
        while frame is not None:
            if frame.f_code in self._undivided:
                undivided = True
            elif frame.f_code in self._whole:
                if not undivided:
                    self._raise()
                self._late = True
                return
            elif frame.f_code in self._below:
                if not undivided and frame is not innermost:
                    self._raise()
                return
            frame = frame.f_back

    def _raise(self) -> None:
        self._late, self.raised = False, True
        raise KeyboardInterrupt


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = function.__code__
    return code
