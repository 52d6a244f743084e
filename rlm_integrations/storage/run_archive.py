"""Carries runs from one storage to another, of any kind, by files."""

import json
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from rlm_integrations._json import read_record
from rlm_integrations.errors import InputError, RunBusyError, RunExistsError, StorageError
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import RunSetup
from rlm_integrations.storage import owner
from rlm_integrations.storage.lake import Lake, put_again_if_gone
from rlm_integrations.storage.record_bodies import packed, unpacked
from rlm_integrations.storage.run_file import (
    CarriedRecord,
    CarriedRun,
    RunFileReader,
    RunFileWriter,
)
from rlm_integrations.storage.run_rows import is_over, is_running
from rlm_integrations.storage.run_table import RunTable
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert


class RunArchive:
    """Writes runs of a storage to files, and reads such files into it.

    Args:
        shared: The database.
        lake: Where the blobs are.
        runs: The runs.
    """

    def __init__(self, shared: SharedDatabase, lake: Lake, runs: RunTable) -> None:
        self._shared = shared
        self._schema = shared.database.schema
        self._lake = lake
        self._runs = runs
        self._insert_record = RawInsert(
            shared.database.dialect,
            self._schema.records,
            ["run_id", "call_id", "body", "blob_sha256", "kept_at"],
        )

    def export(self, run_id: str, path: Path) -> None:
        """Write a run with its document, journal and result to a file, which is there completely or
        not at all.

        Raises:
            InputError: No run has this id, or the file cannot be written.
            RunBusyError: A process is running it.
            StorageError: It cannot be read.
        """
        row, blobs, records = self._shared.database.read(lambda each: self._read(each, run_id))
        if row is None:
            raise InputError(self._runs.unknown(run_id))
        if is_running(row):
            raise RunBusyError(
                f"run {run_id!r} is being run by {owner.shown(row.owner)}; wait until it has ended"
            )
        with _new_file(path) as archive:
            writer = RunFileWriter(archive)
            for sha256 in blobs:
                writer.add_blob(sha256, self._lake.get(sha256))
            name = f"a record of run {run_id}"
            records_sha256 = writer.add_records(
                CarriedRecord(
                    each.call_id,
                    each.kept_at,
                    None if each.body is None else unpacked(each.body, name),
                    each.blob_sha256,
                )
                for each in records
            )
            writer.add_run(
                CarriedRun(
                    run_id=run_id,
                    status=row.status,
                    setup_sha256=row.setup_sha256,
                    result_sha256=row.result_sha256,
                    created=row.created_at_utc.timestamp(),
                    updated=row.updated_at_utc.timestamp(),
                    records_sha256=records_sha256,
                    blobs=tuple(blobs),
                )
            )

    def _read(
        self, connection: Connection, run_id: str
    ) -> tuple[Row[Any] | None, list[str], list[Row[Any]]]:
        runs, uses, records = self._schema.runs, self._schema.blob_uses, self._schema.records
        used = select(uses.c.sha256).where(uses.c.run_id == run_id).order_by(uses.c.sha256)
        kept = select(records).where(records.c.run_id == run_id).order_by(records.c.record_no)
        return (
            connection.execute(select(runs).where(runs.c.run_id == run_id)).first(),
            list(connection.scalars(used)),
            list(connection.execute(kept)),
        )

    def import_run(self, path: Path, *, max_bytes: int) -> str:
        """Read the run of a file into the storage, and return its id. The file is not trusted: all
        of it is checked before any row is added.

        Raises:
            InputError: There is no such file, or it is no zip or too large.
            RunExistsError: The storage has a run of this id.
            DamagedDataError: The file is damaged, or is not that of a run.
            StorageError: It could not be kept.
        """
        with closing(RunFileReader(path, max_bytes=max_bytes)) as file:
            if self._runs.exists(file.run.run_id):
                raise RunExistsError(_EXISTS.format(file.run.run_id))
            setup = self._checked(file)
            records = [
                {
                    "run_id": file.run.run_id,
                    "call_id": each.call_id,
                    "body": None if each.body is None else packed(each.body),
                    "blob_sha256": each.blob_sha256,
                    "kept_at": each.kept_at,
                }
                for each in file.records()
            ]
            try:
                is_new = put_again_if_gone(lambda: self._add(file, setup, records))
            except BaseException:
                self._lake.remove_unused(file.run.blobs)
                raise
        if not is_new:
            raise RunExistsError(_EXISTS.format(file.run.run_id))
        return file.run.run_id

    def _checked(self, file: RunFileReader) -> RunSetup:
        """The setup of the run, once everything that names something was checked."""
        run = file.run
        with file.clear_errors():
            plain = json.loads(file.blob(run.setup_sha256))
            setup: RunSetup = read_record(RunSetup, plain["setup"], "setup")
            if plain["document"] is not None:
                for source in json.loads(file.blob(plain["document"]))["sources"]:
                    file.blob(source["sha256"])
            if run.result_sha256 is not None:
                result = RLMResult.from_dict(json.loads(file.blob(run.result_sha256)))
                if (result.run_id, result.stop_reason) != (run.run_id, run.status):
                    raise ValueError("its result is of another run")
            elif is_over(run.status):
                raise ValueError("it has no result")
        return setup

    def _add(self, file: RunFileReader, setup: RunSetup, records: list[dict[str, Any]]) -> bool:
        run = file.run
        for sha256 in run.blobs:
            self._lake.put(file.blob(sha256))
        row = {
            "run_id": run.run_id,
            "status": run.status,
            "question": setup.question,
            "root_model": setup.models.root[:200],
            "previous_run_id": None if setup.previous is None else setup.previous.run_id,
            "setup_sha256": run.setup_sha256,
            "result_sha256": run.result_sha256,
            "created_at_utc": datetime.fromtimestamp(run.created, UTC),
            "updated_at_utc": datetime.fromtimestamp(run.updated, UTC),
        }

        def write(connection: Connection) -> bool:
            if not self._runs.add(connection, row, run.blobs):
                return False
            if records:
                self._insert_record.run(connection, records)
            return True

        return self._shared.writer.submit(write).result()


_EXISTS = "there is a run {!r} in this storage already: forget it first, if it is not the same"


@contextmanager
def _new_file(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that gets its name once it is complete, readable by its user alone."""
    if path.exists() and not path.is_file():  # a device would be replaced by the file
        raise StorageError(f"{str(path)!r} is not a file: choose another name")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w+b") as file:  # noqa: PTH123 - a descriptor, not a path
            with zipfile.ZipFile(file, "w") as archive:
                yield archive
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"file {str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)
