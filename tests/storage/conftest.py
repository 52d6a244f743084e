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
from tests.storage._postgres import VARIABLE, NoPostgresError, Server, own_server


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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind in turn."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
def opened(url: str) -> Iterator[SharedDatabase]:
    """The database, open."""
    shared = open_database(Target(make_url(url)))
    yield shared
    shared.release()


@pytest.fixture(params=["folder", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    """Where a storage is, and its lake."""
    if request.param == "folder":
        return str(tmp_path / "runs"), None
    return request.getfixturevalue("postgres_url"), str(tmp_path / "lake")


@pytest.fixture
def storage(place: tuple[str, str | None]) -> Iterator[Storage]:
    """An empty storage of each kind in turn."""
    with Storage(place[0], lake=place[1]) as opened:
        yield opened
