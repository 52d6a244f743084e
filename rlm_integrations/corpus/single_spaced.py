"""Searches a source for words with any white space between them, as if it had single spaces."""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import SpanRef

# Characters whose white space is normalized at once, in less than a millisecond
STEP: Final = 1 << 16

_OTHER_SPACES: Final = "\t\n\v\f\r\x1c\x1d\x1e\x1f"  # the other white space of ASCII
_WORD: Final = re.compile(r"\S+")

Fold = Callable[[str], str]


def find_in_steps(text: str, needle: str, start: int = 0) -> int:
    """`str.find`, which takes time in proportion to both lengths."""
    return text.find(needle, start)


def candidates(
    corpus: Corpus, source: str | None, needle: str, *, fold: Fold | None = None
) -> Iterator[str]:
    """The names of the sources that may contain a needle: `source`, or else the long ones and those
    that contain it.

    Without `fold` the search is literal, else as in `loose_places`.
    """
    if source is not None:
        yield corpus.source(source).name
        return
    word = needle if fold is None else max(needle.split(" "), key=len)
    for name, text in corpus.short_texts(STEP):
        folded = text if text is None or fold is None else fold(text)
        if folded is None or (
            find_in_steps(folded, word) >= 0
            and (fold is None or find_in_steps(single_spaced(folded), needle) >= 0)
        ):
            yield name


def single_spaced(text: str) -> str:
    """The words of a string with a single space between them: `" ".join(text.split())`, but several
    times as fast for ASCII.
    """
    if not text.isascii():
        return " ".join(text.split())
    for other in _OTHER_SPACES:
        if other in text:
            text = text.replace(other, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


def loose_places(
    corpus: Corpus, name: str, needle: str, *, fold: Fold = str
) -> Iterator[tuple[int, int]]:
    """The places of a needle whose words are separated by single spaces, in a source with its white
    space normalized to single spaces.

    `fold` changes the text that is compared. It must fold each character independently, keep
    spaces, and return at least one character for each. The needle must be folded already.
    """
    for start, end in _Near(corpus, name, needle, fold).parts():
        yield from _places(_Squeezed(corpus, name, start, end, fold), needle)


def spans_of(
    corpus: Corpus, source: str | None, needle: str, *, fold: Fold = str
) -> Iterator[SpanRef]:
    """The places of `loose_places` in one source, or in all."""
    for name in candidates(corpus, source, needle, fold=fold):
        for start, end in loose_places(corpus, name, needle, fold=fold):
            yield SpanRef(name, start, end)


def _places(squeezed: "_Squeezed", needle: str) -> Iterator[tuple[int, int]]:
    buffer = ""
    for piece in squeezed.pieces():
        buffer += piece
        begin, at = squeezed.length - len(buffer), -1
        while (at := find_in_steps(buffer, needle, at + 1)) >= 0:
            yield squeezed.place(begin + at), squeezed.place(begin + at + len(needle) - 1) + 1
        buffer = buffer[len(buffer) - len(needle) + 1 :] if len(buffer) >= len(needle) else buffer
        squeezed.forget(squeezed.length - len(buffer))


class _Near:
    """Finds the parts of a source that may contain a needle: around each place of its longest word.

    Searching for a word is much faster than normalizing white space, and rules out most invented
    quotes.
    """

    def __init__(self, corpus: Corpus, name: str, needle: str, fold: Fold) -> None:
        self._corpus = corpus
        self._name = name
        self._length = corpus.length(name)
        self._needle = needle
        self._word = max(needle.split(" "), key=len)
        self._fold = fold

    def parts(self) -> Iterator[tuple[int, int]]:
        """The parts, in order, without overlaps."""
        start = end = -1
        for step in self._steps():
            left = self._extended(max(0, step - len(self._word)), max(0, end), -1)
            if end < 0:
                start = left
            elif left > end:
                right = self._extended(end, left, 1)
                if right < left:
                    yield start, right
                    start = left
            end = min(step + STEP, self._length)
        if end >= 0:
            yield start, self._extended(end, self._length, 1)

    def _steps(self) -> Iterator[int]:
        """The offsets of the steps in which the word ends."""
        tail = ""
        for step in range(0, self._length, STEP):
            text = tail + self._fold(
                self._corpus.text(self._name, step, min(step + STEP, self._length))
            )
            if find_in_steps(text, self._word) >= 0:
                yield step
            tail = text[max(0, len(text) - len(self._word) + 1) :]

    def _extended(self, at: int, stop: int, way: int) -> int:
        """The offset up to which the needle may extend from `at` towards `stop`, without counting
        white space.
        """
        needed = len(self._needle)
        while needed > 0 and at != stop:
            to = min(at + STEP, stop) if way > 0 else max(at - STEP, stop)
            needed -= sum(map(len, self._corpus.text(self._name, min(at, to), max(at, to)).split()))
            at = to
        return at


class _Squeezed:
    """A part of a source with a single space for each run of white space, folded, in steps.

    Attributes:
        length: The characters that were yielded so far.
    """

    def __init__(self, corpus: Corpus, name: str, start: int, end: int, fold: Fold) -> None:
        self.length = 0
        self._fold = fold
        self._corpus = corpus
        self._name = name
        self._start = start
        self._end = end
        # The steps that may still be requested: the offset of each here and in the source, and
        # whether a space precedes its first word.
        self._steps: deque[tuple[int, int, bool]] = deque()
        # The step that was requested last: its offset in the source, its words and their offsets
        self._table: tuple[int, list[re.Match[str]], list[int]] | None = None

    def pieces(self) -> Iterator[str]:
        """The text, a step at a time."""
        gap = False
        for start in range(self._start, self._end, STEP):
            text = self._read(start)
            words = single_spaced(text)
            if not words:
                gap = True
                continue
            gap = (gap or text[0].isspace()) and self.length > 0
            self._steps.append((self.length, start, gap))
            piece = " " * gap + self._fold(words)
            self.length += len(piece)
            yield piece
            gap = text[-1].isspace()

    def place(self, at: int) -> int:
        """The offset in the source of a yielded character that is not a space."""
        begin, start, gap = next(step for step in reversed(self._steps) if step[0] <= at)
        if self._table is None or self._table[0] != start:
            words = list(_WORD.finditer(self._read(start)))
            folded = self._fold(" ".join(word[0] for word in words)).split(" ")
            self._table = (
                start,
                words,
                list(accumulate((len(word) + 1 for word in folded), initial=0)),
            )
        _, words, starts = self._table
        at -= begin + gap
        number = bisect_right(starts, at) - 1
        ends = accumulate(len(self._fold(character)) for character in words[number][0])
        return (
            start
            + words[number].start()
            + next(place for place, end in enumerate(ends) if at - starts[number] < end)
        )

    def forget(self, before: int) -> None:
        """Forget the places of the characters before this one."""
        while len(self._steps) > 1 and self._steps[1][0] <= before:
            self._steps.popleft()

    def _read(self, start: int) -> str:
        return self._corpus.text(self._name, start, min(start + STEP, self._end))
