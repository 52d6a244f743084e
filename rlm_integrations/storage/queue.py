"""The queue of derive jobs, in SQL: workers of many processes and machines take jobs from it.

A job belongs to its worker for the time of its lease. A worker that lives renews the lease; the
jobs of a dead one go to others.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Connection

from rlm_integrations.errors import InputError, check_count, quote_value
from rlm_integrations.storage import owner
from rlm_integrations.storage.folder import prepare_folder
from rlm_integrations.storage.job import DeriveJobStatus, Job
from rlm_integrations.storage.job_table import FAILED, PENDING, RUNNING, JobTable, as_uuid
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.shared_database import SharedDatabase, open_database

T = TypeVar("T")

DEFAULT_PRIORITY = 100
LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3
_SWEEP_SECONDS = 1.0  # how often a busy queue looks for leases that have ended
_MAX_PRIORITY = 1_000_000


def check_job(priority: int, max_attempts: int) -> None:
    """Check what a job is added with.

    Raises:
        InputError: It is invalid.
    """
    if type(priority) is not int or abs(priority) > _MAX_PRIORITY:
        raise InputError(f"priority must be an integer, not {quote_value(priority)}")
    check_count("max_attempts", max_attempts, most=1_000)


class SqlQueueStore:
    """A queue of jobs in `DeriveJobs`, with their manifests in `DeriveManifests`.

    Args:
        where: A storage folder, which is created if needed; or an open database (`storage.queue`
            is such a queue).
        worker: The name under which jobs are taken, by default this process's. The jobs of a process
            of this machine that has ended are lost at once, those of a name when their lease ends.
        clock: The time in UTC. The clocks of all machines must agree within a part of a lease.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | SharedDatabase = "runs/",
        *,
        worker: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._owns = not isinstance(where, SharedDatabase)
        self._shared = (
            where if isinstance(where, SharedDatabase) else open_database(prepare_folder(where))
        )
        self.worker = worker or owner.own_name()
        self._clock = clock
        self._swept_at = 0.0
        database = self._shared.database
        self._table = JobTable(database.schema, database.dialect.name)

    def close(self) -> None:
        """Close the database, if this queue has opened it."""
        if self._owns:
            self._owns = False
            self._shared.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enqueue(
        self,
        manifest: Manifest,
        priority: int = DEFAULT_PRIORITY,
        *,
        max_attempts: int = MAX_ATTEMPTS,
        job_id: str | None = None,
    ) -> str:
        """Add a job, and return its id once it is on the disk.

        Args:
            manifest: What to derive. Several jobs may have the same manifest.
            priority: Jobs with smaller numbers come first; among equals, the older.
            max_attempts: How many attempts may be lost with their worker, or end with an error that
                may pass, before the job fails.
            job_id: A UUID; a new one by default. If there is a job of this id, nothing is added.
        """
        ids = [uuid4() if job_id is None else as_uuid(job_id)]
        return self._add(ids, [manifest], priority, max_attempts)[0]

    def enqueue_many(
        self,
        manifests: Sequence[Manifest],
        priority: int = DEFAULT_PRIORITY,
        *,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> Sequence[str]:
        """Add a job for each manifest, all or none, and return their ids in the same order."""
        return self._add([uuid4() for _ in manifests], manifests, priority, max_attempts)

    def _add(
        self, ids: Sequence[UUID], manifests: Sequence[Manifest], priority: int, max_attempts: int
    ) -> Sequence[str]:
        check_job(priority, max_attempts)
        for each in manifests:
            if not isinstance(each, Manifest):
                raise InputError(f"a job needs a Manifest, not a {type(each).__name__}")
        if not manifests:
            return []
        now = self._clock()
        jobs = [
            {
                "job_id": job_id,
                "manifest_id": UUID(each.manifest_id),
                "status": PENDING,
                "priority": priority,
                "created_at_utc": now + timedelta(microseconds=number),  # they keep their order
                "attempts": 0,
                "max_attempts": max_attempts,
            }
            for number, (job_id, each) in enumerate(zip(ids, manifests, strict=True))
        ]
        distinct = list({each.manifest_id: each for each in manifests}.values())
        self._write(lambda connection: self._table.add(connection, jobs, distinct))
        return [str(each["job_id"]) for each in jobs]

    def dequeue(self, *, lease_seconds: float = LEASE_SECONDS) -> Job | None:
        """The next job, which is this worker's until its lease ends; None if none is waiting."""
        return next(iter(self.dequeue_many(1, lease_seconds=lease_seconds)), None)

    def dequeue_many(self, count: int, *, lease_seconds: float = LEASE_SECONDS) -> Sequence[Job]:
        """Up to so many jobs, the next first. No two workers get the same."""
        check_count("count", count, most=1_000)

        def take(connection: Connection) -> Sequence[Job]:
            now = self._clock()
            until = now + timedelta(seconds=lease_seconds)
            is_due = time.monotonic() - self._swept_at > _SWEEP_SECONDS
            if is_due:
                self._sweep(connection, now)
            taken = self._table.take(connection, count, self.worker, now, until)
            if not taken and not is_due and self._sweep(connection, now):
                taken = self._table.take(connection, count, self.worker, now, until)
            return taken

        # A power failure that undoes it leaves the jobs waiting: nothing is lost
        return self._write(take, durable=False)

    def _sweep(self, connection: Connection, now: datetime) -> int:
        self._swept_at = time.monotonic()
        return self._table.give_back_lost(connection, now)

    def update_status(
        self,
        job_id: str,
        status: DeriveJobStatus,
        *,
        artifact_path: str | os.PathLike[str] | None = None,
        run_id: str | None = None,
        error: str | None = None,
    ) -> None:
        """Set a job's status, and what is known of it.

        Raises:
            InputError: There is no such job, or another worker has it.
        """
        status = DeriveJobStatus(status)

        def change(connection: Connection) -> None:
            row = self._table.lock(connection, job_id)
            if row.status == RUNNING and row.worker != self.worker:
                raise InputError(
                    f"job {job_id} belongs to {owner.shown(row.worker)} now: its lease by "
                    f"{owner.shown(self.worker)} has ended"
                )
            known: dict[str, Any] = {"run_id": run_id, "error": error}
            values = {name: value for name, value in known.items() if value is not None}
            if status.is_final:
                values |= {"finished_at_utc": self._clock(), "lease_until_utc": None}
            if status == DeriveJobStatus.COMPLETED:
                values["error"] = None  # that of an earlier attempt
            path = None if artifact_path is None else os.fspath(artifact_path)
            self._table.change(connection, row, path=path, status=status, **values)

        self._write(change)

    def heartbeat(self, job_id: str, *, lease_seconds: float = LEASE_SECONDS) -> bool:
        """Renew the lease. False if the job is no longer this worker's: it was cancelled, or its
        lease had ended; the worker must stop then.
        """
        until = self._clock() + timedelta(seconds=lease_seconds)
        return self._write(
            lambda connection: self._table.renew(connection, job_id, self.worker, until),
            durable=False,
        )

    def release(self, job_id: str, *, delay_seconds: float = 0.0, error: str | None = None) -> None:
        """Hand back a running job, so that this or another worker takes it again.

        Args:
            job_id: The job; nothing happens if it is no longer this worker's.
            delay_seconds: How long it waits at least.
            error: What its attempt ended with; without an error, the attempt does not count.
        """

        def hand_back(connection: Connection) -> None:
            row = self._table.lock(connection, job_id)
            if row.status == RUNNING and row.worker == self.worker:
                self._table.change(
                    connection,
                    row,
                    status=PENDING,
                    lease_until_utc=None,
                    not_before_utc=self._clock() + timedelta(seconds=delay_seconds),
                    attempts=row.attempts if error else max(0, row.attempts - 1),
                    error=error,
                )

        self._write(hand_back)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not over; a worker that has it learns of it at its next heartbeat.
        False if it was over.
        """

        def end(connection: Connection) -> bool:
            row = self._table.lock(connection, job_id)
            if DeriveJobStatus(row.status).is_final:
                return False
            now = self._clock()
            self._table.change(
                connection,
                row,
                status=DeriveJobStatus.CANCELLED,
                finished_at_utc=now,
                lease_until_utc=None,
            )
            return True

        return self._write(end)

    def retry(self, job_id: str) -> None:
        """Have a failed or cancelled job wait again, with all its attempts.

        Raises:
            InputError: It is completed, waiting or running.
        """

        def again(connection: Connection) -> None:
            row = self._table.lock(connection, job_id)
            if row.status not in {FAILED, DeriveJobStatus.CANCELLED}:
                raise InputError(
                    f"job {job_id} is {row.status}; only failed and cancelled jobs are retried"
                )
            self._table.change(
                connection,
                row,
                status=PENDING,
                attempts=0,
                error=None,
                finished_at_utc=None,
                not_before_utc=None,
            )

        self._write(again)

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            InputError: There is none.
            DamagedDataError: Its manifest is damaged.
        """
        return self._read(lambda connection: self._table.find(connection, job_id))

    def counts(self) -> dict[DeriveJobStatus, int]:
        """How many jobs have each status."""
        return self._read(self._table.counts)

    def list(
        self,
        status: DeriveJobStatus | None = None,
        *,
        task_type: str | None = None,
        limit: int = 100,
    ) -> Sequence[Job]:
        """The jobs, the newest first; those of one status or one kind of task. Jobs whose manifest
        is damaged are listed too, with `Job.damage`.
        """
        check_count("limit", limit)
        wanted = None if status is None else DeriveJobStatus(status)
        return self._read(
            lambda connection: self._table.find_all(connection, wanted, task_type, limit)
        )

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._shared.database.read(work)

    def _write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        return self._shared.writer.submit(work, durable=durable).result()
