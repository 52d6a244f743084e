"""The texts of documents that were read, by the hash of their files: each is a blob of the lake."""

import time

from sqlalchemy import delete, select

from rlm_integrations.errors import StorageError
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert


class TextTable:
    """Keeps what was read from files; see `TextCache`. A text that is gone or damaged is read from its
    file again.
    """

    def __init__(self, shared: SharedDatabase, lake: Lake) -> None:
        self._shared = shared
        self._lake = lake
        self._table = shared.database.schema.texts
        self._insert = RawInsert(
            shared.database.dialect, self._table, ["text_key", "sha256", "kept_at"], new_only=True
        )

    def find(self, key: str) -> bytes | None:
        """What was kept for this key, or None. Blocks."""
        table = self._table
        sha256 = self._shared.database.read(
            lambda connection: connection.scalar(
                select(table.c.sha256).where(table.c.text_key == key)
            )
        )
        try:
            return None if sha256 is None else self._lake.get(sha256)
        except StorageError:
            return None

    def keep(self, key: str, data: bytes) -> None:
        """Keep what was read. Blocks.

        Raises:
            StorageError: It could not be kept.
        """
        row = {"text_key": key, "sha256": self._lake.put(data), "kept_at": time.time()}
        self._shared.writer.insert({self._insert: [row]}).result()

    def clear(self, before: float) -> None:
        """Forget the texts that were kept before this time; their blobs have no other use."""
        old = delete(self._table).where(self._table.c.kept_at < before)
        self._shared.writer.submit(lambda connection: connection.execute(old).rowcount).result()
