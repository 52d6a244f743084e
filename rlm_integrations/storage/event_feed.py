"""Waiting for what other processes write, at the cost of a few microseconds a look."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.storage.database import Database
from rlm_integrations.store.log import StoreEvent

NOTIFY_CHANNEL = "rlm_store_events"
_LOOK_SECONDS = 0.002  # SQLite: a look takes some microseconds
_POLL_SECONDS = 0.05  # databases without a wake-up: a look is a query
_NOTIFY_SECONDS = 1.0  # a wake-up can be lost: the table is read after this time all the same


async def follow(
    page: Callable[[int], Sequence[StoreEvent]], database: Database, after: int = 0
) -> AsyncIterator[StoreEvent]:
    """The events of a store after that number, then every further one as it is committed by any
    process. It never ends by itself.

    Args:
        page: Gives some events after a number.
        database: Where they are.
        after: The number.
    """
    make = _WAITERS.get(database.dialect.name, _Waiter)
    waiter = await in_thread(make, database)
    try:
        while True:
            events = await in_thread(page, after)
            for event in events:
                yield event
                after = event.seq
            if not events:
                await waiter.wait()
    finally:
        waiter.close()


class _Waiter:
    """Waits until something may have been committed; here, for a while."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wait(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Release what it holds."""


class _SqliteWaiter(_Waiter):
    """Looks at a number that SQLite changes with every commit of another connection."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._connection = database.driver_connection()
        self._version = self._look()

    def _look(self) -> Any:
        return self._connection.execute("PRAGMA data_version").fetchone()

    async def wait(self) -> None:
        while (version := self._look()) == self._version:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(_LOOK_SECONDS)
        self._version = version

    def close(self) -> None:
        self._connection.close()


class _PostgresWaiter(_Waiter):
    """Waits for the notification that an append sends with its commit."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._connection: Any = None
        self._listen()

    def _listen(self) -> None:
        self._connection = self._database.driver_connection()
        self._connection.autocommit = True
        self._connection.execute(f"LISTEN {NOTIFY_CHANNEL}")

    async def wait(self) -> None:
        if not await in_thread(self._was_woken):
            await asyncio.sleep(_POLL_SECONDS)

    def _was_woken(self) -> bool:
        """Whether a notification came, or its time is over; False if the connection is lost."""
        try:
            if self._connection.closed:
                self._listen()
            for _ in self._connection.notifies(timeout=_NOTIFY_SECONDS, stop_after=1):
                return True
        except self._database.driver_error:  # the next read waits for the database, or raises
            self._connection.close()
            return False
        return True

    def close(self) -> None:
        self._connection.close()


_WAITERS: dict[str, type[_Waiter]] = {
    "sqlite": _SqliteWaiter,
    "postgresql": _PostgresWaiter,
}
