"""A workflow that goes on from its saved context resumes the runs of its steps and tools, and pays
for no call twice.
"""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.llama_index._world import NO_LLAMA_INDEX, calling_llm

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.workflow import (
    Context,
    JsonPickleSerializer,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from workflows.errors import WorkflowCancelledByUser

from rlm_integrations import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine, askable
from rlm_integrations.records import Request
from rlm_integrations.storage import Storage
from tests._forked import Forked
from tests.engine.conftest import Scripted, code, final, soon
from tests.llama_index._workflow import PROGRAM, QUESTION, TEXT, Asking
from tests.standin import Fault, StandIn, serve_in_thread


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that counts its calls."""
    with serve_in_thread(scripts={"root": PROGRAM}, keep_requests=True) as standin:
        yield standin


def program(provider: StandIn, folder: Path) -> Forked:
    return Forked("-m", "tests.llama_index._workflow", provider.base_url, str(folder))


def test_a_killed_workflow_resumes_the_runs_inside(provider: StandIn, tmp_path: Path) -> None:
    """Its process is killed with -9 while two steps ask the same question. From its saved context
    another process goes on: each of the two runs is resumed, and no call that was answered is made
    again.
    """
    saved = tmp_path / "context.json"
    provider.change(faults=[Fault("hang", match="the last one")])
    with program(provider, tmp_path) as process:
        assert soon(
            lambda: (
                process.poll() is not None
                or (provider.stats().in_flight == 2 and "rlm_runs" in saved.read_text())
            )
        )
        os.killpg(process.pid, signal.SIGKILL)
    provider.change(faults=[])
    with program(provider, tmp_path) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors[-3_000:]
    answers = json.loads(output)
    assert len({text for text, _ in answers}) == 1
    assert len({run_id for _, run_id in answers}) == 2
    requests = provider.requests()
    asked = Counter(
        (body["model"], body["messages"][-1]["content"], len(body["messages"]))
        for body in (
            requests[call.number].body
            for call in provider.calls()
            if call.status == 200 and not call.aborted
        )
    )
    assert set(asked.values()) == {2}


def opened(root: Scripted, storage: Storage) -> RLMQueryEngine:
    return RLMQueryEngine.from_rlm(RLM(root, storage=storage), Document(text=TEXT))


async def asked_in(ctx: Any, engine: RLMQueryEngine) -> str:
    response: Any = await engine.in_workflow(ctx).aquery(QUESTION)
    run_id: str = response.metadata["run_id"]
    return run_id


async def test_the_same_question_later_is_another_run(tmp_path: Path) -> None:
    """In one context, in a restored one, and in a new one. From a context that was saved before a
    run ended, its stored result is returned.
    """
    with Storage(tmp_path / "runs") as storage:
        root = Scripted([final("1")])
        engine = opened(root, storage)
        workflow = Asking(engine)
        ctx = Context(workflow)
        first = await asked_in(ctx, engine)
        saved = ctx.to_dict()
        second = await asked_in(ctx, engine)
        restored = Context.from_dict(workflow, saved)
        assert await asked_in(restored, engine) == second
        third = await asked_in(restored, engine)
        other = await asked_in(Context(workflow), engine)
        assert len({first, second, third, other}) == len(storage.runs()) == len(root.requests) == 4


async def test_a_context_that_cannot_keep_runs(tmp_path: Path) -> None:
    """A typed state without the field, and a synchronous method, are errors that say what to do;
    without a storage nothing is kept in the context.
    """

    class State(BaseModel):
        document: str = ""

    class Typed(Workflow):
        @step
        async def only(self, ctx: Context[State], ev: StartEvent) -> StopEvent:
            return StopEvent()

    root = Scripted([final("1")])
    ctx = Context(Typed())
    with Storage(tmp_path / "runs") as storage:
        inside = opened(root, storage).in_workflow(ctx)
        with pytest.raises(InputError, match="needs a field for its runs: rlm_runs: dict"):
            await inside.aquery(QUESTION)
        with pytest.raises(InputError, match="ask with an asynchronous method"):
            inside.query(QUESTION)
        assert root.requests == []
    plain = RLMQueryEngine.from_rlm(RLM(root), Document(text=TEXT)).in_workflow(ctx)
    assert str(await plain.aquery(QUESTION)) == "1"


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
async def test_an_agent_resumes_the_run_of_its_tool(tmp_path: Path) -> None:
    """An agent that was cancelled in the middle of its `askable` tool goes on from its saved
    context, and the run in its tool as well.
    """
    begun, serializer = asyncio.Event(), JsonPickleSerializer()  # JSON does not save a memory

    async def hang(_request: Request) -> str:
        begun.set()
        return await asyncio.Event().wait() or "" if len(root.asked) == 1 else "42"

    root = Scripted([code("FINAL(llm_query('the needle?'))")], hang)
    with Storage(tmp_path / "runs") as storage:
        tool = askable(RLM(root, storage=storage))
        agent = FunctionAgent(tools=[tool], llm=calling_llm("ask_document"), streaming=False)
        ctx = Context(agent)
        await ctx.store.set("document", TEXT)
        handler = agent.run(QUESTION, ctx=ctx)
        await begun.wait()
        saved = handler.ctx.to_dict(serializer)
        await handler.cancel_run()
        with suppress(WorkflowCancelledByUser):
            await handler
        assert [run.status for run in storage.runs()] == ["cancelled"]
        restored = Context.from_dict(agent, saved, serializer)
        assert str(await agent.run(ctx=restored)) == "It says: 42"
        assert [run.status for run in storage.runs()] == ["final"]
    assert [request.role for request in root.requests] == ["root", "sub", "sub"]
