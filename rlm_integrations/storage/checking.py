"""Reads everything that a storage holds, and finds what is damaged or missing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, Table, select, text

from rlm_integrations.errors import DamagedDataError, InputError, StorageError
from rlm_integrations.storage.artifacts import ArtifactStore
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.record_bodies import unpacked
from rlm_integrations.storage.run_table import RunTable
from rlm_integrations.storage.shared_database import SharedDatabase

_PAGE_ROWS = 200
_SHOWN_FAULTS = 20  # of the database's own check

ProblemKind = Literal["database", "run", "record", "event", "blob", "reply", "job", "artifact"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is damaged or missing.

    Attributes:
        kind: What it is.
        name: Which one: the id of a run, the SHA-256 of a blob, the path of an artifact …
        message: What is wrong, and what to do.
        run_id: The run that needs it, if one does.
    """

    kind: ProblemKind
    name: str
    message: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReport:
    """What a check of a storage found.

    Attributes:
        checked: How many of each kind were read.
        problems: What is damaged or missing.
        unused: What nothing needs, by kind: "blobs" that no run uses, "files" that are no blobs,
            "journals" without a run. `prune` removes blobs and journals by their age.
    """

    checked: Mapping[str, int]
    problems: tuple[Problem, ...]
    unused: Mapping[str, int]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.problems


class StorageCheck:
    """One check of a storage. Runs may begin, go on and be removed meanwhile.

    Args:
        shared: The database.
        lake: Where the blobs are.
        runs: Reads runs.
        artifacts: The artifacts, if there is a place for them.
    """

    def __init__(
        self,
        shared: SharedDatabase,
        lake: Lake,
        runs: RunTable,
        artifacts: ArtifactStore | None,
    ) -> None:
        self._database = shared.database
        self._schema = shared.database.schema
        self._lake = lake
        self._runs = runs
        self._artifacts = artifacts
        self._checked: dict[str, int] = {}

    def report(self) -> StorageReport:
        """Read everything.

        Raises:
            StorageError: The storage cannot be read at all.
        """
        try:
            problems = list(self._problems())
        except DamagedDataError as error:  # of the database's pages
            problems = [Problem("database", str(self._database.target), str(error))]
            return StorageReport(checked=self._checked, problems=tuple(problems), unused={})
        return StorageReport(
            checked=self._checked,
            problems=tuple(each for each in problems if self._lasts(each)),
            unused=self._unused(),
        )

    def _problems(self) -> Iterator[Problem]:
        yield from self._faults()
        runs = self._schema.runs
        for run_id, result in self._rows(select(runs.c.run_id, runs.c.result_sha256)):
            yield from self._run(run_id, has_result=result is not None)
        yield from self._bodies("record", self._schema.records, ["run_id", "call_id"])
        yield from self._bodies("event", self._schema.events, ["event_key"])
        yield from self._bodies("reply", self._schema.replies, ["reply_key"])
        yield from self._missing()
        for (sha256,) in self._rows(select(self._schema.blobs.c.sha256)):
            yield from self._blob(sha256)
        yield from self._jobs()
        yield from self._files()

    def _count(self, kind: str) -> None:
        self._checked[kind] = self._checked.get(kind, 0) + 1

    def _faults(self) -> Iterator[Problem]:
        """What the database itself finds."""
        if self._database.dialect.name != "sqlite":
            return
        found = self._database.read(
            lambda connection: connection.scalars(
                text(f"PRAGMA integrity_check({_SHOWN_FAULTS})")
            ).all()
        )
        for each in found:
            if each != "ok":
                advice = "restore the database from a backup"
                yield Problem("database", str(self._database.target), f"{each}; {advice}")

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _run(self, run_id: str, *, has_result: bool) -> Iterator[Problem]:
        self._count("runs")
        reads: list[Callable[[str], object]] = [self._runs.setup]
        reads += [self._runs.result] if has_result else []
        for read in reads:
            try:
                read(run_id)
            except (InputError, StorageError) as error:
                yield Problem("run", run_id, str(error), run_id)

    def _bodies(self, kind: ProblemKind, table: Table, names: list[str]) -> Iterator[Problem]:
        """The rows of a table whose bodies are damaged."""
        columns = [table.c[each] for each in names if each in table.c] or list(table.primary_key)

        def read(connection: Connection) -> tuple[int, list[Problem]]:
            count, found = 0, []
            query = select(*columns, table.c.body).where(table.c.body.is_not(None))
            for *key, body in connection.execute(query.execution_options(yield_per=_PAGE_ROWS)):
                count += 1
                name = " ".join(map(str, key))
                try:
                    unpacked(body, f"{kind} {name}")
                except DamagedDataError as error:
                    run_id = str(key[0]) if "run_id" in names else None
                    found.append(Problem(kind, name, str(error), run_id))
            return count, found

        self._checked[f"{kind}s" if kind != "reply" else "replies"], problems = self._database.read(
            read
        )
        yield from problems

    def _missing(self) -> Iterator[Problem]:
        """The blobs that a run uses and the storage does not have."""
        uses, blobs = self._schema.blob_uses, self._schema.blobs
        there = select(blobs.c.sha256).where(blobs.c.sha256 == uses.c.sha256).exists()
        wanted = select(uses.c.run_id, uses.c.sha256).where(~there)
        for run_id, sha256 in self._rows(wanted):
            message = f"blob {sha256} is not in the storage; remove the run that uses it"
            yield Problem("blob", sha256, message, run_id)

    def _blob(self, sha256: str) -> Iterator[Problem]:
        self._count("blobs")
        try:
            self._lake.get(sha256)
        except StorageError as error:
            uses = self._schema.blob_uses
            users = self._rows(select(uses.c.run_id).where(uses.c.sha256 == sha256).limit(1))
            for (run_id,) in users:  # without one it is being removed, or a put writes it again
                yield Problem("blob", sha256, str(error), run_id)

    def _jobs(self) -> Iterator[Problem]:
        """The jobs whose manifests are damaged or missing."""
        jobs, manifests = self._schema.jobs, self._schema.manifests
        query = select(jobs.c.job_id, manifests.c.manifest).outerjoin(
            manifests, manifests.c.manifest_id == jobs.c.manifest_id
        )
        for job_id, manifest in self._rows(query):
            self._count("jobs")
            name = f"the manifest of job {job_id}"
            try:
                Manifest.from_json(manifest or "", name)
            except DamagedDataError as error:
                yield Problem("job", str(job_id), str(error))

    def _files(self) -> Iterator[Problem]:
        """The artifacts and manifests that cannot be read."""
        store = self._artifacts
        if store is None:
            return
        for artifact in store.list_artifacts():
            self._count("artifacts")
            try:
                store.read_artifact(artifact.path)
            except (InputError, StorageError) as error:
                yield Problem("artifact", str(artifact.path), str(error))
        for manifest_id in store.list_manifests():
            self._count("manifests")
            try:
                store.read_manifest(manifest_id)
            except (InputError, StorageError) as error:
                yield Problem("artifact", manifest_id, str(error))

    def _lasts(self, problem: Problem) -> bool:
        """Whether the run that needs it was not removed meanwhile."""
        if problem.run_id is None:
            return True
        return any(
            self._rows(select(table.c.run_id).where(table.c.run_id == problem.run_id).limit(1))
            for table in (self._schema.runs, self._schema.records, self._schema.blob_uses)
        )

    def _unused(self) -> dict[str, int]:
        schema = self._schema
        uses, blobs, records, runs = schema.blob_uses, schema.blobs, schema.records, schema.runs
        used = select(uses.c.sha256).where(uses.c.sha256 == blobs.c.sha256).exists()
        journals = (
            select(records.c.run_id)
            .where(records.c.run_id.not_in(select(runs.c.run_id)))
            .distinct()
        )
        of_files = set(self._lake.files())  # before the rows: a row comes before its file
        known = {sha256 for (sha256,) in self._rows(select(blobs.c.sha256))}
        return {
            "blobs": len(self._rows(select(blobs.c.sha256).where(~used))),
            "files": len(of_files - known),
            "journals": len(self._rows(journals)),
        }
