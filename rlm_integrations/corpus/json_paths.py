"""The paths of places in JSON, such as `$.items[3].name`."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*")
_MAX_DEPTH: Final = 1_000

Path = tuple[str | int, ...]


def json_paths(text: str, places: Sequence[tuple[int, int]]) -> list[str] | None:
    """The path of the smallest value that has all of each place. None if the text is not JSON.

    Args:
        text: The JSON.
        places: The first character of each place and the one after its last.
    """
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
