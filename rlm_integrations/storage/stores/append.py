"""One write to a store, as the writer's thread does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from rlm_integrations.errors import InputError
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.tables import StoreRow, StoreTables
from rlm_integrations.storage.stores.writing import StoreCounts, open_writing
from rlm_integrations.store.backend import Build
from rlm_integrations.store.log import StoreEvent
from rlm_integrations.store.view import check_room, weight


@dataclass(slots=True, eq=False)
class WriteQuota:
    """The bytes that a run has written, since it began or was resumed, and may write."""

    most: int
    written: int = 0


@dataclass(slots=True, eq=False)
class StoreAppend:
    """One write. The writer may call it again: if another write of its group fails, and after a
    commit of which it does not know.

    Attributes:
        tables: The tables.
        name: The store's name.
        counts: The counts that the process knows.
        clock: The time.
        max_size: The most bytes of the store.
        quota: What the run may write, or None.
        build: Makes the events.
        journal: Writes the journal's record of the call, or None.
        row: The row of the store after the write, if there were events.
        refused: Why nothing is written. It does not concern the other writes of the group.
    """

    tables: StoreTables
    name: str
    counts: StoreCounts
    clock: Callable[[], float]
    max_size: int
    quota: WriteQuota | None
    build: Build
    journal: Callable[[Connection, Sequence[StoreEvent]], None] | None
    row: StoreRow | None = None
    refused: InputError | None = None
    _first_key: int = 0
    _events: Sequence[StoreEvent] = ()

    def __call__(self, connection: Connection) -> Sequence[StoreEvent]:
        """The events that are written, none if the write is refused."""
        writing = open_writing(connection, self.tables, self.name, self.counts)
        if self.row is not None:
            unit = self.tables.select_unit.fetch(connection, key=self._first_key)
            if unit and unit[0][0] == self.row.last_unit:
                return self._events
        self.row = self.refused = None
        seq = writing.row.last_seq + 1
        try:
            events = self.build(writing, seq, self.clock())
            size = sum(map(weight, events))
            check_room(writing.row.size, size, self.max_size)
            if self.quota is not None:
                check_room(self.quota.written, size, self.quota.most)
        except InputError as error:
            self.refused = error
            return ()
        if events:
            writing.write(events, size)
            self.row, self._first_key = writing.row, codec.key_of(writing.store_no, seq)
        if self.journal is not None:
            self.journal(connection, events)
        self._events = events
        return events

    def finish(self, connection: Connection) -> None:
        """Write the rows of all writes of the group to this store, once."""
        open_writing(connection, self.tables, self.name, self.counts).flush()
