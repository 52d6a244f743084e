"""Blobs by their SHA-256: small ones compressed in the database, large ones as files.

A blob is kept before the row that names it. What is read is compared with its hash, so that a torn
or changed blob is an error, never a wrong answer.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, delete, select

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import DamagedDataError, StorageError
from rlm_integrations.storage.compression import compress, decompress
from rlm_integrations.storage.files import Files
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert

SMALL_BYTES = 64 << 10  # up to this many, a row is several times as fast as a file
_FOLDER = "blobs"


class Lake:
    """Keeps bytes, each content once.

    Args:
        shared: The database, for small blobs.
        files: Where large blobs go; None keeps all in the database.
    """

    def __init__(self, shared: SharedDatabase, files: Files | None) -> None:
        self._shared = shared
        self._files = files
        self._table = shared.database.schema.blobs
        self._insert = RawInsert(
            shared.database.dialect,
            self._table,
            ["sha256", "size", "data", "kept_at"],
            new_only=True,
        )

    def put(self, data: bytes) -> str:
        """Keep the data, and return its SHA-256 in hexadecimal once it is on the disk.

        Content that is kept already is not written again, unless it is damaged.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        if self._files is None or len(data) <= SMALL_BYTES:
            self._shared.writer.insert({self._insert: [self._row(sha256, data)]}).result()
            return sha256
        name = _name(sha256)
        if self._files.write(name, compress(data), replace=False):
            return sha256
        try:
            self.get(sha256)
        except DamagedDataError:
            self._files.write(name, compress(data))
        return sha256

    async def aput(self, data: bytes) -> str:
        """The same without blocking the event loop."""
        return await in_thread(self.put, data)

    def _row(self, sha256: str, data: bytes) -> dict[str, Any]:
        return {
            "sha256": sha256,
            "size": len(data),
            "data": compress(data),
            "kept_at": time.time(),
        }

    def has(self, sha256: str) -> bool:
        """Whether a blob with this SHA-256 is kept. It is not read: it may be damaged."""
        known = self._shared.database.read(
            lambda connection: connection.scalar(
                select(self._table.c.size).where(self._table.c.sha256 == sha256)
            )
        )
        return known is not None or (self._files is not None and self._files.exists(_name(sha256)))

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
            kept = self._files.read(_name(sha256))
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
        """The same without blocking the event loop."""
        return await in_thread(self.get, sha256)

    def hashes(self) -> Iterator[str]:
        """The SHA-256 of every blob."""
        yield from self._shared.database.read(
            lambda connection: connection.scalars(
                select(self._table.c.sha256).order_by(self._table.c.blob_no)
            ).all()
        )
        if self._files is not None:
            for name in self._files.list_names(_FOLDER):
                yield name.rpartition("/")[2].removesuffix(".zst")

    def find_damaged(self) -> list[str]:
        """The SHA-256 of every blob that cannot be read; reads all of them."""
        found = []
        for sha256 in self.hashes():
            try:
                self.get(sha256)
            except DamagedDataError:
                found.append(sha256)
        return found

    def delete(self, hashes: Iterable[str]) -> None:
        """Remove these blobs. The caller has removed every row that names them."""
        removed = list(hashes)

        def remove(connection: Connection) -> None:
            for sha256 in removed:
                connection.execute(delete(self._table).where(self._table.c.sha256 == sha256))

        self._shared.writer.submit(remove).result()
        if self._files is not None:
            for sha256 in removed:
                self._files.delete(_name(sha256))


def _name(sha256: str) -> str:
    return f"{_FOLDER}/{sha256[:2]}/{sha256}.zst"
