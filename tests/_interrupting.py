"""Ctrl-C between any two steps of a function."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupt(function: Callable[[], object], step: int) -> None:
    """Call it, and raise KeyboardInterrupt at this step of Python's interpreter in this thread."""
    left = step

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
