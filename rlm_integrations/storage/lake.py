"""Blobs by their SHA-256: small ones compressed in the database, large ones as files.

A blob is kept before the row that names it, and removed by others if no run uses it. The database
decides which comes first: whoever adds a use locks the rows of its blobs, and so does whoever
removes them. A use of a blob that was removed meanwhile is an error, and the blob is put again.

What is read is compared with its hash, so that a torn or changed blob is an error, never a wrong
answer.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, delete, select

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import DamagedDataError, StorageError
from rlm_integrations.storage.compression import compress, decompress
from rlm_integrations.storage.files import Files
from rlm_integrations.storage.schema import DEFAULT_SCHEMA
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert

T = TypeVar("T")

SMALL_BYTES = 64 << 10  # up to this many, a row is several times as fast as a file
_FOLDER = "blobs"
_CHUNK = 100  # blobs that are looked up or removed in one transaction
_TRIES = 5  # of a use whose blobs are removed each time


class BlobGoneError(StorageError):
    """A blob was removed between its put and its first use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedBlobs:
    """Blobs that were removed.

    Attributes:
        count: How many.
        size: Their bytes, before they were compressed.
    """

    count: int = 0
    size: int = 0

    def __add__(self, other: "RemovedBlobs") -> "RemovedBlobs":
        return RemovedBlobs(count=self.count + other.count, size=self.size + other.size)


class Lake:
    """Keeps bytes, each content once, as long as a run uses them.

    Args:
        shared: The database.
        files: Where large blobs go; None keeps all in the database. No other storage may use it.
    """

    def __init__(self, shared: SharedDatabase, files: Files | None) -> None:
        self._shared = shared
        self._files = files
        schema = shared.database.schema
        self._table, self._uses = schema.blobs, schema.blob_uses
        names = shared.database.names
        name = names.schema or names.prefix.removesuffix("_")
        self._folder = _FOLDER if name == DEFAULT_SCHEMA else f"{_FOLDER}-{name}"
        dialect = shared.database.dialect
        columns = ["sha256", "size", "data", "kept_at"]
        self._insert = RawInsert(dialect, schema.blobs, columns, new_only=True)
        self._insert_use = RawInsert(dialect, schema.blob_uses, ["run_id", "sha256"], new_only=True)

    def put(self, data: bytes) -> str:
        """Keep the data, and return its SHA-256 in hexadecimal once it is on the disk.

        Content that is kept already is not written again, unless it is damaged. Until a run uses
        it, any `forget` or `prune` may remove it.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        is_file = self._files is not None and len(data) > SMALL_BYTES
        kept = None if is_file else compress(data)
        most = self._shared.database.max_value_bytes
        if kept is not None and most is not None and len(kept) > most:
            raise StorageError(
                f"a blob of {len(data):,} bytes is too long for the database, whose "
                f"max_allowed_packet allows {most:,}: raise it, or pass lake="
            )
        row = {"sha256": sha256, "size": len(data), "data": kept, "kept_at": time.time()}
        # The row first: it waits for a removal that has begun, which also removes the file
        self._shared.writer.insert({self._insert: [row]}).result()
        if self._files is None or not is_file:
            return sha256
        name = self._name(sha256)
        if self._files.write(name, compress(data), replace=False):
            return sha256
        try:
            self.get(sha256)
        except DamagedDataError:
            self._files.write(name, compress(data))
        return sha256

    def use(self, connection: Connection, run_id: str, hashes: Collection[str]) -> None:
        """Note that a run uses these blobs, in the transaction that adds the rows that name them.

        Raises:
            BlobGoneError: One was removed since it was put.
        """
        wanted = sorted(set(hashes))
        for chunk in _chunks(wanted):
            there = set(self._locked(connection, chunk, read=True))
            if gone := [each for each in chunk if each not in there]:
                raise BlobGoneError(f"blob {gone[0]} is not in the storage")
        if wanted:
            self._insert_use.run(
                connection, [{"run_id": run_id, "sha256": each} for each in wanted]
            )

    def remove_unused(self, hashes: Collection[str]) -> RemovedBlobs:
        """Remove those of the blobs that no run uses."""
        removed = RemovedBlobs()
        for chunk in _chunks(sorted(set(hashes))):
            removed += self._shared.writer.submit(
                lambda connection, chunk=chunk: self._remove(connection, chunk)  # type: ignore[misc]
            ).result()
        return removed

    def _remove(self, connection: Connection, hashes: list[str]) -> RemovedBlobs:
        sizes = self._locked(connection, hashes, read=False)
        # A second statement: it sees every use that was committed before the rows were locked
        uses = self._uses
        used = connection.scalars(
            select(uses.c.sha256).where(uses.c.sha256.in_(hashes)).with_for_update(read=True)
        )
        unused = sorted(set(sizes).difference(used))
        connection.execute(delete(self._table).where(self._table.c.sha256.in_(unused)))
        if self._files is not None:
            for sha256 in unused:  # before the commit, which a new put of the same waits for
                self._files.delete(self._name(sha256))
        return RemovedBlobs(count=len(unused), size=sum(sizes[each] for each in unused))

    def _locked(self, connection: Connection, hashes: list[str], *, read: bool) -> dict[str, int]:
        """The sizes of those blobs that are there, until the transaction ends: with `read`, others
        may use them meanwhile.
        """
        table = self._table
        rows = connection.execute(
            select(table.c.sha256, table.c.size)
            .where(table.c.sha256.in_(hashes))
            .order_by(table.c.sha256)  # two that lock several do not wait for each other
            .with_for_update(read=read)
            .with_hint(table, "WITH (UPDLOCK, ROWLOCK)", "mssql")
        )
        return {row.sha256: row.size for row in rows}

    async def aput(self, data: bytes) -> str:
        """`put` without blocking the event loop."""
        return await in_thread(self.put, data)

    def has(self, sha256: str) -> bool:
        """Whether a blob with this SHA-256 is kept. It is not read: it may be damaged."""
        known = self._shared.database.read(
            lambda connection: connection.execute(
                select(self._table.c.data.is_(None)).where(self._table.c.sha256 == sha256)
            ).first()
        )
        if known is None:
            return False
        return not known[0] or (self._files is not None and self._files.exists(self._name(sha256)))

    def get(self, sha256: str) -> bytes:
        """The content with this SHA-256.

        Raises:
            StorageError: No such blob is kept.
            DamagedDataError: It is not what was written.
        """
        name = f"blob {sha256[:64]}"
        kept = self._shared.database.read(
            lambda connection: connection.scalar(
                select(self._table.c.data).where(self._table.c.sha256 == sha256)
            )
        )
        if kept is None and self._files is not None:
            kept = self._files.read(self._name(sha256))
        if kept is None:
            raise StorageError(f"{name} is not in the storage")
        data = decompress(kept, name)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedDataError(
                f"{name} is damaged: its content has another hash; restore it from a backup, or "
                "remove the run that uses it"
            )
        return data

    async def aget(self, sha256: str) -> bytes:
        """`get` without blocking the event loop."""
        return await in_thread(self.get, sha256)

    def files(self) -> dict[str, int]:
        """The sizes of the files, compressed, by the SHA-256 that their names say."""
        found = {} if self._files is None else self._files.sizes(self._folder)
        return {name.rpartition("/")[2].removesuffix(".zst"): size for name, size in found.items()}

    def _name(self, sha256: str) -> str:
        return f"{self._folder}/{sha256[:2]}/{sha256}.zst"


def put_again_if_gone(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, which puts blobs and adds the rows that use them; it is called again
    if another process removed one of the blobs in between.
    """
    for _ in range(_TRIES - 1):
        try:
            return attempt()
        except BlobGoneError:
            continue
    return attempt()


def _chunks(hashes: list[str]) -> Iterator[list[str]]:
    return (hashes[start : start + _CHUNK] for start in range(0, len(hashes), _CHUNK))
