"""Builtins that cannot work in a sandbox."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any


def forbid_builtins() -> None:
    """Replace builtins that cannot work in a sandbox with functions that raise a helpful error."""
    import builtins

    def refused(name: str, reason: str) -> Callable[..., Any]:
        def stand_in(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError(f"{name}() does not work here: {reason}")

        stand_in.__name__ = stand_in.__qualname__ = name
        return stand_in

    real_open = open

    def open_file(*args: Any, **kwargs: Any) -> Any:
        try:
            return real_open(*args, **kwargs)
        except PermissionError as error:
            raise PermissionError(
                error.errno,
                "files cannot be opened here; the document is in the variable `context`",
            ) from None

    open_file.__name__ = open_file.__qualname__ = "open"
    builtins.input = refused("input", "there is no user to answer; decide from `context`")
    builtins.breakpoint = refused("breakpoint", "there is no terminal; use print()")
    builtins.open = open_file
    os.uname = lambda: os.uname_result(("Linux", "sandbox", "", "", ""))
    sys.stdin = io.StringIO("")
