"""`grep` for model code: the lines of named texts that a pattern matches."""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..records import SpanRef

LINE_KEPT = 500  # characters of a line, from its beginning


class Line(NamedTuple):
    """A line that matches."""

    path: str
    line: int
    text: str
    span: SpanRef

    def __repr__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def grep_over(texts: Mapping[str, str]) -> Callable[..., list[Line]]:
    """The function `grep` over these texts."""

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
        for path, text in texts.items():
            if wanted is not None and not any(_is_in(path, each) for each in wanted):
                continue
            line, counted, at = 1, 0, 0
            while len(found) < limit and at <= len(text):
                match = expression.search(text, at)
                if match is None:
                    break
                begin = text.rfind("\n", 0, match.start()) + 1
                end = text.find("\n", match.start())
                end = len(text) if end < 0 else end
                line += text.count("\n", counted, begin)
                counted, at = begin, end + 1
                stop = min(end, begin + LINE_KEPT)
                found.append(Line(path, line, text[begin:stop], SpanRef(path, begin, stop)))
            if len(found) >= limit:
                break
        return found

    return grep


def _is_in(path: str, wanted: str) -> bool:
    """Whether a path is this one, in this folder, or matches this pattern."""
    folder = wanted.rstrip("/")
    return path == wanted or path.startswith(f"{folder}/") or fnmatchcase(path, wanted)
