"""Sandboxes that are lost or unavailable: the run continues with a new one, or ends with its best
answer.
"""

import pytest

from rlm_integrations import RLM, Budget
from rlm_integrations.errors import SandboxUnavailableError
from rlm_integrations.sandbox.base import Capabilities, Opening, Session
from rlm_integrations.sandbox.process import ProcessSandbox
from tests.engine.conftest import Scripted, code, final, overlong, run

LOSE = code("import os", "print('going')", "os._exit(1)")


async def test_a_lost_sandbox_is_replaced_and_the_model_told() -> None:
    """Variables are lost, the document and the host's functions are available again, and the record
    has the loss.
    """
    root = Scripted(
        [code("x = 1"), LOSE, code("FINAL(['x' in globals(), context, llm_query('p')])")]
    )
    result = await run(root, "the words")
    assert (result.answer, result.stop_reason) == ('[false, "the words", "re: p"]', "final")
    assert [execution.status for execution in result.repl_history] == ["ok", "lost", "ok"]
    assert "variables of earlier blocks are gone" in root.told[2]


async def test_the_code_after_a_loss_is_not_run_and_the_model_told() -> None:
    """As after any failure, the remaining blocks do not run, and the model is told how many did."""
    root = Scripted(
        [
            f"{LOSE}\n{code('x = 666')}",
            f"{code('1 / 0')}\n{code('x = 667')}",
            final("'x' in globals()"),
        ]
    )
    result = await run(root)
    assert result.answer == "false"
    assert all("The code after block 1 was not run" in told for told in root.told[1:])


async def test_losing_one_after_the_other_ends_the_run() -> None:
    """The third loss ends the run, with the reason and the best answer so far."""
    root = Scripted([code("print('seen')"), *[f"{LOSE}\n{n}" for n in range(9)]])
    result = await run(root)
    assert (result.stop_reason, result.iterations) == ("sandbox_lost", 4)
    assert "its process ended by itself" in result.error
    assert result.answer in {"seen", "going"}


async def test_a_final_that_loses_its_sandbox_is_not_an_answer() -> None:
    """An expression that ends the REPL is not an answer, even in prose; the model may try again,
    three times.
    """
    root = Scripted(["FINAL(__import__('os')._exit(1))", final("'after all'")])
    assert (await run(root)).answer == "after all"
    root = Scripted([f"I know {n}.\n\nFINAL(__import__('os')._exit(1))" for n in range(9)])
    assert (await run(root)).stop_reason == "sandbox_lost"


async def test_a_chat_forgets_the_losses_of_its_last_question() -> None:
    """Every question may lose the same number of sandboxes."""
    root = Scripted()
    replies = iter([*[f"{LOSE}\n{n}" for n in range(3)], "What shall I do?", LOSE, final("'fine'")])
    root._next = lambda _request: next(replies)  # type: ignore[method-assign] # turns go on over two questions
    async with RLM(root).session("a document") as chat:
        assert (await chat.acompletion("First?")).stop_reason == "sandbox_lost"
        result = await chat.acompletion("Second?")
    assert (result.answer, result.stop_reason) == ("fine", "final")


class NoSandbox:
    """A sandbox that is not available on this machine."""

    name = "none such"
    capabilities = Capabilities(
        isolated=True, bounded=True, interruptible=True, captures_streams=True
    )

    rules = "Nothing is there."

    async def open(self, opening: Opening) -> Session:
        raise SandboxUnavailableError("not here")


async def test_without_a_sandbox_nothing_is_paid() -> None:
    """The error is raised before the first call, by every run and every question of a chat."""
    root = Scripted([final("1")])
    rlm = RLM(root, sandbox=NoSandbox())
    for _ in range(2):
        with pytest.raises(SandboxUnavailableError, match="not here"):
            await rlm.acompletion("What?", "a document")
    async with rlm.session("a document") as chat:
        for _ in range(2):
            with pytest.raises(SandboxUnavailableError):
                await chat.acompletion("What?")
    assert root.requests == []


async def test_the_model_reads_the_rules_of_its_sandbox() -> None:
    """The system prompt has the sandbox's `rules`, and no other rules on what code may use."""

    class OnlyMath(ProcessSandbox):
        rules = "Nothing is there but `math`."

    root = Scripted([final("1")])
    await RLM(root, sandbox=OnlyMath()).acompletion("What?", "a document")
    said = " ".join(root.requests[0].messages[0].content.split())
    assert "from block to block. Nothing is there but `math`. What is printed" in said
    assert "standard library" not in said


async def test_the_loop_runs_in_this_process_too() -> None:
    """The in-process sandbox, with a warning, runs the same run, its sub-calls, children and
    citations, and its deadline.
    """
    with pytest.warns(RuntimeWarning, match="debugging only"):
        script = {
            "root?": [
                code(
                    "r = recursive_lm('child?', context[:60])",
                    "FINAL([r, llm_query('p')], [cite('small')])",
                )
            ],
            "child?": [code("FINAL(context[2:7] + llm_query('q'))")],
        }
        result = await run(
            Scripted(script),
            "a small document that is long enough to be found again by its words",
            "root?",
            sandbox="inprocess",
            max_depth=2,
        )
        late = await run(
            Scripted([code("llm_query('slow')")], overlong(60)),
            sandbox="inprocess",
            budget=Budget(max_seconds=0.2),
        )
    assert (result.answer, [each.quote for each in result.citations]) == (
        '["smallre: q", "re: p"]',
        ["small"],
    )
    assert late.stop_reason == "budget_seconds"
