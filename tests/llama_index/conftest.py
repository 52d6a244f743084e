"""Fixtures for tests of the LlamaIndex face: no keys, no leaks, and unchanged LlamaIndex
settings.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.engine.conftest import nothing_left  # noqa: F401 - a fixture for all tests here
from tests.llama_index._world import splitter
from tests.lm.conftest import bare_environment, closed_clients  # noqa: F401 - likewise
from tests.standin import StandIn, serve_in_thread


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """Each test begins with LlamaIndex's default settings, except for a splitter that works in
    every installation.
    """
    if not find_spec("llama_index"):
        yield
        return
    from llama_index.core import Settings

    Settings._node_parser = splitter()
    Settings._transformations = None  # values left by the tests of another folder
    yield
    for name in (
        "_llm",
        "_embed_model",
        "_callback_manager",
        "_prompt_helper",
        "_node_parser",
        "_transformations",
    ):
        setattr(Settings, name, None)


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A provider on its own loop."""
    with serve_in_thread(keep_requests=True) as standin:
        yield standin
