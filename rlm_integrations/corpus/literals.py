"""Finds files that cannot contain a match of a regular expression, by literals that every match
has: their bytes are searched, without decoding them.
"""

import codecs
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rlm_integrations.corpus.reading import ASCII_COMPATIBLE
from rlm_integrations.extraction.extractor import has_format

# A pipe, which a file may have become, must not be waited for
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Literals:
    """Literals of which a text that matches has at least one.

    Attributes:
        words: The literals; in lower case and ASCII if the case is ignored.
        ignores_case: Whether ASCII letters of the text are compared in lower case.
    """

    words: tuple[str, ...]
    ignores_case: bool = False


class FileSearch:
    """Searches for literals in files, inside a `with`. What cannot be searched may match.

    Args:
        literals: What is searched for; None if all may match.
        encoding: The encoding of the files.
        errors: How bytes that are invalid in it are handled.
    """

    def __init__(self, literals: Literals | None, encoding: str, errors: str) -> None:
        self._words: list[bytes] | None = None
        self._literals = literals
        self._ignores_case = literals is not None and literals.ignores_case
        self._roots: dict[str, int] = {}
        if (
            literals is not None
            and codecs.lookup(encoding).name in ASCII_COMPATIBLE
            and errors in {"strict", "replace"}
            and not any("\ufffd" in word for word in literals.words)
        ):
            try:
                self._words = [
                    word.encode(encoding.removesuffix("-sig")) for word in literals.words
                ]
            except UnicodeEncodeError:
                self._words = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for descriptor in self._roots.values():
            os.close(descriptor)

    def may_match_file(self, root: str, path: str, size: int) -> bool:
        """Whether the file at this relative path may match, which had this size."""
        if self._words is None or has_format(path):
            return True
        try:
            descriptor = os.open(path, _FLAGS, dir_fd=self._descriptor(root))
        except OSError:
            return True
        try:
            data = os.read(descriptor, size + 1)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        if len(data) != size:
            return True
        if self._ignores_case:
            data = data.lower()
        for word in self._words:  # noqa: SIM110 - any(…) takes longer than the search
            if word in data:
                return True
        return False

    def may_match_text(self, text: str) -> bool:
        """Whether a text may match."""
        if self._literals is None:
            return True
        if self._literals.ignores_case:
            data = text.encode("utf-8", "surrogatepass").lower()
            return any(word.encode() in data for word in self._literals.words)
        return any(word in text for word in self._literals.words)

    def _descriptor(self, root: str) -> int:
        found = self._roots.get(root)
        if found is None:
            found = self._roots[root] = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return found
