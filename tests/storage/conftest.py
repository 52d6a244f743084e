"""Databases of both kinds that the tests run on, each empty."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from rlm_integrations.storage import Storage
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.shared_database import SharedDatabase, open_database
from tests.storage._mariadb import MariaDB, own_mariadb
from tests.storage._postgres import VARIABLE, Server, server

__all__ = ["server"]  # a fixture

# The kinds of databases on which most tests run, one after the other; `make test-mariadb` names one
URLS = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}
KINDS = os.environ.get("RLM_TEST_DATABASES", "sqlite postgresql").split()

collect_ignore = [] if "mariadb" in KINDS else ["test_mariadb.py"]


def new_database(server_url: str) -> str:
    """The URL of a new database on the server."""
    url = make_url(server_url)
    name = f"rlm_{secrets.token_hex(8)}"
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> str:
    """An empty database on the server that the environment names, or on one of our own."""
    given = os.environ.get(VARIABLE)
    return new_database(given or request.getfixturevalue("server").url())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/storage.sqlite"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server; it must be there."""
    with own_mariadb() as running:
        yield running


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> str:
    """An empty database on it."""
    return mariadb.new_database()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind in turn."""
    return request.getfixturevalue(URLS[request.param])


@pytest.fixture
def opened(url: str) -> Iterator[SharedDatabase]:
    """The database, open."""
    shared = open_database(Target(make_url(url)))
    yield shared
    shared.release()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    """Where a storage is, and its lake: a folder, or an object store beside a server."""
    if request.param == "sqlite":
        return str(tmp_path / "runs"), None
    (tmp_path / "lake").mkdir()
    return request.getfixturevalue(URLS[request.param]), f"file://{tmp_path}/lake"


@pytest.fixture
def storage(place: tuple[str, str | None]) -> Iterator[Storage]:
    """An empty storage of each kind in turn."""
    with Storage(place[0], lake=place[1]) as opened:
        yield opened


@pytest.fixture(params=[kind for kind in KINDS if kind != "sqlite"])
def stoppable(request: pytest.FixtureRequest) -> tuple[Server | MariaDB, str]:
    """A server that a test may stop and start, and an empty database on it; each kind in turn."""
    of_kind = "server" if request.param == "postgresql" else request.param
    return request.getfixturevalue(of_kind), request.getfixturevalue(URLS[request.param])
