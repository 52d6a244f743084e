"""The examples run as a user runs them, and check themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("llama_index_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example(path: Path, tmp_path: Path) -> None:
    """It finds what it hid, without a key and from any folder, and has nothing to complain of."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment["PYTHONPATH"] = str(path.parents[1])
    command = [sys.executable, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=120)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout


def test_there_are_five() -> None:
    """One each for engine, pipeline, agent, store and router."""
    assert [path.stem.removeprefix("llama_index_") for path in EXAMPLES] == ["agent", "query_engine", "rag", "router", "store"]
