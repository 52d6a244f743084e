"""The places of paths in the data of a context."""

from typing import Final

from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.corpus.json_paths import place_of_path
from rlm_integrations.records import SpanRef

_MAX_SOURCES: Final = 100  # that are searched for a path without a source
_MAX_CHARS: Final = 50_000_000  # of JSON that is searched


def locate_path(corpus: Corpus, path: str, source: str | None = None) -> list[SpanRef]:
    """The places of the values at a path such as `$.items[3].name`, at most two; none if it is no
    path, or there is no such value.

    Raises:
        InputError: The source does not exist.
        ContextError: As `Corpus.text`.
    """
    if not path.startswith("$"):
        return []
    sources = corpus.sources if source is None else [corpus.source(source)]
    data = [
        each
        for each in sources
        if each.layout is not None and each.layout.has_paths and each.length <= _MAX_CHARS
    ]
    found: list[SpanRef] = []
    for each in data[:_MAX_SOURCES]:
        place = place_of_path(corpus.text(each.name), path)
        if place is not None:
            found.append(SpanRef(each.name, *place))
    return found[:2]
