"""Where a span is, as people say it: `app.py:120`, `report.pdf p. 12`, `data.csv row 14`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.corpus.json_paths import json_paths, row_of_path
from rlm_integrations.corpus.layout import Unit
from rlm_integrations.corpus.source import Source
from rlm_integrations.corpus.table_cells import table_cells
from rlm_integrations.records import SpanRef

_STEP_CHARS = 1 << 20
_MAX_PARSED_CHARS = 50_000_000  # of JSON and CSV; places after them are lines


def find_locations(corpus: Corpus, spans: Iterable[SpanRef]) -> dict[SpanRef, str]:
    """The label of each span's source, and what people call the place at which the span begins:
    a line, counted from 1; a page or another part; a row of a table; a path in JSON. Spans of
    sources without a label are left out.

    It blocks, and reads each source at most twice, up to its last span.

    Raises:
        InputError: A source or a place does not exist.
        ContextError: A file has changed, or the corpus was closed.
    """
    by_source: dict[str, list[SpanRef]] = defaultdict(list)
    for span in spans:
        by_source[span.source].append(span)
    found: dict[SpanRef, str] = {}
    for name, own in by_source.items():
        source = corpus.source(name)
        if source.label is not None:
            own.sort(key=lambda span: (span.start, span.end))
            for span, place in zip(own, _places(corpus, source, own), strict=True):
                found[span] = f"{source.label}{place}".strip()
    return found


def _places(corpus: Corpus, source: Source, spans: Sequence[SpanRef]) -> list[str]:
    layout = source.layout
    if layout is not None and layout.unit == "part":
        return [layout.part(span.start) for span in spans]
    if layout is not None and spans[-1].end <= _MAX_PARSED_CHARS:
        text = corpus.text(source.name, 0, min(source.length, _MAX_PARSED_CHARS))
        places = [(span.start, span.end) for span in spans]
        parsed = _parsed(text, layout.unit, places)
        if parsed is not None:
            return [f" {each}" for each in parsed]
    return _lines(corpus, source.name, spans)


def _parsed(text: str, unit: Unit, places: Sequence[tuple[int, int]]) -> list[str] | None:
    match unit:
        case "row":
            return table_cells(text, places)
        case "csv record":
            return table_cells(text, places, header_is_row=False)
        case "record":
            paths = json_paths(text, places)
            return None if paths is None else list(map(row_of_path, paths))
        case _:
            return json_paths(text, places)


def _lines(corpus: Corpus, name: str, spans: Sequence[SpanRef]) -> list[str]:
    places = []
    line, at = 1, 0
    for span in spans:
        while at < span.start:
            end = min(at + _STEP_CHARS, span.start)
            line += corpus.text(name, at, end).count("\n")
            at = end
        places.append(f":{line}")
    return places
