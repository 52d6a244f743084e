"""Describes values and exceptions of model code as short strings, running as little of that code as
possible.

Any method of a class that the model defined may raise, or return anything.
"""

import os
import traceback
from typing import Any

from ..records import LLMReply
from .replies import AwaitableList, AwaitableText
from .wire import Opaque

TRACEBACK_KEPT = 4_000  # characters, counted from the end
MESSAGE_KEPT = 2_000  # characters of an exception's message
_MAX_FRAMES = 12  # of a traceback

_package_folder = os.path.dirname(os.path.abspath(__file__))
_LIBRARY_FOLDER = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

# A metaclass that the model defined may return anything as `__name__`, or raise
type_name = type.__dict__["__name__"].__get__
_TYPES_WITH_LENGTH = (list, tuple, dict, set, frozenset, AwaitableList)


def hide_paths(package_folder: str) -> None:
    """Set the folder that this package's code objects name; tracebacks leave out its frames."""
    global _package_folder  # noqa: PLW0603 - set once, by the fork server
    _package_folder = package_folder


def describe_value(value: Any) -> str:
    """A description of a variable, such as "str, 2,310 characters"; never its content."""
    # Never isinstance, which asks the value's own `__class__`: that may raise, and a weak proxy's
    # does.
    kind = type(value)
    # `is`, never `in`, which would call the hash or `==` of a metaclass that the model defined.
    name: str = (
        "str"
        if kind is LLMReply or kind is AwaitableText
        else "list"
        if kind is AwaitableList
        else type_name(kind)
    )
    if issubclass(kind, str):
        return f"{name}, {str.__len__(value):,} characters"
    if issubclass(kind, bytes):
        return f"{name}, {bytes.__len__(value):,} bytes"
    return f"{name} of {len(value):,}" if any(kind is each for each in _TYPES_WITH_LENGTH) else name


def message_of(value: Any) -> str:
    """The message of an exception or an exit code, cut to MESSAGE_KEPT; "" if it cannot be read."""
    try:
        return str.__getitem__(str(value), slice(MESSAGE_KEPT))  # a plain str, even from a subclass
    except BaseException:  # noqa: BLE001 - a `__str__` that the model defined may raise anything
        return ""


def opaque(value: Any) -> Opaque:
    """The placeholder for a value that cannot cross the wire: its type, and its string if it has
    one.
    """
    name: str = type_name(type(value))
    try:
        text = str.__getitem__(str(value), slice(None))  # a plain str, even from a subclass
    except Exception as error:  # noqa: BLE001 - a class that the model defined may raise anything
        text = f"<{name} whose text raises {type_name(type(error))}>"
    return Opaque(name, text)


def describe_exception(error: BaseException) -> dict[str, str]:
    """An exception as data. Its traceback shows frames of the model and the standard library, but
    no frames of this package and no paths of this machine.
    """
    try:
        whole = traceback.TracebackException(
            type(error), error, error.__traceback__, limit=-1000, compact=True
        )
        _strip_frames(whole)
        text = "".join(whole.format())
    except BaseException:  # noqa: BLE001 - no memory left, or an exception whose message raises
        text = ""
    return {
        "type": type_name(type(error)),
        "message": message_of(error),
        "traceback": text[-TRACEBACK_KEPT:],
    }


def _strip_frames(whole: traceback.TracebackException) -> None:
    frames = []
    # True inside this package and in library code that it calls, until the model's next frame
    inside = True
    for frame in whole.stack:
        inside = not frame.filename.startswith("<block-") and (
            inside or frame.filename.startswith(_package_folder)
        )
        if inside or frame.filename.startswith("<frozen"):
            continue
        if frame.filename.startswith(_LIBRARY_FOLDER):
            frame.filename = frame.filename.removeprefix(_LIBRARY_FOLDER)
        frames.append(frame)
    if len(frames) > _MAX_FRAMES:
        frames = frames[:2] + frames[2 - _MAX_FRAMES :]
    whole.stack = traceback.StackSummary.from_list(frames)
    for linked in (whole.__cause__, whole.__context__, *(whole.exceptions or ())):
        if linked is not None:
            _strip_frames(linked)
