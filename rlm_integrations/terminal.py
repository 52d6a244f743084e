"""The terminal: whether there is one, and writing to it beside progress lines, never raw text of
models and documents.
"""

import contextlib
import logging
import os
import re
import sys
import threading
from typing import Any, TextIO

from rlm_integrations._concurrency.runtime import shared

# Characters that move the cursor, end a line, or change the direction of text
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters escaped: models and documents are not trusted."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def has_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"


def has_colours() -> bool:
    """Whether stderr may be coloured; see https://no-color.org."""
    return has_terminal() and not os.environ.get("NO_COLOR")


def print_whole(text: str) -> None:
    """Write lines to stderr without lines of other threads between them, above progress lines.

    Without a stderr, do nothing.
    """
    with shared("stderr", threading.Lock), contextlib.suppress(OSError, ValueError, AttributeError):
        if (tqdm := _tqdm()) is None:
            sys.stderr.write(text)
        else:  # above all progress lines: of this library, or of the user's loop
            tqdm.write(text, file=sys.stderr, end="")
        sys.stderr.flush()


class ProgressScreen:
    """While progress lines are on the terminal, writes of the whole process to stdout and stderr
    go above them: warnings, log records, output of tools. There is one for each process, see
    `progress_screen`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._replaced: dict[str, _StreamAbove] = {}

    def enter(self) -> None:
        """A user begins to show progress lines. Nested and concurrent uses are counted."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                drawn_on = sys.stderr
                for name in ("stdout", "stderr"):
                    stream = getattr(sys, name)
                    if _is_terminal(stream):
                        above = self._replaced[name] = _StreamAbove(stream, drawn_on)
                        setattr(sys, name, above)
                        _redirect_logs(stream, above)

    def leave(self) -> None:
        """A user's progress lines are gone. After the last one, the streams are as before."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for above in self._replaced.values():
                    with contextlib.suppress(OSError, ValueError):
                        above.flush()
                self.close()

    def close(self) -> None:
        """Put the streams back."""
        for name, above in self._replaced.items():
            if getattr(sys, name) is above:  # others may have replaced it meanwhile
                setattr(sys, name, above.stream)
            _redirect_logs(above, above.stream)
        self._replaced.clear()

    def abandon(self) -> None:
        """Put the streams back in a forked process, which has no lines, but maybe a held lock."""
        self.close()

    @property
    def stderr(self) -> TextIO:
        """The stream that progress lines are written to."""
        above = self._replaced.get("stderr")
        return sys.stderr if above is None else above.stream


def progress_screen() -> ProgressScreen:
    """The process's screen."""
    return shared("progress screen", ProgressScreen)


class _StreamAbove:
    """A stream whose lines are written above the progress lines of its terminal.

    Args:
        stream: The stream.
        drawn_on: That of the progress lines.
    """

    def __init__(self, stream: TextIO, drawn_on: TextIO) -> None:
        self.stream = stream
        self._drawn_on = drawn_on
        self._begun = ""  # the beginning of a line that has no end yet

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's, such as its encoding."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        tqdm = _tqdm()
        # Every progress line is drawn under this lock, which its thread may take again
        with tqdm.get_lock():
            lines, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                with tqdm.external_write_mode(self._drawn_on):
                    self.stream.write(lines + end)
                    self.stream.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for each in lines:
            self.write(each)

    def flush(self) -> None:
        """Write also a line that has no end, such as a prompt, and end it."""
        if self._begun:
            self.write("\n")
        self.stream.flush()


def _redirect_logs(before: Any, after: Any) -> None:
    """Have the log handlers of one stream write to another one."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                with contextlib.suppress(OSError, ValueError):
                    handler.setStream(after)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def _tqdm() -> Any:
    """The class of all progress lines; None if it is not loaded, or in another thread being so."""
    return getattr(sys.modules.get("tqdm"), "tqdm", None)
