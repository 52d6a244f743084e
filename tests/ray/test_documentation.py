"""What ray/README.md shows, and what the other environment cannot check."""

import importlib
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray has an environment of its own: `make test-ray`")

from rlm_integrations.ray import RayExecutor
from tests.readme import PACKAGE, blocks
from tests.test_readme import ARCHIVE


def test_the_page_runs(executor: RayExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    """The example answers both questions, on actors and with a REPL on an actor."""
    (example,) = blocks(PACKAGE / "ray" / "README.md", "python")
    names: dict[str, Any] = {"text": ARCHIVE}
    exec(example, names)
    said = capsys.readouterr().out
    assert "Ada Conti" in said
    assert said.count("4,200,000") == 2


def test_the_names_are_right() -> None:
    """The package exports what it lists."""
    module = importlib.import_module("rlm_integrations.ray")
    assert [getattr(module, name).__name__ for name in module.__all__] == ["RayExecutor"]
