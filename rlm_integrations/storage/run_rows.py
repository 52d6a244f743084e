"""The rows of runs: what they say, and how a process takes one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, select, update

from rlm_integrations.run_setup import RESUMABLE
from rlm_integrations.storage import owner

RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One run in a list.

    Attributes:
        run_id: Its id.
        status: "running", or how it ended: the `stop_reason` of its result.
        question: Its question.
        root_model: The name of its root model.
        created: When it began.
        updated: When its status last changed.
        is_owned: Whether a process has it now.
        has_result: Whether it has a result, also of a failed or cancelled run.
    """

    run_id: str
    status: str
    question: str
    root_model: str
    created: datetime
    updated: datetime
    is_owned: bool
    has_result: bool


class RunClaim:
    """Takes a run for this process, in a transaction, which may be repeated."""

    def __init__(self, run_id: str, runs: Table, lease: timedelta) -> None:
        self.owner = owner.own_name()
        self.is_reserved = False
        self._run_id = run_id
        self._runs = runs
        self._lease = lease
        self._before: Row[Any] | None = None

    def __call__(self, connection: Connection) -> Row[Any] | str | None:
        """The run's row before it was taken, now that it is this process's, or if it has ended; or
        who has it; or None.
        """
        runs, now = self._runs, datetime.now(UTC)
        wanted = select(runs).where(runs.c.run_id == self._run_id)
        row = connection.execute(wanted.with_for_update()).first()
        if row is None or is_over(row.status):
            return row
        if row.owner != self.owner and is_running(row):
            return str(row.owner)
        # If the row names this process, it let go in an outage, or this was committed before
        self.is_reserved = self.is_reserved or owner.reserve(self._run_id)
        if not self.is_reserved:
            return self.owner
        if self._before is None or row.owner != self.owner:
            self._before = row
        connection.execute(
            update(runs)
            .where(runs.c.run_id == self._run_id)
            .values(
                status=RUNNING,
                owner=self.owner,
                lease_until_utc=now + self._lease,
                updated_at_utc=now,
            )
        )
        return self._before


def info_of(row: Row[Any]) -> RunInfo:
    """The row as a list shows it."""
    return RunInfo(
        run_id=row.run_id,
        status=row.status,
        question=row.question,
        root_model=row.root_model,
        created=row.created_at_utc,
        updated=row.updated_at_utc,
        is_owned=is_running(row),
        has_result=row.result_sha256 is not None,
    )


def is_running(row: Row[Any]) -> bool:
    """Whether a process has the run now: its lease lasts, and it is not known to be gone or to
    have let go.
    """
    if row.owner is None or row.lease_until_utc <= datetime.now(UTC):
        return False
    if row.owner == owner.own_name():
        return owner.is_here(row.run_id)
    return not owner.is_dead(row.owner)


def is_over(status: str) -> bool:
    """Whether a run of this status has ended for good."""
    return status != RUNNING and status not in RESUMABLE
