"""The journal's records, appended in groups and read back in order."""

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError
from rlm_integrations.storage.lake import SMALL_BYTES, Lake, put_again_if_gone
from rlm_integrations.storage.record_bodies import packed, unpacked
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert, Row

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


class RunLog:
    """Appends records, many at once, and reads them.

    An append is on the disk when it returns. All records of one append are kept, or none.
    """

    def __init__(self, shared: SharedDatabase, lake: Lake) -> None:
        self._shared = shared
        self._lake = lake
        database = shared.database
        schema = database.schema
        self._records = schema.records
        raw = RawInsert
        self._insert_record = raw(
            database.dialect,
            schema.records,
            ["run_id", "call_id", "body", "blob_sha256", "kept_at"],
        )

    def append_one(self, record: JournalRecord, *, durable: bool = True) -> Awaitable[None]:
        """Begin to keep a record, as `append` does, if possible together with other records of its
        run: all that tasks of this event loop append before it goes on are kept, or none.
        """
        if record.blobs or len(record.body) > SMALL_BYTES:
            return self.append([record], durable=durable)
        _check_id("run_id", record.run_id)
        (row,) = _rows([record], [None])
        return self._shared.writer.insert_here(
            self._insert_record, row, owner=record.run_id, durable=durable
        )

    def append(self, records: Sequence[JournalRecord], *, durable: bool = True) -> Awaitable[None]:
        """Begin to keep records as one unit, on the running event loop. They are on the disk when
        the awaitable is done, unless they need not survive a power failure. A task that awaits it
        and is cancelled meanwhile ends when they are kept.

        Raises:
            StorageError: They could not be kept, and none of them is.
        """
        for record in records:
            _check_id("run_id", record.run_id)
        if any(record.blobs or len(record.body) > SMALL_BYTES for record in records):
            attempt = partial(self._append_with_blobs, records)
            return finish_despite_cancel(in_thread(put_again_if_gone, attempt))
        rows = _rows(records, [None] * len(records))
        return self._shared.writer.submit_here(None, {self._insert_record: rows}, durable=durable)

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

    def append_in(self, connection: Connection, record: JournalRecord) -> None:
        """Keep a record without blobs, of any size, in a transaction of the writer."""
        self._insert_record.run(connection, _rows([record], [None]))

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
