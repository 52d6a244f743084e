"""Which files of a folder are ignored: the patterns of `.gitignore` files, as git reads them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# Ignored unless a `.gitignore` includes them again: caches, copies of other projects, secrets
DEFAULT: Final = """
.git/ .hg/ .svn/ node_modules/ __pycache__/ .venv/ venv/ .tox/ .nox/ .eggs/ *.egg-info/
.mypy_cache/ .pytest_cache/ .ruff_cache/ .hypothesis/ .ipynb_checkpoints/ .idea/ .gradle/
*.pyc *.pyo .DS_Store .env .env.* !.env.example
""".split()


@dataclass(frozen=True, slots=True)
class _Rule:
    matches: re.Pattern[str]
    includes: bool
    folders_only: bool


class IgnoreRules:
    """The patterns of one file.

    Args:
        base: The folder of the file, as a path that ends with a slash; "" for the root.
        lines: The lines of the file.
        below: For a file above the root, the path of the root from there, with a slash at its end.
    """

    def __init__(self, base: str, lines: Iterable[str], *, below: str = "") -> None:
        self._base = base
        self._below = below
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None]
        self._rules.reverse()  # the last that matches decides

    def ignores(self, path: str, *, is_folder: bool) -> bool | None:
        """Whether a path is ignored; None if no pattern matches it."""
        own = f"{self._below}{path[len(self._base) :]}"
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.matches.fullmatch(own):
                return not rule.includes
        return None


def is_ignored(rules: Sequence[IgnoreRules], path: str, *, is_folder: bool) -> bool:
    """Whether a path is ignored by these files, of which later ones go before earlier ones."""
    for each in reversed(rules):
        found = each.ignores(path, is_folder=is_folder)
        if found is not None:
            return found
    return False


def _rule(line: str) -> _Rule | None:
    line = line.rstrip("\r\n")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    includes = line.startswith("!")
    line = line.removeprefix("!")
    folders_only = line.endswith("/")
    line = line.removesuffix("/")
    is_anchored = "/" in line
    expression = _expression(line.removeprefix("/"))
    if expression is None or not line:
        return None
    return _Rule(
        re.compile(expression if is_anchored else f"(?:.*/)?{expression}", re.DOTALL),
        includes,
        folders_only,
    )


def path_pattern(pattern: str) -> re.Pattern[str] | None:
    """The paths that a glob pattern with `*`, `**`, `?` and `[…]` matches; None for a pattern that
    matches nothing.
    """
    expression = _expression(pattern)
    return None if expression is None else re.compile(expression, re.DOTALL)


def _expression(pattern: str) -> str | None:
    """The pattern as a regular expression for a whole path; None if it is invalid."""
    pattern = re.sub(r"(?<![^/])\*{3,}(?![^/])", "**", pattern)  # for git, all the same
    if pattern.startswith("**/"):
        found, at = "(?:.*/)?", 3
    else:
        found, at = "", 0
    while at < len(pattern):
        if pattern.startswith("/**/", at):
            found, at = f"{found}/(?:.*/)?", at + 4
        elif pattern[at:] == "/**":
            found, at = f"{found}/.+", at + 3
        elif pattern[at] == "*":
            stars = len(pattern) - at - len(pattern[at:].lstrip("*"))
            is_all = stars == len(pattern) == 2
            found, at = f"{found}{'.*' if is_all else '[^/]*'}", at + stars
        elif pattern[at] == "?":
            found, at = f"{found}[^/]", at + 1
        elif pattern[at] == "[":
            end = _end_of_set(pattern, at)
            if end is None:
                return None
            found, at = f"{found}{_set(pattern[at + 1 : end])}", end + 1
        elif pattern[at] == "\\":
            if at + 1 == len(pattern):
                return None
            found, at = f"{found}{re.escape(pattern[at + 1])}", at + 2
        else:
            found, at = f"{found}{re.escape(pattern[at])}", at + 1
    return found


def _end_of_set(pattern: str, at: int) -> int | None:
    at += 1 + (pattern[at + 1 : at + 2] in {"!", "^"} and 1)
    at += pattern[at : at + 1] == "]"  # first in the set it is a member
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at if at < len(pattern) else None


def _set(content: str) -> str:
    negated = content[:1] in {"!", "^"}
    content = content[1:] if negated else content
    members, at = [], 0
    while at < len(content):
        at += content[at] == "\\" and at + 1 < len(content)
        first = last = content[at]
        at += 1
        if content[at : at + 1] == "-" and at + 1 < len(content):
            at += 1 + (content[at + 1] == "\\" and at + 2 < len(content))
            last = content[at]
            at += 1
        # For git, the first of a range is a member even if the range is empty
        members.append(f"{re.escape(first)}-{re.escape(max(first, last))}")
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]"
