"""What a run found, in the form in which retrievers and answers show it: a text, and the places in
the documents that it rests on.
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
from rlm_integrations.result import Citation
from rlm_integrations.store.base import Store, Summary
from rlm_integrations.store.query import CONTAINS, EXACT, OPTIONS, parse_query
from rlm_integrations.store.view import Card

# A text that begins like a term of the query language is a query, errors and all; any other is free
# text.
_QUERY: Final = re.compile(rf"\s*(-?({'|'.join([*EXACT, *CONTAINS, *OPTIONS])})[=~]|$)")

MAX_SHOWN_CHARS: Final = 1_000_000  # characters of the quotes of one answer
_ASKED: Final = 200  # characters of a query that a summary repeats
_COUNTED: Final = 10  # types and tags that a summary counts, if not as many as it lists objects


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One finding. All of it is plain JSON.

    Attributes:
        id: Its id in the store; of a citation its place, such as `context_0:120-180`.
        text: What it says; of a citation the document's own words.
        kind: A place in the document that an answer cites, an object of the store, or a summary of
            several.
        type: An object's type.
        description: An object's description.
        tags: An object's tags.
        source: The first source that it rests on, `context_0` and so on, or "".
        doc_id: The id that this document came with, or else the source's name.
        spans: The places that it rests on: `doc_id`, `source`, `start`, `end`. A slice of the
            document gives their words.
        parents: The ids of objects that it was made from.
        call: Who found it: the worker's name, "root" for the run itself.
        score: How well it fits what was asked, above 0.
        source_metadata: What that document said about itself.
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

    def metadata(self) -> dict[str, Any]:
        """Everything but the id and the text, in JSON's types and copied."""
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
        }


def citations_as_evidence(citations: Iterable[Citation], corpus: Corpus | None) -> list[Evidence]:
    """An answer's citations, which were verified when they were made, as far as `SHOWN` characters
    go: it may cite all of the document.
    """
    found: list[Evidence] = []
    room = MAX_SHOWN_CHARS
    for each in citations:
        if len(each.quote) > room:
            continue
        room -= len(each.quote)
        places = _Places(corpus, [SpanRef(each.source, each.start, each.end)])
        id_ = f"{each.source}:{each.start}-{each.end}"
        found.append(Evidence(id=id_, text=each.quote, kind="citation", **places.fields()))
    return found


def places(citations: Iterable[Citation], corpus: Corpus | None) -> list[dict[str, Any]]:
    """Where an answer's citations are, all of them: `doc_id`, `source`, `start`, `end`."""
    return _Places(corpus, [SpanRef(each.source, each.start, each.end) for each in citations]).spans


def search_evidence(
    store: Store, query: str, k: int, *, is_lenient: bool = False
) -> list[Evidence]:
    """The `k` objects that fit a query best. It is in the store's query language or free text; the
    empty one means the newest objects.

    Args:
        store: Where to search.
        query: The query.
        k: How many objects.
        is_lenient: Whether a query that begins like one in the language and does not parse is free
            text.

    Raises:
        QueryError: It is in the language and does not parse.
    """
    return [
        _object(store, card)
        for card in _cards(
            store, query, k, in_language=_is_in_language(query, is_lenient=is_lenient)
        )
    ]


def summarize_store(store: Store, query: str, k: int, *, is_lenient: bool = False) -> Evidence:
    """What there is in the store on a query: how much of which types and tags, and the `k` objects
    that fit best.

    A query in the language chooses what is counted; for free text all of the store is counted,
    because any word may make an object fit.

    Raises:
        QueryError: It is in the language and does not parse.
    """
    in_language = _is_in_language(query, is_lenient=is_lenient)
    counted: Summary = store.summary(query if in_language else "", max(k, _COUNTED))
    matches = (counted["matches"] if in_language else _cards(store, query, k, in_language=False))[
        :k
    ]
    lines = [f"{counted['total']} object{'' if counted['total'] == 1 else 's'}"]
    if counted["types"]:
        lines.append(f"types: {_counts(counted['types'])}")
    if counted["tags"]:
        lines.append(f"tags: {_counts(counted['tags'])}")
    asked = query[:_ASKED]
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


def _object(store: Store, card: Card) -> Evidence:
    found = store.get(card["id"])
    corpus = store.corpus
    places = _Places(corpus if isinstance(corpus, Corpus) else None, found.backrefs)
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


class _Places:
    """Spans as evidence shows them, with what is known of their sources."""

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
        """The fields of `Evidence` that follow from them."""
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
