"""The result so far of a run without a result, rebuilt from its records."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, LLMError, RLMResult
from rlm_integrations.records import Completion, Request, Usage
from rlm_integrations.storage import Storage
from tests.engine.conftest import code

DOCUMENT = "The dam was approved in 1952. " * 50
SCRIPTS = {
    "Whole?": [
        "No code yet.",
        "First this.\n"
        + code("two = llm_batch(['one', 'two', 'fails'])", "print('found', two[0])")
        + "\nThen that.\n"
        + code("note = store.create('note', 'a note', two[0], tags=['t'])", "looked = look(3)"),
        code("1 / 0") + "\n" + code("print('never run')"),
        code("inner = recursive_lm('Part?', context[:100])", "print(inner)")
        + "\n"
        + code("late = llm_query('last')", "FINAL(late)"),
    ],
    "Part?": [code("store.create('claim', 'of a child', llm_query('inner'))", "FINAL('part')")],
}


class Model:
    """As root it gives the replies to its question in turn; "last" has no answer until `go_on`."""

    name = "model"
    context_window = None

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()

    async def complete(self, request: Request) -> Completion:
        prompt = request.messages[-1].content
        if request.role == "root":
            turn = sum(each.role == "assistant" for each in request.messages)
            return Completion(SCRIPTS[request.query][turn], Usage(10, 5), "model-1", "stop")
        if prompt == "fails":
            raise ValueError("no such prompt")
        if prompt == "last":
            self.waits.set()
            await self.go_on.wait()
        return Completion(f"re: {prompt}", Usage(3, 2), "model-1", "stop")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """An empty storage."""
    with Storage(tmp_path / "runs") as opened:
        yield opened


def look(number: int) -> str:
    """A tool."""
    return f"looked up {number}"


def comparable(result: RLMResult, turns: int) -> Any:
    """What the records alone give, of the first turns: without prompts, notes and times of blocks."""

    def calls(execution: Any) -> list[Any]:
        return [
            replace(call, prompt=None, start=0.0, end=0.0, wait=0.0, turns=())
            for call in sorted(execution.subcalls, key=lambda call: str(call.path))
        ]

    return [
        [
            turn.iteration,
            turn.reply,
            turn.model,
            turn.usage,
            turn.finish_reason,
            [
                [each.block, each.code, each.status, each.output, each.error, calls(each)]
                for each in turn.executions
            ],
            [event for each in turn.executions for event in each.store_events],
        ]
        for turn in result.trajectory[:turns]
    ]


async def test_the_result_so_far_is_the_beginning_of_the_result(storage: Storage) -> None:
    """While a call waits: the turns, blocks, replies, child runs, store and spending are those that
    the finished run has at its beginning; and it can be saved.
    """
    model = Model()
    rlm = RLM(model, storage=storage, tools=[look], max_depth=2)
    running = asyncio.ensure_future(rlm.acompletion("Whole?", DOCUMENT, run_id="mine"))
    await model.waits.wait()
    so_far = storage.run("mine")
    assert (so_far.stop_reason, so_far.answer, so_far.partial) == ("running", "part", "part")
    assert (so_far.question, so_far.run_id, so_far.models.root) == ("Whole?", "mine", "model")
    again = RLMResult.from_dict(json.loads(json.dumps(so_far.to_dict())))
    assert again.trajectory == so_far.trajectory
    model.go_on.set()
    whole = await running
    assert storage.run("mine").to_dict() == whole.to_dict()

    assert so_far.iterations == whole.iterations == 4
    assert comparable(so_far, 3) == comparable(whole, 3)
    (first, waiting), last = so_far.trajectory[3].executions, whole.trajectory[3].executions
    (child,) = first.subcalls
    assert child.turns == last[0].subcalls[0].turns
    assert (waiting.status, waiting.subcalls) == ("interrupted", ())
    assert (waiting.code, waiting.block) == (last[1].code, last[1].block)
    assert so_far.store is not None
    assert whole.store is not None
    assert so_far.store.search("") == whole.store.search("")
    assert so_far.total_calls == whole.total_calls - 1
    usage = so_far.usage["model"], whole.usage["model"]
    assert usage[0] is None or usage[1] is None or usage[1].input - usage[0].input == 3
    errors = [each.reply for each in so_far.trajectory[1].executions[0].subcalls]
    assert [isinstance(each, LLMError) for each in errors].count(True) == 1


async def test_a_run_that_has_just_begun(storage: Storage) -> None:
    """Without a record there is no turn, and the run is interrupted once no process has it."""
    setup = await _begun(storage)
    so_far = storage.run("mine")
    assert (so_far.stop_reason, so_far.trajectory, so_far.total_calls) == ("running", (), 0)
    await setup.release()
    so_far = storage.run("mine")
    assert (so_far.stop_reason, so_far.answer, so_far.partial) == ("interrupted", "", "")


async def _begun(storage: Storage) -> Any:
    from rlm_integrations import Corpus
    from rlm_integrations.run_setup import ModelNames, RunSetup

    models = ModelNames(root="root", subs={"root": "root"}, default="root")
    setup = RunSetup(question="q", sources=(), models=models, options={}, version="1", started=1.0)
    return await storage.begin("mine", setup, Corpus.build("a document"))
