"""One database and one writer thread per URL in a process, shared by all who open it."""

import threading
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations.storage.database import Database
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.schema import DEFAULT_SCHEMA
from rlm_integrations.storage.writer import DatabaseWriter

_EXIT_SECONDS = 1.5  # what closing at the interpreter's exit may take


class SharedDatabase:
    """A database with its writer; closed when the last of those who opened it releases it.

    Attributes:
        database: Where to read.
        writer: How to write.
    """

    def __init__(self, key: tuple[Any, ...], database: Database) -> None:
        self.database = database
        self.writer = DatabaseWriter(database)
        self._key = key
        self._uses = 1
        self._lock = threading.Lock()

    def acquire(self) -> bool:
        """Count one more user; False if the last one has released it."""
        with self._lock:
            if self._uses:
                self._uses += 1
            return self._uses > 0

    def release(self) -> None:
        """Count one user less. The last one waits until everything is committed, and closes it."""
        with self._lock:
            self._uses -= 1
            if self._uses:
                return
        runtime.forget(self._key, self)
        self.writer.close()
        self.database.close()

    def close(self) -> None:
        """Commit what waits and close, at the interpreter's exit."""
        self.writer.close(timeout=_EXIT_SECONDS)
        self.database.close()

    def abandon(self) -> None:
        """Leave the parent's connections alone in a forked process."""
        self.database.abandon()


def open_database(
    target: Target, *, schema: str = DEFAULT_SCHEMA, **options: Any
) -> SharedDatabase:
    """The process's database for this URL and schema, opened at the first use.

    Each call needs a `release`. `options` are those of `Database`, for the first use.
    """
    key = ("database", target.url, schema)
    while True:
        made: list[SharedDatabase] = []

        def make(made: list[SharedDatabase] = made) -> SharedDatabase:
            made.append(SharedDatabase(key, Database(target, schema=schema, **options)))
            return made[0]

        shared = runtime.shared(key, make)
        if made or shared.acquire():
            return shared
        runtime.forget(key, shared)
