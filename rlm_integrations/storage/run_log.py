"""The journal's records and the events of stores, appended in groups and read back in order."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError
from rlm_integrations.storage.compression import compress, decompress
from rlm_integrations.storage.lake import SMALL_BYTES, Lake, put_again_if_gone
from rlm_integrations.storage.record_bodies import packed, unpacked
from rlm_integrations.storage.schema import utc_now
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert, Row, insert_new

NOTIFY_CHANNEL = "rlm_store_events"
_MAX_ID_CHARS = 64


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One answer of a run, as the journal keeps it.

    Attributes:
        run_id: The run; at most 64 characters.
        call_id: The identity of the call, as a string. Of several records with the same, the last
            counts.
        body: The answer, in the journal's encoding.
        blobs: The SHA-256 of blobs that the body names; they are kept as long as the run is.
    """

    run_id: str
    call_id: str
    body: bytes
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a store.

    Attributes:
        store_id: The store; at most 64 characters.
        seq: Its number in the store: the first is 1, and there are no gaps.
        body: The event, in the store's encoding.
        run_id: The run that wrote it, or None.
    """

    store_id: str
    seq: int
    body: bytes
    run_id: str | None = None


class RunLog:
    """Appends records and events, many at once, and reads them.

    An append is on the disk when it returns. All records of one append are kept, or none.
    """

    def __init__(self, shared: SharedDatabase, lake: Lake) -> None:
        self._shared = shared
        self._lake = lake
        database = shared.database
        schema = database.schema
        self._records, self._events, self._stores = schema.records, schema.events, schema.stores
        raw = RawInsert
        self._insert_record = raw(
            database.dialect,
            schema.records,
            ["run_id", "call_id", "body", "blob_sha256", "kept_at"],
        )
        self._insert_event = raw(
            database.dialect,
            schema.events,
            ["store_id", "seq", "run_id", "unit", "body", "kept_at"],
        )
        self._insert_store = insert_new(
            database.dialect.name, schema.stores, list(schema.stores.c.keys())
        )
        stores = schema.stores
        self._count_up = (
            update(stores)
            .where(stores.c.store_id == bindparam("store"))
            .values(last_seq=stores.c.last_seq + bindparam("more"))
        )
        self._select_last = select(stores.c.last_seq).where(stores.c.store_id == bindparam("store"))

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Keep records as one unit; they are on the disk when this returns.

        Cancelling the wait does not stop the write.

        Raises:
            StorageError: They could not be kept, and none of them is.
        """
        if not records:
            return
        for record in records:
            _check_id("run_id", record.run_id)
        if any(record.blobs or len(record.body) > SMALL_BYTES for record in records):
            await in_thread(put_again_if_gone, partial(self._append_with_blobs, records))
            return
        rows = _rows(records, [None] * len(records))
        await self._shared.writer.submit_here(None, {self._insert_record: rows})

    def _append_with_blobs(self, records: Sequence[JournalRecord]) -> None:
        hashes = [
            self._lake.put(record.body) if len(record.body) > SMALL_BYTES else None
            for record in records
        ]
        rows = _rows(records, hashes)
        uses: dict[str, set[str]] = {}
        for record, sha256 in zip(records, hashes, strict=True):
            used = uses.setdefault(record.run_id, set())
            used.update(record.blobs, [sha256] if sha256 else [])

        def write(connection: Connection) -> None:
            for run_id, used in uses.items():
                self._lake.use(connection, run_id, used)
            self._insert_record.run(connection, rows)

        self._shared.writer.submit(write).result()

    def load(self, run_id: str) -> list[JournalRecord]:
        """All records of a run, in the order in which they were kept.

        Raises:
            DamagedDataError: A record is not what was written.
        """
        records = self._records
        query = select(
            records.c.record_no, records.c.call_id, records.c.body, records.c.blob_sha256
        ).where(records.c.run_id == run_id)
        rows = self._shared.database.read(
            lambda connection: connection.execute(query.order_by(records.c.record_no)).all()
        )
        return [
            JournalRecord(
                run_id,
                call_id,
                self._lake.get(sha256)
                if sha256
                else unpacked(body, f"record {number} of run {run_id}"),
            )
            for number, call_id, body, sha256 in rows
        ]

    async def aload(self, run_id: str) -> list[JournalRecord]:
        """The same without blocking the event loop."""
        return await in_thread(self.load, run_id)

    async def append_events(
        self, store_id: str, bodies: Sequence[bytes], *, run_id: str | None = None
    ) -> int:
        """Keep events of a store as one unit, and return the number of the first.

        Many processes may append to one store: numbers have no gaps, and a reader that has seen one
        has seen all before it.
        """
        _check_id("store_id", store_id)
        if not bodies:
            raise InputError("an append needs at least one event")
        return await self._shared.writer.submit_here(self._appending(store_id, bodies, run_id), {})

    def _appending(
        self, store_id: str, bodies: Sequence[bytes], run_id: str | None
    ) -> Callable[[Connection], int]:
        unit, kept_at = secrets.token_hex(16), time.time()
        data = [compress(body) for body in bodies]
        attempts = 0

        def work(connection: Connection) -> int:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and (kept := self._first_of(connection, store_id, unit)):
                return kept  # the connection was lost after the commit
            values = {"store": store_id, "more": len(data)}
            # The row of the store is locked from here: its next writer waits for this commit
            if connection.execute(self._count_up, values).rowcount == 0:
                new = {"store_id": store_id, "last_seq": 0, "created_at_utc": utc_now()}
                connection.execute(self._insert_store, [new])
                connection.execute(self._count_up, values)
            last = connection.execute(self._select_last, values).scalar_one()
            first: int = last - len(data) + 1
            rows = [
                {
                    "store_id": store_id,
                    "seq": first + index,
                    "run_id": run_id,
                    "unit": unit,
                    "body": body,
                    "kept_at": kept_at,
                }
                for index, body in enumerate(data)
            ]
            self._insert_event.run(connection, rows)
            if connection.dialect.name == "postgresql":
                # Only a wake-up: the table is the truth
                notify = text("SELECT pg_notify(:channel, :store)")
                connection.execute(notify, {"channel": NOTIFY_CHANNEL, "store": store_id})
            return first

        return work

    def _first_of(self, connection: Connection, store_id: str, unit: str) -> int | None:
        events = self._events
        return connection.scalar(
            select(events.c.seq)
            .where(events.c.store_id == store_id, events.c.unit == unit)
            .order_by(events.c.seq)
            .limit(1)
        )

    def events_since(
        self, store_id: str, seq: int = 0, *, limit: int | None = None
    ) -> list[StoredEvent]:
        """The events of a store after that number, oldest first; 0 gives all."""
        events = self._events
        query = (
            select(events.c.seq, events.c.body, events.c.run_id)
            .where(events.c.store_id == store_id, events.c.seq > seq)
            .order_by(events.c.seq)
            .limit(limit)
        )
        rows = self._shared.database.read(lambda connection: connection.execute(query).all())
        return [
            StoredEvent(
                store_id, number, decompress(body, f"event {number} of store {store_id}"), run_id
            )
            for number, body, run_id in rows
        ]


def _rows(records: Sequence[JournalRecord], hashes: Sequence[str | None]) -> list[Row]:
    """The rows of records, whose bodies are in the lake if they have a hash."""
    kept_at = time.time()
    return [
        {
            "run_id": record.run_id,
            "call_id": record.call_id,
            "body": None if sha256 else packed(record.body),
            "blob_sha256": sha256,
            "kept_at": kept_at,
        }
        for record, sha256 in zip(records, hashes, strict=True)
    ]


def _check_id(name: str, value: Any) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID_CHARS:
        raise InputError(
            f"{name} must be a string of 1 to {_MAX_ID_CHARS} characters, not {str(value)[:80]!r}"
        )
