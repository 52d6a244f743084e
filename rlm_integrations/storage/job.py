"""Jobs of the queue, as records."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rlm_integrations.storage.manifest import Manifest


class DeriveJobStatus(StrEnum):
    """Where a job is. A lost or released job goes from RUNNING back to PENDING."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job is over, unless someone retries it."""
        return self not in {DeriveJobStatus.PENDING, DeriveJobStatus.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of the queue, as it was when it was read.

    Attributes:
        job_id: A UUID.
        manifest: What to derive, and from what.
        status: Where the job is.
        priority: Jobs with smaller numbers come first.
        attempts: How often it was dequeued, without those that were handed back.
        max_attempts: How many attempts may be lost with their worker, or end with an error that
            may pass, before the job fails.
        created_at: When it was enqueued.
        started_at: When it was last dequeued.
        finished_at: When it ended.
        worker: Who has it, or had it last.
        lease_until: Until when it belongs to the worker, without a further heartbeat.
        not_before: When a waiting job may be taken; None for at once.
        run_id: The run that derives it, if the worker has named it.
        error: Why it failed, or why its last attempt did.
        artifact_path: Where the artifact is.
        damage: In a list, what is wrong with the manifest, of which only the id and the task type
            are known then.
    """

    job_id: str
    manifest: Manifest
    status: DeriveJobStatus
    priority: int
    attempts: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    lease_until: datetime | None = None
    not_before: datetime | None = None
    run_id: str | None = None
    error: str | None = None
    artifact_path: str | None = None
    damage: str | None = None
