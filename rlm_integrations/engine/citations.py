"""Verifies evidence: looks up a model's quotes and spans in the document."""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.locations import find_locations
from rlm_integrations.corpus.quotes import has_words_between, locate_quote
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.trajectory import Citation, DroppedEvidence, DropReason

MAX_CITATIONS = 1_000  # citations of one answer
MAX_QUOTE_CHARS = 100_000  # characters of one quote
MAX_DROPPED = 100  # pieces that were dropped of which is said what and why
_DROPPED_CHARS = 1_000  # of such a piece
# Characters of the document that are searched for the quotes of one answer: about ten seconds
_MAX_READ_CHARS = 4_000_000_000


@dataclass(slots=True)
class VerifiedEvidence:
    """The evidence of one answer.

    Attributes:
        citations: The verified pieces, without duplicates.
        numbers: For each item of the evidence the numbers of its citations, from 1.
        dropped: Pieces that could not be verified, with the reason; at most `MAX_DROPPED`.
        dropped_count: The number of all of them.
    """

    citations: list[Citation] = field(default_factory=list)
    numbers: list[list[int]] = field(default_factory=list)
    dropped: list[DroppedEvidence] = field(default_factory=list)
    dropped_count: int = 0

    def drop(self, evidence: str, reason: DropReason) -> None:
        """Count a piece that is not shown."""
        self.dropped_count += 1
        if len(self.dropped) < MAX_DROPPED:
            self.dropped.append(DroppedEvidence(evidence[:_DROPPED_CHARS], reason))


class _DroppedError(Exception):
    """A piece of evidence is not shown, for this reason."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason)
        self.reason: DropReason = reason


def verify_evidence(
    evidence: Iterable[Any],
    corpus: Corpus,
    root: Corpus,
    ambiguous: Collection[SpanRef] = (),
    *,
    until: float | None = None,
) -> VerifiedEvidence:
    """The evidence of an answer, verified in the root's document. Blocks; call it in a thread.

    Evidence cannot be verified either if the document's file has changed.

    Args:
        evidence: The evidence that code passed to FINAL: spans of the run's document, and quotes.
        corpus: The run's document.
        root: The document of the root, which contains `corpus`.
        ambiguous: Spans of the run's document whose words `cite` found in several places.
        until: The end of the run's time, in seconds of `time.monotonic()`; later quotes are not
            searched for.
    """
    return _Check(corpus, root, ambiguous, until).of(evidence)


class _Check:
    """Verifies the evidence of one answer, within limits."""

    def __init__(
        self, corpus: Corpus, root: Corpus, ambiguous: Collection[SpanRef], until: float | None
    ) -> None:
        self._until = until
        self._corpus = corpus
        self._root = root
        self._ambiguous = set(ambiguous)
        self._read = 0
        self._found: dict[tuple[str, str | None], SpanRef | DropReason] = {}
        self._verified = VerifiedEvidence()
        self._numbers: dict[SpanRef, int] = {}

    def of(self, evidence: Iterable[Any]) -> VerifiedEvidence:
        verified = self._verified
        checked = 0
        for item in evidence:
            verified.numbers.append(numbers := [])
            for piece in _pieces(item):
                checked += 1
                try:
                    numbers.append(self._number(piece, is_late=checked > MAX_CITATIONS))
                except _DroppedError as dropped:
                    verified.drop(_shown(piece), dropped.reason)
                except ContextError:
                    verified.drop(_shown(piece), "document changed")
        verified.citations = self._located()
        return verified

    def _located(self) -> list[Citation]:
        try:
            found = find_locations(self._root, self._numbers)
        except ContextError:  # a file changed after it was cited: its lines are unknown
            found = {}
        pairs = zip(self._numbers, self._verified.citations, strict=True)
        return [replace(each, location=found.get(span, "")) for span, each in pairs]

    def _number(self, piece: Any, *, is_late: bool) -> int:
        """The number of the citation of a piece of evidence."""
        if is_late:
            raise _DroppedError("limit reached")
        place = self._place(piece)
        span = self._lift(place)
        if span not in self._numbers:
            quote = self._root.text(span.source, span.start, span.end)
            metadata = dict(self._root.source(span.source).metadata)
            citations = self._verified.citations
            is_ambiguous = place in self._ambiguous
            citations.append(
                Citation(span.source, span.start, span.end, quote, metadata, is_ambiguous)
            )
            self._numbers[span] = len(citations)
        return self._numbers[span]

    def _place(self, piece: Any) -> SpanRef:
        """The place in the run's document that a piece of evidence refers to."""
        match piece:
            case SpanRef():
                return piece
            case str():
                return self._place_of_quote(piece, None)
            # The form in objects of the store
            case {"source": str() as source, "start": int() as start, "end": int() as end}:
                return SpanRef(source, start, end)
            case {"quote": str() as quote, "source": str() as source}:
                return self._place_of_quote(quote, source)
            case {"quote": str() as quote}:
                return self._place_of_quote(quote, None)
        raise _DroppedError("no evidence")

    def _place_of_quote(self, quote: str, source: str | None) -> SpanRef:
        if (quote, source) not in self._found:
            self._found[quote, source] = self._search(quote, source)
        found = self._found[quote, source]
        if isinstance(found, SpanRef):
            return found
        raise _DroppedError(found)

    def _search(self, quote: str, source: str | None) -> SpanRef | DropReason:
        """The place of a quote, or why there is none."""
        if len(quote) > MAX_QUOTE_CHARS or self._is_late():
            return "limit reached"
        try:
            hits = locate_quote(self._corpus, quote, source)
        except InputError:  # an unknown source
            hits = []
        self._read += hits[-1].span.end if len(hits) > 1 else 5 * self._corpus.characters_read
        if len(hits) > 1:
            self._ambiguous.add(hits[0].span)
        return hits[0].span if hits else self._why_not(quote, source)

    def _why_not(self, quote: str, source: str | None) -> DropReason:
        if len(quote) <= _DROPPED_CHARS and not self._is_late():
            self._read += 5 * self._root.characters_read
            if (source is not None or self._corpus is not self._root) and locate_quote(
                self._root, quote
            ):
                return "stands in another source"
            if has_words_between(self._corpus, quote):
                return "found with other words between"
        return "not found"

    def _is_late(self) -> bool:
        return self._read > _MAX_READ_CHARS or (
            self._until is not None and time.monotonic() >= self._until
        )

    def _lift(self, span: SpanRef) -> SpanRef:
        """The span in the root's document."""
        if 0 < span.end - span.start <= MAX_QUOTE_CHARS:
            with suppress(InputError):
                if (lifted := self._corpus.lift(span)) is not None:
                    return lifted
        raise _DroppedError("not found")


def _pieces(item: Any) -> Iterator[Any]:
    """The pieces of an item of the evidence; none if `cite` did not find the words."""
    if isinstance(item, list | tuple):
        yield from item
    elif item is not None:
        yield item


def _shown(piece: Any) -> str:
    """A piece of evidence in a few words."""
    match piece:
        case str():
            return piece
        case {"quote": str() as quote}:
            return quote
        case SpanRef():
            return f"{piece.source[:_DROPPED_CHARS]}[{piece.start}:{piece.end}]"
    return type(piece).__name__
