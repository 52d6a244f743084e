"""Raises interrupts in the child: at any step of model code, and nowhere in the code around it. The
host sends SIGINT repeatedly until the block has ended.

A signal may arrive at any step of the main thread: before the block's code starts, in the middle of
a frame, after the code has ended. The handler therefore inspects the stack, and ignores the signal
where an exception would do harm.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any

# Functions of the standard library that would leave a lock held, or a loop running, if interrupted
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
        whole: Functions that run model code, and whose caller catches every exception: interrupts
            are raised in them and in everything that they call.
        below: Functions that catch every exception of the functions that they call: interrupts are
            raised in those, but not in their own steps.
        undivided: Functions that must run to their end, such as the writing of a frame. They call
            `raise_late` at their end.
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
        self.raised = False  # whether an interrupt was raised since the block began

    def add_undivided(self, function: Callable[..., Any]) -> None:
        """Add a function that must run to its end."""
        self._undivided |= {_code(function)}

    def begin(self) -> None:
        """Reset the state for a new block."""
        self._late = self.raised = False
        self.listen()

    def listen(self) -> None:
        """Install the handler, even if model code has replaced it."""
        signal.signal(signal.SIGINT, self._handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def raise_late(self) -> None:
        """Raise the interrupt that arrived during an undivided function, if model code called
        it.
        """
        if not self._late or threading.current_thread() is not threading.main_thread():
            return
        self._late = False
        # Documented, and the frame that a handler receives
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
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
