"""Questions as jobs: submitted to a storage's queue, and answered by workers on any machine."""

from rlm_integrations.jobs.submitting import asubmit, submit
from rlm_integrations.jobs.worker import JobEvent, Worker

__all__ = [
    "JobEvent",
    "Worker",
    "asubmit",
    "submit",
]
