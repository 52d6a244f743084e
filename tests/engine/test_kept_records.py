"""Everything that was paid is recorded, however a run or a block ends, and is available to later
code.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rlm_integrations import RLM, RLMResult
from rlm_integrations.errors import ModelError
from rlm_integrations.events import BlockFinished, Event, RunFailed, RunFinished, TurnFinished
from rlm_integrations.records import Request
from rlm_integrations.sandbox.base import Session
from rlm_integrations.sandbox.process import ProcessSandbox
from tests.engine.conftest import Scripted, code, final

BATCH = code("print('asking')", "rs = llm_batch([f'p{n}' for n in range(10)])")


class Watched(ProcessSandbox):
    """Makes its session available to the test."""

    session: Session

    async def open(self, *args: Any, **kwargs: Any) -> Any:
        self.session = await super().open(*args, **kwargs)
        return self.session


class Breaks(ProcessSandbox):
    """Its second block runs and then fails on the host's side."""

    async def open(self, *args: Any, **kwargs: Any) -> Any:
        session = await super().open(*args, **kwargs)
        execute = session.execute

        async def breaking(code: str, block: int) -> Any:
            result = await execute(code, block)
            if block == 2:
                raise OSError("no space left")
            return result

        session.execute = breaking  # type: ignore[method-assign] # one session fails
        return session


class Stuck:
    """A sub-model that answers every prompt at once except one, which waits forever and reports
    it.
    """

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.begun = asyncio.Event()
        self.answered = 0

    async def __call__(self, request: Request) -> str:
        asked = request.messages[-1].content
        if asked == self.prompt:
            self.begun.set()
            await asyncio.Event().wait()
        self.answered += 1
        return f"re: {asked}"

    async def alone(self, answered: int) -> None:
        """Wait until all others are answered, and their replies are being sent to the code."""
        await self.begun.wait()
        while self.answered < answered:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)


def result_of(events: Sequence[Event]) -> RLMResult:
    last = events[-1]
    assert isinstance(last, RunFinished | RunFailed)
    assert last.result is not None
    return last.result


async def test_a_cancelled_run_keeps_the_turn_under_way() -> None:
    """The result of the last event has the reply, the block that ran, its nine answers and the
    cancelled call.
    """
    events: list[Event] = []
    stuck = Stuck("p9")
    task = asyncio.create_task(
        RLM(Scripted([BATCH], stuck), on_event=events.append).acompletion("What?", "text")
    )
    await stuck.alone(9)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    result = result_of(events)
    assert (result.stop_reason, result.iterations, result.total_calls) == ("cancelled", 1, 11)
    assert result.trajectory[0].reply == BATCH
    (execution,) = result.repl_history
    assert (execution.status, execution.error) == (
        "interrupted",
        "Interrupted: the run ended before the block did",
    )
    replies = {call.path[-1]: call.reply for call in execution.subcalls}
    assert replies == {
        **{str(n): f"re: p{n}" for n in range(9)},
        "9": "Error: cancelled: the block ended first",
    }
    assert [type(event) for event in events[-3:]] == [BlockFinished, TurnFinished, RunFinished]


async def test_earlier_turns_of_a_cancelled_run_are_kept() -> None:
    """Finished turns and blocks are recorded before the current one, also those of a child."""
    script = {
        "root?": [code("x = llm_query('one')"), code("y = recursive_lm('child?', context)")],
        "child?": [code("z = llm_query('two')") + "\n" + code("z = llm_query('three')")],
    }
    events: list[Event] = []
    stuck = Stuck("three")
    task = asyncio.create_task(
        RLM(Scripted(script, stuck), max_depth=2, on_event=events.append).acompletion(
            "root?", "text"
        )
    )
    await stuck.alone(2)
    task.cancel()
    await asyncio.wait([task])
    first, second = result_of(events).repl_history
    assert [(first.status, first.subcalls[0].reply), second.status] == [
        ("ok", "re: one"),
        "interrupted",
    ]
    (child,) = second.subcalls
    blocks = child.turns[0].executions
    assert [(each.status, each.subcalls[0].reply) for each in blocks] == [
        ("ok", "re: two"),
        ("interrupted", "Error: cancelled: the block ended first"),
    ]


async def test_a_run_that_fails_keeps_its_record() -> None:
    """RunFailed has a result with everything done and paid before, and the exception."""
    events: list[Event] = []
    root = Scripted([code("x = llm_query('paid')"), code("y = llm_query('paid too')")])
    with pytest.raises(OSError, match="no space"):
        await RLM(root, sandbox=Breaks(), on_event=events.append).acompletion("What?", "text")
    result = result_of(events)
    assert (result.stop_reason, result.error, result.total_calls) == (
        "failed",
        "OSError: no space left",
        4,
    )
    assert [call.reply for execution in result.repl_history for call in execution.subcalls] == [
        "re: paid",
        "re: paid too",
    ]


async def test_a_run_whose_model_fails_at_once_has_a_result_too() -> None:
    """The result has the error, and counts the call."""

    class Refuses(Scripted):
        async def complete(self, request: Request) -> Any:
            raise ModelError("no such model", type="not_found")

    events: list[Event] = []
    with pytest.raises(ModelError):
        await RLM(Refuses(), on_event=events.append).acompletion("What?", "text")
    result = result_of(events)
    assert (result.stop_reason, result.error, result.iterations, result.total_calls) == (
        "model_error",
        "no such model",
        0,
        1,
    )


async def test_answers_of_an_interrupted_batch_reach_the_next_block() -> None:
    """The next block can get the answers by prompt, and the model is told, so that none is paid
    twice.
    """
    stuck, sandbox = Stuck("p9"), Watched()
    rest = code(
        "rest = [p for p in (f'p{n}' for n in range(10)) if p not in unfinished_replies]",
        "FINAL([rest, unfinished_replies['p3']])",
    )
    task = asyncio.create_task(
        RLM(root := Scripted([BATCH, rest], stuck), sandbox=sandbox).acompletion("What?", "text")
    )
    await stuck.alone(9)
    await sandbox.session.interrupt()
    result = await task
    assert result.answer == '[["p9"], "re: p3"]'
    assert "9 of its prompts had been answered" in root.told[1]
    assert "9 of its prompts had been answered" in result.trajectory[0].note
    replies = [call.reply for call in result.repl_history[0].subcalls]
    assert sorted(replies) == [
        "Error: cancelled: the block ended first",
        *[f"re: p{n}" for n in range(9)],
    ]


async def test_answers_of_a_batch_reach_the_next_sandbox() -> None:
    """Answers that were paid are available after the process of their batch has ended."""
    dies = code(
        "import os, threading",
        "threading.Timer(0, lambda: (wait(), os._exit(1))).start()",
        "llm_batch(['p0', 'p9'])",
    )
    stuck = Stuck("p9")

    async def wait() -> None:
        await stuck.alone(1)

    root = Scripted([dies, code("FINAL(unfinished_replies)")], stuck)
    result = await RLM(root, tools=[wait]).acompletion("What?", "text")
    assert ([each.status for each in result.repl_history], result.answer) == (
        ["lost", "ok"],
        '{"p0": "re: p0"}',
    )


async def test_code_that_catches_its_interruption_continues() -> None:
    """If the code has its replies, nothing is reported as unfinished."""
    root = Scripted(
        [
            code("x = llm_batch(['a', 'b'])", "1 / 0"),
            final("[x, 'unfinished_replies' in globals()]"),
        ]
    )
    result = await RLM(root).acompletion("What?", "text")
    assert result.answer == '[["re: a", "re: b"], false]'
    assert "had been answered" not in root.told[1]
