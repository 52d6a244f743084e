"""The examples of the LangChain face check themselves: each passes if the library's answer is
right, and fails if it is wrong.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("langchain_*.py"))
each = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


def example(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rlm_{path.stem}", path)
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


def test_all_examples_exist() -> None:
    """There is one example for each entry point of the face."""
    assert [path.stem.removeprefix("langchain_") for path in EXAMPLES] == [
        "agent",
        "batch",
        "huge_document",
        "middleware",
        "rag",
        "store_retriever",
    ]


@each
def test_an_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example runs without key and network, finds and prints its answer, exits with 0 and writes
    nothing to stderr.
    """
    assert example(path).main() == 0
    shown = capsys.readouterr()
    assert "right" in shown.out
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


def spoiled(module: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> int:
    """The result of `main` if one of its functions returns something wrong."""
    made = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: change(made(*args, **kwargs)))
    return int(module.main())


def test_wrong_quotes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A right answer with a quote that differs from the document is a failure."""
    module = example(EXAMPLES[2])
    moved = {"answer": "40721 Irene Kovač", "quotes": [("40721 Irene Kovač", 0, 17)]}
    monkeypatch.setattr(module, "report", lambda _output: moved)
    assert module.main() == 1


def test_an_agent_that_ignores_the_tool_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the agent's answer differs from the tool's, the example fails."""
    module = example(EXAMPLES[0])
    made: Any = module.Assistant
    assert issubclass(made, BaseChatModel)

    class Deaf(made):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            result = super()._generate(messages, *args, **kwargs)
            if not result.generations[0].message.tool_calls:
                result.generations[0].message.content = "I do not know."
            return result

    monkeypatch.setattr(module, "Assistant", Deaf)
    assert module.main() == 1


def test_replies_in_a_wrong_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies in a wrong order are noticed, because each letter has its own cost."""
    assert spoiled(example(EXAMPLES[1]), monkeypatch, "prompts", lambda prompts: prompts[::-1]) == 1


def test_a_retriever_that_misses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the retriever misses the document with the answer, the example fails."""
    assert (
        spoiled(example(EXAMPLES[4]), monkeypatch, "made_up", lambda documents: documents[:2]) == 1
    )


def test_findings_at_wrong_places_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding whose span has different text is a failure."""
    module = example(EXAMPLES[5])
    monkeypatch.setattr(module, "PROGRAM", module.PROGRAM.replace("*found.span()", "0, 36"))
    assert module.main() == 1
