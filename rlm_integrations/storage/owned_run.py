"""A run that this process has, and the leases that show that it is alive."""

import logging
import threading
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, update

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import RLMError, RunBusyError
from rlm_integrations.storage import owner
from rlm_integrations.storage.lake import Lake, put_again_if_gone
from rlm_integrations.storage.run_log import JournalRecord, RunLog
from rlm_integrations.storage.shared_database import SharedDatabase

logger = logging.getLogger("rlm_integrations")


class Leases:
    """Extends the leases of all runs of this process, in one thread while there are any."""

    def __init__(self, shared: SharedDatabase, lease: timedelta) -> None:
        self._shared = shared
        self._lease = lease
        self._runs: dict[str, OwnedRun] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: "OwnedRun") -> None:
        """Begin to extend the lease of a run."""
        with self._lock:
            self._runs[run.run_id] = run
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._extend_all, args=(self._stop,), daemon=True, name="rlm-leases"
                )
                self._thread.start()

    def remove(self, run_id: str) -> None:
        """Stop extending the lease of a run."""
        with self._lock:
            self._runs.pop(run_id, None)
            if self._runs or self._thread is None:
                return
            self._stop.set()
            self._thread = None

    def close(self) -> None:
        """Stop all."""
        for run_id in list(self._runs):
            self.remove(run_id)

    def _extend_all(self, stop: threading.Event) -> None:
        while not stop.wait(self._lease.total_seconds() / 3):
            for run in list(self._runs.values()):
                try:
                    run.extend_lease(self._lease)
                except RLMError:  # its next record fails with the same error, and is heard
                    logger.warning("the lease of run %s could not be extended", run.run_id)


class OwnedRun:
    """A run in the storage that belongs to this process; see `engine.run_storage.KeptRun`.

    Args:
        run_id: Its id.
        shared: The database.
        lake: Where the result goes.
        log: Where records go.
        leases: Shows that this process is alive.
        before: The columns that a run which was taken had before. They are set again if this
            process lets go of it without a record.
    """

    def __init__(
        self,
        run_id: str,
        shared: SharedDatabase,
        lake: Lake,
        log: RunLog,
        leases: Leases,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_id = run_id
        self._shared = shared
        self._lake = lake
        self._log = log
        self._leases = leases
        self._before = dict(before or {})
        self._owner = owner.own_name()
        self._is_lost = self._is_over = False
        self._runs = shared.database.schema.runs
        owner.reserve(run_id)
        leases.add(self)

    def append(self, call: str, record: bytes, *, durable: bool = True) -> Awaitable[None]:
        """Begin to keep a record of the run's journal; see `RunLog.append_one`. Only if it is not
        `durable` may a power failure lose it, and then with all later ones.

        Raises:
            RunBusyError: Another process has taken the run, because this one was not heard of.
            StorageError: It could not be kept.
        """
        self._will_change()
        return self._log.append_one(JournalRecord(self.run_id, call, record), durable=durable)

    def append_in(self, connection: Connection, call: str, record: bytes) -> None:
        """Keep a record in a transaction of the writer; for what belongs to it."""
        self._will_change()
        self._log.append_in(connection, JournalRecord(self.run_id, call, record))

    def _will_change(self) -> None:
        if self._is_lost:
            raise RunBusyError(f"run {self.run_id!r} was taken by another process")
        if self._before:
            self._before = {}

    async def finish(self, stop_reason: str, result: bytes) -> None:
        """Keep the result, which is JSON, and let go of the run.

        Raises:
            StorageError: It could not be kept.
        """
        await in_thread(self._finish, stop_reason, result)

    def _finish(self, stop_reason: str, result: bytes) -> None:
        self._leases.remove(self.run_id)

        def attempt() -> None:
            sha256 = self._lake.put(result)

            def write(connection: Connection) -> None:
                ended = {"status": stop_reason[:20], "result_sha256": sha256}
                if self._update(connection, owner=None, lease_until_utc=None, **ended):
                    self._lake.use(connection, self.run_id, [sha256])

            self._shared.writer.submit(write).result()

        put_again_if_gone(attempt)
        self._is_over = True
        owner.give_back(self._owner, self.run_id)

    async def release(self) -> None:
        """Let go of the run, if it was not finished."""
        await in_thread(self.let_go)

    def let_go(self) -> None:
        """The same; blocks."""
        if self._is_over:
            return
        self._is_over = True
        self._leases.remove(self.run_id)
        try:
            free = {"owner": None, "lease_until_utc": None, **self._before}
            self._shared.writer.submit(lambda connection: self._update(connection, **free)).result()
        finally:  # without the storage, too: this process may resume it once it is back
            owner.give_back(self._owner, self.run_id)

    def extend_lease(self, lease: timedelta) -> None:
        """Show that this process is alive; blocks.

        Raises:
            StorageError: The storage cannot be reached.
        """
        until = datetime.now(UTC) + lease
        work = self._shared.writer.submit(
            lambda connection: self._update(connection, lease_until_utc=until), durable=False
        )
        if not work.result():
            self._is_lost = True
            owner.give_back(self._owner, self.run_id)

    def _update(self, connection: Connection, **values: Any) -> bool:
        """Change the run's row, if the run is still this process's."""
        runs = self._runs
        changed = connection.execute(
            update(runs)
            .where(runs.c.run_id == self.run_id, runs.c.owner == self._owner)
            .values({"updated_at_utc": datetime.now(UTC), **values})
        )
        return changed.rowcount > 0
