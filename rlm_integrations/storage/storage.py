"""One object for everything that is kept: runs, stores, blobs, artifacts and jobs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import Completion
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import RunSetup
from rlm_integrations.storage import owner
from rlm_integrations.storage.artifacts import ArtifactStore
from rlm_integrations.storage.checking import StorageCheck, StorageReport
from rlm_integrations.storage.database import parse_url
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.durations import parse_duration
from rlm_integrations.storage.files import LocalFiles, open_files
from rlm_integrations.storage.folder import prepare_folder
from rlm_integrations.storage.forgetting import Forgetting, Removed
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.measures import StorageStats, measure_storage
from rlm_integrations.storage.owned_run import OwnedRun
from rlm_integrations.storage.queue import SqlQueueStore
from rlm_integrations.storage.reply_table import ReplyTable
from rlm_integrations.storage.retention import Retention
from rlm_integrations.storage.run_archive import RunArchive
from rlm_integrations.storage.run_file import MAX_BYTES
from rlm_integrations.storage.run_log import JournalRecord, RunLog
from rlm_integrations.storage.run_rows import RunInfo
from rlm_integrations.storage.run_table import LoadedRun, RunTable
from rlm_integrations.storage.schema import DEFAULT_SCHEMA
from rlm_integrations.storage.settings import read_settings
from rlm_integrations.storage.shared_database import open_database
from rlm_integrations.storage.source_table import SourceTable, StoredSources
from rlm_integrations.storage.stores.stored_store import StoredStore, open_store
from rlm_integrations.storage.text_table import TextTable


class Storage:
    """A database for what is searched, and a lake for what is large.

    All storages of one URL in a process share one connection pool and one writer thread. Close a
    storage when it is no longer needed; the last one waits until everything is committed.

    Args:
        where: A folder, which is created if needed, with an SQLite database and files; or the URL
            of a database on a server.
        lake: The folder or the URL of an object store (extra `s3`) for large blobs and artifacts;
            by default the folder. A database on a server without a lake keeps all blobs itself.
        schema: The schema of the tables; on SQLite and MySQL the prefix of their names.
        pretty_print: Whether JSON of artifacts is indented.
        keep_documents: Whether documents are kept with runs. If not, they are needed again at a
            resume.
        retention: How long runs are kept after their last change, and cached replies: a
            `timedelta`, or a string such as "30d"; None for ever. Older ones are removed in a
            thread when the storage is opened and when a run begins, at most once an hour.

    Raises:
        InputError: The folder is not a storage folder, or the URL cannot work.
        StorageError: The database cannot be opened, or its data is of another version.
        MissingExtraError: The packages for PostgreSQL or object stores are not installed.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] = "runs/",
        *,
        lake: str | os.PathLike[str] | None = None,
        schema: str = DEFAULT_SCHEMA,
        pretty_print: bool = True,
        keep_documents: bool = True,
        retention: timedelta | str | None = None,
    ) -> None:
        self.keep_documents = keep_documents
        self.retention = None if retention is None else parse_duration("retention", retention)
        files = None if lake is None else open_files(lake)
        if isinstance(where, str) and "://" in where:
            target = Target(parse_url(where))
        else:
            target = prepare_folder(where)
            files = files or LocalFiles(target.folder)
        self._shared = open_database(target, schema=schema)
        self._is_closed = False
        self._artifacts = None if files is None else ArtifactStore(files, pretty_print=pretty_print)
        self.lake = Lake(self._shared, files)
        self.queue = SqlQueueStore(self._shared)
        self._log = RunLog(self._shared, self.lake)
        self._replies = ReplyTable(self._shared)
        self.texts = TextTable(self._shared, self.lake)
        self._runs = RunTable(self._shared, self.lake, self._log, keep_documents=keep_documents)
        self._sources = SourceTable(self._shared, self.lake)
        self._forgetting = Forgetting(
            self._shared, self.lake, self._runs, self._replies, self._sources, self.texts
        )
        self._archive = RunArchive(self._shared, self.lake, self._runs)
        self._retention = Retention(self._shared.database, self._forgetting, self.retention)
        self._retention.start()
        places = (_absolute(where), None if lake is None else _absolute(lake))
        self._arguments = (*places, schema, pretty_print, keep_documents, retention)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str]) -> Self:
        """The storage that the section `storage` of a YAML file describes.

        Raises:
            InputError: The file cannot be read, a key is unknown, or a value is not valid.
        """
        settings = read_settings(path)
        files = settings.base_dir if settings.artifact_lake_enabled else None
        return cls(
            settings.database_url or settings.base_dir,
            lake=settings.lake_url or (files if settings.database_url else None),
            schema=settings.schema,
            pretty_print=settings.pretty_print,
            keep_documents=settings.keep_documents,
            retention=settings.retention,
        )

    @property
    def has_artifacts(self) -> bool:
        """Whether it has a place for artifacts."""
        return self._artifacts is not None

    @property
    def artifacts(self) -> ArtifactStore:
        """Artifacts, manifests and raw responses.

        Raises:
            InputError: The storage has a database on a server and no lake.
        """
        if self._artifacts is None:
            raise InputError(
                "this storage has no place for files: pass lake=, or enable storage.artifact_lake"
            )
        return self._artifacts

    # Runs.

    async def begin(self, run_id: str, setup: RunSetup, corpus: Corpus) -> OwnedRun:
        """Keep a new run and its document; `RLM(storage=…)` calls it."""
        self._retention.start()
        return await self._runs.begin(run_id, setup, corpus)

    async def take(self, run_id: str) -> LoadedRun:
        """A run to go on with; `RLM.resume` calls it."""
        return await self._runs.take(run_id)

    async def keep_document(self, run_id: str, corpus: Corpus) -> str:
        """Keep the document of a run that begins later; see `RunTable.keep_document`."""
        return await self._runs.keep_document(run_id, corpus)

    async def read_document(self, sha256: str) -> Corpus:
        """A document that was kept; see `RunTable.read_document`."""
        return await self._runs.read_document(sha256)

    async def past(self, run_id: str, records: int | None = None) -> LoadedRun:
        """A run to replay; `RLM.resume_session` calls it."""
        return await self._runs.past(run_id, records)

    def runs(
        self, query: str = "", *, status: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """The newest runs, newest first.

        Args:
            query: Words that the question must contain.
            status: "running", or the `stop_reason` of its result.
            limit: How many at most.
        """
        return self._runs.infos(query, status=status, limit=limit)

    def run(self, run_id: str) -> RLMResult:
        """The result of a run, also of one that failed or was cancelled.

        For a run that is running, or whose process ended, it is the result so far, from the records
        of its calls: the turns, the code that was run and its output, the replies, what was spent,
        and the store. Of calls, only those that were answered are in it. It has no citations,
        messages, notes or layers, and neither the prompts of its code's calls nor its calls of
        tools, `cite` and the store, nor child runs that had not ended.

        Raises:
            InputError: No run has this id.
            StorageError: It cannot be read.
        """
        plain = self._runs.result(run_id)
        if plain is None:
            # Its records are in the engine's encoding
            from rlm_integrations.engine.partial_result import partial_result

            run, stop_reason = self._runs.running(run_id)
            result = partial_result(run_id, run.setup, run.records, stop_reason)
        else:
            result = RLMResult.from_dict(plain)
        name = result.options.get("store")  # a store that outlives its runs
        return result if name is None else replace(result, store=self.store(name))

    def revision(self, run_id: str) -> object:
        """A value that changes whenever `run` would return something else; cheap to look at.

        Raises:
            InputError: No run has this id.
        """
        return self._runs.revision(run_id)

    def document(self, run_id: str) -> Corpus | None:
        """The document of a run, to be closed by the caller; None if the storage did not keep it.

        Raises:
            InputError: No run has this id.
            StorageError: It cannot be read.
        """
        return self._runs.document(run_id)

    def info(self, run_id: str) -> RunInfo:
        """One run as `runs` lists it, whether it has a result or not.

        Raises:
            InputError: No run has this id.
        """
        return self._runs.info(run_id)

    def setup(self, run_id: str) -> RunSetup:
        """What a run was made with: question, documents, models and options.

        Raises:
            InputError: No run has this id.
        """
        return self._runs.setup(run_id)

    def forget(self, run_id: str) -> Removed:
        """Remove a run: its records and its result, and every document and blob that no other run
        uses. Artifacts, jobs, stores and cached replies stay.

        Raises:
            InputError: No run has this id; the message names the nearest ones.
            RunBusyError: A process is running it.
        """
        return self._forgetting.forget(run_id)

    def prune(self, *, older_than: timedelta | str) -> Removed:
        """Remove every run that was not changed for so long, however it ended, and the cached
        replies and texts of files of that age, and blobs that no run uses. Runs that a process is
        running stay.

        Args:
            older_than: A `timedelta`, or a string such as "12h", "30d" or "2w".
        """
        return self._forgetting.prune(parse_duration("older_than", older_than))

    def check(self) -> StorageReport:
        """Read everything: the database, records, events, blobs, cached replies, jobs and
        artifacts; and find what is damaged, missing or unused. Other processes may go on.

        Raises:
            StorageError: The storage cannot be read at all.
        """
        return StorageCheck(self._shared, self.lake, self._runs, self._artifacts).report()

    def stats(self) -> StorageStats:
        """How many runs, jobs, records and so on there are, and how much space they take."""
        return measure_storage(self._shared, self.lake, self._artifacts)

    def export(self, run_id: str, file: str | os.PathLike[str]) -> None:
        """Write a run with its document, journal and result to a zip file, which another storage
        imports. It has everything that was asked and answered, and no keys.

        Raises:
            InputError: No run has this id.
            RunBusyError: A process is running it.
            StorageError: The run cannot be read, or the file cannot be written.
        """
        self._archive.export(run_id, Path(file))

    def import_run(self, file: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> str:
        """Read a run from a file that `export` wrote, and return its id: it is listed, shown and
        resumed as if it had begun here. The file may come from anybody; what it says is checked,
        and whether it is true is not.

        Args:
            file: The zip file.
            max_bytes: The most bytes of its content that are read.

        Raises:
            InputError: There is no such file, or it is no zip or too large.
            RunExistsError: The storage has a run of this id.
            DamagedDataError: It is not a file of `export`, or was changed.
        """
        return self._archive.import_run(Path(file), max_bytes=max_bytes)

    # The cache; see `lm.reply_cache`.

    async def find_reply(self, key: str) -> Completion | None:
        """A cached reply; `RLM(cache=True)` and batches call it."""
        return await self._replies.find(key)

    async def keep_reply(self, key: str, completion: Completion) -> None:
        """Cache a reply; `RLM(cache=True)` and batches call it."""
        await self._replies.keep(key, completion)

    def clear_cache(self, older_than: timedelta | None = None) -> int:
        """Remove all cached replies, or those that were kept longer ago than this.

        Returns:
            How many were removed.
        """
        return self._replies.clear(older_than)

    @property
    def machine(self) -> str | None:
        """The machine that has its SQLite database; None for a database on a server."""
        is_local = self._shared.database.dialect.name == "sqlite"
        return owner.this_machine() if is_local else None

    def __reduce__(self) -> tuple[Any, ...]:
        """The arguments: a copy, or the object in another process, opens the same storage."""
        return _opened, self._arguments

    def __copy__(self) -> Self:
        """Itself: it is shared."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself, as above."""
        return self

    def __repr__(self) -> str:
        return f"<Storage in {self._shared.database.target}>"

    def close(self) -> None:
        """Release the database; the last of its users waits until everything is committed."""
        if not self._is_closed:
            self._is_closed = True
            self._retention.close()
            self._runs.close()
            self._shared.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Keep records of a journal as one unit; see `RunLog.append`."""
        await self._log.append(records)

    def load(self, run_id: str) -> list[JournalRecord]:
        """All records of a run, in order; see `RunLog.load`."""
        return self._log.load(run_id)

    async def aload(self, run_id: str) -> list[JournalRecord]:
        """`load` without blocking the event loop."""
        return await self._log.aload(run_id)

    def store(self, name: str) -> StoredStore:
        """The store of this name, which any number of runs may share: `RLM(…, store=…)`.

        Args:
            name: At most 64 letters, digits, dots, dashes and underscores.

        Raises:
            InputError: The name is invalid.
        """
        return open_store(self, self._shared, name)

    def sources(self, name: str) -> StoredSources:
        """The document of this name that grows; `RLMMiddleware(storage=…)` has one per thread."""
        return self._sources.document(name)


def _absolute(place: str | os.PathLike[str]) -> str:
    """A folder for processes in other working directories, or a URL as it is."""
    shown = os.fspath(place)
    return shown if "://" in shown else str(Path(shown).expanduser().absolute())


def _opened(
    where: str | os.PathLike[str],
    lake: str | os.PathLike[str] | None,
    schema: str,
    pretty_print: bool,
    keep_documents: bool,
    retention: timedelta | str | None,
) -> Storage:
    return Storage(
        where,
        lake=lake,
        schema=schema,
        pretty_print=pretty_print,
        keep_documents=keep_documents,
        retention=retention,
    )
