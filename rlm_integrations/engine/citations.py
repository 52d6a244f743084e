"""Verifies evidence: looks up a model's quotes and spans in the document."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.locations import locate_lines
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.trajectory import Citation

MAX_CITATIONS = 1_000  # citations of one answer
MAX_QUOTE_CHARS = 100_000  # characters of one quote
# Characters of the document that are searched for the quotes of one answer: about ten seconds
_MAX_READ_CHARS = 4_000_000_000


def verify_evidence(
    evidence: Iterable[Any],
    corpus: Corpus,
    root: Corpus,
    ambiguous: Collection[SpanRef] = (),
    *,
    until: float | None = None,
) -> tuple[list[Citation], int]:
    """The verified evidence as citations of the root's document, without duplicates, and the number
    of pieces that could not be verified. Blocks; call it in a thread.

    Evidence cannot be verified either if the document's file has changed.

    Args:
        evidence: The evidence that code passed to FINAL: spans of the run's document, and quotes.
        corpus: The run's document.
        root: The document of the root, which contains `corpus`.
        ambiguous: Spans of the run's document whose words `cite` found in several places.
        until: The end of the run's time, in seconds of `time.monotonic()`; later quotes are not
            searched for.
    """
    return _Check(corpus, root, ambiguous, until).of(list(_flat(evidence)))


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
        self._found: dict[str, SpanRef | None] = {}

    def of(self, pieces: list[Any]) -> tuple[list[Citation], int]:
        citations: dict[SpanRef, Citation] = {}
        dropped = len(pieces[MAX_CITATIONS:])
        for piece in pieces[:MAX_CITATIONS]:
            try:
                place = self._find_place(piece)
                span = self._lift(place)
                if span is not None and span not in citations:
                    citations[span] = self._citation(span, ambiguous=place in self._ambiguous)
            except ContextError:
                span = None
            dropped += span is None
        return self._located(citations), dropped

    def _located(self, citations: Mapping[SpanRef, Citation]) -> list[Citation]:
        try:
            found = locate_lines(self._root, citations)
        except ContextError:  # a file changed after it was cited: its lines are unknown
            found = {}
        return [replace(each, location=found.get(span, "")) for span, each in citations.items()]

    def _citation(self, span: SpanRef, *, ambiguous: bool) -> Citation:
        quote = self._root.text(span.source, span.start, span.end)
        metadata = dict(self._root.source(span.source).metadata)
        return Citation(span.source, span.start, span.end, quote, metadata, ambiguous=ambiguous)

    def _find_place(self, piece: Any) -> SpanRef | None:
        """The place in the run's document that a piece of evidence refers to, or None."""
        match piece:
            case SpanRef():
                return piece
            case str() if len(piece) <= MAX_QUOTE_CHARS:
                if piece not in self._found:
                    self._found[piece] = self._search(piece)
                return self._found[piece]
            # The form in objects of the store
            case {"source": str() as source, "start": int() as start, "end": int() as end}:
                return SpanRef(source, start, end)
        return None

    def _search(self, quote: str) -> SpanRef | None:
        if self._read > _MAX_READ_CHARS or (
            self._until is not None and time.monotonic() >= self._until
        ):
            return None
        hits = locate_quote(self._corpus, quote)
        self._read += hits[-1].span.end if len(hits) > 1 else 5 * self._corpus.characters
        if len(hits) > 1:
            self._ambiguous.add(hits[0].span)
        return hits[0].span if hits else None

    def _lift(self, span: SpanRef | None) -> SpanRef | None:
        """The span in the root's document, or None if there is none."""
        if span is None or not 0 < span.end - span.start <= MAX_QUOTE_CHARS:
            return None
        try:
            return self._corpus.lift(span)
        except InputError:
            return None


def _flat(evidence: Iterable[Any]) -> Iterable[Any]:
    for piece in evidence:
        if isinstance(piece, list | tuple):
            yield from piece
        elif piece is not None:  # the result of `cite` if it does not find the words
            yield piece
