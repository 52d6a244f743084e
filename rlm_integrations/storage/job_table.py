"""The statements of the queue, on a connection: each is built once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.storage import owner
from rlm_integrations.storage.job import DeriveJobStatus, Job
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.schema import Schema
from rlm_integrations.storage.statements import insert_new, lock_free_rows

PENDING, RUNNING, FAILED = (
    DeriveJobStatus.PENDING,
    DeriveJobStatus.RUNNING,
    DeriveJobStatus.FAILED,
)
_KEPT_WHEN_TAKEN = (
    "job_id",
    "manifest_id",
    "priority",
    "created_at_utc",
    "max_attempts",
    "run_id",
    "error",
)


class JobTable:
    """Reads and writes jobs with their manifests, in the caller's transaction."""

    def __init__(self, schema: Schema, dialect: str) -> None:
        self._jobs, self._manifests = schema.jobs, schema.manifests
        jobs, manifests = schema.jobs, schema.manifests
        self._insert_jobs = insert(jobs)
        self._insert_manifests = insert_new(dialect, manifests, list(manifests.c.keys()))
        self._with_manifest = select(
            jobs, manifests.c.task_type, manifests.c.manifest, manifests.c.artifact_path
        ).join(manifests, manifests.c.manifest_id == jobs.c.manifest_id)
        next_jobs = lock_free_rows(
            select(jobs)
            .where(
                jobs.c.status == PENDING,
                or_(jobs.c.not_before_utc.is_(None), jobs.c.not_before_utc <= bindparam("now")),
            )
            .order_by(jobs.c.priority, jobs.c.created_at_utc, jobs.c.job_id)
            .limit(bindparam("count")),
            jobs,
        )
        take = update(jobs).values(
            status=RUNNING,
            worker=bindparam("new_worker"),
            started_at_utc=bindparam("now"),
            lease_until_utc=bindparam("until"),
            not_before_utc=None,
            attempts=jobs.c.attempts + 1,
        )
        # Only what taking a job does not set: each conversion of a value costs a part of the rest
        known = [jobs.c[name] for name in _KEPT_WHEN_TAKEN]
        # One statement where it can be: a round trip costs more than the rest
        self._take_next: Any = None
        if dialect in {"sqlite", "postgresql"}:
            ids = next_jobs.with_only_columns(jobs.c.job_id).cte("next")
            # Literally: SQLAlchemy does not correlate what RETURNING selects
            name = ".".join(f'"{part}"' for part in (jobs.schema, jobs.name) if part)
            of_job = manifests.c.manifest_id == literal_column(f"{name}.manifest_id")
            self._take_next = take.where(jobs.c.job_id.in_(select(ids.c.job_id))).returning(
                *known,
                jobs.c.attempts,
                *(
                    select(column).where(of_job).scalar_subquery().label(column.name)
                    for column in (manifests.c.manifest, manifests.c.artifact_path)
                ),
            )
        self._select_next = next_jobs.with_only_columns(
            *known,
            (jobs.c.attempts + 1).label("attempts"),
            manifests.c.manifest,
            manifests.c.artifact_path,
        ).join(manifests, manifests.c.manifest_id == jobs.c.manifest_id)
        self._take = take.where(jobs.c.job_id.in_(bindparam("ids", expanding=True)))
        self._select_lost = lock_free_rows(
            select(jobs).where(
                jobs.c.status == RUNNING,
                or_(
                    jobs.c.lease_until_utc < bindparam("now"),
                    jobs.c.worker.in_(bindparam("dead", expanding=True)),
                ),
            ),
            jobs,
        )
        self._select_workers = select(jobs.c.worker).where(jobs.c.status == RUNNING).distinct()
        self._renew = (
            update(jobs)
            .where(
                jobs.c.job_id == bindparam("id"),
                jobs.c.status == RUNNING,
                jobs.c.worker == bindparam("owner"),
            )
            .values(lease_until_utc=bindparam("until"))
        )

    def add(
        self, connection: Connection, jobs: Sequence[dict[str, Any]], manifests: Sequence[Manifest]
    ) -> None:
        """Insert jobs, and those of their manifests that are new. A second call changes nothing."""
        first = select(self._jobs.c.job_id).where(self._jobs.c.job_id == jobs[0]["job_id"])
        if connection.execute(first).first() is not None:
            return
        rows = [
            {
                "manifest_id": UUID(each.manifest_id),
                "manifest_version": each.manifest_version,
                "task_type": each.task_type,
                "llm_provider": each.llm_provider,
                "llm_model": each.llm_model,
                "status": PENDING,
                "artifact_path": None,
                "created_at_utc": each.created_at_utc,
                "manifest": each.model_dump_json(),
            }
            for each in manifests
        ]
        connection.execute(self._insert_manifests, rows)
        connection.execute(self._insert_jobs, jobs)

    def take(
        self, connection: Connection, count: int, worker: str, now: datetime, until: datetime
    ) -> Sequence[Job]:
        """The next jobs, which belong to the worker until then."""
        values = {"new_worker": worker, "now": now, "until": until}
        while rows := self._take_rows(connection, count, values):
            taken = []
            for row in rows:
                try:
                    taken.append(
                        _job(
                            row,
                            status=RUNNING,
                            worker=worker,
                            started_at=now,
                            lease_until=until,
                            finished_at=None,
                            not_before=None,
                        )
                    )
                except DamagedDataError as error:  # it fails alone
                    self.change(
                        connection,
                        row,
                        status=FAILED,
                        lease_until_utc=None,
                        finished_at_utc=now,
                        error=str(error),
                    )
            if taken:
                return taken
        return []

    def _take_rows(
        self, connection: Connection, count: int, values: dict[str, Any]
    ) -> Sequence[Row[Any]]:
        if self._take_next is not None:
            rows = connection.execute(self._take_next, {"count": count, **values}).all()
            return sorted(rows, key=lambda row: (row.priority, row.created_at_utc, row.job_id))
        rows = connection.execute(self._select_next, {"count": count, "now": values["now"]}).all()
        if rows:
            connection.execute(self._take, {"ids": [row.job_id for row in rows], **values})
        return rows

    def give_back_lost(self, connection: Connection, now: datetime) -> int:
        """Have the jobs whose lease or whose worker's process has ended wait again; those without
        attempts left fail.

        Returns:
            How many wait again.
        """
        waiting = 0
        workers = connection.scalars(self._select_workers).all()
        dead = [each for each in workers if owner.is_dead(each)]
        for row in connection.execute(self._select_lost, {"now": now, "dead": dead}).all():
            if row.attempts < row.max_attempts:
                waiting += 1
                self.change(connection, row, status=PENDING, lease_until_utc=None)
            else:
                self.change(
                    connection,
                    row,
                    status=FAILED,
                    lease_until_utc=None,
                    finished_at_utc=now,
                    error=f"lost by its worker {row.attempts} times, the last time by "
                    f"{owner.shown(row.worker)}",
                )
        return waiting

    def renew(self, connection: Connection, job_id: str, worker: str, until: datetime) -> bool:
        """Extend the lease; whether the job is the worker's."""
        values = {"id": as_uuid(job_id), "owner": worker, "until": until}
        return connection.execute(self._renew, values).rowcount == 1

    def lock(self, connection: Connection, job_id: str) -> Row[Any]:
        """The row of a job, which no other transaction changes meanwhile.

        Raises:
            InputError: There is no such job.
        """
        query = select(self._jobs).where(self._jobs.c.job_id == as_uuid(job_id)).with_for_update()
        hinted = query.with_hint(self._jobs, "WITH (UPDLOCK, ROWLOCK)", "mssql")
        row = connection.execute(hinted).first()
        if row is None:
            raise InputError(f"no job has the id {job_id!r}")
        return row

    def change(
        self, connection: Connection, row: Row[Any], *, path: str | None = None, **values: Any
    ) -> None:
        """Change a job, and the status and the artifact of its manifest with it."""
        connection.execute(
            update(self._jobs).where(self._jobs.c.job_id == row.job_id).values(**values)
        )
        connection.execute(
            update(self._manifests)
            .where(self._manifests.c.manifest_id == row.manifest_id)
            .values(status=values["status"], **({} if path is None else {"artifact_path": path}))
        )

    def find(self, connection: Connection, job_id: str) -> Job:
        """The job with this id.

        Raises:
            InputError: There is none.
        """
        query = self._with_manifest.where(self._jobs.c.job_id == as_uuid(job_id))
        row = connection.execute(query).first()
        if row is None:
            raise InputError(f"no job has the id {job_id!r}")
        return _stored_job(row)

    def find_all(
        self,
        connection: Connection,
        status: DeriveJobStatus | None,
        task_type: str | None,
        limit: int,
    ) -> Sequence[Job]:
        """The jobs of a status and a kind of task, the newest first; also those whose manifest is
        damaged.
        """
        query: Select[Any] = self._with_manifest.limit(limit)
        if status is not None:
            query = query.where(self._jobs.c.status == status)
        if task_type is not None:
            query = query.where(self._manifests.c.task_type == task_type)
        query = query.order_by(self._jobs.c.created_at_utc.desc(), self._jobs.c.job_id)
        return [_listed_job(row) for row in connection.execute(query)]

    def counts(self, connection: Connection) -> dict[DeriveJobStatus, int]:
        """How many jobs have each status."""
        query = select(self._jobs.c.status, func.count()).group_by(self._jobs.c.status)
        found = {DeriveJobStatus(status): number for status, number in connection.execute(query)}
        return {status: found.get(status, 0) for status in DeriveJobStatus}


def as_uuid(job_id: object) -> UUID:
    """The id as a UUID.

    Raises:
        InputError: It is not one.
    """
    try:
        return UUID(str(job_id))
    except ValueError:
        raise InputError(f"no job has the id {str(job_id)[:80]!r}: ids are UUIDs") from None


def _listed_job(row: Row[Any]) -> Job:
    """The record of a row with all columns, with the damage of its manifest."""
    try:
        return _stored_job(row)
    except DamagedDataError as error:
        manifest = Manifest.model_construct(
            manifest_id=str(row.manifest_id),
            task_type=row.task_type,
            library_version="",
            created_at_utc=row.created_at_utc,
        )
        return _stored_job(row, manifest=manifest, damage=str(error))


def _stored_job(row: Row[Any], **known: Any) -> Job:
    """The record of a row with all columns."""
    return _job(
        row,
        **known,
        status=DeriveJobStatus(row.status),
        worker=row.worker,
        started_at=row.started_at_utc,
        lease_until=row.lease_until_utc,
        not_before=row.not_before_utc,
        finished_at=row.finished_at_utc,
    )


def _job(row: Row[Any], **known: Any) -> Job:
    """The record of a row, with what it does not have, or the transaction has changed.

    Raises:
        DamagedDataError: Its manifest is damaged.
    """
    if "manifest" not in known:
        name = f"the manifest of job {row.job_id}"
        known["manifest"] = Manifest.from_json(row.manifest, name)
    return Job(
        job_id=str(row.job_id),
        priority=row.priority,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        created_at=row.created_at_utc,
        run_id=row.run_id,
        error=row.error,
        artifact_path=row.artifact_path,
        **known,
    )
