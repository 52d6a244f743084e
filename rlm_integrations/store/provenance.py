"""From an object back to the places in the document that it rests on."""

from collections import deque
from typing import Final, TypedDict

from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.view import Card, View

STEPS: Final = 1_000  # objects of one trace
SPAN_CHARS: Final = 2_000  # of one span's text
TEXT_CHARS: Final = 1_000_000  # of all texts together


class SpanShown(TypedDict):
    """A place in the document and its text: None where the document is not at hand; the last `cut`
    characters are not shown.
    """

    source: str
    start: int
    end: int
    text: str | None
    cut: int


class TraceStep(Card):
    """An object's metadata, how many steps it is from where the trace began, and the places that it
    rests on itself.
    """

    depth: int
    spans: list[SpanShown]


def trace(view: View, row: int, corpus: SpanText | None) -> list[TraceStep]:
    """The object and all that it was made from, each once, the nearest first; at most `STEPS`."""
    steps: list[TraceStep] = []
    depths = {row: 0}
    queue = deque(depths)
    room = TEXT_CHARS
    while queue and len(steps) < STEPS:
        row = queue.popleft()
        spans: list[SpanShown] = []
        for span in view.rows[row].backrefs:
            spans.append(_shown(span, corpus, min(SPAN_CHARS, room)))
            room -= len(spans[-1]["text"] or "")
        steps.append(TraceStep(**view.card(row), depth=depths[row], spans=spans))
        for parent in view.rows[row].parents:
            above = view.row_of[parent]
            if above not in depths:
                depths[above] = depths[row] + 1
                queue.append(above)
    return steps


def _shown(span: SpanRef, corpus: SpanText | None, most: int) -> SpanShown:
    end = min(span.end, span.start + most)
    try:
        text = corpus.text(span.source, span.start, end) if corpus is not None else None
    except ContextError:  # the document was closed, or its file has changed
        text = None
    return SpanShown(
        source=span.source, start=span.start, end=span.end, text=text, cut=span.end - end
    )
