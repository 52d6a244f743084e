"""The writer: group commits, failures that stay with their unit, and databases that go away."""

import asyncio
import signal
import threading
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, make_url, select

from rlm_integrations.errors import StorageError, StorageUnavailableError
from rlm_integrations.storage.database import Database
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.shared_database import SharedDatabase, open_database
from rlm_integrations.storage.statements import RawInsert
from rlm_integrations.storage.writer import DatabaseWriter
from tests._forked import Forked
from tests.storage._mariadb import MariaDB
from tests.storage._postgres import Server


def insert_of(database: Database) -> RawInsert:
    columns = ["run_id", "sha256"]
    return RawInsert(database.dialect, database.schema.blob_uses, columns)


def row(number: int) -> dict[str, Any]:
    return {"run_id": f"run-{number}", "sha256": "0" * 64}


def count(database: Database) -> int:
    table = database.schema.blob_uses
    return database.read(lambda each: each.scalar(select(func.count()).select_from(table))) or 0


class Gate:
    """Work that keeps the writer busy until it is opened."""

    def __init__(self, writer: DatabaseWriter) -> None:
        self._go = threading.Event()
        busy = threading.Event()

        def wait(_: Connection) -> None:
            busy.set()
            self._go.wait()

        self.future = writer.submit(wait)
        busy.wait()

    def open(self) -> None:
        self._go.set()
        self.future.result()


def test_what_waits_is_committed_together(opened: SharedDatabase) -> None:
    """Units of many threads that wait for the writer share one transaction."""
    database, writer = opened.database, opened.writer
    insert, transactions = insert_of(database), []
    gate = Gate(writer)
    event.listen(database._engine, "commit", lambda _: transactions.append(1))
    futures = [writer.insert({insert: [row(number)]}) for number in range(50)]
    futures += [writer.submit(lambda each: each.scalar(select(1)))]
    gate.open()
    for future in futures:
        future.result()
    assert len(transactions) == 2  # the gate's, and one for all
    assert count(database) == 50


def test_a_unit_that_fails_fails_alone(opened: SharedDatabase) -> None:
    """A unit with an error gets it; all others of its group are committed, and none twice."""
    database, writer = opened.database, opened.writer
    insert = insert_of(database)
    gate = Gate(writer)
    good = [writer.insert({insert: [row(number)]}) for number in range(20)]
    bad = writer.insert({insert: [row(100), row(3)]})  # the second is there already

    def broken(_: Connection) -> None:
        raise ValueError("broken")

    worse = writer.submit(broken)
    good += [writer.insert({insert: [row(number)]}) for number in range(20, 40)]
    gate.open()
    for future in good:
        assert future.result() is None
    with pytest.raises(StorageError, match="a row of this key exists"):
        bad.result()
    with pytest.raises(ValueError, match="broken"):
        worse.result()
    assert count(database) == 40


def test_units_are_done_in_their_order(opened: SharedDatabase) -> None:
    """The work of one thread is done in the order in which it was submitted."""
    done: list[int] = []
    gate = Gate(opened.writer)
    futures = [opened.writer.submit(lambda _, n=n: done.append(n)) for n in range(100)]
    gate.open()
    for future in futures:
        future.result()
    assert done == list(range(100))


async def test_an_event_loop_waits_without_blocking(opened: SharedDatabase) -> None:
    """Tasks await their writes on the loop, and rows and work of a unit are one."""
    insert = insert_of(opened.database)
    table = opened.database.schema.blob_uses
    seen = await asyncio.gather(
        *(
            opened.writer.submit_here(
                lambda each, n=n: each.scalar(
                    select(func.count()).where(table.c.run_id == f"run-{n}")
                ),
                {insert: [row(n)]},
            )
            for n in range(30)
        )
    )
    assert seen == [1] * 30


async def test_a_cancelled_wait_does_not_stop_the_write(opened: SharedDatabase) -> None:
    """What a task no longer waits for is committed all the same."""
    gate = Gate(opened.writer)
    waiting = opened.writer.submit_here(None, {insert_of(opened.database): [row(1)]})
    waiting.cancel()
    after = opened.writer.submit_here(None, {insert_of(opened.database): [row(2)]})
    gate.open()
    await after
    assert count(opened.database) == 2


async def test_a_cancelled_task_ends_when_the_write_is_done(opened: SharedDatabase) -> None:
    """A task that awaits its write ends, however often it is cancelled, when the write is done."""
    gate = Gate(opened.writer)

    async def write() -> None:
        await opened.writer.submit_here(None, {insert_of(opened.database): [row(1)]})

    task = asyncio.ensure_future(write())
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert count(opened.database) == 1


async def test_rows_of_an_owner_are_one_unit(opened: SharedDatabase) -> None:
    """Rows that the tasks of a loop submit at once are one unit per owner: all of its tasks learn of
    an error, and those of other owners do not.
    """
    insert, writer = insert_of(opened.database), opened.writer

    async def write(owner: str, number: int) -> str:
        try:
            await writer.insert_here(insert, row(number), owner=owner)
        except StorageError:
            return "failed"
        return "kept"

    await write("a", 1)
    done = await asyncio.gather(
        *(write("a", number) for number in (20, 1, 21)),  # the second is there already
        *(write("b", number) for number in range(2, 12)),
    )
    assert done == ["failed"] * 3 + ["kept"] * 10
    assert count(opened.database) == 11


async def test_many_rows_of_a_unit_keep_their_order(opened: SharedDatabase) -> None:
    """Rows get their numbers in the order in which they were given, however many there are."""
    records = opened.database.schema.records
    columns = ["run_id", "call_id", "body", "blob_sha256", "kept_at"]
    insert = RawInsert(opened.database.dialect, records, columns)
    rows = [
        {"run_id": "r", "call_id": str(n), "body": b"%d" % n, "blob_sha256": None, "kept_at": n}
        for n in range(1_285)
    ]
    for start, end in pairwise((0, 1, 3, 6, 11, 266, 522, 779, 1_285)):
        await opened.writer.submit_here(None, {insert: rows[start:end]})
    query = select(records.c.call_id, records.c.body, records.c.kept_at)
    found = opened.database.read(
        lambda each: each.execute(query.order_by(records.c.record_no)).all()
    )
    assert found == [(each["call_id"], each["body"], each["kept_at"]) for each in rows]


async def test_a_write_that_was_not_begun_when_the_storage_was_closed_fails(url: str) -> None:
    """What a task has submitted just before the storage is closed fails where it is awaited."""
    shared = open_database(Target(make_url(url)))
    waiting = shared.writer.submit_here(None, {insert_of(shared.database): [row(1)]})
    shared.release()
    with pytest.raises(StorageError, match="is closed"):
        await waiting


async def test_errors_reach_the_task(opened: SharedDatabase) -> None:
    """A write that fails raises where it is awaited."""
    insert = insert_of(opened.database)
    await opened.writer.submit_here(None, {insert: [row(1)]})
    with pytest.raises(StorageError, match="a row of this key exists"):
        await opened.writer.submit_here(None, {insert: [row(1)]})


def test_closing_commits_what_waits(url: str) -> None:
    """The last release waits for all writes; later ones are refused; no thread is left."""
    target = Target(make_url(url))
    shared = open_database(target)
    before = threading.active_count()
    gate = Gate(shared.writer)
    insert = insert_of(shared.database)
    futures = [shared.writer.insert({insert: [row(number)]}) for number in range(10)]
    assert threading.active_count() == before + 1
    opener = threading.Timer(0, gate.open)
    opener.start()
    shared.release()
    opener.join()
    assert [future.result(0) for future in futures] == [None] * 10
    assert threading.active_count() == before
    with pytest.raises(StorageError, match="is closed"):
        shared.writer.insert({insert: [row(11)]})
    again = open_database(target)
    assert count(again.database) == 10
    again.release()


KILLED = """
import os, sys
from sqlalchemy import make_url
from rlm_integrations.storage.shared_database import open_database
from rlm_integrations.storage.database_errors import Target
from tests.storage.test_writer import insert_of, row
shared = open_database(Target(make_url(sys.argv[1])))
insert = insert_of(shared.database)
number = 0
while True:
    futures = [shared.writer.insert({insert: [row(number + each)]}) for each in range(7)]
    for future in futures:
        future.result()
    number += 7
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 8])
def test_what_was_acknowledged_survives_a_kill(url: str, after: int) -> None:
    """A process that is killed with -9 at any moment loses no write whose future was done."""
    process = Forked("-c", KILLED, url)
    for _ in range(after):
        acknowledged = int(process.stdout.readline())
    process.kill()
    rest = process.communicate()[0].split()
    assert process.returncode == -signal.SIGKILL
    acknowledged = max([acknowledged, *(int(each) for each in rest)])
    shared = open_database(Target(make_url(url)))
    kept = count(shared.database)
    shared.release()
    assert kept >= acknowledged >= 7 * after


def test_writes_wait_for_a_database_that_comes_back(
    stoppable: tuple[Server | MariaDB, str],
) -> None:
    """While the server is down, writes and reads wait; when it is back, all are done and nothing is
    lost.
    """
    server, url = stoppable
    shared = open_database(Target(make_url(url)))
    insert = insert_of(shared.database)
    shared.writer.insert({insert: [row(0)]}).result()
    server.stop("immediate")  # as if it were killed
    try:
        futures = [shared.writer.insert({insert: [row(number)]}) for number in range(1, 30)]
        counted: list[int] = []
        reader = threading.Thread(target=lambda: counted.append(count(shared.database)))
        reader.start()
    finally:
        server.start()
    for future in futures:
        assert future.result() is None
    reader.join()
    assert counted
    assert count(shared.database) == 30
    shared.release()


def test_patience_has_an_end(stoppable: tuple[Server | MariaDB, str]) -> None:
    """A database that stays away is an error for each waiting write, which may be repeated."""
    server, url = stoppable
    shared = open_database(Target(make_url(url)), patience=0)
    insert = insert_of(shared.database)
    gate = Gate(shared.writer)
    server.stop("immediate")
    try:
        futures = [shared.writer.insert({insert: [row(number)]}) for number in range(5)]
        with suppress(StorageUnavailableError):  # it has begun a transaction
            gate.open()
        for future in futures:
            with pytest.raises(StorageUnavailableError, match="check that it is running"):
                future.result()
        with pytest.raises(StorageUnavailableError):
            count(shared.database)
    finally:
        server.start()
    shared.writer.insert({insert: [row(7)]}).result()
    shared.release()


def test_a_full_disk_is_an_error_and_loses_nothing(sqlite_url: str) -> None:
    """When the disk is full the error says so; what was acknowledged is there, and writing goes on
    once there is space.
    """
    shared = open_database(Target(make_url(sqlite_url)))
    insert = insert_of(shared.database)
    shared.writer.insert({insert: [row(0)]}).result()

    def bound(pages: int) -> None:
        shared.writer.submit(
            lambda each: each.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()
        ).result()

    bound(1)  # SQLite takes the pages that there are
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        shared.writer.insert({insert: [row(number) for number in range(1, 5_000)]}).result()
    assert count(shared.database) == 1
    bound(1 << 30)
    shared.writer.insert({insert: [row(1)]}).result()
    assert count(shared.database) == 2
    shared.release()


def test_writes_that_need_no_disk_are_safe_from_kills_only(opened: SharedDatabase) -> None:
    """A unit may say that it need not survive a power failure; one that must makes its whole group
    durable. On MariaDB only the server's administrator can say that.
    """
    kind = opened.database.dialect.name
    if kind == "mariadb":
        pytest.skip("there is no such setting for a transaction")
    setting = "PRAGMA synchronous" if kind == "sqlite" else "SHOW synchronous_commit"

    def current(connection: Connection) -> Any:
        return connection.exec_driver_sql(setting).scalar()

    loose = opened.writer.submit(current, durable=False).result()
    gate = Gate(opened.writer)
    pair = [opened.writer.submit(current, durable=each) for each in (False, True)]
    gate.open()
    assert loose == (1 if kind == "sqlite" else "off")
    assert [each.result() for each in pair] == [2 if kind == "sqlite" else "on"] * 2
