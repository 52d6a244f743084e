"""Reading a store in memory: objects, queries, counts, traces and events."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from rlm_integrations.errors import InputError
from rlm_integrations.records import StoreObject
from rlm_integrations.store import checks
from rlm_integrations.store.base import Summary
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.ledger import Ledger
from rlm_integrations.store.log import Created
from rlm_integrations.store.provenance import TraceStep, trace
from rlm_integrations.store.query import Query, parse_query
from rlm_integrations.store.search import find_rows, matching
from rlm_integrations.store.text import TextIndex
from rlm_integrations.store.view import MAPPED, Card


class StoreReader:
    """The reads of a store, the same for its owner and for every worker; a `base.Store`.

    Queries are in the language of `query`; without `sort=` the newest object is first. `limit` is 1
    to 10,000; a `limit=` in the query wins. Unknown ids and invalid arguments raise `InputError`
    with a hint.
    """

    def __init__(self, ledger: Ledger, index: Callable[[], TextIndex]) -> None:
        self.ledger = ledger
        self._index = index

    @property
    def corpus(self) -> SpanText | None:
        """The document that spans point into; None for a store without one."""
        return self.ledger.corpus

    # Here and below, the argument's name is the contract
    def required_id(self, name: str, id: Any, /) -> str:  # noqa: A002
        """The id itself if it names an object; `name` is the argument that messages mention."""
        return self.ledger.required_id(name, id)

    def created(self, id: str, /) -> Created | None:  # noqa: A002
        """The event that created an object; None for an unknown id."""
        view = self.ledger.view
        row = view.row_of.get(id)
        return None if row is None else view.rows[row]

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        return (type, dst) in self.ledger.view.links.get(src, ())

    def get(self, id: str) -> StoreObject:  # noqa: A002
        """The object with this id."""
        return self.ledger.view.object(self.ledger.row("id", id))

    def children(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects made from this one, oldest first, including invalidated ones.

        The results of an `llm_map` batch come first, in the order of its tasks.
        """
        row = self.ledger.row("id", id)
        view = self.ledger.view
        rows = view.postings["parent"].get(id, ())
        return [
            view.object(child)
            for child in (view.in_task_order(rows) if MAPPED in view.rows[row].tags else rows)
        ]

    def parents(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects from which this one was made."""
        row = self.ledger.row("id", id)
        view = self.ledger.view
        return [view.object(view.row_of[parent]) for parent in view.rows[row].parents]

    def trace(self, id: str) -> list[TraceStep]:  # noqa: A002
        """The provenance of an object: itself, its parents, theirs and so on, with the text of
        their spans.

        Each object appears once, the nearest first, 1,000 at most. Texts are cut at 2,000
        characters, and all together at 1,000,000. A store has no document after its run or after
        loading, and the texts are then None; `SharedStore.with_document` adds it again.
        """
        row = self.ledger.row("id", id)
        return trace(self.ledger.view, row, self.corpus)

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
        view = self.ledger.view
        found = self._index().rank(
            view.rows,
            text,
            checks.limit(limit),
            lambda row: row in view.invalid or row >= len(view.rows),
        )
        return [{**view.card(row), "score": score} for row, score in found]

    def summary(self, query: str = "", limit: int = 10) -> Summary:
        """Counts over all objects that match, and the first of them; at most `limit` of
        each.
        """
        parsed = parse_query(query)
        matches = self._found(parsed, limit)
        most = parsed.limit or limit
        if parsed.terms or parsed.invalid != "no":
            view = self.ledger.view
            events = [view.rows[row] for row in matching(view, self._index, parsed)]
            types = Counter(event.type for event in events)
            tags = Counter(tag for event in events for tag in event.tags)
            return {
                "total": len(events),
                "matches": matches,
                "types": dict(types.most_common(most)),
                "tags": dict(tags.most_common(most)),
            }
        # The counts are always current; the lock keeps them unchanged while the highest are picked
        with self.ledger.lock:
            view = self.ledger.view
            total = len(view.rows) - len(view.invalid)
            return {
                "total": total,
                "matches": matches,
                "types": view.types.top(most),
                "tags": view.tags.top(most),
            }

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
        return [event.brief() for event in islice(self.ledger.log.since(seq), checks.limit(limit))]

    def _found(self, query: Query, limit: int) -> list[Card]:
        view = self.ledger.view
        return [view.card(row) for row in find_rows(view, self._index, query, checks.limit(limit))]
