"""Finds quotes whose words are hyphenated at ends of lines in the document."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from unicodedata import combining

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.single_spaced import STEP, Fold, spans_of
from rlm_integrations.records import SpanRef

MAX_CHARS: Final = 4_000  # of a quote
_CUTS: Final = (2, 4, 8)  # a quote with a few hyphens has a part without any
_MIN_PART_CHARS: Final = 4
_LINE_END: Final = re.compile(r"-\s*\n\s*")
_SOFT: Final = "\u00ad"
# What a document has that hyphenates words
_SIGNS: Final = (_SOFT, "-\n", "-\r", "\u2010\n", "\u2010\r")


def hyphenated_places(
    corpus: Corpus, source: str | None, needle: str, *, fold: Fold, most: int
) -> list[SpanRef]:
    """The places of folded words that differ from them in hyphens at ends of lines, and in soft
    hyphens, only.

    Args:
        corpus: The document.
        source: The only source to search; None for all.
        needle: The words, folded, with single spaces.
        fold: How they were folded; see `loose_places`.
        most: Parts with more places than this are not followed.
    """
    wanted = _Letters(needle, fold)
    if not wanted.text or len(needle) > MAX_CHARS or not _is_hyphenated(corpus, source):
        return []
    for part in _parts(needle):
        tried = list(islice(spans_of(corpus, source, part, fold=fold), most + 1))
        if len(tried) > most:
            continue
        found = dict.fromkeys(
            place for span in tried for place in _around(corpus, span, wanted, fold)
        )
        if found:
            return list(found)
    return []


def _is_hyphenated(corpus: Corpus, source: str | None) -> bool:
    texts = corpus.short_texts(STEP) if source is None else [(source, None)]
    return any(
        sign in part
        for name, text in texts
        for part in ([text] if text is not None else _steps(corpus, name))
        for sign in _SIGNS
    )


def _steps(corpus: Corpus, name: str) -> Iterator[str]:
    length = corpus.length(name)
    return (corpus.text(name, at, min(at + STEP + 1, length)) for at in range(0, length, STEP))


def _parts(needle: str) -> Iterator[str]:
    """Parts of the words, the longest first."""
    for cuts in _CUTS:
        size = -(-len(needle) // cuts)
        if size < _MIN_PART_CHARS:
            return
        for at in range(0, len(needle), size):
            part = needle[at : at + size].strip()
            if len(part) >= _MIN_PART_CHARS:
                yield part


class _Letters:
    """A text without white space and hyphens, which stand apart.

    Attributes:
        text: Its other characters, folded.
        offsets: The offset of each in the text.
        before: The white space and hyphens before each.
    """

    def __init__(self, text: str, fold: Fold) -> None:
        letters: list[str] = []
        self.offsets: list[int] = []
        self.before: list[str] = []
        gap = ""
        for at, character in enumerate(text):
            folded = fold(character)
            if character.isspace() or character == _SOFT or folded == "-":
                gap += character if folded != "-" else "-"
                continue
            for letter in folded:
                letters.append(letter)
                self.offsets.append(at)
                self.before.append(gap)
                gap = ""
        self.text = "".join(letters)


def _around(corpus: Corpus, part: SpanRef, wanted: _Letters, fold: Fold) -> Iterator[SpanRef]:
    """The places of the words around one of their parts."""
    reach = 2 * (wanted.offsets[-1] + 1) + 100
    begin = max(0, part.start - reach)
    text = corpus.text(part.source, begin, min(part.end + reach, corpus.length(part.source)))
    there = _Letters(text, fold)
    at = there.text.find(wanted.text)
    while at >= 0:
        to = at + len(wanted.text)
        start, end = there.offsets[at], there.offsets[to - 1] + 1
        if (
            _is_whole(text, start, end, there.offsets, at, to)
            and all(map(_agree, there.before[at + 1 : to], wanted.before[1:]))
            and start <= part.end - begin
            and end >= part.start - begin
        ):
            yield SpanRef(part.source, begin + start, begin + end)
        at = there.text.find(wanted.text, at + 1)


def _agree(there: str, wanted: str) -> bool:
    """Whether what stands between two letters of the document may stand so in a quote."""
    there = there.replace(_SOFT + "\n", "").replace(_SOFT, "")
    if " ".join(there.split()) == " ".join(wanted.split()) and bool(there) == bool(wanted):
        return True
    return _LINE_END.fullmatch(there) is not None and wanted in {"", "-"}


def _is_whole(text: str, start: int, end: int, offsets: list[int], at: int, to: int) -> bool:
    """Whether a place consists of whole characters and whole words."""
    if (at and offsets[at - 1] == start) or (to < len(offsets) and offsets[to] == end - 1):
        return False
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if after and combining(after):
        return False
    return not (before.isalnum() and text[start].isalnum()) and not (
        after.isalnum() and text[end - 1].isalnum()
    )
