"""Writes to a database in one thread, which commits what all threads wait for at once.

A commit waits for the disk. Alone, each thread would wait in turn; in a group all wait together.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

from sqlalchemy import Connection

from rlm_integrations.errors import StorageError, StorageUnavailableError
from rlm_integrations.storage.database import Database
from rlm_integrations.storage.statements import RawInsert, Row

T = TypeVar("T")

_GROUP_UNITS = 1_000
# In a turn of an event loop. If all went on at once, each with new objects, the garbage collector
# would run more often; a turn for each takes time as well
_WOKEN_AT_ONCE = 4
Rows = Mapping[RawInsert, Sequence[Row]]


@runtime_checkable
class GroupWork(Protocol):
    """Work that collects rows, to write those of a whole group at once."""

    def finish(self, connection: Connection) -> None:
        """Write them, after the work of all units; each of them calls this."""
        ...


class _Write(asyncio.Future[T]):
    """The outcome of a write. Cancelling a task that awaits it takes effect when it is done."""

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - asyncio's signature
        """Refuse: the write goes on."""
        return False


@dataclass(slots=True, eq=False)
class _Unit(Generic[T]):
    """What is committed completely or not at all.

    `work` may be called several times: if another unit of its group fails, and after a commit whose
    outcome is unknown because the connection was lost.
    """

    work: Callable[[Connection], T] | None
    rows: Rows
    durable: bool
    futures: Sequence[Future[T] | asyncio.Future[T]]
    outcome: Any = None
    error: BaseException | None = None


class _Submitted:
    """What tasks of an event loop submit before the loop goes on: it wakes the writer once for all.

    Attributes:
        units: All units.
        shared: By statement, owner and durability, the rows of a unit and their futures.
    """

    __slots__ = ("shared", "units")

    def __init__(self) -> None:
        self.units: list[_Unit[Any]] = []
        self.shared: dict[Hashable, tuple[list[Row], list[asyncio.Future[None]]]] = {}


class DatabaseWriter:
    """Commits units of work in the order in which they come, in groups.

    Units of a group share a transaction: first the rows of all, then the work of each. If one
    fails, the others are committed without it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Unit[Any]] = []
        self._of_loops = WeakKeyDictionary[asyncio.AbstractEventLoop, _Submitted]()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, work: Callable[[Connection], T], *, durable: bool = True) -> Future[T]:
        """Have `work` done in the writer's thread and committed; its result is the future's.

        Args:
            work: Reads and writes on the connection, quickly. It must give the same when it is
                called twice.
            durable: Whether it must survive a power failure.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # a write cannot be cancelled
        self._add([_Unit(work, {}, durable, [future])])
        return future

    def insert(self, rows: Rows) -> Future[None]:
        """Have rows inserted and committed as one unit."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        self._add([_Unit(None, rows, True, [future])])
        return future

    def submit_here(
        self, work: Callable[[Connection], T] | None, rows: Rows, *, durable: bool = True
    ) -> "asyncio.Future[T]":
        """The same for the running event loop: rows and work as one unit.

        A task that awaits it and is cancelled meanwhile ends when the write is done.
        """
        future: asyncio.Future[T] = _Write()
        unit = _Unit(work, rows, durable, [future])
        self._submitted_here().units.append(unit)
        return future

    def insert_here(
        self, statement: RawInsert, row: Row, *, owner: Hashable, durable: bool = True
    ) -> "asyncio.Future[None]":
        """Have a row inserted, as `submit_here` does. The rows of one owner that tasks submit
        before the event loop goes on are one unit.
        """
        submitted = self._submitted_here()
        future: asyncio.Future[None] = _Write()
        key = (statement, owner, durable)
        if key not in submitted.shared:
            shared = rows, futures = list[Row](), list[asyncio.Future[None]]()
            unit = _Unit(None, {statement: rows}, durable, futures)
            submitted.units.append(unit)
            submitted.shared[key] = shared
        rows, futures = submitted.shared[key]
        rows.append(row)
        futures.append(future)
        return future

    def _submitted_here(self) -> "_Submitted":
        self._database.check_usable()
        loop = asyncio.get_running_loop()
        submitted = self._of_loops.get(loop)
        if submitted is None:
            submitted = self._of_loops[loop] = _Submitted()
        if not submitted.units:
            loop.call_soon(self._hand_over, submitted)
        return submitted

    def _hand_over(self, submitted: "_Submitted") -> None:
        group = list(submitted.units)
        submitted.units.clear()
        submitted.shared.clear()
        try:
            self._add(group)
        except StorageError as error:
            for unit in group:
                unit.error = error
                for future in unit.futures:
                    _set(future, unit)

    def _add(self, units: Sequence[_Unit[Any]]) -> None:
        self._database.check_usable()  # in a forked process there is no thread
        with self._wake:
            if self._is_closed:
                raise StorageError(f"storage in {self._database.target} is closed; open it again")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, daemon=True, name="rlm-storage-writer"
                )
                self._thread.start()
            self._waiting.extend(units)
            self._wake.notify()

    def close(self, *, timeout: float | None = None) -> None:
        """Commit what waits, then end the thread."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._is_closed:
                    self._wake.wait()
                group = self._waiting[:_GROUP_UNITS]
                del self._waiting[:_GROUP_UNITS]
            if not group:
                return
            self._commit(group)
            _settle(group)
            del group  # its futures hold results

    def _commit(self, group: list[_Unit[Any]]) -> None:
        """Commit the units together. If that fails, commit each half, so that only those that
        cannot be committed fail.
        """
        try:
            self._database.persist(lambda: self._transact(group))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            if len(group) == 1 or isinstance(error, StorageUnavailableError):
                for unit in group:
                    unit.error = error
                return
            middle = len(group) // 2
            self._commit(group[:middle])
            self._commit(group[middle:])

    def _transact(self, group: list[_Unit[Any]]) -> None:
        rows: dict[RawInsert, list[Row]] = {}
        for unit in group:
            for statement, more in unit.rows.items():
                rows.setdefault(statement, []).extend(more)
        durable = any(unit.durable for unit in group)
        is_single = (
            len(rows) == 1
            and all(statement.is_single(each) for statement, each in rows.items())
            and all(unit.work is None for unit in group)
        )
        with self._database.write(durable=durable, is_single=is_single) as connection:
            for statement, each in rows.items():
                statement.run(connection, each)
            for unit in group:
                if unit.work is not None:
                    unit.outcome = unit.work(connection)
            for unit in group:
                work: object = unit.work
                # Comparing with a protocol takes microseconds
                if work is not None and isinstance(work, GroupWork):
                    work.finish(connection)


def _settle(group: list[_Unit[Any]]) -> None:
    """Wake those who wait; each event loop once."""
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], _Unit[Any]]]] = {}
    for unit in group:
        for future in unit.futures:
            if isinstance(future, asyncio.Future):
                of_loops.setdefault(future.get_loop(), []).append((future, unit))
            else:
                _set(future, unit)
    for loop, waiting in of_loops.items():
        try:
            loop.call_soon_threadsafe(_wake_some, loop, iter(waiting))
        except RuntimeError:  # the loop is closed: nothing waits there any more
            continue


def _wake_some(
    loop: asyncio.AbstractEventLoop, waiting: Iterator[tuple[asyncio.Future[Any], _Unit[Any]]]
) -> None:
    """Wake a few, and the others in later turns of the loop."""
    for number, (future, unit) in enumerate(waiting, start=1):
        if not future.done():
            _set(future, unit)
        if number == _WOKEN_AT_ONCE:
            loop.call_soon(_wake_some, loop, waiting)
            break


def _set(future: Future[Any] | asyncio.Future[Any], unit: _Unit[Any]) -> None:
    if unit.error is None:
        future.set_result(unit.outcome)
    else:
        future.set_exception(unit.error)
