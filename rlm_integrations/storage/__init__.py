"""Storage of runs, jobs and artifacts: a database for searches, a lake for large content."""

from rlm_integrations.errors import MissingExtraError

try:
    import alembic  # noqa: F401 - these only report a missing package
    import sqlalchemy  # noqa: F401
    import yaml  # noqa: F401
    import zstandard  # noqa: F401
except ImportError as error:
    raise MissingExtraError("rlm_integrations.storage", "storage") from error

from rlm_integrations.storage.artifacts import ArtifactStore, StoredArtifact
from rlm_integrations.storage.job import DeriveJobStatus, Job
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.queue import SqlQueueStore
from rlm_integrations.storage.run_log import JournalRecord, StoredEvent
from rlm_integrations.storage.run_table import RunInfo
from rlm_integrations.storage.storage import Storage

__all__ = [
    "ArtifactStore",
    "DeriveJobStatus",
    "Job",
    "JournalRecord",
    "Lake",
    "Manifest",
    "RunInfo",
    "SqlQueueStore",
    "Storage",
    "StoredArtifact",
    "StoredEvent",
]
