"""Removes runs, and what nothing else uses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, select

from rlm_integrations.errors import InputError, RunBusyError
from rlm_integrations.storage import owner
from rlm_integrations.storage.lake import Lake, RemovedBlobs
from rlm_integrations.storage.reply_table import ReplyTable
from rlm_integrations.storage.run_rows import is_running
from rlm_integrations.storage.run_table import RunTable
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.source_table import SourceTable
from rlm_integrations.storage.text_table import TextTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed from a storage.

    Attributes:
        runs: How many runs.
        blobs: How many blobs: documents, results and large records that no other run used.
        blob_bytes: The size of the blobs, before they were compressed.
        replies: How many cached replies.
        documents: How many documents that grow.
    """

    runs: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    replies: int = 0
    documents: int = 0


class Forgetting:
    """Removes runs from a storage.

    Args:
        shared: The database.
        lake: Where the blobs are.
        runs: Names the nearest runs, if one does not exist.
        replies: The cache.
        sources: The documents that grow.
        texts: The texts of files, whose blobs no run uses.
    """

    def __init__(
        self,
        shared: SharedDatabase,
        lake: Lake,
        runs: RunTable,
        replies: ReplyTable,
        sources: SourceTable,
        texts: TextTable,
    ) -> None:
        self._shared = shared
        self._lake = lake
        self._runs = runs
        self._replies = replies
        self._sources = sources
        self._texts = texts
        self._schema = shared.database.schema

    def forget(self, run_id: str) -> Removed:
        """Remove a run, and all blobs that no other run uses.

        Raises:
            InputError: No run has this id.
            RunBusyError: A process is running it.
        """
        hashes = self._remove_rows(run_id)
        if hashes is None:
            raise InputError(self._runs.unknown(run_id))
        return _removed(1, self._lake.remove_unused(hashes))

    def prune(
        self, older_than: timedelta, is_stopped: Callable[[], bool] = lambda: False
    ) -> Removed:
        """Remove the runs and the growing documents that were not changed for so long, and the cached
        replies of that age, and the blobs of that age that nothing uses. Runs that a process is
        running are kept.
        """
        cutoff = datetime.now(UTC) - older_than
        count, blobs = 0, RemovedBlobs()
        for run_id in self._older_than(cutoff):
            if is_stopped():
                break
            try:
                hashes = self._remove_rows(run_id)
            except RunBusyError:
                continue
            if hashes is not None:  # else another process has just removed it
                count += 1
                blobs += self._lake.remove_unused(hashes)
        documents = 0
        for document_id in self._sources.older_than(cutoff):
            if is_stopped():
                break
            blobs += self._sources.forget(document_id)[1]
            documents += 1
        replies = 0 if is_stopped() else self._replies.clear(older_than)
        self._texts.clear(cutoff.timestamp())
        if not is_stopped():
            blobs += self._lake.remove_unused(self._unused(cutoff))
        return replace(_removed(count, blobs), replies=replies, documents=documents)

    def _remove_rows(self, run_id: str) -> list[str] | None:
        """Remove the rows of a run, and return the blobs that it used; None if there is no run.

        The rows go first: blobs without a use are harmless, and the next `prune` removes them.
        """
        found: list[str] | None = None

        def remove(connection: Connection) -> str | None:
            nonlocal found
            schema = self._schema
            runs, uses = schema.runs, schema.blob_uses
            wanted = select(runs).where(runs.c.run_id == run_id).with_for_update()
            row = connection.execute(wanted).first()
            if row is not None and is_running(row):
                return str(row.owner)
            used = connection.scalars(select(uses.c.sha256).where(uses.c.run_id == run_id)).all()
            counts = [
                connection.execute(delete(table).where(table.c.run_id == run_id)).rowcount
                for table in (runs, schema.records, uses)
            ]
            if any(counts):  # else an earlier attempt of this may have been committed
                found = list(used)  # what it wrote to a store stays: that outlives it
            return None

        if busy := self._shared.writer.submit(remove).result():
            raise RunBusyError(
                f"run {run_id!r} is being run by {owner.shown(busy)}; cancel it, or wait until it "
                "has ended"
            )
        return found

    def _older_than(self, cutoff: datetime) -> list[str]:
        """The runs that were last changed before then, and journals that have no run."""
        runs, records = self._schema.runs, self._schema.records
        old = select(runs.c.run_id).where(runs.c.updated_at_utc < cutoff)
        alone = (
            select(records.c.run_id)
            .where(records.c.run_id.not_in(select(runs.c.run_id)))
            .group_by(records.c.run_id)
            .having(func.max(records.c.kept_at) < cutoff.timestamp())
        )
        return self._shared.database.read(
            lambda connection: [
                *connection.scalars(old.order_by(runs.c.updated_at_utc)),
                *connection.scalars(alone),
            ]
        )

    def _unused(self, cutoff: datetime) -> list[str]:
        """The blobs that were put before then and that no run uses."""
        blobs, uses = self._schema.blobs, self._schema.blob_uses
        wanted = select(blobs.c.sha256).where(
            blobs.c.kept_at < cutoff.timestamp(),
            ~select(uses.c.run_id).where(uses.c.sha256 == blobs.c.sha256).exists(),
        )
        return self._shared.database.read(lambda connection: list(connection.scalars(wanted)))


def _removed(runs: int, blobs: RemovedBlobs) -> Removed:
    return Removed(runs=runs, blobs=blobs.count, blob_bytes=blobs.size)
