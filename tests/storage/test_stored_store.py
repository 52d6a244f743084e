"""Stores in a database fulfil the contract of stores."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_integrations.storage import Storage
from rlm_integrations.storage.stores.sql_backend import SqlBackend
from rlm_integrations.storage.stores.stored_store import MAX_BYTES, StoredStore
from tests.storage._postgres import VARIABLE
from tests.storage.conftest import KINDS, new_database
from tests.store.contract import StoreContract

NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=KINDS)
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Storage]:
    """One storage of each kind for all tests: each has a store of its own."""
    where: str | Path = tmp_path_factory.mktemp("stores")
    if request.param == "postgresql":
        given = os.environ.get(VARIABLE)
        where = new_database(given or request.getfixturevalue("server").url())
    elif request.param == "mariadb":
        where = request.getfixturevalue("mariadb").new_database()
    with Storage(where) as opened:
        yield opened


def store_of(storage: Storage, corpus=None, *, max_size: int = MAX_BYTES, **options):
    """A new store."""
    name = f"s{next(NUMBERS)}"
    backend = SqlBackend(storage._shared, name, max_size=max_size, **options)
    return StoredStore(storage, storage._shared, backend.with_corpus(corpus))


class TestSql(StoreContract):
    written = 30
    each = 20

    @pytest.fixture
    def make(self, storage: Storage):
        return lambda corpus=None, **options: store_of(storage, corpus, **options)
