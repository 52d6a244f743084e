"""Where a span is, as people say it: `app.py:120`."""

from collections import defaultdict
from collections.abc import Iterable

from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.records import SpanRef

_STEP_CHARS = 1 << 20


def locate_lines(corpus: Corpus, spans: Iterable[SpanRef]) -> dict[SpanRef, str]:
    """The label of each span's source, and the number of the line on which the span begins, counted
    from 1. Spans of sources without a label are left out.

    It blocks, and reads each source once, up to its last span.

    Raises:
        InputError: A source or a place does not exist.
        ContextError: A file has changed, or the corpus was closed.
    """
    by_source: dict[str, list[SpanRef]] = defaultdict(list)
    for span in spans:
        by_source[span.source].append(span)
    found: dict[SpanRef, str] = {}
    for name, own in by_source.items():
        if (label := corpus.source(name).label) is None:
            continue
        line, at = 1, 0
        for span in sorted(own, key=lambda each: each.start):
            while at < span.start:
                end = min(at + _STEP_CHARS, span.start)
                line += corpus.text(name, at, end).count("\n")
                at = end
            found[span] = f"{label}:{line}"
    return found
