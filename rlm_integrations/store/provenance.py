"""From an object back to the places in the document that support it."""

from collections import deque
from typing import Final, TypedDict

from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from rlm_integrations.store.backend import StoreBackend
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.view import Card, card_of

MAX_STEPS: Final = 1_000  # objects of one trace
MAX_SPAN_CHARS: Final = 2_000  # of one span's text
MAX_TEXT_CHARS: Final = 1_000_000  # of all texts together


class SpanShown(TypedDict):
    """A place in the document and its text, which is None if the document is not available; the
    last `cut` characters are left out.
    """

    source: str
    start: int
    end: int
    text: str | None
    cut: int


class TraceStep(Card):
    """An object's metadata, its distance from the first object of the trace, and its own places in
    the document.
    """

    depth: int
    spans: list[SpanShown]


def trace(backend: StoreBackend, id_: str) -> list[TraceStep]:
    """The object and its ancestors, each once, the nearest first; at most `MAX_STEPS`."""
    steps: list[TraceStep] = []
    depths = {id_: 0}
    queue = deque(depths)
    room = MAX_TEXT_CHARS
    while queue and len(steps) < MAX_STEPS:
        id_ = queue.popleft()
        found = backend.find(id_)
        if found is None:  # pragma: no cover - an object's parents were there before it
            continue
        spans: list[SpanShown] = []
        for span in found.created.backrefs:
            spans.append(_span_text(span, backend.corpus, min(MAX_SPAN_CHARS, room)))
            room -= len(spans[-1]["text"] or "")
        steps.append(TraceStep(**card_of(*found), depth=depths[id_], spans=spans))
        for parent in found.created.parents:
            if parent not in depths:
                depths[parent] = depths[id_] + 1
                queue.append(parent)
    return steps


def _span_text(span: SpanRef, corpus: SpanText | None, most: int) -> SpanShown:
    end = min(span.end, span.start + most)
    try:
        text = corpus.text(span.source, span.start, end) if corpus is not None else None
    except ContextError:  # the document was closed, or its file has changed
        text = None
    return SpanShown(
        source=span.source, start=span.start, end=span.end, text=text, cut=span.end - end
    )
