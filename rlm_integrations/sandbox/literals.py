"""Literals that every match of a regular expression has."""

import re
from collections.abc import Iterable, Sequence
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_WORDS = 64  # of a set
WORD_CHARS = 64
# Characters other than ASCII are equal to these without regard to case
_FOLDED = frozenset("iksIKS")


def literals_of(pattern: re.Pattern[str]) -> list[str] | None:
    """Strings of which every text with a match contains at least one; None if none are known. If
    the pattern ignores case, they are in lower case, and in ASCII.
    """
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    found = _best(_sets(tree, ignores_case=bool(pattern.flags & re.IGNORECASE)))
    return None if found is None else sorted({word[:WORD_CHARS] for word in found})


def _sets(items: Iterable[tuple[Any, Any]], *, ignores_case: bool) -> list[list[str]]:
    """Sets of literals: a match of these items, one after another, has a literal of each set."""
    found: list[list[str]] = []
    run = ""
    for operation, argument in items:
        if operation is ops.LITERAL and _is_exact(chr(argument), ignores_case=ignores_case):
            run += chr(argument).lower() if ignores_case else chr(argument)
            continue
        if operation is ops.AT:  # has no width
            continue
        if run:
            found.append([run])
            run = ""
        inner = _inner(operation, argument)
        if inner is not None:
            each = [_best(_sets(part, ignores_case=ignores_case)) for part in inner]
            if all(each):
                found.append([word for words in each for word in words or ()])
    return [*found, [run]] if run else found


def _is_exact(character: str, *, ignores_case: bool) -> bool:
    return not ignores_case or (character.isascii() and character not in _FOLDED)


def _inner(operation: Any, argument: Any) -> Sequence[Any] | None:
    """The parts of an item of which every match has one; None if nothing is known of it."""
    if operation is ops.SUBPATTERN:
        _, added, removed, part = argument
        return None if (added | removed) & re.IGNORECASE else [part]
    if operation in _REPEATS:
        least, _, part = argument
        return [part] if least else None
    if operation is ops.BRANCH:
        return list(argument[1])
    return None


_REPEATS = {ops.MAX_REPEAT, ops.MIN_REPEAT, getattr(ops, "POSSESSIVE_REPEAT", ops.MAX_REPEAT)}


def _best(sets: Iterable[list[str]]) -> list[str] | None:
    """The set that fewest texts contain, by the length of its shortest literal."""
    few = [words for words in sets if len(words) <= MAX_WORDS]
    return max(few, key=lambda words: min(map(len, words)), default=None)
