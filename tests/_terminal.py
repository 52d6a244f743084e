"""A terminal: a real pseudo-terminal, and a strict reading of what is written to it."""

import os
import pty
import re
import termios
import threading
from typing import Self, TextIO

_TOKEN = re.compile(
    r"\x1b\[(?P<code>[0-9;]*)(?P<final>[A-Za-z])|(?P<control>[\x00-\x1f\x7f-\x9f])|(?P<text>.)"
)


class Terminal:
    """A pseudo-terminal, and all that was written to it.

    Attributes:
        text: All that was written, as it came.
        end: The side to which a process writes.
    """

    def __init__(self, columns: int = 120, lines: int = 24) -> None:
        self.columns = columns
        self.text = ""
        self._side, self.end = pty.openpty()
        termios.tcsetwinsize(self.end, (lines, columns))
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.end)  # the last one: the reader ends
        self._reader.join(250)
        os.close(self._side)

    def stream(self) -> TextIO:
        """A stream to it, as Python opens stderr."""
        return open(os.dup(self.end), "w", buffering=1, errors="backslashreplace")  # noqa: PTH123

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._side, 1 << 16).decode(errors="replace")
            except OSError:  # all other sides are closed
                return

    @property
    def screen(self) -> list[str]:
        """The lines that are on it, without colours.

        Raises:
            AssertionError: A control character was written that progress lines do not need.
        """
        rows: list[list[str]] = [[]]
        row = column = 0
        for token in _TOKEN.finditer(self.text):
            if (text := token["text"]) is not None:
                if column == self.columns:
                    row, column = row + 1, 0
                    rows += [[] for _ in range(row + 1 - len(rows))]
                rows[row] += " " * (column + 1 - len(rows[row]))
                rows[row][column] = text
                column += 1
            elif token["final"] == "A":
                row -= int(token["code"] or 1)
            elif token["final"] == "K":
                del rows[row][column:]
            elif token["control"] == "\r":
                column = 0
            elif token["control"] == "\n":
                row += 1
                rows += [[] for _ in range(row + 1 - len(rows))]
            else:
                assert token["final"] == "m", f"{token[0]!r} reached the terminal"
        assert row >= 0
        return [line for each in rows if (line := "".join(each).rstrip())]
