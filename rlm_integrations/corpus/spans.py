"""Finds quotes in the document, and parts of the document in prompts.

Both block and read the corpus in steps: `find_quote` scans the document; `Locator.locate` takes
some tenths of a millisecond for a prompt, and longer for a long prompt with many small parts of the
document, or none. Run batches of them off the event loop.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from rlm_integrations.corpus import Corpus, single_spaced
from rlm_integrations.corpus.common_start import common_length
from rlm_integrations.corpus.likely_parts import LikelyParts
from rlm_integrations.corpus.single_spaced import STEP, candidates, loose_places
from rlm_integrations.prompt_pieces import PromptPieces, sha256_of
from rlm_integrations.records import SpanRef

_WINDOW_CHARS: Final = 1 << 20  # characters searched at once


@dataclass(frozen=True, slots=True)
class Hit:
    """A place of a quote.

    Attributes:
        span: The place. Its text may differ from the quote in white space.
        exact: Whether its text equals the quote.
    """

    span: SpanRef
    exact: bool


def find_quote(
    corpus: Corpus, quote: str, source: str | None = None, *, limit: int = 2, exactly: bool = False
) -> list[Hit]:
    """The places of a quote, in the document's order; more than one means that the quote is
    ambiguous.

    If it has no exact place, it is searched for with any white space between its words. Both
    searches take time in proportion to the document, for any quote.

    Args:
        corpus: The document.
        quote: The words; an empty quote has no place.
        source: The only source to search; None for all.
        limit: The maximum number of places.
        exactly: Whether only exact places count.

    Raises:
        InputError: The source does not exist.
    """
    words = quote.split()
    if not words:
        return []
    if hits := _first(limit, corpus, candidates(corpus, source, quote), quote, _exact_places):
        return [Hit(span, exact=True) for span in hits]
    needle = " ".join(words)
    if exactly or needle == quote == words[0]:  # a single word has no white space
        return []
    names = candidates(corpus, source, needle, fold=str)
    return [Hit(span, exact=False) for span in _first(limit, corpus, names, needle, loose_places)]


_Places = Callable[[Corpus, str, str], Iterator[tuple[int, int]]]


def _first(
    limit: int, corpus: Corpus, names: Iterable[str], needle: str, places: _Places
) -> list[SpanRef]:
    found: list[SpanRef] = []
    for name in names:
        if corpus.length(name) >= len(needle):
            spans = (SpanRef(name, start, end) for start, end in places(corpus, name, needle))
            found += islice(spans, limit - len(found))
        if len(found) == limit:
            break
    return found


def _exact_places(corpus: Corpus, name: str, needle: str) -> Iterator[tuple[int, int]]:
    """In windows that overlap by one character less than the needle."""
    length, size = corpus.length(name), max(_WINDOW_CHARS, len(needle))
    for begin in range(0, length, size):
        text, at = corpus.text(name, begin, min(begin + size + len(needle) - 1, length)), -1
        while (at := single_spaced.find_in_steps(text, needle, at + 1)) >= 0:
            yield begin + at, begin + at + len(needle)


_ANCHOR_CHARS: Final = 24
_MIN_SPAN_CHARS: Final = 40  # a shorter part of the document is not referenced
_MAX_ANCHORS: Final = 1 << 16  # about, for a document of one text
_MAX_FINE_ANCHORS: Final = 1 << 18
_MAX_PLACES_TRIED: Final = 4  # of those that share an anchor
_MAX_PLACES_KEPT: Final = 16  # for each anchor
_PATIENCE_CHARS: Final = 1 << 15  # without a hit; beyond them a prompt is searched in samples
_MISS_CHARS: Final = 1000  # the cost of an anchor without a match, in characters without a hit
_MAX_EXPECTED_CHARS: Final = 1 << 20  # searched for the expected place of repeated text


@dataclass(frozen=True, slots=True)
class _Match:
    """Characters of a prompt, from `at`, that are in the document, from `place`: an offset into the
    concatenated sources.
    """

    at: int
    place: int
    length: int
    ambiguous: bool

    @property
    def end(self) -> int:
        return self.at + self.length


class Locator:
    """Finds the parts of prompts that come from the document.

    It indexes the first 24 of every `stride` characters of each source: about 10 MB for one text of
    any size, 200 bytes for each text of a long list. The rest is read from the corpus on demand.
    Every part of `stride` + 23 characters is found, a shorter one by chance. After 32,768
    characters without a hit, a prompt is searched in samples. Threads may share it.

    Args:
        corpus: The document.
        is_fine: Whether four times as much is indexed, so that shorter parts are found: in a
            document of up to 4 million characters, all of 40.
    """

    def __init__(self, corpus: Corpus, *, is_fine: bool = False) -> None:
        self._corpus = corpus
        self._is_fine = is_fine
        characters = corpus.characters_read
        self.stride = (
            max(_MIN_SPAN_CHARS - _ANCHOR_CHARS + 1, characters // _MAX_FINE_ANCHORS)
            if is_fine
            else max(64, characters // _MAX_ANCHORS)
        )
        # The sources that were read are concatenated, in the order of reading
        self._names: list[str] = []
        self._bases: list[int] = []  # the offset of each
        self._numbers: dict[str, int] = {}
        self._characters = 0
        self._places: dict[str, int] = {}  # the first place of each anchor
        self._more: dict[str, list[int]] = {}  # further places
        self.extend()

    @property
    def is_outgrown(self) -> bool:
        """Whether so much was read since that a new index would be much coarser."""
        most = _MAX_FINE_ANCHORS if self._is_fine else _MAX_ANCHORS
        return self._corpus.characters_read // most > 2 * self.stride

    @property
    def is_behind(self) -> bool:
        """Whether sources were read since."""
        return len(self._corpus.read_numbers) > len(self._names)

    def extend(self) -> None:
        """Index the sources that were read since; by one thread at a time."""
        # A window contains whole strides, so that no anchor crosses its end
        window = self.stride * max(1, _WINDOW_CHARS // self.stride)
        new = self._corpus.read_numbers[len(self._names) :]
        for name, text in self._corpus.short_texts(STEP, new):
            base, length = self._characters, self._corpus.length(name)
            self._numbers[name] = len(self._names)
            self._names.append(name)
            self._bases.append(base)
            self._characters += length
            if text is not None:
                self._index(text, base)
                continue
            for start in range(0, length, window):
                part = self._corpus.text(name, start, min(start + window, length))
                self._index(part, base + start)

    def _index(self, text: str, base: int) -> None:
        """Index the anchors of a text that begins at this place."""
        for at in range(0, len(text) - _ANCHOR_CHARS + 1, self.stride):
            anchor, place = text[at : at + _ANCHOR_CHARS], base + at
            if self._places.setdefault(anchor, place) != place:
                more = self._more.setdefault(anchor, [])
                if len(more) < _MAX_PLACES_KEPT:
                    more.append(place)

    def likely_parts(self, spans: Iterable[SpanRef]) -> LikelyParts:
        """These spans, to locate prompts within them."""
        return LikelyParts(
            (self._place(each.source, each.start), self._place(each.source, each.end))
            for each in spans
        )

    @property
    def shortest_found(self) -> int:
        """The length from which every part of the document is found."""
        return max(_MIN_SPAN_CHARS, self.stride + _ANCHOR_CHARS - 1)

    def locate(
        self,
        prompt: str,
        *,
        after: SpanRef | None = None,
        within: LikelyParts | None = None,
    ) -> PromptPieces:
        """The prompt as words and spans.

        Args:
            prompt: Any string.
            after: The last span of the prompt before, or None. Of several places with the same
                text, the nearest to it is used.
            within: The parts of the document that the prompt was probably made from: places in
                them are preferred. None for the whole document.

        Raises:
            ContextError: The document's file has changed, or the corpus was closed.
        """
        pieces: list[str | SpanRef] = []
        ambiguous = []
        done = 0
        for match in self._matches(prompt, after, within):
            if match.at > done:
                pieces.append(prompt[done : match.at])
            if match.ambiguous:
                ambiguous.append(len(pieces))
            pieces.append(self._span(match))
            done = match.end
        if done < len(prompt):
            pieces.append(prompt[done:])
        return PromptPieces(tuple(pieces), tuple(ambiguous), sha256_of(prompt))

    def _matches(
        self, prompt: str, after: SpanRef | None, within: LikelyParts | None
    ) -> list[_Match]:
        """The parts of the prompt that come from the document, in order, without overlaps."""
        found: list[_Match] = []
        near = self._place(after.source, after.end) if after else 0
        at = missed = 0
        while at <= len(prompt) - _ANCHOR_CHARS:
            stop = min(at + self.stride, len(prompt) - _ANCHOR_CHARS + 1)
            hit = next(
                (i for i in range(at, stop) if prompt[i : i + _ANCHOR_CHARS] in self._places), None
            )
            match = None if hit is None else self._longest(prompt, hit, near)
            if hit is None or match is None or self._is_short(match):
                missed += stop - at if hit is None else _MISS_CHARS
                at = (stop if hit is None else hit + 1) + min(
                    missed // _PATIENCE_CHARS, 16
                ) * self.stride
                continue
            missed = 0
            if self._is_fine or match.ambiguous or within is not None:
                match = self._likeliest(prompt, hit, match, near, within)
            at = match.end
            near = match.place + match.length
            # A match inside a longer one was a coincidence. If two overlap, the shorter one is cut.
            while found and found[-1].at >= match.at:
                found.pop()
            if found and (overlap := found[-1].end - match.at) > 0:
                if found[-1].length < match.length:
                    found[-1] = replace(found[-1], length=found[-1].length - overlap)
                else:
                    match = replace(
                        match,
                        at=match.at + overlap,
                        place=match.place + overlap,
                        length=match.length - overlap,
                    )
            found.append(match)
        return found

    def _longest(self, prompt: str, at: int, near: int) -> _Match:
        """The longest match around an anchor of the prompt; of several, the nearest."""
        anchor = prompt[at : at + _ANCHOR_CHARS]
        places = sorted(
            [self._places[anchor], *self._more.get(anchor, ())], key=lambda place: abs(place - near)
        )[:_MAX_PLACES_TRIED]
        matches = [self._extended(prompt, at, place) for place in places]
        best = max(matches, key=lambda match: match.length)
        return replace(best, ambiguous=sum(match.length == best.length for match in matches) > 1)

    def _likeliest(
        self, prompt: str, hit: int, match: _Match, near: int, within: LikelyParts | None
    ) -> _Match:
        """The match, or if its text is also elsewhere, the place that the prompt was probably made
        from: one in these parts, or the nearest to the last one.
        """
        last = min(match.at + self.stride, match.end - _ANCHOR_CHARS + 1)
        others = {
            place - at + match.at
            for at in range(match.at, last)
            for anchor in [prompt[at : at + _ANCHOR_CHARS]]
            if anchor in self._places
            for place in (self._places[anchor], *self._more.get(anchor, ()))
        } - {match.place}
        if not others:
            return match

        def unlikeliness(place: int) -> tuple[bool, int, int]:
            is_outside = within is not None and place + match.length // 2 not in within
            distance = max(0, place - near, near - place - match.length + 1)
            return is_outside, distance, abs(place - near)

        behind = hit - match.at
        anchor = prompt[hit : hit + _ANCHOR_CHARS]
        others |= {place - behind for place in self._expected(anchor, behind, near, within)}
        # The characters around the part that the prompt was made from may be equal by chance
        least = match.length - _ANCHOR_CHARS
        most = self._characters - least
        possible = [each for each in others - {match.place} if 0 <= each <= most]
        likely = [
            other
            for place in sorted(possible, key=unlikeliness)[:_MAX_PLACES_TRIED]
            if place + behind >= 0
            and (other := self._extended(prompt, hit, place + behind)).length >= least
            and other.end >= hit + _ANCHOR_CHARS
        ]
        best = min([match, *likely], key=lambda each: unlikeliness(each.place))
        return replace(best, ambiguous=match.ambiguous or bool(likely))

    def _expected(
        self, anchor: str, behind: int, near: int, within: LikelyParts | None
    ) -> Iterator[int]:
        """Places of an anchor in these parts, and around the last place.

        Args:
            anchor: The anchor.
            behind: Its distance from the beginning of its match.
            near: The last place.
            within: Where the prompt was probably made from.
        """
        near = near if near < self._characters else 0
        source, at = self._source(near)
        before = min(at, 2 * _ANCHOR_CHARS)
        close = behind + _ANCHOR_CHARS
        stop = min(at + close + self.stride + _ANCHOR_CHARS, self._corpus.length(source))
        text = self._corpus.text(source, at - before, stop)
        for found in (text.rfind(anchor, 0, before + close), text.find(anchor, before + behind)):
            if found >= 0:
                yield near - before + found
        searched = 0
        for start, end in within.around(near) if within is not None else ():
            source, at = self._source(start)
            searched += end - start
            if searched > _MAX_EXPECTED_CHARS:
                return
            found = self._corpus.text(source, at, at + end - start).find(anchor)
            if found >= 0:
                yield start + found

    def _is_short(self, match: _Match) -> bool:
        """Whether it is no evidence that the prompt was made from this place."""
        return match.length < _MIN_SPAN_CHARS and match.length < self._corpus.length(
            self._source(match.place)[0]
        )

    def _extended(self, prompt: str, at: int, place: int) -> _Match:
        """The longest common text around two places of the same anchor."""
        source, start = self._source(place)
        length = self._corpus.length(source)

        def ahead(done: int, count: int) -> tuple[str, str]:
            return self._corpus.text(source, start + done, start + done + count), prompt[
                at + done : at + done + count
            ]

        def behind(done: int, count: int) -> tuple[str, str]:
            text = self._corpus.text(source, start - done - count, start - done)
            return text[::-1], prompt[at - done - count : at - done][::-1]

        forward = common_length(ahead, min(length - start, len(prompt) - at))
        backward = common_length(behind, min(start, at))
        return _Match(at - backward, place - backward, backward + forward, ambiguous=False)

    def _place(self, source: str, at: int) -> int:
        return self._bases[self._numbers[source]] + at

    def _source(self, place: int) -> tuple[str, int]:
        number = bisect_right(self._bases, place) - 1
        return self._names[number], place - self._bases[number]

    def _span(self, match: _Match) -> SpanRef:
        source, start = self._source(match.place)
        return SpanRef(source, start, start + match.length)
