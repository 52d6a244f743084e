"""A run's findings as retrievers and answers show them: text with its supporting spans in the
documents.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import QueryError
from rlm_integrations.records import SpanRef
from rlm_integrations.store.base import Store, Summary
from rlm_integrations.store.query import CONTAINS, EXACT, OPTIONS, parse_query
from rlm_integrations.store.view import Card
from rlm_integrations.trajectory import Citation

# A string that begins with a term of the query language is parsed as a query, and may be invalid;
# any other string is free text.
_QUERY: Final = re.compile(rf"\s*(-?({'|'.join([*EXACT, *CONTAINS, *OPTIONS])})[=~]|$)")

MAX_SHOWN_CHARS: Final = 1_000_000  # characters of the quotes of one answer
_MAX_QUERY_CHARS: Final = 200  # of a query that a summary repeats
_MIN_COUNTED: Final = 10  # types and tags that a summary counts, even if it lists fewer objects


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One finding, in JSON types only.

    Attributes:
        id: Its id in the store; for a citation its span, such as `context_0:120-180`.
        text: Its content; for a citation, the quoted document text.
        kind: A citation of the answer, an object of the store, or a summary of several objects.
        type: An object's type.
        description: An object's description.
        tags: An object's tags.
        source: The first source that supports it, such as `context_0`, or "".
        doc_id: The document's own id, or the source's name if it has no id.
        spans: The supporting spans: `doc_id`, `source`, `start`, `end`, as offsets in the document.
        parents: The ids of the objects it was derived from.
        call: The name of the worker that found it; "root" for the run itself.
        score: Relevance to the query, above 0.
        source_metadata: The metadata of that document.
        location: For a citation of a named text or a file, its name and line, such as
            `app.py:120`; else "".
    """

    id: str
    text: str
    kind: Literal["citation", "object", "summary"]
    type: str = ""
    description: str = ""
    tags: Sequence[str] = ()
    source: str = ""
    doc_id: str = ""
    spans: Sequence[Mapping[str, Any]] = ()
    parents: Sequence[str] = ()
    call: str = "root"
    score: float = 1.0
    source_metadata: Mapping[str, Any] = field(default_factory=dict)
    location: str = ""

    def metadata(self) -> dict[str, Any]:
        """All fields except the id and the text, copied, in JSON types."""
        return {
            "kind": self.kind,
            "type": self.type,
            "description": self.description,
            "tags": list(self.tags),
            "source": self.source,
            "doc_id": self.doc_id,
            "spans": [dict(span) for span in self.spans],
            "parents": list(self.parents),
            "call": self.call,
            "score": self.score,
            "source_metadata": deepcopy(dict(self.source_metadata)),
            "location": self.location,
        }


def citations_as_evidence(citations: Iterable[Citation], corpus: Corpus | None) -> list[Evidence]:
    """An answer's first citations, already verified, with at most `MAX_SHOWN_CHARS` characters of
    quotes in total: an answer may cite the whole document.
    """
    found: list[Evidence] = []
    room = MAX_SHOWN_CHARS
    for each in citations:
        if len(each.quote) > room:
            break  # so that the n-th is the one that the answer calls [n]
        room -= len(each.quote)
        places = _Spans(corpus, [SpanRef(each.source, each.start, each.end)])
        id_ = f"{each.source}:{each.start}-{each.end}"
        found.append(
            Evidence(
                id=id_,
                text=each.quote,
                kind="citation",
                location=each.location,
                **places.fields(),
            )
        )
    return found


def places(citations: Iterable[Citation], corpus: Corpus | None) -> list[dict[str, Any]]:
    """The spans of all citations of an answer: `doc_id`, `source`, `start`, `end`."""
    return _Spans(corpus, [SpanRef(each.source, each.start, each.end) for each in citations]).spans


def search_evidence(
    store: Store, query: str, k: int, *, is_lenient: bool = False
) -> list[Evidence]:
    """The `k` most relevant objects for a query in the store's query language or in free text. An
    empty query returns the newest objects.

    Args:
        store: Where to search.
        query: The query.
        k: How many objects.
        is_lenient: Whether to treat a query that begins with a term of the language but does not
            parse as free text.

    Raises:
        QueryError: It is in the language and does not parse.
    """
    return [
        _evidence_of(store, card)
        for card in _cards(
            store, query, k, in_language=_is_in_language(query, is_lenient=is_lenient)
        )
    ]


def summarize_store(store: Store, query: str, k: int, *, is_lenient: bool = False) -> Evidence:
    """A summary of the store for a query: counts by type and tag, and the `k` most relevant
    objects.

    A query in the language selects the objects that are counted. For free text the whole store is
    counted, because any word may match any object.

    Raises:
        QueryError: It is in the language and does not parse.
    """
    in_language = _is_in_language(query, is_lenient=is_lenient)
    counted: Summary = store.summary(query if in_language else "", max(k, _MIN_COUNTED))
    matches = (counted["matches"] if in_language else _cards(store, query, k, in_language=False))[
        :k
    ]
    lines = [f"{counted['total']} object{'' if counted['total'] == 1 else 's'}"]
    if counted["types"]:
        lines.append(f"types: {_counts(counted['types'])}")
    if counted["tags"]:
        lines.append(f"tags: {_counts(counted['tags'])}")
    asked = query[:_MAX_QUERY_CHARS]
    if not in_language:
        lines.append(f"on {asked!r}:" if matches else f"nothing on {asked!r}")
    lines += [f"{card['id']} ({card['type']}): {card['description']}" for card in matches]
    parents = [card["id"] for card in matches]
    return Evidence(
        id=f"summary:{asked}",
        text="\n".join(lines),
        kind="summary",
        type="summary",
        parents=parents,
    )


def _cards(store: Store, query: str, k: int, *, in_language: bool) -> list[Card]:
    return store.search(query, k)[:k] if in_language else store.search_text(query, k)


def _is_in_language(query: str, *, is_lenient: bool) -> bool:
    if _QUERY.match(query) is None:
        return False
    if is_lenient:
        try:
            parse_query(query)
        except QueryError:
            return False
    return True


def _evidence_of(store: Store, card: Card) -> Evidence:
    found = store.get(card["id"])
    corpus = store.corpus
    places = _Spans(corpus if isinstance(corpus, Corpus) else None, found.backrefs)
    return Evidence(
        id=found.id,
        text=found.content
        if isinstance(found.content, str)
        else json.dumps(found.content, ensure_ascii=False),
        kind="object",
        type=found.type,
        description=found.description,
        tags=found.tags,
        parents=found.parents,
        call=found.worker,
        score=card.get("score", 1.0),
        **places.fields(),
    )


class _Spans:
    """Spans as dicts, with the ids and metadata of their sources."""

    def __init__(self, corpus: Corpus | None, spans: Sequence[SpanRef]) -> None:
        self._corpus = corpus
        self._spans = spans

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [
            {
                "doc_id": self._doc_id(span.source),
                "source": span.source,
                "start": span.start,
                "end": span.end,
            }
            for span in self._spans
        ]

    def fields(self) -> dict[str, Any]:
        """The fields of `Evidence` that are derived from the spans."""
        if not self._spans:
            return {}
        first = self._spans[0].source
        metadata = {} if self._corpus is None else self._corpus.source(first).metadata
        return {
            "source": first,
            "doc_id": self._doc_id(first),
            "spans": self.spans,
            "source_metadata": metadata,
        }

    def _doc_id(self, name: str) -> str:
        return (self._corpus.source(name).document_id if self._corpus is not None else None) or name


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
