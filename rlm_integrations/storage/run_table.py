"""Runs in a storage: begun, recorded, resumed and looked back at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations._json import read_record, to_plain
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import DamagedDataError, InputError, RunBusyError, RunExistsError
from rlm_integrations.run_setup import RunSetup
from rlm_integrations.storage import owner
from rlm_integrations.storage.lake import Lake, put_again_if_gone
from rlm_integrations.storage.owned_run import Leases, OwnedRun
from rlm_integrations.storage.run_log import RunLog
from rlm_integrations.storage.run_rows import (
    RUNNING,
    RunClaim,
    RunInfo,
    info_of,
    is_over,
    is_running,
)
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.stored_corpus import keep_corpus, read_corpus

LEASE_SECONDS = 30.0
_EXISTS = "there is a run {!r} already: resume it, or give another id"
_BUSY = "run {!r} is being run by {}; wait until it has ended"
_SEARCHED = 10_000  # ids that are compared with one that does not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A run to be resumed; see `engine.run_storage.StoredRun`."""

    setup: RunSetup
    corpus: Corpus | None
    records: Sequence[bytes]
    result: Mapping[str, Any] | None
    kept: OwnedRun | None


class RunTable:
    """The runs of a storage.

    Args:
        shared: The database.
        lake: Where documents and results go.
        log: The records of all runs.
        keep_documents: Whether documents are kept; else a resume needs them again.
        lease_seconds: How long a process that is not heard of keeps a run. A process of this
            machine that has ended loses it at once.
    """

    def __init__(
        self,
        shared: SharedDatabase,
        lake: Lake,
        log: RunLog,
        *,
        keep_documents: bool = True,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._shared = shared
        self._lake = lake
        self._log = log
        self._schema = shared.database.schema
        self._keep_documents = keep_documents
        self._lease = timedelta(seconds=lease_seconds)
        self._leases = Leases(shared, self._lease)

    async def begin(self, run_id: str, setup: RunSetup, corpus: Corpus) -> OwnedRun:
        """Keep a new run and its document.

        Raises:
            RunExistsError: There is a run of this id.
            StorageError: It could not be kept.
        """
        return await in_thread(self._begin, run_id, setup, corpus)

    def _begin(self, run_id: str, setup: RunSetup, corpus: Corpus) -> OwnedRun:
        if self.exists(run_id):  # before another document is kept
            raise RunExistsError(_EXISTS.format(run_id))

        def attempt() -> bool:
            document, blobs = (
                keep_corpus(self._lake, corpus) if self._keep_documents else (None, [])
            )
            plain = {"setup": to_plain(setup), "document": document}
            setup_sha256 = self._lake.put(json.dumps(plain, separators=(",", ":")).encode())
            now = datetime.now(UTC)
            row = {
                "run_id": run_id,
                "status": RUNNING,
                "question": setup.question,
                "root_model": setup.models.root[:200],
                "previous_run_id": None if setup.previous is None else setup.previous.run_id,
                "setup_sha256": setup_sha256,
                "owner": owner.own_name(),
                "lease_until_utc": now + self._lease,
                "created_at_utc": now,
                "updated_at_utc": now,
            }
            return self._shared.writer.submit(
                lambda connection: self.add(connection, row, [setup_sha256, *blobs])
            ).result()

        is_reserved = owner.reserve(run_id)  # before others see the row, and find it free
        kept = None
        try:
            if put_again_if_gone(attempt):
                kept = OwnedRun(run_id, self._shared, self._lake, self._log, self._leases)
        finally:
            if is_reserved and kept is None:
                owner.give_back(owner.own_name(), run_id)
        if kept is None:
            raise RunExistsError(_EXISTS.format(run_id))
        return kept

    def add(self, connection: Connection, row: Mapping[str, Any], blobs: Sequence[str]) -> bool:
        """Insert a run in the caller's transaction; False if there is another one of its id.

        Raises:
            BlobGoneError: One of its blobs was removed since it was put.
        """
        runs, run_id = self._schema.runs, row["run_id"]
        try:
            with connection.begin_nested():
                connection.execute(insert(runs), row)
        except IntegrityError:
            known = select(runs.c.owner, runs.c.created_at_utc).where(runs.c.run_id == run_id)
            # The same, if the connection was lost after the commit
            return connection.execute(known).first() == (row.get("owner"), row["created_at_utc"])
        self._lake.use(connection, run_id, blobs)
        return True

    async def keep_document(self, run_id: str, corpus: Corpus) -> str:
        """Keep the document of a run that begins later, and return its SHA-256.

        Raises:
            StorageError: It could not be kept.
        """
        return await in_thread(self._keep_document, run_id, corpus)

    def _keep_document(self, run_id: str, corpus: Corpus) -> str:
        def attempt() -> str:
            document, blobs = keep_corpus(self._lake, corpus)
            self._shared.writer.submit(
                lambda connection: self._lake.use(connection, run_id, blobs)
            ).result()
            return document

        return put_again_if_gone(attempt)

    async def read_document(self, sha256: str) -> Corpus:
        """The document that was kept under this SHA-256.

        Raises:
            StorageError: It is not in the storage, or damaged.
        """
        return await in_thread(read_corpus, self._lake, sha256)

    async def take(self, run_id: str) -> LoadedRun:
        """A run to resume; it belongs to this process from now on, unless it has ended.

        Raises:
            InputError: No run has this id.
            RunBusyError: Another process has it.
            StorageError: It cannot be read.
        """
        return await in_thread(self._take, run_id)

    def _take(self, run_id: str) -> LoadedRun:
        claim = RunClaim(run_id, self._schema.runs, self._lease)
        kept = None
        try:
            row = self._shared.writer.submit(claim).result()
            if row is None:
                raise InputError(self.unknown(run_id))
            if isinstance(row, str):
                raise RunBusyError(_BUSY.format(run_id, owner.shown(row)))
            loaded = self._loaded(row)
            kept = loaded.kept
            return loaded
        finally:
            if claim.is_reserved and kept is None:
                owner.give_back(claim.owner, run_id)

    def _loaded(self, row: Row[Any]) -> LoadedRun:
        run_id = row.run_id
        setup, document = self._setup(row)
        if is_over(row.status):
            result = json.loads(self._lake.get(row.result_sha256))
            return LoadedRun(setup=setup, corpus=None, records=(), result=result, kept=None)
        before = {"status": row.status, "updated_at_utc": row.updated_at_utc}
        kept = OwnedRun(run_id, self._shared, self._lake, self._log, self._leases, before)
        try:
            return LoadedRun(
                setup=setup,
                corpus=None if document is None else read_corpus(self._lake, document),
                records=[record.body for record in self._log.load(run_id)],
                result=None,
                kept=kept,
            )
        except BaseException:
            kept.let_go()
            raise

    async def past(self, run_id: str, records: int | None = None) -> LoadedRun:
        """A run to replay; see `engine.run_storage.RunStorage`.

        Raises:
            InputError: No run has this id.
            RunBusyError: A process has it, and all records are wanted.
            StorageError: It cannot be read.
        """
        return await in_thread(self._past, run_id, records)

    def _past(self, run_id: str, records: int | None) -> LoadedRun:
        row = self._row(run_id)
        if records is None and is_running(row):
            raise RunBusyError(_BUSY.format(run_id, owner.shown(row.owner)))
        kept = [record.body for record in self._log.load(run_id)[:records]]
        result = (
            None if row.result_sha256 is None else json.loads(self._lake.get(row.result_sha256))
        )
        setup = self._setup(row)[0]
        return LoadedRun(setup=setup, corpus=None, records=kept, result=result, kept=None)

    def _setup(self, row: Row[Any]) -> tuple[RunSetup, str | None]:
        try:
            plain = json.loads(self._lake.get(row.setup_sha256))
            return read_record(RunSetup, plain["setup"], "setup"), plain["document"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedDataError(
                f"the setup of run {row.run_id!r} is damaged: {error}"
            ) from error

    def unknown(self, run_id: str) -> str:
        """What is said of a run that does not exist; it names the nearest ones."""
        runs = self._schema.runs
        ids = self._shared.database.read(
            lambda connection: connection.scalars(
                select(runs.c.run_id).order_by(runs.c.created_at_utc.desc()).limit(_SEARCHED)
            ).all()
        )
        near = get_close_matches(run_id[:64], ids, n=3, cutoff=0.5)
        hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
        return f"there is no run {run_id[:80]!r} in this storage{hint}"

    def infos(
        self, query: str = "", *, status: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """The newest runs, newest first.

        Args:
            query: Words that the question must contain.
            status: A status that the runs must have.
            limit: How many at most.
        """
        runs = self._schema.runs
        shown = [
            column
            for column in runs.columns
            if column.name not in {"previous_run_id", "setup_sha256"}
        ]
        wanted = select(*shown).order_by(runs.c.created_at_utc.desc()).limit(limit)
        if query:
            wanted = wanted.where(runs.c.question.icontains(query, autoescape=True))
        if status is not None:
            wanted = wanted.where(runs.c.status == status)
        rows = self._shared.database.read(lambda connection: connection.execute(wanted).all())
        return [info_of(row) for row in rows]

    def info(self, run_id: str) -> RunInfo:
        """One run as a list shows it.

        Raises:
            InputError: No run has this id.
        """
        return info_of(self._row(run_id))

    def exists(self, run_id: str) -> bool:
        """Whether there is a run of this id."""
        return self._find(run_id) is not None

    def setup(self, run_id: str) -> RunSetup:
        """What a run was made with.

        Raises:
            InputError: No run has this id.
        """
        return self._setup(self._row(run_id))[0]

    def document(self, run_id: str) -> Corpus | None:
        """The document of a run; None if it was not kept.

        Raises:
            InputError: No run has this id.
            StorageError: It cannot be read.
        """
        document = self._setup(self._row(run_id))[1]
        return None if document is None else read_corpus(self._lake, document)

    def result(self, run_id: str) -> dict[str, Any] | None:
        """The result of a run as plain JSON, also of one that failed or was cancelled; None for one
        that is running, or whose process ended.

        Raises:
            InputError: No run has this id.
        """
        row = self._row(run_id)
        if row.status == RUNNING or row.result_sha256 is None:
            return None
        result: dict[str, Any] = json.loads(self._lake.get(row.result_sha256))
        return result

    def revision(self, run_id: str) -> tuple[str, bool, int]:
        """What changes with the status of a run, its process, and each record that is kept.

        Raises:
            InputError: No run has this id.
        """
        row, records = self._row(run_id), self._schema.records
        last = select(func.max(records.c.record_no)).where(records.c.run_id == run_id)
        number = self._shared.database.read(lambda connection: connection.scalar(last))
        return row.status, is_running(row), number or 0

    def running(self, run_id: str) -> tuple[LoadedRun, Literal["running", "interrupted"]]:
        """A run without a result, with its records, and whether a process has it.

        Raises:
            InputError: No run has this id.
            StorageError: It cannot be read.
        """
        row = self._row(run_id)
        records = [record.body for record in self._log.load(run_id)]
        setup = self._setup(row)[0]
        run = LoadedRun(setup=setup, corpus=None, records=records, result=None, kept=None)
        return run, "running" if is_running(row) else "interrupted"

    def _row(self, run_id: str) -> Row[Any]:
        row = self._find(run_id)
        if row is None:
            raise InputError(self.unknown(run_id))
        return row

    def _find(self, run_id: str) -> Row[Any] | None:
        runs = self._schema.runs
        return self._shared.database.read(
            lambda connection: connection.execute(
                select(runs).where(runs.c.run_id == run_id)
            ).first()
        )

    def close(self) -> None:
        """Let go of the runs of this process."""
        self._leases.close()
