"""Evidence, checked: what a model says stands in the document, looked up there."""

from collections.abc import Iterable
from typing import Any

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.result import Citation
from rlm_integrations.spans import find_quote

_MOST = 1_000  # citations of one answer
_LONGEST = 100_000  # characters of one quote


def verified(evidence: Iterable[Any], corpus: Corpus, root: Corpus) -> tuple[list[Citation], int]:
    """The evidence that the root's document holds, each place once, and how many pieces of it do not hold. Blocks; call it in a thread.

    Args:
        evidence: What code handed to FINAL: spans of the run's own document, and quotes.
        corpus: The run's own document.
        root: The document of the whole tree, which `corpus` is a part of.
    """
    citations: dict[tuple[str, int, int], Citation] = {}
    dropped = 0
    for piece in list(_flat(evidence))[:_MOST]:
        span = _span(piece, corpus)
        if span is None:
            dropped += 1
            continue
        source = next(each for each in root.sources if each.name == span.source)
        quote = root.text(span.source, span.start, span.end)
        citations[span.source, span.start, span.end] = Citation(span.source, span.start, span.end, quote, dict(source.metadata))
    return list(citations.values()), dropped


def _flat(evidence: Iterable[Any]) -> Iterable[Any]:
    for piece in evidence:
        if isinstance(piece, list | tuple):
            yield from piece
        elif piece is not None:  # what `cite` gives for words that it does not find
            yield piece


def _span(piece: Any, corpus: Corpus) -> SpanRef | None:
    """The place in the root's document, or None where there is none."""
    if isinstance(piece, str):
        hits = find_quote(corpus, piece, limit=1) if len(piece) <= _LONGEST else []
        piece = hits[0].span if hits else None
    if not isinstance(piece, SpanRef) or not 0 < piece.end - piece.start <= _LONGEST:
        return None
    try:
        return corpus.lift(piece)
    except InputError:
        return None
