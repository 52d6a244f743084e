"""Findings with their source spans, seen by all workers at once."""

from rlm_integrations.store.shared import SharedStore, WorkerStoreProxy

__all__ = ["SharedStore", "WorkerStoreProxy"]
