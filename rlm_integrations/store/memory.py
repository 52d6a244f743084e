"""A store in memory: the ledger, and text indexes that are made when they are needed."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Self

from rlm_integrations.store.backend import Build, Counts, Found, Record
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.draft import NewObject
from rlm_integrations.store.ledger import Ledger
from rlm_integrations.store.log import Created, LinkType, StoreEvent, StoreLog
from rlm_integrations.store.query import Query
from rlm_integrations.store.search import find_rows, matching
from rlm_integrations.store.text_index import text_index
from rlm_integrations.store.view import Card


class MemoryBackend:
    """A `StoreBackend` over a ledger."""

    keeps_records = False

    def __init__(
        self,
        corpus: SpanText | None,
        log: StoreLog,
        clock: Callable[[], float],
        max_size: int,
    ) -> None:
        self.corpus = corpus
        self.max_size = max_size
        self.ledger = Ledger(log, clock, max_size)
        self._index = cache(text_index)

    @property
    def seq(self) -> int:
        """The number of the latest event."""
        return self.ledger.view.seq

    def count_valid(self) -> int:
        """The number of objects, without invalid ones."""
        return len(self.ledger.view.rows) - len(self.ledger.view.invalid)

    # The name is the protocol's
    def find(self, id: str, /) -> Found | None:  # noqa: A002
        """The object with this id, or None."""
        row = self.ledger.view.row_of.get(id)
        return None if row is None else self._found(row)

    def _found(self, row: int) -> Found:
        view = self.ledger.view
        return Found(view.rows[row], view.invalid.get(row))

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        return (type, dst) in self.ledger.view.links.get(src, ())

    def links(self, id: str, /) -> Sequence[tuple[LinkType, str]]:  # noqa: A002
        """What an object links to, in order."""
        return tuple(self.ledger.view.links.get(id, ()))

    def children(self, id: str, /) -> Sequence[Found]:  # noqa: A002
        """The objects that have this one as a parent, oldest first."""
        return [self._found(row) for row in self.ledger.view.postings["parent"].get(id, ())]

    def cards(self, query: Query, limit: int) -> list[Card]:
        """The metadata of the objects that match."""
        view = self.ledger.view
        return [view.card(row) for row in find_rows(view, self._index, query, limit)]

    def rank(self, text: str, limit: int) -> list[Card]:
        """The metadata of the objects that share words with a text, with scores, best first."""
        view = self.ledger.view
        found = self._index().rank(
            view.rows, text, limit, lambda row: row in view.invalid or row >= len(view.rows)
        )
        return [{**view.card(row), "score": score} for row, score in found]

    def counts(self, query: Query, most: int) -> Counts:
        """Counts over all objects that match."""
        view = self.ledger.view
        if query.terms or query.invalid != "no":
            events = [view.rows[row] for row in matching(view, self._index, query)]
            types = Counter(event.type for event in events)
            tags = Counter(tag for event in events for tag in event.tags)
            return Counts(len(events), dict(types.most_common(most)), dict(tags.most_common(most)))
        # The counts are always current; the lock keeps them unchanged while the highest are picked
        with self.ledger.lock:
            return Counts(self.count_valid(), view.types.top(most), view.tags.top(most))

    def events(self, after: int) -> Iterable[StoreEvent]:
        """The events after that number, oldest first."""
        return self.ledger.log.since(after)

    def create(self, new: NewObject) -> Created:
        """Write one object."""
        return self.ledger.create(new)

    def append(self, build: Build) -> Sequence[StoreEvent]:
        """Write several events or none."""
        return self.ledger.append(lambda _, seq, ts: build(self, seq, ts))

    def recording(self, record: Record, /) -> Self:
        """Not here: the journal keeps the record and the events."""
        raise NotImplementedError

    def restore(self, events: Iterable[StoreEvent]) -> None:
        """Write the events of a run's journal; see `Ledger.restore`."""
        self.ledger.restore(events)
