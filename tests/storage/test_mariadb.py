"""What is different on MariaDB: its defaults, its locks, its errors. `make test-mariadb` runs these,
and the tests that run on every kind of database.
"""

import os
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text

from rlm_integrations.errors import StorageError, StorageUnavailableError
from rlm_integrations.storage import JournalRecord, Storage
from rlm_integrations.storage.database import Database, parse_url
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.migrations.upgrade import CURRENT_VERSION, read_version
from rlm_integrations.storage.shared_database import SharedDatabase, open_database
from rlm_integrations.storage.statements import RawInsert
from tests.storage._mariadb import PASSWORD, MariaDB


@pytest.fixture
def run_sql(mariadb_url: str) -> Any:
    """Run a statement on the database, with the driver alone."""

    def run(*statements: str) -> list[tuple[Any, ...]]:
        with Database(Target(make_url(mariadb_url)), may_create=False).write() as connection:
            results = [connection.exec_driver_sql(each) for each in statements]
            return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []

    return run


def blob(number: int, **values: Any) -> dict[str, Any]:
    return {"sha256": f"{number:064}", "size": 1, "data": b"x", "kept_at": 0.0, **values}


def blob_insert(shared: SharedDatabase, *, new_only: bool = True) -> RawInsert:
    database = shared.database
    return RawInsert(database.dialect, database.schema.blobs, list(blob(0)), new_only=new_only)


def test_tables_depend_on_no_default_of_the_server(opened: SharedDatabase) -> None:
    """The server's default is latin1 without regard to case; tables have all characters, compared
    exactly, and transactions.
    """
    found = opened.database.read(
        lambda connection: connection.execute(
            text(
                "SELECT DISTINCT engine, table_collation FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name <> 'llm_SchemaVersion'"
            )
        ).all()
    )
    assert [tuple(row) for row in found] == [("InnoDB", "utf8mb4_nopad_bin")]


async def test_keys_and_texts_are_exact(mariadb_url: str) -> None:
    """Keys that differ in case, in an accent or in a blank at the end are different; text of any
    language comes back as it was.
    """
    keys = ["run", "Run", "rún", "run ", "запуск", "🐟"]
    with Storage(mariadb_url) as storage:
        await storage.append([JournalRecord(key, f"call of {key}", b"x") for key in keys])
        for key in keys:
            assert storage.load(key) == [JournalRecord(key, f"call of {key}", b"x")]


def test_an_interrupted_creation_is_finished(mariadb_url: str, run_sql: Any) -> None:
    """Statements that create tables are committed one by one: what a killed process left behind is
    kept, and the rest is added.
    """
    open_database(Target(make_url(mariadb_url))).release()
    run_sql(
        "DROP TABLE llm_DeriveJobs",
        "DROP INDEX ix_llm_Runs_created_at_utc ON llm_Runs",
        "DELETE FROM llm_SchemaVersion",
    )
    shared = open_database(Target(make_url(mariadb_url)))
    database = shared.database
    assert database.read(lambda each: read_version(each, database.names)) == CURRENT_VERSION
    shared.release()
    (indexes,) = run_sql(
        "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics WHERE table_schema = "
        "DATABASE() AND index_name IN ('ix_llm_Runs_created_at_utc', 'ix_llm_DeriveJobs_manifest_id')"
    )
    assert indexes == (2,)


def test_only_one_process_creates_tables(mariadb_url: str, run_sql: Any) -> None:
    """A process that cannot have the lock says so, and creates nothing."""
    from rlm_integrations.storage.migrations import upgrade

    held = Database(Target(make_url(mariadb_url)))
    with pytest.MonkeyPatch.context() as patch, held.write() as connection:
        connection.exec_driver_sql("SELECT GET_LOCK('rlm-integrations other_', 0)").all()
        patch.setattr(upgrade, "_LOCK_SECONDS", 0)
        with pytest.raises(StorageUnavailableError, match="another process is creating"):
            Database(Target(make_url(mariadb_url)), schema="other")
    held.close()
    assert not [name for (name,) in run_sql("SHOW TABLES") if name.startswith("other_")]


def test_long_values_are_refused_whatever_the_server_allows(
    mariadb: MariaDB, mariadb_url: str
) -> None:
    """A server that cuts long values with a warning does not do it to ours, nor does an insert that
    skips rows that are there.
    """
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.sql_mode")
        (before,) = cursor.fetchone()
        cursor.execute("SET GLOBAL sql_mode = ''")
    try:
        shared = open_database(Target(make_url(mariadb_url)))
        insert = blob_insert(shared)
        with pytest.raises(StorageError, match="Data too long"):
            shared.writer.insert({insert: [blob(1, sha256="1" * 65)]}).result()
        for _ in range(2):
            shared.writer.insert({insert: [blob(1)]}).result()
        shared.release()
    finally:
        with mariadb.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL sql_mode = %s", (before,))


def test_a_blob_over_the_packets_size_is_an_error_that_says_so(mariadb_url: str) -> None:
    """It is not sent, because the server would only close the connection; others are kept."""
    with Storage(mariadb_url) as storage:
        most = storage._shared.database.max_value_bytes
        assert most is not None
        large = os.urandom(most - 1_000)
        assert storage.lake.get(storage.lake.put(large)) == large
        with pytest.raises(StorageError, match=r"max_allowed_packet allows .* or pass lake="):
            storage.lake.put(os.urandom(most))


def test_a_wait_for_a_lock_that_ends_is_repeated(
    opened: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that another transaction keeps waiting for too long is done once that has ended, and
    so is one that lost a deadlock.
    """
    insert = blob_insert(opened)
    opened.writer.insert({insert: [blob(1)]}).result()
    has_failed = threading.Event()
    wait = opened.database._stop.wait

    def pause(seconds: float) -> bool:
        has_failed.set()
        return wait(seconds)

    monkeypatch.setattr(opened.database._stop, "wait", pause)
    blobs = opened.database.schema.blobs

    def change(connection: Connection) -> int:
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
        return connection.execute(blobs.update().values(size=2)).rowcount

    with opened.database.write() as other:
        other.execute(blobs.update().values(size=3))
        changed = opened.writer.submit(change)
        assert has_failed.wait(250)
    assert changed.result() == 1


@pytest.mark.parametrize("drivername", ["mariadb+pymysql", "mysql+pymysql"])
def test_what_is_wrong_with_a_url_is_said(mariadb: MariaDB, drivername: str) -> None:
    """A wrong password, an unknown database and a server that is not there are errors that say what
    to check, without the password.
    """

    def opening(url: str, **changes: Any) -> None:
        Database(Target(parse_url(url).set(drivername=drivername, **changes)))

    with pytest.raises(StorageError, match="check the user, the password") as raised:
        opening(mariadb.url("d", password="wr@ng/secret"))
    assert "wr@ng" not in str(raised.value)
    with pytest.raises(StorageError, match="the database's name in the URL"):
        opening(mariadb.url("nowhere"))
    with pytest.raises(StorageUnavailableError, match="check that it is running") as dead:
        opening(mariadb.url("d"), port=1)
    assert PASSWORD not in str(dead.value)
