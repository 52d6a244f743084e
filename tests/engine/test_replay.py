"""A run is replayed from its journal: no model or tool is called again, and the result is the
same.
"""

import asyncio
import dataclasses
import hashlib
import pickle
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, JournalError, Limits, ReplayDivergedError, RLMResult
from rlm_integrations.engine.block_outcome import BlockOutcome
from rlm_integrations.engine.call_id import BLOCK, CLOSE, CallId
from rlm_integrations.engine.clock import RunClock
from rlm_integrations.engine.journal import Answer, MemoryJournal
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.engine.tree import RunStart
from rlm_integrations.events import CallReplayed, CallStarted, Emitter, Event
from rlm_integrations.sandbox.base import ExecutionResult
from tests.engine.conftest import Scripted, code, final

DOCUMENT = "\n".join(f"Line {n}: the value of item {n} is {n * 7 % 13}." for n in range(400)) + (
    "\nIt is twice the same.\nIt is twice the same.\n"
)

SCRIPTS = {
    "the whole": [
        code(
            "import asyncio",
            "from concurrent.futures import ThreadPoolExecutor",
            "first = llm_batch([f'batch {n}' for n in range(8)])",
            "with ThreadPoolExecutor(4) as pool:",
            "    second = list(pool.map(llm_query, [f'thread {n % 3}' for n in range(6)]))",
            "async def one(n): return await asyncio.to_thread(llm_query, f'gathered {n}')",
            "async def several(): return await asyncio.gather(*[one(n) for n in range(4)])",
            "third = asyncio.run(several())",
            "kept = [store.create('note', f'of {n}', reply) for n, reply in enumerate(first)]",
            "print(first[0], second[1], third[2], kept[-1])",
        )
        + "\n"
        + code(
            "batch = store.llm_map([{'name': f't{n}', 'prompt': f'map {n}'} for n in range(5)])",
            "total = store.llm_reduce(batch, 'Add them up.')",
            "store.link('supports', total, kept[0])",
            "print(batch, total, store.summary())",
        ),
        code(
            "inner = recursive_lm('a child', context[:2000])",
            "several = recursive_batch([{'query': 'a child', 'context': context[n * 1000:]} for n in range(3)])",
            "apply_commit(rlm_worker('a worker'))",
            "try: lookup(-1)",
            "except Exception as error: print(type(error).__name__, error)",
            "print(inner, several, [lookup(n) for n in (1, 2, 1)])",
        ),
        "I repeat myself. " * 400 + code("print(len(context)); 1 / 0"),
        code("spans = [cite('It is twice the same.'), cite('Line 3:')]", "print(spans)"),
        code("print('still looking')"),
        code("FINAL({'words': 'seven', 'number': 7}, evidence=spans)"),
    ],
    "a child": [
        code(
            "found = llm_query('of a child ' + context[:20])", "store.create('claim', 'c', found)"
        ),
        final("found + cite('Line 1').source if 'Line 1' in context else found"),
    ],
    "a worker": [
        code(
            "FINAL({'creates': [{'id': 'e1', 'type': 'evidence', 'description': 'd', 'content': llm_query('of a worker')}], "
            "'links': [], 'proposes_updates': []})"
        )
    ],
}
QUESTION = "the whole?"


class Found(BaseModel):
    """The answer."""

    words: str
    number: int


class Paid(Scripted):
    """A model whose calls count as paid, with a small window, so that the history is shortened."""

    context_window = 3_000


CALLED: list[int] = []


def lookup(number: int) -> str:
    """A tool."""
    CALLED.append(number)
    if number < 0:
        raise LookupError("there is nothing below zero")
    return f"looked up {number}, the {CALLED.count(number)}th time"


def rlm_of(model: Scripted, **options: Any) -> RLM[Any]:
    """The RLM of all runs here: five turns, so that the sixth reply is the closing one; and a
    budget that refuses the last calls.
    """
    options = {"output_type": Found, "max_iterations": 5, **options}
    return RLM(model, tools=[lookup], max_depth=2, max_parallel_calls=4, **options)


async def recorded(
    journal: MemoryJournal, model: Scripted, events: list[Event] | None = None, **options: Any
) -> RLMResult:
    """The run, replayed as far as possible from this journal."""
    start = RunStart(run_id="the-run", clock=RunClock(started=1e9), journal=journal)
    emit = Emitter(None if events is None else events.append)
    answering = rlm_of(model, **options)._answering(emit)
    return await answering.answer(QUESTION, DOCUMENT, start=start)


TIMES = {"ts", "start", "end", "call_end", "elapsed", "wait", "execution_time", "started"}
INCIDENTAL = {*TIMES, "replayed"}


def repeatable(value: Any) -> Any:
    """Plain data without times and the marks of replayed calls; calls are sorted by path."""
    if isinstance(value, dict):
        kept = {name: repeatable(each) for name, each in value.items() if name not in INCIDENTAL}
        for name in ("subcalls", "function_calls"):
            if isinstance(kept.get(name), list):
                kept[name].sort(key=lambda call: str(call["path"]))
        return kept
    if isinstance(value, list):
        return [repeatable(each) for each in value]
    return value


def facts(result: RLMResult) -> Any:
    """Everything in the result of a run that a replay repeats."""
    found = repeatable(result.to_dict())
    found["store"] = result.store.to_dict()
    return found


PROGRAM = textwrap.dedent(
    """
    import asyncio, pickle, sys
    sys.path.insert(0, {folder!r})
    from tests.engine import test_replay as test

    with open({journal!r}, "rb") as file:
        journal = pickle.load(file)
    model = test.Paid(test.SCRIPTS)
    result = asyncio.run(test.recorded(journal, model))
    sys.stdout.buffer.write(pickle.dumps((test.facts(result), len(model.requests), test.CALLED)))
    """
)


def test_a_run_is_replayed_in_a_new_process(tmp_path: Path) -> None:
    """With threads, gather, batches, children, a worker, llm_map, llm_reduce, tools, an ambiguous
    quote, a shortened history, a failing block, a closing call and a typed answer, a replay calls
    no model and no tool, and the result and the store are the same.
    """
    journal, model = MemoryJournal(), Paid(SCRIPTS)
    CALLED.clear()
    first = asyncio.run(recorded(journal, model))
    assert first.answer == Found(words="seven", number=7)
    assert first.citations[0].ambiguous
    assert "no longer shown" in str(first.messages)
    assert CALLED == [-1, 1, 2, 1]
    assert len(model.requests) == first.total_calls > 30
    file = tmp_path / "journal"
    file.write_bytes(pickle.dumps(journal))
    program = PROGRAM.format(folder=str(Path(__file__).parents[2]), journal=str(file))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3_000:]
    again, asked, called = pickle.loads(done.stdout)
    assert (asked, called) == (0, [])
    expected = facts(first)
    assert again.keys() == expected.keys()
    for name in expected:
        assert again[name] == expected[name], name


# The store is restored before its blocks run again: a read whose record is lost sees more.
@pytest.mark.filterwarnings("ignore:block . printed something else:RuntimeWarning")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_only_missing_calls_are_made(seed: int) -> None:
    """With a third of the records missing, exactly the calls without a record are made again, and
    the answer is the same.
    """
    journal, model = MemoryJournal(), Paid(SCRIPTS)
    first = await recorded(journal, model)
    lost = random.Random(seed).sample(sorted(journal.answers, key=lambda call: call.path), 40)
    model_calls = {
        call.path for call in lost if isinstance(journal.answers[call].value, ModelAnswer)
    }
    for call in lost:
        del journal.answers[call]
    again = Paid(SCRIPTS)
    second = await recorded(journal, again)
    # A child run whose answer is recorded is not run again, and needs no records of its own.
    asked = {request.path for request in again.requests}
    assert len(asked) == len(again.requests)
    assert asked <= model_calls
    inside = {path for path in model_calls - asked if path.count("/") or ":" in path}
    kept_children = [
        call.path for call in journal.answers if call.function.startswith(("recursive", "rlm_"))
    ]
    assert all(any(path.startswith(child) for child in kept_children) for path in inside)
    assert (second.answer, second.citations) == (first.answer, first.citations)
    assert second.total_calls == first.total_calls
    assert second.usage == first.usage


def marks(result: RLMResult) -> set[bool]:
    """Whether its turns, and the calls and child runs of their code, are marked as replayed."""
    calls = (call for block in result.repl_history for call in block.subcalls)
    return {each.replayed for each in (*result.trajectory, *calls)}


async def test_a_replayed_call_is_reported_as_such() -> None:
    """A hook gets `CallReplayed` with the recorded call, and no CallStarted. In the result, replayed
    turns, calls and child runs are marked, and no others.
    """
    journal = MemoryJournal()
    first = await recorded(journal, Paid(SCRIPTS))
    events: list[Event] = []
    second = await recorded(journal, Paid(SCRIPTS), events)
    assert (marks(first), marks(second)) == ({False}, {True})
    del journal.answers[next(call for call in journal.answers if call.function == CLOSE)]
    third = await recorded(journal, Paid(SCRIPTS))
    assert [turn.replayed for turn in third.trajectory] == [True] * 5 + [False]
    replayed = [event for event in events if isinstance(event, CallReplayed)]
    assert not any(isinstance(event, CallStarted) for event in events)
    assert {event.request.path for event in replayed} >= {"r:t1", "r:close"}
    assert all(event.same_prompt for event in replayed)


async def test_a_hit_is_charged_and_reserves_nothing() -> None:
    """A budget that covers the run covers its replay; refused calls stay refused, in any order."""
    script = [
        code("replies = llm_batch([f'a{n}' for n in range(9)])", "print(replies)"),
        final("sum(reply.startswith('re: ') for reply in replies)"),
    ]
    options: dict[str, Any] = {"budget": Budget(max_calls=6), "output_type": None}
    journal, model = MemoryJournal(), Scripted({"the whole": script})
    first = await recorded(journal, model, **options)
    again = Scripted({"the whole": script})
    second = await recorded(journal, again, **options)
    assert again.requests == []
    assert (second.answer, second.stop_reason) == (first.answer, first.stop_reason)
    assert repeatable(second.to_dict()["spent"]) == repeatable(first.to_dict()["spent"])
    assert second.total_calls == first.total_calls == 6


async def test_a_derived_prompt_that_changed_is_a_new_call() -> None:
    """A call with the same path and another prompt is made: a recorded answer belongs to its
    prompt.
    """
    script = [
        code(
            "import os, time",
            "batch = store.llm_map([{'name': 'a', 'prompt': 'map'}])",
            "store.llm_reduce(batch, 'Fold.')",
        ),
        final("'done'"),
    ]
    journal, model = MemoryJournal(), Scripted({"the whole": script})
    await recorded(journal, model, output_type=None)
    (mapped,) = [
        call for call in journal.answers if call.function == "store.llm_map" and call.items
    ]
    value = journal.answers[mapped].value
    other = dataclasses.replace(value.record, reply="another reply")
    journal.answers = {
        call: answer
        for call, answer in journal.answers.items()
        if call.function != "store.llm_map" or call.items
    }
    journal.answers[mapped] = dataclasses.replace(
        journal.answers[mapped], value=dataclasses.replace(value, record=other)
    )
    again = Scripted({"the whole": script})
    await recorded(journal, again, output_type=None)
    assert [request.messages[-1].content for request in again.requests] == [
        next(
            request.messages[-1].content.replace("re: map", "another reply")
            for request in model.requests
            if "Fold." in request.messages[-1].content
        )
    ]


async def test_an_interrupted_block_is_interrupted_where_it_was() -> None:
    """The recorded outcome of the block is used, its variables are restored, and calls that it had
    not made are not made.
    """
    script = [
        code("kept = llm_query('one')", "while True: pass"),
        final("kept"),
    ]
    limits = Limits(block_seconds=0.3)
    journal, model = MemoryJournal(), Scripted({"the whole": script})
    first = await recorded(journal, model, limits=limits, output_type=None)
    assert first.repl_history[0].status == "interrupted"
    # The code continues to a call that was not answered before
    block = next(call for call in journal.answers if call.function == BLOCK and call.block == 1)
    longer = code("kept = llm_query('one')", "llm_query('two')")
    journal.answers[_renamed(block, longer)] = journal.answers.pop(block)
    again = Scripted({"the whole": [longer, script[1]]})
    turn = journal.answers[CallId("r", 0, "turn", occurrence=1)]
    record = dataclasses.replace(turn.value.record, reply=longer)
    journal.answers[CallId("r", 0, "turn", occurrence=1)] = dataclasses.replace(
        turn, value=dataclasses.replace(turn.value, record=record)
    )
    second = await recorded(journal, again, limits=Limits(block_seconds=250), output_type=None)
    assert second.answer == first.answer == "re: one"
    assert second.repl_history[0].error == first.repl_history[0].error
    assert again.requests == []


def _renamed(block: CallId, reply: str) -> CallId:
    lines = reply.split("\n")[1:-1]
    return dataclasses.replace(block, digest=hashlib.sha256("\n".join(lines).encode()).hexdigest())


async def test_a_lost_block_is_not_run_again() -> None:
    """A block that lost its sandbox is replayed as lost: the next block has a new REPL."""
    script = [code("kept = 1"), code("print('lost')"), final("'kept' in globals()")]
    journal, model = MemoryJournal(), Scripted({"the whole": script})
    await recorded(journal, model, output_type=None)
    lost = next(call for call in journal.answers if call.function == BLOCK and call.block == 2)
    journal.answers[lost] = Answer(BlockOutcome(ExecutionResult(status="lost")))
    for call in list(journal.answers):
        if call.function == BLOCK and call.block == 3:
            del journal.answers[call]
    again = Scripted({"the whole": script})
    second = await recorded(journal, again, output_type=None)
    assert second.answer == "false"
    assert [each.status for each in second.repl_history] == ["ok", "lost", "ok"]


async def test_an_answer_is_kept_before_it_is_used() -> None:
    """If the journal cannot keep an answer, the run ends before the code gets it, so that nothing
    is paid twice.
    """

    class Full(MemoryJournal):
        async def keep(self, call: CallId, answer: Answer) -> None:
            if call.function == "llm_query":
                raise OSError(28, "No space left on device")
            await super().keep(call, answer)

    model = Scripted({"the whole": [code("llm_query('a')"), final("'done'")]})
    with pytest.raises(JournalError, match=r"q[0-9a-f]{10} could not be kept: .*No space left"):
        await recorded(Full(), model, output_type=None)


async def test_a_call_that_a_complete_journal_does_not_hold_ends_the_replay() -> None:
    """A block that had ended makes the same calls again; if it makes another one, its code depends
    on something that has changed, and the error names the call.
    """
    script = [code("lookup(1)", "lookup(2)"), final("'done'")]
    journal = MemoryJournal()
    await recorded(journal, Scripted({"the whole": script}), output_type=None)
    (gone,) = [
        call
        for call, answer in journal.answers.items()
        if str(answer.value).startswith("looked up 2")
    ]
    del journal.answers[gone]
    journal.is_complete = True
    with pytest.raises(ReplayDivergedError, match=gone.path):
        await recorded(journal, Scripted({"the whole": script}), output_type=None)


async def test_a_call_that_a_block_left_behind_stays_unanswered() -> None:
    """A thread's call that was under way when its block ended is no divergence, and is not made."""
    script = [
        code(
            "import threading, time",
            "threading.Thread(target=lambda: llm_query('slow'), daemon=True).start()",
            "lookup(1)",
        ),
        final("'done'"),
    ]
    asked: list[str] = []

    async def answer(request: Any) -> str:
        asked.append(request.path)
        await asyncio.Event().wait()
        return ""

    journal = MemoryJournal()
    await recorded(journal, Scripted({"the whole": script}, answer), output_type=None)
    journal.is_complete = True
    before = list(asked)
    result = await recorded(journal, Scripted({"the whole": script}, answer), output_type=None)
    assert (result.answer, asked) == ("done", before)


async def test_other_output_warns_and_the_recorded_one_counts() -> None:
    """What a block prints may depend on the time; the model has seen what was printed first."""
    script = [code("import time", "print(time.time_ns())"), final("'done'")]
    journal = MemoryJournal()
    first = await recorded(journal, Scripted({"the whole": script}), output_type=None)
    with pytest.warns(RuntimeWarning, match="block 1 printed something else"):
        second = await recorded(journal, Scripted({"the whole": script}), output_type=None)
    assert second.repl_history[0].stdout == first.repl_history[0].stdout
    assert repeatable(second.to_dict()["messages"]) == repeatable(first.to_dict()["messages"])


async def test_a_child_that_an_interrupted_block_waited_for_is_not_entered() -> None:
    """A child run without an answer is not run in the replay of the block that waited for it."""
    scripts = {
        "the whole": [
            code("kept = 1", "recursive_lm('a child', 'a part')", "kept = 2"),
            final("kept"),
        ],
        "a child": [final("llm_query('first')")],
    }
    journal = MemoryJournal()
    await recorded(journal, Scripted(scripts), output_type=None)
    # As if the first block had been interrupted before its child was asked anything
    journal.answers = {
        call: answer
        for call, answer in journal.answers.items()
        if call.run == "r" and call.function == "turn"
    }
    code_of_block = "\n".join(scripts["the whole"][0].split("\n")[1:-1])
    block = CallId("r", 1, BLOCK, hashlib.sha256(code_of_block.encode()).hexdigest())
    journal.answers[block] = Answer(BlockOutcome(ExecutionResult(status="interrupted")))
    again = Scripted(scripts)
    result = await recorded(journal, again, output_type=None)
    assert (result.answer, again.requests) == ("1", [])
