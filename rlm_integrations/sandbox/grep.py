"""`grep` for model code: the lines of named texts that a pattern matches."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import NamedTuple

from ..records import SpanRef
from .host_texts import HostTexts
from .literals import literals_of

LINE_KEPT = 500  # characters of a line, from its beginning


class Line(NamedTuple):
    """A line that matches."""

    path: str
    line: int
    text: str
    span: SpanRef

    def __repr__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def grep_over(texts: Mapping[str, str] | HostTexts) -> Callable[..., list[Line]]:
    """The function `grep` over these texts. Those of the host are read if they have the literals of
    the pattern.
    """

    def grep(
        pattern: str | re.Pattern[str], paths: str | Iterable[str] | None = None, limit: int = 1_000
    ) -> list[Line]:
        """The lines that a regular expression matches, up to `limit`: each has a path, a line number,
        the text, and the span for FINAL's evidence. `paths` are names, folders or patterns such as
        'src/*.py'; None for all texts.
        """
        expression = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        wanted = None if paths is None else [paths] if isinstance(paths, str) else list(paths)
        found: list[Line] = []
        for path, text in _searched(texts, expression, wanted) if limit > 0 else ():
            found += islice(_lines(path, text, expression), limit - len(found))
            if len(found) >= limit:
                break
        return found

    return grep


def _searched(
    texts: Mapping[str, str] | HostTexts, expression: re.Pattern[str], wanted: list[str] | None
) -> Iterable[tuple[str, str]]:
    """The texts that are wanted, without those that cannot match."""

    def is_wanted(path: str) -> bool:
        return wanted is None or any(_is_in(path, each) for each in wanted)

    if not isinstance(texts, HostTexts):
        return ((path, text) for path, text in texts.items() if is_wanted(path))
    expression.search("")  # raises for a pattern of bytes
    names = texts.names
    numbers: Sequence[int] = range(len(names))
    if wanted is not None:
        numbers = [number for number in numbers if is_wanted(names[number])]
    literals = literals_of(expression)
    ignores_case = bool(expression.flags & re.IGNORECASE)
    found = texts.search(numbers, literals, ignores_case=ignores_case)
    return ((names[number], text) for number, text in found)


def _lines(path: str, text: str, expression: re.Pattern[str]) -> Iterator[Line]:
    line, counted, at = 1, 0, 0
    while at <= len(text) and (match := expression.search(text, at)) is not None:
        begin = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.start())
        end = len(text) if end < 0 else end
        line += text.count("\n", counted, begin)
        counted, at = begin, end + 1
        stop = min(end, begin + LINE_KEPT)
        yield Line(path, line, text[begin:stop], SpanRef(path, begin, stop))


def _is_in(path: str, wanted: str) -> bool:
    """Whether a path is this one, in this folder, or matches this pattern."""
    folder = wanted.rstrip("/")
    return path == wanted or path.startswith(f"{folder}/") or fnmatchcase(path, wanted)
