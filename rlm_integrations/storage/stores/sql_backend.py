"""A store in a database, as a `StoreBackend`."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from rlm_integrations.errors import InputError
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.append import StoreAppend, WriteQuota
from rlm_integrations.storage.stores.queries import ObjectQuery
from rlm_integrations.storage.stores.state import StoreView
from rlm_integrations.storage.stores.tables import TYPES, VALID, StoreRow, tables_of
from rlm_integrations.storage.stores.text_indexes import IndexBehindError, TextIndexes
from rlm_integrations.storage.stores.writing import StoreCounts, StoreWriting
from rlm_integrations.store.backend import Build, Counts, Found, Record, StoreState
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.draft import NewObject
from rlm_integrations.store.log import Created, LinkType, StoreEvent
from rlm_integrations.store.query import Query
from rlm_integrations.store.view import Card, weight

T = TypeVar("T")
# Writes the record of a call, given by its path, in a transaction
KeepRecord = Callable[[Connection, str, bytes], None]

_PAGE_EVENTS: Final = 1_000


class SqlBackend:
    """The objects of one store.

    Args:
        shared: The database.
        name: The store's name.
        max_size: The most bytes of its events.
        clock: The time of a write, in seconds since 1970.
    """

    keeps_records = True

    def __init__(
        self,
        shared: SharedDatabase,
        name: str,
        *,
        max_size: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.corpus: SpanText | None = None
        self.max_size = max_size
        self._shared = shared
        self._clock = clock
        self._tables = tables_of(shared.database.dialect, shared.database.schema)
        self._counts = StoreCounts()
        self._indexes = TextIndexes(shared, self._tables, name)
        self._store_no: int | None = None
        self._quota: WriteQuota | None = None
        self._keep: KeepRecord | None = None
        self._record: Record | None = None

    def with_corpus(self, corpus: SpanText | None) -> Self:
        """The same store with this document."""
        same = copy(self)
        same.corpus = corpus
        return same

    def bind(self, sha256: str) -> None:
        """Have the store belong to the document with this SHA-256, if it has none.

        Raises:
            InputError: It belongs to another document.
        """

        def bind(connection: Connection) -> str:
            row = self._tables.locked_row(connection, self.name)
            if row.document_sha256 is None:
                self._tables.bind(connection, row, sha256)
            return row.document_sha256 or sha256

        bound = self._shared.writer.submit(bind).result()
        if bound != sha256:
            raise InputError(
                f"store {self.name!r} belongs to another document (SHA-256 {bound[:12]}…, not "
                f"{sha256[:12]}…): its spans point into that one. Use a store of another name"
            )

    def for_run(self, corpus: SpanText, keep: KeepRecord | None, most: int) -> Self:
        """The same store for a run over this document, which may write `most` bytes, and whose
        journal keeps records with `keep`.
        """
        same = self.with_corpus(corpus)
        same._keep, same._quota = keep, WriteQuota(most)  # noqa: SLF001 - of this class
        return same

    def recording(self, record: Record, /) -> Self:
        """The same store, which keeps a record of a journal in one unit with its next write."""
        same = copy(self)
        same._record = record  # noqa: SLF001 - of this class
        return same

    # Reads.

    def _read(self, work: Callable[[StoreView, StoreRow], T], empty: T) -> T:
        """What `work` finds in one transaction; `empty` if nothing was ever written."""

        def read(connection: Connection) -> T:
            row = self._tables.row(connection, self.name)
            if row is None:
                return empty
            return work(StoreView(connection, self._tables, self.name, row.store_no), row)

        return self._shared.database.read(read)

    @property
    def seq(self) -> int:
        """The number of the latest event."""
        return self._read(lambda _, row: row.last_seq, 0)

    def count_valid(self) -> int:
        """The number of objects, without invalid ones."""
        return self._read(lambda _, row: row.objects - row.invalid_objects, 0)

    # The name is the protocol's
    def find(self, id: str, /) -> Found | None:  # noqa: A002
        """The object with this id, or None."""
        return self._read(lambda view, _: view.find(id), None)

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        return self._read(lambda view, _: view.has_link(type, src, dst), empty=False)

    def links(self, id: str, /) -> Sequence[tuple[LinkType, str]]:  # noqa: A002
        """What an object links to, in order."""
        return self._read(lambda view, _: view.links(id), [])

    def children(self, id: str, /) -> Sequence[Found]:  # noqa: A002
        """The objects that have this one as a parent, oldest first."""
        return self._read(lambda view, _: view.children(id), [])

    def cards(self, query: Query, limit: int) -> list[Card]:
        """The metadata of the objects that match."""
        return self._ask(query, lambda asked, *_: asked.cards(limit), [])

    def _ask(
        self, query: Query, work: Callable[[ObjectQuery, StoreView, StoreRow], T], empty: T
    ) -> T:
        """What `work` finds, after a text index that it needs has become current."""

        def read(view: StoreView, row: StoreRow) -> T:
            asked = ObjectQuery(view, query, row.last_seq, self._indexes.candidates(view, row))
            return work(asked, view, row)

        while True:
            try:
                return self._read(read, empty)
            except IndexBehindError as behind:
                self._indexes.catch_up(behind.kind)

    def rank(self, text: str, limit: int) -> list[Card]:
        """The metadata of the objects that share words with a text, with scores, best first."""
        return self._indexes.rank(text, limit)

    def counts(self, query: Query, most: int) -> Counts:
        """Counts over all objects that match."""
        if query.terms or query.invalid != "no":
            return self._ask(query, lambda asked, *_: _counted(asked, most), Counts(0, {}, {}))

        def read(connection: Connection) -> Counts:
            if self._store_no is None:  # it never changes
                row = self._tables.row(connection, self.name)
                if row is None:
                    return Counts(0, {}, {})
                self._store_no = row.store_no
            rows = self._tables.select_top.fetch(connection, store=self._store_no, most=most)
            total, types, tags = 0, dict[str, int](), dict[str, int]()
            for kind, name, count, _ in sorted(rows, key=_highest):
                if kind == VALID:
                    total = count
                else:
                    names = types if kind == TYPES else tags
                    names[codec.from_json(name, f"a count of store {self.name!r}")] = count
            return Counts(total, types, tags)

        return self._shared.database.read(read)

    def events(self, after: int) -> Iterator[StoreEvent]:
        """The events after that number that there are now, oldest first."""
        last = self.seq
        while after < last:
            page = self.page(after)
            yield from page
            after = page[-1].seq

    def page(self, after: int, most: int = _PAGE_EVENTS) -> list[StoreEvent]:
        """Some events after that number, oldest first."""

        def read(view: StoreView, _: StoreRow) -> list[StoreEvent]:
            rows = self._tables.select_events.fetch(
                view.connection,
                after=codec.key_of(view.store_no, after),
                last=codec.key_of(view.store_no, codec.LAST_SEQ),
                most=most,
            )
            return [view.event(key, body) for key, body in rows]

        return self._read(read, [])

    # Writes.

    def create(self, new: NewObject) -> Created:
        """Write one object."""
        there: list[Created] = []

        def build(state: StoreState, seq: int, ts: float) -> Sequence[StoreEvent]:
            assert isinstance(state, StoreWriting)  # noqa: S101 - for mypy
            there.clear()
            if new.id is not None and (found := state.find(new.id)) is not None:
                there.append(found.created)
                return ()
            number = state.number_of(new.worker) + 1 if new.needs_number else 0
            return (new.event(seq, ts, number),)

        events = self.append(build)
        created = events[0] if events else there[0]
        assert isinstance(created, Created)  # noqa: S101 - for mypy
        return created

    def append(self, build: Build) -> Sequence[StoreEvent]:
        """Write several events or none."""
        append = StoreAppend(
            self._tables,
            self.name,
            self._counts,
            self._clock,
            self.max_size,
            self._quota,
            build,
            None if self._record is None else self._keep_record,
        )
        events = self._shared.writer.submit(append).result()
        if append.refused is not None:
            raise append.refused
        if self._quota is not None:
            self._quota.written += sum(map(weight, events))
        if append.row is not None:
            self._indexes.grow(append.row)
        return events

    def _keep_record(self, connection: Connection, events: Sequence[StoreEvent]) -> None:
        if self._record is not None and self._keep is not None:
            self._keep(connection, *self._record(events))

    def restore(self, events: Iterable[StoreEvent]) -> None:
        """Nothing: the events are in the database."""


def _highest(row: tuple[int, str, int, int]) -> tuple[int, int]:
    return -row[2], -row[3]


def _counted(asked: ObjectQuery, most: int) -> Counts:
    types: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    total = 0
    for card in asked.all():
        total += 1
        types[card["type"]] += 1
        tags.update(card["tags"])
    return Counts(total, dict(types.most_common(most)), dict(tags.most_common(most)))
