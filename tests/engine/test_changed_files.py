"""A document's file may change or disappear during a run: nothing that was paid is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_integrations import RLM, RLMResult
from rlm_integrations.corpus import reading
from rlm_integrations.events import BlockFinished, Event
from rlm_integrations.langchain import RLMRunnable
from rlm_integrations.records import Request
from tests.engine.conftest import Scripted, code, final

LINE = "The dam was approved by Rossi in 1955.\n"
PAID = code("a = llm_query('sum up: ' + context[:200])", "b = llm_batch(['p', 'q'])")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "service.log"
    path.write_text(LINE * 50)
    return path


@pytest.fixture
def large_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is read in place, like files above 64 MB."""
    monkeypatch.setattr(reading, "COPIED", 0)
    return log


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("more\n")


def rewrite(path: Path) -> None:
    path.write_text("another text\n" * 200)


CHANGES = pytest.mark.parametrize("change", [grow, rewrite, Path.unlink])


async def asked(
    root: Scripted, path: Path, change: Callable[[Path], None], *, after: int = 1, **options: object
) -> RLMResult:
    """One run; the file changes after this number of blocks."""
    left = [after]

    def hook(event: Event) -> None:
        if isinstance(event, BlockFinished):
            left[0] -= 1
            if left[0] == 0:
                change(path)

    return await RLM(root, on_event=hook, **options).acompletion("Who approved the dam?", path)  # type: ignore[arg-type] # of a test


@CHANGES
async def test_a_file_that_was_read_may_change(log: Path, change: Callable[[Path], None]) -> None:
    """Answer, citations and recorded prompts are unaffected, because the host has a copy."""
    root = Scripted([PAID, code("FINAL(a, evidence=['approved by Rossi', cite('in 1955')])")])
    result = await asked(root, log, change)
    assert (result.answer, result.stop_reason) == (f"re: sum up: {(LINE * 6)[:200]}", "final")
    assert [each.quote for each in result.citations] == ["approved by Rossi", "in 1955"]
    assert result.dropped_citations == 0


@CHANGES
async def test_a_large_file_that_changes_costs_its_citations_alone(
    large_log: Path, change: Callable[[Path], None]
) -> None:
    """The run ends with its answer; evidence that cannot be checked is dropped and counted, and the
    model is told why.
    """
    block = code(
        "c = llm_query('sum up: ' + context[:200])", "spans = [cite('in 1955')]", "print(c, spans)"
    )
    root = Scripted([PAID, block, code("FINAL(a, evidence=['approved by Rossi', *spans])")])
    result = await asked(root, large_log, change)
    assert (result.answer, result.stop_reason) == (f"re: sum up: {(LINE * 6)[:200]}", "final")
    assert (result.citations, result.dropped_citations) == ((), 2)
    assert [execution.status for execution in result.repl_history] == ["ok"] * 3
    assert "quotes can no longer be checked" in root.told[2]
    assert result.trajectory[1].note in root.told[2]


async def test_without_the_file_prompts_are_recorded_as_text(
    large_log: Path,
) -> None:
    """`llm_query` returns its reply; its prompt is recorded as text."""

    def answer(request: Request) -> str:
        large_log.unlink(missing_ok=True)
        return "a paid answer"

    root = Scripted([code("a = llm_query('sum up: ' + context[:200])"), code("FINAL(a)")], answer)
    result = await RLM(root).acompletion("What?", large_log)
    assert (result.answer, result.repl_history[0].error) == ("a paid answer", None)
    (call,) = result.repl_history[0].subcalls
    assert call.prompt.pieces == (f"sum up: {(LINE * 6)[:200]}",)


async def test_without_the_file_children_read_passed_text(large_log: Path) -> None:
    """A child over a part of the text answers; one over the whole document says why it cannot, and
    the run continues.
    """
    script = {
        "Who approved": [
            PAID,
            code(
                "r = recursive_lm('child?', context[:400])",
                "w = rlm_worker('explore')['error']",
                "FINAL([r, w], [cite('Rossi')])",
            ),
        ],
        "child?": [code("FINAL(context[:7] + llm_query('q'), ['Rossi'])")],
        "explore": [final("'never'")],
    }
    result = await asked(Scripted(script), large_log, Path.unlink, max_depth=2)
    assert result.answer.startswith('["The damre: q", ')
    assert "is gone, or has changed since it was read" in result.answer
    assert (result.citations, result.dropped_citations) == ((), 1)


async def test_a_lost_sandbox_cannot_be_replaced_where_the_file_is_gone(large_log: Path) -> None:
    """The run ends with its best answer and the reason, as after any loss without a replacement."""
    root = Scripted(
        [
            code("print('seen')"),
            code("import os", "os._exit(1)"),
            code("print(1)"),
            final("'never'"),
        ]
    )
    result = await asked(root, large_log, Path.unlink)
    assert (result.stop_reason, result.partial, result.iterations) == ("sandbox_lost", "seen", 3)
    assert result.error is not None
    assert "is gone, or has changed since it was read" in result.error


@CHANGES
async def test_a_bound_file_is_read_once_for_all_questions(
    log: Path, change: Callable[[Path], None]
) -> None:
    """Changes of the file between two questions do not change a bound document."""
    runnable = RLMRunnable(Scripted([code("FINAL(len(context), ['in 1955'])")])).with_context(log)
    for _ in range(2):
        output = await runnable.ainvoke("How long?")
        assert (output["answer"], [each.page_content for each in output["context"]]) == (
            str(len(LINE) * 50),
            ["in 1955"],
        )
        if log.exists():
            change(log)
