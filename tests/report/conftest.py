"""One browser for all tests of the page."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlm_integrations.corpus import Corpus
from tests.report._browser import CHROMIUM, HOW_TO_GET_IT, Browser
from tests.report._made import DOCUMENT


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_TO_GET_IT)
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def corpus() -> Iterator[Corpus]:
    with Corpus.build(DOCUMENT) as built:
        yield built


@pytest.fixture(scope="session")
def axe() -> str:
    """The code of axe-core, which its Python package brings."""
    spec = find_spec("axe_core_python")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")
