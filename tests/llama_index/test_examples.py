"""The examples check themselves; each is run here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("llama_index_*.py"))


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example finds and prints its answer, without a key, and reports no failure."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 0
    assert capsys.readouterr().err == ""


def test_as_a_user_runs_one(tmp_path: Path) -> None:
    """An example runs as a script, from any folder; its exit code is 0 if all its checks pass."""
    (path,) = [path for path in EXAMPLES if path.stem == "llama_index_store"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path.parents[1])}
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "The harbour of Bergen was deep." in done.stdout


def test_there_are_six() -> None:
    """There is one example each for engine, pipeline, agent, memory, store and router."""
    assert [path.stem.removeprefix("llama_index_") for path in EXAMPLES] == [
        "agent",
        "memory",
        "query_engine",
        "rag",
        "router",
        "store",
    ]
