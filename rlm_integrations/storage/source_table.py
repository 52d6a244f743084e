"""Documents that grow, in a storage: their texts are blobs of the lake."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from rlm_integrations.added_source import AddedSource, source_identity
from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.lake import Lake, RemovedBlobs, put_again_if_gone
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert

# Part of no run's id, so that a document and a run never share the uses of blobs
_PREFIX = "document:"
_COLUMNS = ["document_id", "identity", "label", "sha256", "characters", "metadata", "kept_at"]


class SourceTable:
    """The texts of all documents that grow. All methods block; threads and processes may share it.

    Args:
        shared: The database.
        lake: Where the texts are.
    """

    def __init__(self, shared: SharedDatabase, lake: Lake) -> None:
        self._shared = shared
        self._lake = lake
        schema = shared.database.schema
        self._table, self._uses = schema.sources, schema.blob_uses
        self._insert = RawInsert(shared.database.dialect, self._table, _COLUMNS, new_only=True)

    def document(self, name: str) -> "StoredSources":
        """The document of this name, which is empty if it does not exist."""
        return StoredSources(self, f"{_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:48]}")

    def add(
        self, document_id: str, label: str, text: str, key: str, metadata: Mapping[str, Any]
    ) -> AddedSource:
        """Add a text, and return it once it is on the disk."""
        data = text.encode("utf-8", "surrogatepass")
        table = self._table

        def attempt() -> AddedSource:
            sha256 = self._lake.put(data)
            identity = source_identity(label, key, sha256)
            row = {
                "document_id": document_id,
                "identity": identity,
                "label": label,
                "sha256": sha256,
                "characters": len(text),
                "metadata": json.dumps(dict(metadata)),
                "kept_at": time.time(),
            }
            known = select(table).where(
                table.c.document_id == document_id, table.c.identity == identity
            )

            def work(connection: Connection) -> AddedSource:
                self._lake.use(connection, document_id, [sha256])
                self._insert.run(connection, [row])
                return _source_of(connection.execute(known).one())

            return self._shared.writer.submit(work).result()

        return put_again_if_gone(attempt)

    def sources(self, document_id: str, numbers: Sequence[int] | None = None) -> list[AddedSource]:
        """The texts of a document in the order in which they were added; or those with these
        numbers.
        """
        table = self._table
        wanted = select(table).where(table.c.document_id == document_id)
        if numbers is not None:
            wanted = wanted.where(table.c.source_no.in_(numbers))
        wanted = wanted.order_by(table.c.source_no)
        rows = self._shared.database.read(lambda connection: connection.execute(wanted).all())
        return [_source_of(row) for row in rows]

    def size(self, document_id: str) -> tuple[int, int]:
        """How many texts a document has, and how many characters."""
        table = self._table
        wanted = select(func.count(), func.coalesce(func.sum(table.c.characters), 0)).where(
            table.c.document_id == document_id
        )
        count, characters = self._shared.database.read(
            lambda connection: connection.execute(wanted).one()
        )
        return int(count), int(characters)

    def text(self, source: AddedSource) -> str:
        """The text of a source.

        Raises:
            StorageError: It cannot be read.
        """
        return self._lake.get(source.sha256).decode("utf-8", "surrogatepass")

    def forget(self, document_id: str) -> tuple[int, RemovedBlobs]:
        """Remove a document, and all blobs that nothing else uses; returns how many texts it had,
        and what was removed.
        """
        table, uses = self._table, self._uses
        found: list[str] = []

        def remove(connection: Connection) -> int:
            found[:] = connection.scalars(
                select(uses.c.sha256).where(uses.c.run_id == document_id)
            ).all()
            connection.execute(delete(uses).where(uses.c.run_id == document_id))
            return connection.execute(
                delete(table).where(table.c.document_id == document_id)
            ).rowcount

        count = self._shared.writer.submit(remove).result()
        return count, self._lake.remove_unused(found)

    def older_than(self, cutoff: datetime) -> list[str]:
        """The documents to which nothing was added since then."""
        table = self._table
        wanted = (
            select(table.c.document_id)
            .group_by(table.c.document_id)
            .having(func.max(table.c.kept_at) < cutoff.timestamp())
        )
        return self._shared.database.read(lambda connection: list(connection.scalars(wanted)))


class StoredSources:
    """The texts of one document; see `faces.growing.SourceLog`."""

    def __init__(self, table: SourceTable, document_id: str) -> None:
        self._table = table
        self._id = document_id

    def add(self, label: str, text: str, key: str, metadata: Mapping[str, Any]) -> AddedSource:
        """Add a text, and return it once it is on the disk."""
        return self._table.add(self._id, label, text, key, metadata)

    def sources(self, numbers: Sequence[int] | None = None) -> list[AddedSource]:
        """The texts in order, or those with these numbers."""
        return self._table.sources(self._id, numbers)

    def size(self) -> tuple[int, int]:
        """How many texts there are, and how many characters."""
        return self._table.size(self._id)

    def text(self, source: AddedSource) -> str:
        """The text of a source."""
        return self._table.text(source)

    def forget(self) -> int:
        """Remove everything; returns how many texts there were."""
        return self._table.forget(self._id)[0]


def _source_of(row: Row[Any]) -> AddedSource:
    try:
        metadata = json.loads(row.metadata)
    except ValueError as error:
        raise DamagedDataError(
            f"source {row.source_no} of a document is damaged: {error}"
        ) from None
    return AddedSource(
        number=row.source_no,
        label=row.label,
        characters=row.characters,
        sha256=row.sha256,
        metadata=metadata,
    )
