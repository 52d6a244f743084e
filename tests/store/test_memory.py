"""The memory backend fulfils the contract."""

import pytest

from rlm_integrations.store import SharedStore
from tests.store.contract import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def make(self):
        return lambda corpus=None, **options: SharedStore(corpus, backend="memory", **options)
