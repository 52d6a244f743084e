"""The words of free text, and the interface of an index over them."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol
from unicodedata import normalize

from rlm_integrations._concurrency.work import spend
from rlm_integrations.store.content import content_text
from rlm_integrations.store.log import Created

Skip = Callable[[int], bool]

WORDS: Final = 32  # different words of a free text that are searched
# Longer words are ignored: one of them may be thousands of words to SQLite, whose search for such
# a sequence takes seconds
WORD_CHARS: Final = 200
PIECE: Final = 250  # characters that are normalized at once: more than a searched word has
# Characters that are casefolded in one step, in less than a millisecond
STEP_CHARS: Final = 1 << 16

# Scripts without spaces between words: each character is indexed as a word, and searches look for
# pairs.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHARACTER = f"[{_UNSPACED}]"  # patterns that take milliseconds to compile
_PART = rf"(?P<run>[{_UNSPACED}]+)|[^\W_{_UNSPACED}]+"


class TextIndex(Protocol):
    """An index for full-text search. Safe to use from many threads."""

    def rank(
        self, rows: Sequence[Created], text: str, limit: int, skip: Skip
    ) -> list[tuple[int, float]]:
        """The rows that have words of the text, best first, each with its score above 0; equal
        scores newest first.
        """
        ...

    def holding(
        self, rows: Sequence[Created], field: str, needles: Sequence[str], *, newest_first: bool
    ) -> Iterator[list[int]] | None:
        """In order and in portions, all rows whose "desc" or "text" may contain one of the folded
        needles.

        None if reading all rows is as fast.
        """
        ...


def folded(event: Created, field: str) -> str:
    """The casefolded text of "desc" or "text", in which `~` searches."""
    return casefold_in_steps(event.description if field == "desc" else content_text(event.content))


def casefold_in_steps(text: str) -> str:
    """`str.casefold` in steps, between which other threads can run; its characters do not depend on
    their neighbours.
    """
    spend(len(text))
    if len(text) <= STEP_CHARS:
        return text.casefold()
    return "".join(
        [text[at : at + STEP_CHARS].casefold() for at in range(0, len(text), STEP_CHARS)]
    )


def searchable_text(event: Created) -> str:
    """The text that free text is compared with: description, tags and content."""
    return spaced(
        casefold_in_steps("\n".join((event.description, *event.tags, content_text(event.content))))
    )


def spaced(text: str) -> str:
    """The text with spaces between all words, also in scripts without spaces."""
    if text.isascii():
        return text
    return "".join(
        [
            re.sub(_CHARACTER, r" \g<0> ", text[at : at + STEP_CHARS])
            for at in range(0, len(text), STEP_CHARS)
        ]
    )


def words(text: str) -> list[str]:
    """The different words of a free text that are searched; pairs of characters in a script without
    spaces.
    """
    found: dict[str, None] = {}
    for piece in _pieces(text):
        for part in re.finditer(_PART, normalize("NFC", piece).casefold()):
            run = part["run"]
            several = (
                [part[0]]
                if run is None or len(run) == 1
                else map(" ".join, itertools.pairwise(run))
            )
            found |= dict.fromkeys(word for word in several if len(word) <= WORD_CHARS)
        if len(found) >= WORDS:
            break
    return list(found)[:WORDS]


def _pieces(text: str) -> Iterator[str]:
    """The parts between white space, cut into pieces of at most `PIECE` characters: normalizing a
    run of combining marks takes quadratic time.
    """
    for chunk in text.split():
        yield from (chunk[at : at + PIECE] for at in range(0, len(chunk), PIECE))
