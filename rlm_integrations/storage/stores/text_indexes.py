"""Text indexes of a store. On SQLite they are FTS5 tables beside the store's rows, made when a
search first needs them and then kept current; other databases read the objects for `~`, and rank
words with an index in memory.
"""

import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Final, Literal, overload

from sqlalchemy import Connection, bindparam, column, literal_column, select, table, update

from rlm_integrations.errors import StorageError
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.queries import Candidates
from rlm_integrations.storage.stores.state import StoreView
from rlm_integrations.storage.stores.tables import INVALID, StoreRow, StoreTables
from rlm_integrations.store.fulltext import (
    READ_BELOW_OBJECTS,
    FullText,
    WordSearch,
    create_table,
    storable,
    trigrams_of,
)
from rlm_integrations.store.log import Created, StoreEvent
from rlm_integrations.store.query import Term
from rlm_integrations.store.text import TextIndex, folded, searchable_text
from rlm_integrations.store.text_index import text_index
from rlm_integrations.store.view import Card

Kind = Literal["desc", "text", "words"]

# A chunk is indexed in one transaction, for which other writers wait
CHUNK_OBJECTS: Final = 2_000
CHUNK_CHARS: Final = 200_000
_PAGE: Final = 1_000  # objects that are read at once


class IndexBehindError(Exception):
    """A text index lacks so many objects that reading them takes longer than indexing them."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind: Kind = kind


@cache
def _has_fts() -> bool:
    return isinstance(text_index(), FullText)


class TextIndexes:
    """The text indexes of one store.

    Args:
        shared: The database.
        tables: The tables.
        name: The store's name.
    """

    def __init__(self, shared: SharedDatabase, tables: StoreTables, name: str) -> None:
        self._shared = shared
        self._tables = tables
        self._name = name
        self._is_kept = tables.dialect.name == "sqlite" and _has_fts()
        self._growing: set[Kind] = set()
        self._word_counts: dict[str, tuple[int, int]] = {}
        self._local = None if self._is_kept else _LocalWords()

    def _table(self, store_no: int, kind: Kind) -> str:
        return self._tables.schema.names.table(f"StoreIndex{store_no}_{kind}")

    # What `~` finds.

    def candidates(self, view: StoreView, row: StoreRow) -> Callable[[Term], Candidates | None]:
        """A function that gives the candidates for a term of "desc" or "text"."""

        def find(term: Term) -> Candidates | None:
            kind: Kind = "desc" if term.key == "desc" else "text"
            needles = [value.casefold() for value in term.values]
            enough = READ_BELOW_OBJECTS[kind]
            if not self._is_kept or row.objects <= enough or min(map(len, needles)) < 3:
                return None
            done = row.desc_seq if kind == "desc" else row.text_seq
            if done is None or row.last_seq - done > enough:
                raise IndexBehindError(kind)
            if done < row.last_seq:
                self._grow(kind)  # this search reads the rest, later ones need not
            name = self._table(view.store_no, kind)
            index = table(name, column("rowid"))
            matches = literal_column(name).op("MATCH")(bindparam(None, trigrams_of(needles)))
            keys = select(index.c.rowid.label("event_key")).where(matches).subquery("candidates")
            return Candidates(keys, codec.key_of(view.store_no, done))

        return find

    # Growing.

    def grow(self, row: StoreRow) -> None:
        """Index more objects in the writer's thread, if there are indexes that lack a chunk."""
        for kind, done in _marks(row).items():
            if done is not None and row.last_seq - done >= CHUNK_OBJECTS:
                self._grow(kind)

    def _grow(self, kind: Kind) -> None:
        """Index a chunk without waiting for it."""
        if kind in self._growing:
            return
        self._growing.add(kind)
        try:
            chunk = self._chunk(kind)
        except StorageError:  # closed; what called this is done all the same
            return
        chunk.add_done_callback(lambda _: self._growing.discard(kind))

    def catch_up(self, kind: Kind) -> None:
        """Index all objects that there are now."""
        until: int | None = None
        while True:
            row = self._chunk(kind).result()
            until = row.last_seq if until is None else until
            done = _marks(row)[kind]
            if done is not None and done >= until:
                return

    def _chunk(self, kind: Kind) -> Future[StoreRow]:
        return self._shared.writer.submit(lambda each: self._index(each, kind), durable=False)

    def _index(self, connection: Connection, kind: Kind) -> StoreRow:
        """Index some further objects; the row of the store after that."""
        row = self._tables.locked_row(connection, self._name)
        name = self._table(row.store_no, kind)
        done = _marks(row)[kind]
        if done is None:
            create_table(connection.exec_driver_sql, name, kind)
            done = 0
        view = StoreView(connection, self._tables, self._name, row.store_no)
        texts: list[tuple[int, str]] = []
        size = 0
        last = row.last_seq
        for seen, (key, text) in enumerate(
            _texts(view, kind, codec.key_of(row.store_no, done)), start=1
        ):
            if text is not None:
                texts.append((key, storable(text)))
                size += len(text)
            if size >= CHUNK_CHARS or seen >= CHUNK_OBJECTS:
                last = codec.seq_of(key)
                break
        if texts:
            # Constant names
            insert = f"INSERT INTO {name}(rowid, t) VALUES (?, ?)"  # noqa: S608
            connection.exec_driver_sql(insert, texts)
        stores = self._tables.schema.stores
        marks = {f"{kind}_seq": last}
        connection.execute(update(stores).where(stores.c.store_no == row.store_no).values(marks))
        found = self._tables.row(connection, self._name)
        return found or row

    # Ranking.

    def rank(self, text: str, limit: int) -> list[Card]:
        """The metadata of the objects that share words with a text, with scores, best first."""
        until: int | None = None

        def read(connection: Connection) -> list[Card]:
            nonlocal until
            row = self._tables.row(connection, self._name)
            if row is None:
                return []
            until = row.last_seq if until is None else until
            if self._local is None and (row.words_seq is None or row.words_seq < until):
                raise IndexBehindError("words")
            view = StoreView(connection, self._tables, self._name, row.store_no)
            invalid = set(self._invalid(view)) if row.invalid_objects else ()
            if self._local is not None:
                found = self._local.rank(view, text, limit, lambda key: key in invalid)
            else:
                search = WordSearch(
                    lambda query, values: connection.exec_driver_sql(query, values).fetchall(),
                    self._table(row.store_no, "words"),
                    self._word_counts,
                )
                found = search.rank(row.objects, text, limit, lambda key: key in invalid)
            return self._cards(view, dict(found))

        while True:
            try:
                return self._shared.database.read(read)
            except IndexBehindError as behind:
                self.catch_up(behind.kind)

    def _invalid(self, view: StoreView) -> Iterable[int]:
        terms = self._tables.schema.terms
        wanted = select(terms.c.event_key).where(terms.c.term == view.term(INVALID, ""))
        return view.connection.scalars(wanted).all()

    def _cards(self, view: StoreView, scores: dict[int, float]) -> list[Card]:
        objects = self._tables.schema.objects
        keys = list(scores)
        found: dict[int, Card] = {}
        for start in range(0, len(keys), _PAGE):
            some = keys[start : start + _PAGE]
            wanted = select(objects.c.event_key, objects.c.card, objects.c.invalid)
            for key, card, invalid in view.connection.execute(
                wanted.where(objects.c.event_key.in_(some))
            ):
                name = f"object {codec.seq_of(key)} of store {self._name!r}"
                found[key] = codec.decode_card(card, invalid, name)
        return [{**found[key], "score": score} for key, score in scores.items()]


class _LocalWords:
    """An index of words in memory, for a database whose own ranks words otherwise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys = array("q")  # of the objects, in order
        self._index: TextIndex | None = None  # made at the first search

    def rank(
        self, view: StoreView, text: str, limit: int, skip: Callable[[int], bool]
    ) -> list[tuple[int, float]]:
        """The keys of the best objects, each with its score."""
        keys = self._keys
        objects = view.tables.schema.objects.c.event_key
        with self._lock:
            after = keys[-1] if keys else codec.key_of(view.store_no, 0)
            last = codec.key_of(view.store_no, codec.LAST_SEQ)
            new = select(objects).where(objects > after, objects <= last).order_by(objects)
            keys.extend(view.connection.scalars(new))
            rows = _ObjectRows(view, keys)
            index = self._index = self._index or text_index()
        found = index.rank(rows, text, limit, lambda row: skip(keys[row]))
        return [(keys[row], score) for row, score in found]


class _ObjectRows(Sequence[Created]):
    """The objects of a store in order, read in pages."""

    def __init__(self, view: StoreView, keys: "array[int]") -> None:
        self._view = view
        self._keys = keys
        self._length = len(keys)
        self._first = 0
        self._page: list[Created] = []

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Created: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Created]: ...
    def __getitem__(self, index: int | slice) -> Created | Sequence[Created]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._length))]
        if not 0 <= index - self._first < len(self._page):
            self._first, self._page = index, self._read(index)
        return self._page[index - self._first]

    def _read(self, index: int) -> list[Created]:
        """Some objects from an index on."""
        after = self._keys[index] - 1
        last = self._keys[min(index + _PAGE, self._length) - 1]
        events = (event for _, event in _events(self._view, after, last))
        return [event for event in events if isinstance(event, Created)]


def _marks(row: StoreRow) -> dict[Kind, int | None]:
    """The number of the last event that each index has seen."""
    return {"desc": row.desc_seq, "text": row.text_seq, "words": row.words_seq}


def _texts(view: StoreView, kind: Kind, after: int) -> Iterator[tuple[int, str | None]]:
    """The keys of some events after a key, with the texts to index of those that made objects."""
    if kind == "desc":
        objects = view.tables.schema.objects
        last = codec.key_of(view.store_no, codec.LAST_SEQ)
        wanted = (
            select(objects.c.event_key, objects.c.folded)
            .where(objects.c.event_key > after, objects.c.event_key <= last)
            .order_by(objects.c.event_key)
            .limit(CHUNK_OBJECTS)
        )
        for key, text in view.connection.execute(wanted):
            yield key, text.decode("utf-8", "surrogatepass")
        return
    for key, event in _events(view, after, codec.key_of(view.store_no, codec.LAST_SEQ)):
        if not isinstance(event, Created):
            yield key, None
        else:
            yield key, searchable_text(event) if kind == "words" else folded(event, "text")


def _events(view: StoreView, after: int, last: int) -> Iterator[tuple[int, StoreEvent]]:
    """Some events after a key up to another."""
    rows = view.tables.select_events.fetch(
        view.connection, after=after, last=last, most=CHUNK_OBJECTS
    )
    return ((key, view.event(key, body)) for key, body in rows)
