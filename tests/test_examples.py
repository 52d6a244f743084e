"""The examples without a framework check themselves: each passes if the library's answer is right,
and fails if it is wrong.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = [
    Path(__file__).parents[1] / "examples" / f"{name}.py" for name in ("batch", "parallel_query")
]
each = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


def example(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rlm_example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without keys: an example that needs one fails."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_example_is_tested() -> None:
    """Every script in the folder is one of these, of a face, or the demo, and is tested. Their
    documents are in one file.
    """
    others = {path.stem for path in EXAMPLES[0].parent.glob("*.py")} - {
        path.stem for path in EXAMPLES
    }
    assert [
        name
        for name in others
        if not name.startswith(("langchain_", "llama_index_"))
        and name not in {"demo", "_documents"}
    ] == []


@each
def test_an_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example runs without key and network, finds and prints its answer, exits with 0 and writes
    nothing to stderr.
    """
    assert example(path).main() == 0
    shown = capsys.readouterr()
    assert " are right, and in order" in shown.out
    assert "WRONG" not in shown.out
    assert shown.err == ""


@each
def test_a_spoiled_fact_is_noticed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the fact is removed from the document, the example reports it and exits with 1."""
    assert example(path).main(["--spoil"]) == 1
    assert "WRONG" in capsys.readouterr().out


@each
def test_how_it_is_run(path: Path) -> None:
    """The docstring of an example says how to run it, and its exit code is the result of `main`."""
    text = path.read_text(encoding="utf-8")
    assert f"    python examples/{path.name} [--spoil]\n" in text
    assert text.endswith('if __name__ == "__main__":\n    sys.exit(main(sys.argv[1:]))\n')
    assert not re.search(r"\bsk-|https?://", text)


def test_replies_in_a_wrong_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies in a wrong order are noticed, because each town has its own year."""
    module = example(EXAMPLES[0])
    ask = module.llm_batch
    monkeypatch.setattr(
        module, "llm_batch", lambda prompts, *args, **kwargs: ask(prompts, *args, **kwargs)[::-1]
    )
    assert module.main() == 1


def test_a_run_without_citations_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A right answer without citations is a failure."""
    module = example(EXAMPLES[1])
    monkeypatch.setattr(module, "PROGRAM", module.PROGRAM.replace(", evidence=quotes", ""))
    assert module.main() == 1
