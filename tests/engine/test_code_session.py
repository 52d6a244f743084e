"""A REPL for code from outside: what it keeps, what it answers, and how it ends."""

import asyncio

import pytest
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, CodeSession, InputError
from rlm_integrations.records import LLMError
from tests.engine.conftest import Scripted, children
from tests.engine.test_sessions import Hangs

TEXT = "It rained. The Ravenna dam was approved by Ada Conti. Then came winter. " * 3
QUOTE = "The Ravenna dam was approved by Ada Conti."
FINAL = f"FINAL('Ada Conti', evidence=[{QUOTE!r}, 'not in it'])"


def add(first: int, second: int) -> int:
    """The sum."""
    return first + second


def test_code_is_run_and_its_final_is_checked() -> None:
    """Variables stay, code calls models and tools, errors are shown, and a final has verified
    citations, with what was dropped and why.
    """
    model = Scripted()
    with CodeSession(RLM(Scripted(), model, tools=[add]), TEXT) as repl:
        asked = repl.execute("replies = llm_batch(['one', 'two'])\nprint(replies, add(1, 2))")
        assert "['re: one', 're: two'] 3" in asked.shown
        assert len(asked.execution.subcalls) == 2
        assert not asked.is_final
        assert repl.execute("kept = 7").answer is None
        failed = repl.execute("print(kept)\nkept / 0")
        assert failed.execution.status == "error"
        assert "7\n" in failed.shown
        assert "ZeroDivisionError" in failed.shown
        done = repl.execute(f"assert kept == 7\n{FINAL}")
        assert (done.is_final, done.answer) == (True, "Ada Conti")
        (citation,) = done.citations
        assert TEXT[citation.start : citation.end] == citation.quote == QUOTE
        assert [each.reason for each in done.dropped] == ["not found"]
        assert done.execution.block == 4
    assert children() == []
    with pytest.raises(InputError, match="closed"):
        repl.execute("1")


class Dam(BaseModel):
    """A dam."""

    name: str


async def test_typed_finals_are_validated() -> None:
    """A final of the wrong type is no answer, and the model is told why."""
    async with CodeSession(RLM(Scripted(), output_type=Dam), TEXT) as repl:
        wrong = await repl.aexecute("FINAL({'name': 7})")
        assert (wrong.is_final, wrong.answer) == (False, None)
        assert "name: Input should be a valid string" in wrong.shown
        right = await repl.aexecute("FINAL({'name': 'Ravenna'})")
        assert right.answer == Dam(name="Ravenna")


async def test_a_budget_is_that_of_one_piece_of_work() -> None:
    """Blocks share a budget and a store until `arenew`, which keeps the variables."""
    rlm = RLM(Scripted(), budget=Budget(max_calls=2), store_mode="shared")
    async with CodeSession(rlm, TEXT) as repl:
        first = await repl.aexecute(
            "kept = llm_batch(['1', '2', '3'])\nstore.create('note', 'a note', 'text')"
        )
        replies = [each.reply for each in first.execution.subcalls]
        assert [isinstance(each, LLMError) for each in replies] == [False, False, True]
        spent = await repl.aexecute("print(llm_query('4'), len(store.search('')))")
        assert "budget" in spent.shown
        await repl.arenew()
        again = await repl.aexecute("print(llm_query('5'), len(kept), len(store.search('')))")
        assert "re: 5 3 0" in again.shown


async def test_a_cancelled_block_keeps_the_variables() -> None:
    """Cancelling a block ends its calls and keeps the REPL; closing ends a block and the process."""
    hangs = Hangs()
    repl = CodeSession(RLM(Scripted(), Scripted(answer=hangs)), TEXT)
    await repl.aexecute("kept = 7")
    for closes in (False, True):
        hangs.begun.clear()
        task = asyncio.ensure_future(repl.aexecute("llm_query('slow')"))
        await hangs.begun.wait()
        if closes:
            await repl.aclose()
        else:
            task.cancel()
        with pytest.raises(InputError if closes else asyncio.CancelledError):
            await task
        if not closes:
            after = await repl.aexecute("print(kept)")
            assert "7" in after.shown
            assert not after.has_new_variables
    assert hangs.ended == 2
    assert children() == []


async def test_a_lost_repl_is_replaced_and_the_model_is_told() -> None:
    """After a block that ended its process, the next one runs in a new REPL, and both say so."""
    async with CodeSession(RLM(Scripted()), TEXT) as repl:
        lost = await repl.aexecute("import os\nkept = 7\nos._exit(1)")
        assert lost.execution.status == "lost"
        after = await repl.aexecute("print('kept' in globals(), len(context))")
        assert f"False {len(TEXT)}" in after.shown
        assert after.has_new_variables
        assert "variables of earlier" in lost.shown
        assert "variables of earlier" in after.shown


async def test_mistakes_are_explained() -> None:
    """Code that is none, and a second event loop, are errors that say what to do."""
    async with CodeSession(RLM(Scripted()), TEXT) as repl:
        for wrong in ("", "  ", None, "#" * 1_000_001):
            with pytest.raises(InputError, match="1 to 1,000,000"):
                await repl.aexecute(wrong)  # type: ignore[arg-type]
        await repl.aexecute("1")
        with pytest.raises(InputError, match="another event loop"):
            await asyncio.to_thread(repl.execute, "1")
