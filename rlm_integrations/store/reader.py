"""Reading a store: objects, queries, counts, traces and events."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import InputError
from rlm_integrations.records import StoreObject
from rlm_integrations.store import checks
from rlm_integrations.store.backend import Found, StoreBackend
from rlm_integrations.store.base import Summary
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.content import length
from rlm_integrations.store.log import Created
from rlm_integrations.store.objects import object_of
from rlm_integrations.store.provenance import TraceStep, trace
from rlm_integrations.store.query import Query, parse_query
from rlm_integrations.store.view import MAPPED, RETURNED_CHAR_COST, Card


class StoreReader:
    """The reads of a store, the same for its owner and for every worker; a `base.Store`.

    Queries are in the language of `query`; without `sort=` the newest object is first. `limit` is 1
    to 10,000; a `limit=` in the query wins. Unknown ids and invalid arguments raise `InputError`
    with a hint.
    """

    def __init__(self, backend: StoreBackend) -> None:
        self.backend = backend

    @property
    def corpus(self) -> SpanText | None:
        """The document that spans point into; None for a store without one."""
        return self.backend.corpus

    # Here and below, the argument's name is the contract
    def required_id(self, name: str, id: Any, /) -> str:  # noqa: A002
        """The id itself if it names an object; `name` is the argument that messages mention."""
        return self._required(name, id).created.id

    def _required(self, name: str, id_: Any) -> Found:
        found = self.backend.find(id_) if isinstance(id_, str) else None
        if found is None:
            raise InputError(
                f"{name}: no object has the id {checks.quote_value(id_)}; store.view() lists "
                "the objects"
            )
        return found

    def created(self, id: str, /) -> Created | None:  # noqa: A002
        """The event that created an object; None for an unknown id."""
        found = self.backend.find(id)
        return None if found is None else found.created

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        return self.backend.has_link(type, src, dst)

    def get(self, id: str) -> StoreObject:  # noqa: A002
        """The object with this id."""
        return self._object(self._required("id", id))

    def children(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects made from this one, oldest first, including invalidated ones.

        The results of an `llm_map` batch come first, in the order of its tasks.
        """
        found = self._required("id", id)
        children = self.backend.children(found.created.id)
        if MAPPED in found.created.tags:
            children = _in_task_order(children)
        return [self._object(child) for child in children]

    def parents(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects from which this one was made."""
        found = self._required("id", id)
        return [self.get(parent) for parent in found.created.parents]

    def _object(self, found: Found) -> StoreObject:
        event = found.created
        spend(RETURNED_CHAR_COST * length(event.content))
        return object_of(event, found.invalid, self.backend.links(event.id))

    def trace(self, id: str) -> list[TraceStep]:  # noqa: A002
        """The provenance of an object: itself, its parents, theirs and so on, with the text of
        their spans.

        Each object appears once, the nearest first, 1,000 at most. Texts are cut at 2,000
        characters, and all together at 1,000,000. A store has no document after its run or after
        loading, and the texts are then None; `SharedStore.with_document` adds it again.
        """
        return trace(self.backend, self.required_id("id", id))

    def view(self, query: str = "", limit: int = 50) -> list[Card]:
        """The metadata of the objects that match."""
        return self._found(parse_query(query), limit)

    def search(self, query: str = "", limit: int = 50) -> list[Card]:
        """The same as `view`, under a more familiar name."""
        return self._found(parse_query(query), limit)

    def search_text(self, text: str, limit: int = 50) -> list[Card]:
        """The metadata of the objects that share words with a text, best first, each with its
        `score`. The text may be anything.
        """
        checks.text("text", text, 100_000)
        return self.backend.rank(text, checks.limit(limit))

    def summary(self, query: str = "", limit: int = 10) -> Summary:
        """Counts over all objects that match, and the first of them; at most `limit` of
        each.
        """
        parsed = parse_query(query)
        matches = self._found(parsed, limit)
        total, types, tags = self.backend.counts(parsed, parsed.limit or limit)
        return {"total": total, "matches": matches, "types": types, "tags": tags}

    def card_view(self, query: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """A short form of `view` for prompts: id, type, tags and the first 200 characters of the
        description.
        """
        cards = self._found(parse_query(query), limit)
        return [
            {
                "id": card["id"],
                "type": card["type"],
                "description": card["description"][:200],
                "tags": card["tags"],
            }
            for card in cards
        ]

    def events_since(self, seq: int, limit: int = 1_000) -> list[dict[str, Any]]:
        """The events after a number (0 for all), oldest first: `seq`, `op`, `id`, `type`,
        `description`, `worker`, `ts`.
        """
        if type(seq) is not int or seq < 0:
            raise InputError(
                f"seq must be the number of an event, or 0 for all, not {checks.quote_value(seq)}"
            )
        return [event.brief() for event in islice(self.backend.events(seq), checks.limit(limit))]

    def _found(self, query: Query, limit: int) -> list[Card]:
        return self.backend.cards(query, checks.limit(limit))


def _in_task_order(children: Sequence[Found]) -> list[Found]:
    """The children of an `llm_map` batch: first its results, whose ids follow its tasks, then the
    others in order of creation.
    """
    results = [child for child in children if MAPPED in child.created.tags]
    others = [child for child in children if MAPPED not in child.created.tags]
    return sorted(results, key=lambda each: (len(each.created.id), each.created.id)) + others
