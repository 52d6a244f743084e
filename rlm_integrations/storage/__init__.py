"""Storage of runs, jobs and artifacts: a database for searches, a lake for large content."""

from importlib.util import find_spec

from rlm_integrations.errors import MissingExtraError

# Found and not imported: Alembic, which takes a quarter of a second, is for new databases only
if not all(map(find_spec, ("alembic", "sqlalchemy", "yaml", "zstandard"))):
    raise MissingExtraError("rlm_integrations.storage", "storage")

from rlm_integrations.storage.artifacts import ArtifactStore, StoredArtifact
from rlm_integrations.storage.checking import Problem, StorageReport
from rlm_integrations.storage.forgetting import Removed
from rlm_integrations.storage.job import DeriveJobStatus, Job
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.measures import Amount, StorageStats
from rlm_integrations.storage.queue import SqlQueueStore
from rlm_integrations.storage.run_log import JournalRecord
from rlm_integrations.storage.run_rows import RunInfo
from rlm_integrations.storage.storage import Storage
from rlm_integrations.storage.stores.stored_store import StoredStore

__all__ = [
    "Amount",
    "ArtifactStore",
    "DeriveJobStatus",
    "Job",
    "JournalRecord",
    "Lake",
    "Manifest",
    "Problem",
    "Removed",
    "RunInfo",
    "SqlQueueStore",
    "Storage",
    "StorageReport",
    "StorageStats",
    "StoredArtifact",
    "StoredStore",
]
