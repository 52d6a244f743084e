"""A MariaDB server for the tests, from the programs of Debian's packages."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

PASSWORD = "p@ss/word"
ABSENT = "MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core"
OPTIONS = (
    # A server of users may have any of these: tables must not depend on its defaults
    *("--character-set-server=latin1", "--collation-server=latin1_swedish_ci"),
    # Small: each worker of pytest has a server
    *("--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"),
    *("--innodb-flush-log-at-trx-commit=2", "--table-open-cache=200"),
)


class NoMariaDBError(Exception):
    """There is no server, and none can be started."""


class MariaDB:
    """A running server, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def create(self) -> None:
        """Make its system tables, and a user with a password."""
        command = [
            *("mariadb-install-db", "--no-defaults", f"--datadir={self._folder}/data"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *self._user()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise NoMariaDBError(f"mariadb-install-db failed: {done.stderr[-500:]}")
        (self._folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS 'rlm'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO 'rlm'@'%';\n"
        )

    def _user(self) -> list[str]:
        # It runs as root only if that is said
        return ["--user=root"] if os.geteuid() == 0 else []

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_server(), "--no-defaults", f"--datadir={self._folder}/data", *self._user()),
                    *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
                    *(f"--socket={self._folder}/socket", f"--pid-file={self._folder}/pid"),
                    # A server that starts removes temporary tables there, those of other servers too
                    f"--tmpdir={self._folder}",
                    *(f"--init-file={self._folder}/init.sql", *OPTIONS),
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise NoMariaDBError(f"mariadbd does not start: {self._log()}")
            time.sleep(0.05)

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-3000:]

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self) -> "pymysql.connections.Connection":
        """A connection of the driver's own."""
        return pymysql.connect(host="127.0.0.1", port=self.port, user="rlm", password=PASSWORD)

    def new_database(self) -> str:
        """The URL of a new database.

        Raises:
            NoMariaDBError: The server ended by itself; its log says why.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise NoMariaDBError(f"mariadbd ended with {code}: {self._log()}")
        name = f"rlm_{secrets.token_hex(8)}"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def stop(self, how: str = "immediate") -> None:
        """Kill it, as a crash does; it knows no other way."""
        del how
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, database: str, password: str = PASSWORD) -> str:
        """The URL of a database."""
        quoted = password.replace("%", "%25").replace("@", "%40").replace("/", "%2F")
        return f"mariadb+pymysql://rlm:{quoted}@127.0.0.1:{self.port}/{database}"


def _server() -> str:
    # Debian's /usr/sbin is not on the path of every user
    return shutil.which("mariadbd") or "/usr/sbin/mariadbd"


@contextmanager
def own_mariadb() -> Iterator[MariaDB]:
    """A server that ends with the block.

    Raises:
        NoMariaDBError: Its programs are not installed.
    """
    if shutil.which("mariadb-install-db") is None or shutil.which("my_print_defaults") is None:
        raise NoMariaDBError(ABSENT)
    folder = Path(tempfile.mkdtemp(prefix="rlm-mariadb-"))
    server = MariaDB(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
