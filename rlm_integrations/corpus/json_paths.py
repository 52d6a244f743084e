"""The paths of places in JSON, such as `$.items[3].name`, and the places of paths."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*")
_MAX_DEPTH: Final = 1_000
_AROUND: Final = ", \t\r\n"

Path = tuple[str | int, ...]


def json_paths(text: str, places: Sequence[tuple[int, int]]) -> list[str] | None:
    """The path of the smallest value that has all of each place. None if the text is not JSON.

    Args:
        text: The JSON.
        places: The first character of each place and the one after its last.
    """
    places = [_trimmed(text, *place) for place in places]
    wanted = sorted({at for first, last in places for at in (first, max(first, last - 1))})
    found: dict[int, Path] = {}
    try:
        for end, path in _values(text):
            while len(found) < len(wanted) and wanted[len(found)] < end:
                found[wanted[len(found)]] = path
            if len(found) == len(wanted):
                break
        else:
            return None
    except ValueError:
        return None
    return [_written(_common(found[first], found[max(first, last - 1)])) for first, last in places]


def row_of_path(path: str) -> str:
    """A path in the rows of a frame as row, counted from 1, and column."""
    steps = _steps(path)
    if not steps or not isinstance(steps[0], int):
        return path
    column = f", column {steps[1]}" if len(steps) > 1 else ""
    return f"row {steps[0] + 1}{column}"


def _trimmed(text: str, first: int, last: int) -> tuple[int, int]:
    """The place without white space and commas around it."""
    while last - first > 1 and text[last - 1] in _AROUND:
        last -= 1
    while last - first > 1 and text[first] in _AROUND:
        first += 1
    return first, last


def _values(text: str) -> Iterator[tuple[int, Path]]:
    """The end of each token, and the path of the value that it belongs to.

    Raises:
        ValueError: It is not JSON.
    """
    path: list[str | int] = []  # of the containers, with the member of each
    kinds: list[str] = []
    is_key = False
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in "{[":
            yield match.end(), tuple(path)
            if len(kinds) == _MAX_DEPTH:
                raise ValueError("too deep")
            kinds.append(mark)
            path.append(0 if mark == "[" else "")
            is_key = mark == "{"
        elif mark in "}]":
            if not kinds or kinds.pop() != {"}": "{", "]": "["}[mark]:
                raise ValueError("brackets do not match")
            path.pop()
            is_key = False
            yield match.end(), tuple(path)
        elif mark == ",":
            if not kinds:
                raise ValueError("several values")
            yield match.end(), tuple(path[:-1])
            member = path[-1]
            path[-1] = member + 1 if isinstance(member, int) else ""
            is_key = kinds[-1] == "{"
        else:
            if is_key:
                path[-1], is_key = str(json.loads(mark)), False
            yield match.end(), tuple(path)


def _common(path: Path, other: Path) -> Path:
    count = next(
        (at for at, (one, two) in enumerate(zip(path, other, strict=False)) if one != two),
        min(len(path), len(other)),
    )
    return path[:count]


def _written(path: Path) -> str:
    parts = ["$"]
    for each in path:
        if isinstance(each, int):
            parts.append(f"[{each}]")
        elif _PLAIN.fullmatch(each):
            parts.append(f".{each}")
        else:
            parts.append(f"[{json.dumps(each, ensure_ascii=False)}]")
    return "".join(parts)


_STEP: Final = re.compile(r"""\.([A-Za-z_]\w*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|\['([^'\\]*)'\]""")
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def place_of_path(text: str, path: str) -> tuple[int, int] | None:
    """The first character of the value at this path and the one after its last; None if there is
    none, or if it is no path.
    """
    steps = _steps(path)
    if steps is None:
        return None
    try:
        at = _skip(text, 0)
        for step in steps:
            found = _member(text, at, step)
            if found is None:
                return None
            at = found
        return at, _DECODER.raw_decode(text, at)[1]
    except (ValueError, IndexError, RecursionError):  # it is not JSON
        return None


_DECODER: Final = json.JSONDecoder()


def _steps(path: str) -> list[str | int] | None:
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return None
        plain, number, quoted, single = match.groups()
        try:
            steps.append(
                int(number)
                if number is not None
                else json.loads(quoted)
                if quoted is not None
                else plain or single or ""
            )
        except ValueError:
            return None
        at = match.end()
    return steps if path.startswith("$") else None


def _member(text: str, at: int, step: str | int) -> int | None:
    """Where this member of the dict or list begins; its siblings are skipped by the C decoder."""
    if text[at] != ("[" if isinstance(step, int) else "{"):
        return None
    at = _skip(text, at + 1)
    number = 0
    while text[at] not in "]}":
        key: str | int = number
        if isinstance(step, str):
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        if key == step:
            return at
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        number += 1
    return None


def _skip(text: str, at: int) -> int:
    """The next character that is no white space."""
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
