"""Removes old runs while a storage is used, in a thread of its own."""

import logging
import threading
import time
from datetime import timedelta

from rlm_integrations.errors import RLMError
from rlm_integrations.storage.database import Database
from rlm_integrations.storage.forgetting import Forgetting

logger = logging.getLogger("rlm_integrations")

_PAUSE_SECONDS = 3600.0  # between two removals of a process


class Retention:
    """Removes the runs that are older than the storage keeps them.

    Args:
        database: Ends a removal when it is closed.
        forgetting: Removes runs.
        older_than: How long runs are kept; None for ever.
    """

    def __init__(
        self, database: Database, forgetting: Forgetting, older_than: timedelta | None
    ) -> None:
        self._database = database
        self._forgetting = forgetting
        self._older_than = older_than
        self._last: float | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to remove old runs, at most once an hour; returns at once."""
        if self._older_than is None:
            return
        with self._lock:
            now = time.monotonic()
            is_due = self._last is None or now - self._last >= _PAUSE_SECONDS
            if not is_due or self._is_stopped() or (self._thread and self._thread.is_alive()):
                return
            self._last = now
            self._thread = threading.Thread(
                target=self._remove, args=(self._older_than,), daemon=True, name="rlm-retention"
            )
            self._thread.start()

    def close(self) -> None:
        """Stop after the run that is being removed now."""
        with self._lock:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _is_stopped(self) -> bool:
        return self._stop.is_set() or self._database.is_closed

    def _remove(self, older_than: timedelta) -> None:
        try:
            self._forgetting.prune(older_than, self._is_stopped)
        except RLMError as error:
            if not self._is_stopped():
                logger.warning("old runs could not be removed: %s", error)
