"""Writes to a store: events and all that is derived from them, in one transaction."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, select

from rlm_integrations.storage.statements import Row
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.state import StoreView
from rlm_integrations.storage.stores.tables import (
    ID,
    INVALID,
    LINK,
    TAGS,
    TYPES,
    WORKERS,
    StoreTables,
)
from rlm_integrations.store.backend import Found
from rlm_integrations.store.log import Created, Invalidated, Linked, LinkType, StoreEvent
from rlm_integrations.store.text import folded

CACHED_COUNTS: Final = 100_000
_POSITIONS: Final = 1_024  # more than an object has tags
_LOOKED_UP: Final = 500  # counts in one query: SQLite had a bound of 999 values
_WRITINGS: Final = "rlm store writings"  # of a connection
_KINDS: Final = {TYPES: "type", TAGS: "tag", WORKERS: "worker"}

Count = tuple[int, str]  # a kind and a name


class StoreCounts:
    """The counts of a store that this process wrote last.

    They are right as long as no other process has written to the store since.
    """

    def __init__(self) -> None:
        self.unit = 0
        self.totals: dict[Count, int] = {}

    def at(self, unit: int) -> dict[Count, int]:
        """A copy to work on, if the store's last write is `unit`; else empty."""
        if unit != self.unit or len(self.totals) > CACHED_COUNTS:
            return {}
        return self.totals


def open_writing(
    connection: Connection, tables: StoreTables, name: str, counts: StoreCounts
) -> "StoreWriting":
    """The writing of a store in the connection's transaction: one for all writes of its group."""
    transaction = connection.get_transaction()
    held = connection.info.get(_WRITINGS)
    if held is None or held[0] is not transaction:
        held = connection.info[_WRITINGS] = transaction, {}
    writings: dict[str, StoreWriting] = held[1]
    if name not in writings:
        writings[name] = StoreWriting(connection, tables, name, counts)
    return writings[name]


class StoreWriting(StoreView):
    """A store that is locked for the writes of one transaction. Rows are collected, and written by
    `flush`.

    Args:
        connection: The transaction.
        tables: The tables.
        name: The store's name.
        counts: The counts that the process knows.
    """

    def __init__(
        self,
        connection: Connection,
        tables: StoreTables,
        name: str,
        counts: StoreCounts,
    ) -> None:
        self.row = tables.locked_row(connection, name)
        super().__init__(connection, tables, name, self.row.store_no)
        self._counts = counts
        self._known = counts.at(self.row.last_unit)
        self._absent: set[Count] = set()  # known, and without a row
        counts.unit, counts.totals = 0, {}  # until this is written
        self._new: dict[str, tuple[int, Found]] = {}  # the objects of this transaction
        self._changes: dict[Count, tuple[int, int]] = {}  # by how much, and when
        self._events: list[Row] = []
        self._objects_made: list[Row] = []
        self._terms: list[Row] = []
        self._marks: list[Row] = []

    def find_key(self, id_: str) -> tuple[int, Found] | None:
        """The key of an object, also of this transaction, and the object."""
        return self._new.get(id_) or super().find_key(id_)

    def links(self, src: str) -> Sequence[tuple[LinkType, str]]:
        """What an object links to, in order."""
        self.flush()
        return super().links(src)

    def number_of(self, worker: str) -> int:
        """The last number that a worker has used or reserved."""
        count = WORKERS, worker
        if count not in self._known:
            self._look_up([count])
        return self._known[count] + self._changes.get(count, (0, 0))[0]

    def write(self, events: Sequence[StoreEvent], size: int) -> None:
        """Write events with the next numbers, which have this size together."""
        unit = secrets.randbits(62) + 1
        objects = invalid = 0
        for event in events:
            key = codec.key_of(self.store_no, event.seq)
            card = ""
            match event:
                case Created():
                    card = codec.encode_card(event)
                    self._create(key, event, card)
                    objects += 1
                case Invalidated():
                    self._invalidate(event)
                    invalid += 1
                case Linked():
                    self._link(key, event)
            body = codec.encode_event(event, card)
            self._events.append({"event_key": key, "unit": unit, "body": body})
        self.row = replace(
            self.row,
            last_seq=events[-1].seq,
            last_unit=unit,
            objects=self.row.objects + objects,
            invalid_objects=self.row.invalid_objects + invalid,
            size=self.row.size + size,
        )

    def flush(self) -> None:
        """Write the rows that were collected."""
        if not self._events:
            return
        tables, connection = self.tables, self.connection
        tables.insert_events.run(connection, self._events)
        tables.insert_objects.run(connection, self._objects_made)
        tables.insert_terms.run(connection, self._terms)
        tables.mark_invalid.run(connection, self._marks)
        self._write_counts()
        tables.update_row(connection, self.row)
        tables.wake(connection, self.name)
        for rows in (self._events, self._objects_made, self._terms, self._marks):
            rows.clear()
        self._changes.clear()
        self._new.clear()
        self._counts.unit, self._counts.totals = self.row.last_unit, self._known

    def _create(self, key: int, event: Created, card: str) -> None:
        self._new[event.id] = key, Found(event, None)
        text = codec.as_bytes(folded(event, "desc"))
        made = {"event_key": key, "card": card, "folded": text, "invalid": None}
        self._objects_made.append(made)
        terms = [
            (ID, event.id),
            ("type", event.type),
            ("worker", event.worker),
            *(("tag", tag) for tag in event.tags),
            *(("parent", parent) for parent in event.parents),
        ]
        self._terms += [{"term": self.term(*term), "event_key": key} for term in terms]
        self._change((WORKERS, event.worker), event.takes, 0)
        self._count(event, 1, event.seq)

    def _invalidate(self, event: Invalidated) -> None:
        of, found = self._known_object(event.id)
        self._new[event.id] = of, found._replace(invalid=event.reason)
        self._marks.append({"key": of, "reason": codec.as_json(event.reason)})
        self._terms.append({"term": self.term(INVALID, ""), "event_key": of})
        self._count(found.created, -1, event.seq)

    def _link(self, key: int, event: Linked) -> None:
        of, _ = self._known_object(event.id)
        self._terms.append({"term": self.term(LINK, event.id), "event_key": key})
        self._terms.append({"term": self.term(event.type, event.dst), "event_key": of})

    def _known_object(self, id_: str) -> tuple[int, Found]:
        found = self.find_key(id_)
        if found is None:
            raise KeyError(id_)  # the caller has checked it
        return found

    def _count(self, event: Created, by: int, seq: int) -> None:
        self._change((TYPES, event.type), by, seq * _POSITIONS)
        for position, tag in enumerate(event.tags):
            self._change((TAGS, tag), by, seq * _POSITIONS + position)

    def _change(self, count: Count, by: int, at: int) -> None:
        self._changes[count] = self._changes.get(count, (0, 0))[0] + by, at

    def _write_counts(self) -> None:
        self._look_up([count for count in self._changes if count not in self._known])
        new: list[Row] = []
        changed: list[Row] = []
        for count, (by, at) in self._changes.items():
            kind, name = count
            total = self._known[count] = self._known[count] + by
            term = self.term(f"count {_KINDS[kind]}", name)
            if count in self._absent:
                new.append(
                    {
                        "term": term,
                        "store_no": self.store_no,
                        "kind": kind,
                        "name": codec.as_json(name),
                        "total": total,
                        "recency": -at,
                    }
                )
            else:
                changed.append({"key": term, "new": total, "at": -at})
        self._absent.clear()
        self.tables.insert_counts.run(self.connection, new)
        self.tables.update_counts.run(self.connection, changed)

    def _look_up(self, missing: Sequence[Count]) -> None:
        """Learn the totals of counts."""
        counts = self.tables.schema.counts
        for start in range(0, len(missing), _LOOKED_UP):
            terms = {
                self.term(f"count {_KINDS[kind]}", name): (kind, name)
                for kind, name in missing[start : start + _LOOKED_UP]
            }
            query = select(counts.c.term, counts.c.total).where(counts.c.term.in_(list(terms)))
            totals = {row.term: row.total for row in self.connection.execute(query)}
            for term, count in terms.items():
                self._known[count] = totals.get(term, 0)
            self._absent.update(count for term, count in terms.items() if term not in totals)
