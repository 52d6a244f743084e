"""The rows and columns of places in CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final

_DELIMITERS: Final = ",;\t|"
_SNIFFED: Final = 10_000  # characters


def table_cells(
    text: str, places: Sequence[tuple[int, int]], *, header_is_row: bool = True
) -> list[str] | None:
    """The row of each place, counted from 1 with the header, as spreadsheets do, and its column if
    it is in one cell. None if the text is not CSV.

    Args:
        text: The table.
        places: The first character of each place and the one after its last, ascending.
        header_is_row: Whether the header is row 1; else the row after it is.
    """
    delimiter = _delimiter(text)
    found: list[str] = []
    header: list[str] = []
    try:
        for number, (start, end, cells) in enumerate(_rows(text, delimiter), 1):
            header = header or cells
            while len(found) < len(places) and places[len(found)][0] < end:
                first, last = places[len(found)]
                column = _column(text, delimiter, start, first, min(last, end))
                is_named = number > 1 and column is not None and column < len(header)
                name = f", column {header[column]}" if is_named and column is not None else ""
                count = number if header_is_row else number - 1
                row = f"row {count}" if count else "header"
                found.append(f"{row}{name if last <= end else ''}")
            if len(found) == len(places):
                return found
    except csv.Error:
        return None
    return None


def _delimiter(text: str) -> str:
    """The most frequent delimiter in the first row."""
    first = next(io.StringIO(text[:_SNIFFED], newline=""), "")
    return max(_DELIMITERS, key=first.count)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Each row with its first character and the one after its last."""
    start = end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in io.StringIO(text, newline=""):
            end += len(line)
            yield line

    for cells in csv.reader(lines(), delimiter=delimiter):
        yield start, end, cells
        start = end


def _column(text: str, delimiter: str, start: int, first: int, last: int) -> int | None:
    """The index of the cell of a row in which the place is; None if it is in several."""
    columns = {_cells_in(text[start:at], delimiter) for at in (first, last)}
    return columns.pop() if len(columns) == 1 else None


def _cells_in(part: str, delimiter: str) -> int:
    """How many cells of a row end in this part of it."""
    cells = next(csv.reader(io.StringIO(part, newline=""), delimiter=delimiter), [""])
    return max(len(cells) - 1, 0)
