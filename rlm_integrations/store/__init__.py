"""Findings with their source spans, visible to all workers at once."""

from rlm_integrations.store.shared import SharedStore
from rlm_integrations.store.worker import WorkerStoreProxy

__all__ = ["SharedStore", "WorkerStoreProxy"]
