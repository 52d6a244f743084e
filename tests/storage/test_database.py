"""How a database is opened: what is created, what is refused, and what messages say."""

import os
import stat
import tempfile
import traceback
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from rlm_integrations.errors import (
    DamagedDataError,
    InputError,
    MissingExtraError,
    StorageError,
    StorageUnavailableError,
)
from rlm_integrations.storage.database import Database, parse_url
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.folder import file_system_of, prepare_folder
from rlm_integrations.storage.migrations.upgrade import CURRENT_VERSION, read_version
from rlm_integrations.storage.schema import VERSION_TABLE
from rlm_integrations.storage.shared_database import SharedDatabase, open_database
from tests._forked import Forked
from tests._script import run_script
from tests.storage._postgres import PASSWORD, Server


def set_version(shared: SharedDatabase, version: str) -> None:
    names = shared.database.names
    table = names.table(VERSION_TABLE)
    place = f'{names.schema}."{table}"' if names.schema else table
    with shared.database.write() as connection:
        connection.execute(text(f"UPDATE {place} SET version_num = :version"), {"version": version})


@pytest.mark.parametrize(
    ("version", "words"),
    [("9999", "version 9999 .*pip install -U"), ("abc", "unknown version of the schema, 'abc'")],
)
def test_data_of_another_version_is_left_alone(url: str, version: str, words: str) -> None:
    """Data of a later library, or of none, is neither read nor changed, and the error says what to
    do.
    """
    first = open_database(Target(make_url(url)))
    set_version(first, version)
    first.release()
    with pytest.raises(StorageError, match=words):
        open_database(Target(make_url(url)))


def test_a_database_is_created_once_by_many_processes(url: str) -> None:
    """Processes that open a new database at once find it complete, and none fails."""
    code = (
        "import sys; from sqlalchemy import make_url\n"
        "from rlm_integrations.storage.shared_database import open_database\n"
        "from rlm_integrations.storage.database_errors import Target\n"
        "sys.stdin.readline()\n"
        "open_database(Target(make_url(sys.argv[1]))).release()\n"
    )
    started = [Forked("-c", code, url) for _ in range(4)]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in started]
    assert errors == [""] * 4
    shared = open_database(Target(make_url(url)))
    version = shared.database.read(lambda each: read_version(each, shared.database.names))
    shared.release()
    assert version == CURRENT_VERSION


def test_one_process_shares_one_database(url: str) -> None:
    """The same URL is opened once; it is closed when the last user has released it."""
    target = Target(make_url(url))
    first, second = open_database(target), open_database(target)
    assert first is second
    first.release()
    assert second.database.read(lambda each: each.scalar(text("SELECT 1"))) == 1
    second.release()
    with pytest.raises(StorageError, match="is closed"):
        second.database.read(lambda each: each.scalar(text("SELECT 1")))
    third = open_database(target)
    assert third is not first
    third.release()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgres+psycopg://u:sesame@h/d",
            "unknown database 'postgres\\+psycopg'; did you mean 'postgresql'",
        ),
        ("oracle://u:sesame@h/d", "'oracle' is not supported"),
        ("mongodb://u:sesame@h/d", "unknown database 'mongodb'; sqlite"),
        ("postgresql+asyncpg://u:sesame@h/d", "asynchronous driver"),
        ("sqlite://", "in memory would end with the process"),
        ("sqlite:///:memory:", "in memory would end with the process"),
        ("postgresql://u:sesame@h:port/d", "malformed"),
        ("mssql+pyodbc://u:sesame@h/d", "pip install pyodbc"),
        ("mariadb://u:sesame@h/d", "pip install pymysql, and name it.* as mariadb\\+pymysql"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, words: str) -> None:
    """The error names what is wrong and what to write, and never the password."""
    with pytest.raises(InputError, match=words) as raised:
        parse_url(url)
    assert "sesame" not in str(raised.value)


def test_a_missing_driver_names_its_extra() -> None:
    """PostgreSQL and MariaDB without their packages are missing extras, which are named."""
    code = (
        "import sys; sys.modules['psycopg'] = sys.modules['pymysql'] = None\n"
        "from rlm_integrations.storage.database import parse_url\n"
        "from rlm_integrations.errors import MissingExtraError\n"
        "for url in ('postgresql+psycopg://h/d', 'mariadb+pymysql://h/d', 'mysql+pymysql://h/d'):\n"
        "    try: parse_url(url)\n"
        "    except MissingExtraError as error: print(error.extra)\n"
    )
    assert run_script(code).stdout == "postgres\nmariadb\nmariadb\n"
    assert issubclass(MissingExtraError, ImportError)


def test_a_wrong_password_is_not_shown(server: Server) -> None:
    """The error says to check the user and the password, and shows neither it nor its escaped
    form, nor does its traceback.
    """
    target = Target(parse_url(server.url(password="wr@ng/secret")))
    with pytest.raises(StorageError, match="check the user, the password") as raised:
        Database(target)
    shown = "".join(traceback.format_exception(raised.value))
    assert "wr@ng" not in shown
    assert "wr%40ng" not in shown
    assert "rlm:***@" in shown


def test_a_database_that_is_not_there_says_so(server: Server) -> None:
    """An unknown database and a server that does not answer are different errors."""
    with pytest.raises(StorageError, match="the database's name in the URL"):
        Database(Target(parse_url(server.url("nowhere"))))
    dead = make_url(server.url()).set(port=1)
    with pytest.raises(StorageUnavailableError, match="check that it is running") as raised:
        Database(Target(dead))
    assert PASSWORD not in str(raised.value)


def test_messages_lose_the_password_in_all_its_forms() -> None:
    """A driver's message that quotes the password, plain or escaped, is cut."""
    target = Target(make_url("postgresql://me:a%40b%2Fc@h/d"))
    assert target.without_password("bad a@b/c and a%40b%2Fc") == "bad *** and ***"
    assert Target(make_url("postgresql://me@h/d")).without_password("as it is") == "as it is"


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    """New folders have mode 0700 and all files of the database 0600, whatever the umask."""
    before = os.umask(0)
    try:
        shared = open_database(prepare_folder(tmp_path / "deep" / "runs"))
    finally:
        os.umask(before)
    try:
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in [tmp_path / "deep" / "runs", *(tmp_path / "deep" / "runs").iterdir()]
        }
    finally:
        shared.release()
    assert modes.pop("runs") == 0o700
    assert {"storage.sqlite", "storage.sqlite-wal", "storage.sqlite-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    """A folder with files and without our database is not touched; nor is a file."""
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match="is not a storage folder"):
        prepare_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        prepare_folder(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """A file that is no database is an error that says so, and stays as it is."""
    (tmp_path / "storage.sqlite").write_text("these are my notes, not a database" * 100)
    with pytest.raises(StorageError, match="no SQLite database"):
        open_database(prepare_folder(tmp_path))
    assert (tmp_path / "storage.sqlite").read_text().startswith("these are my notes")


def test_a_damaged_database_is_an_error_of_ours(tmp_path: Path) -> None:
    """Pages that were overwritten are found, and the error says to restore a backup."""
    open_database(prepare_folder(tmp_path)).release()
    file = tmp_path / "storage.sqlite"
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(DamagedDataError, match="restore it from a backup"):
        open_database(prepare_folder(tmp_path))


def test_a_folder_that_cannot_be_written_says_so() -> None:
    """A user without permissions is told to check them, for a new folder and for an existing
    database.
    """
    code = (
        "import os, sys\n"
        "from rlm_integrations.storage.folder import prepare_folder\n"
        "from rlm_integrations.storage.shared_database import open_database\n"
        "from rlm_integrations.errors import StorageError\n"
        "open_database(prepare_folder(sys.argv[1])).release()\n"  # and loads all modules
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "for folder in sys.argv[2:]:\n"
        "    try: open_database(prepare_folder(folder)); print('opened')\n"
        "    except StorageError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as above:
        runs = Path(above) / "runs"
        scratch = Path(above) / "scratch"
        open_database(prepare_folder(runs)).release()
        for path, mode in [(runs / "storage.sqlite", 0o444), (runs, 0o555), (Path(above), 0o755)]:
            path.chmod(mode)
        done = run_script(code, str(scratch), str(runs / "new"), str(runs))
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("permissions" in line for line in lines)


MOUNTS = """overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sda /home/me/local\\040disk ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv", "overlay"), ("/home/me/runs", "nfs4"), ("/home/me/local disk/runs", "ext4")],
)
def test_the_innermost_file_system_counts(folder: str, kind: str) -> None:
    """A folder is on the file system whose mount point is nearest."""
    assert file_system_of(Path(folder), MOUNTS) == kind


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's write-ahead log is never put on a network file system."""
    from rlm_integrations.storage import folder

    monkeypatch.setattr(folder, "file_system_of", lambda _: "nfs4")
    with pytest.raises(StorageError, match=r"network file system \(nfs4\).*PostgreSQL"):
        prepare_folder(tmp_path / "runs")


def test_a_forked_process_must_open_it_again(url: str) -> None:
    """In a forked process the parent's connections are not used: the error says to open it again,
    and opening works.
    """
    code = (
        "import os, sys; from sqlalchemy import make_url, text\n"
        "from rlm_integrations.storage.shared_database import open_database\n"
        "from rlm_integrations.storage.database_errors import Target\n"
        "from rlm_integrations.errors import StorageError\n"
        "target = Target(make_url(sys.argv[1])); shared = open_database(target)\n"
        "one = lambda connection: connection.scalar(text('SELECT 1'))\n"
        "shared.writer.submit(one).result()\n"
        "if os.fork() == 0:\n"
        "    for use in (lambda: shared.database.read(one), lambda: shared.writer.submit(one).result()):\n"
        "        try: use()\n"
        "        except StorageError as error: print('forked' in str(error), flush=True)\n"
        "    again = open_database(target); print(again.writer.submit(one).result(), flush=True)\n"
        "    again.release(); os._exit(0)\n"
        "os.wait(); print(shared.writer.submit(one).result()); shared.release()\n"
    )
    out, err = Forked("-c", code, url).communicate()
    assert (out.split(), err) == (["True", "True", "1", "1"], "")


@pytest.mark.parametrize("schema", ["", "a b", "x;drop", "1a", "a" * 31])
def test_a_schema_is_a_plain_name(sqlite_url: str, schema: str) -> None:
    """The schema is part of statements: only letters, digits and underscores."""
    with pytest.raises(InputError, match="letters, digits and underscores"):
        Database(Target(make_url(sqlite_url)), schema=schema)


def test_two_schemas_are_apart(url: str) -> None:
    """Storages with different schemas share a database without seeing each other."""
    first = open_database(Target(make_url(url)))
    second = open_database(Target(make_url(url)), schema="other")
    set_version(second, "0000")
    versions = [
        each.database.read(
            lambda connection, each=each: read_version(connection, each.database.names)
        )
        for each in (first, second)
    ]
    first.release()
    second.release()
    assert versions == [CURRENT_VERSION, "0000"]
