"""Evidence, checked: what a model says stands in the document, looked up there."""

import time
from collections.abc import Collection, Iterable
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.trajectory import Citation

MAX_CITATIONS = 1_000  # citations of one answer
MAX_QUOTE_CHARS = 100_000  # characters of one quote
# Characters of the document that are read in search of one answer's quotes, which takes about ten
# seconds
_MOST_READ = 4_000_000_000


def verify_evidence(
    evidence: Iterable[Any],
    corpus: Corpus,
    root: Corpus,
    ambiguous: Collection[SpanRef] = (),
    *,
    until: float | None = None,
) -> tuple[list[Citation], int]:
    """The evidence that the root's document holds, each place once, and how many pieces of it do
    not hold. Blocks; call it in a thread.

    What cannot be looked up, because the document's file has changed, does not hold either.

    Args:
        evidence: What code handed to FINAL: spans of the run's own document, and quotes.
        corpus: The run's own document.
        root: The document of the whole tree, which `corpus` is a part of.
        ambiguous: Spans of the run's own document whose words `cite` found at several places.
        until: When the run's time is over, in seconds of `time.monotonic()`: no further quote is
            searched for then.
    """
    return _Check(corpus, root, ambiguous, until).of(list(_flat(evidence)))


class _Check:
    """Checks one answer's evidence, within bounds."""

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
                place = self._place(piece)
                span = self._lifted(place)
                if span is not None and span not in citations:
                    citations[span] = self._citation(span, ambiguous=place in self._ambiguous)
            except ContextError:
                span = None
            dropped += span is None
        return list(citations.values()), dropped

    def _citation(self, span: SpanRef, *, ambiguous: bool) -> Citation:
        quote = self._root.text(span.source, span.start, span.end)
        metadata = dict(self._root.source(span.source).metadata)
        return Citation(span.source, span.start, span.end, quote, metadata, ambiguous=ambiguous)

    def _place(self, piece: Any) -> SpanRef | None:
        """The place in the run's document that a piece of evidence means."""
        match piece:
            case SpanRef():
                return piece
            case str() if len(piece) <= MAX_QUOTE_CHARS:
                if piece not in self._found:
                    self._found[piece] = self._search(piece)
                return self._found[piece]
            # As objects of the store have them
            case {"source": str() as source, "start": int() as start, "end": int() as end}:
                return SpanRef(source, start, end)
        return None

    def _search(self, quote: str) -> SpanRef | None:
        if self._read > _MOST_READ or (self._until is not None and time.monotonic() >= self._until):
            return None
        hits = locate_quote(self._corpus, quote)
        self._read += hits[-1].span.end if len(hits) > 1 else 5 * self._corpus.characters
        if len(hits) > 1:
            self._ambiguous.add(hits[0].span)
        return hits[0].span if hits else None

    def _lifted(self, span: SpanRef | None) -> SpanRef | None:
        """The place in the root's document, or None where there is none."""
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
        elif piece is not None:  # what `cite` gives for words that it does not find
            yield piece
