"""The engine as a tool: in agents and workflows, with its progress in their streams."""

import asyncio
import copy
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    calling_llm,
    finder,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ToolCallResult
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step
from workflows.errors import WorkflowCancelledByUser

from rlm_integrations import RLM, Budget
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import (
    RLMQueryEngine,
    RLMWorkflowEvent,
    as_query_engine_tool,
    askable,
)
from tests.engine.conftest import Scripted, code, documents_held, overlong


def engine_of(root: Any = None, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(Document(text=TEXT), llm=root or finder(), **options)


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("kind", ["FunctionAgent", "AgentWorkflow"])
async def test_in_an_agent(kind: str) -> None:
    """An agent queries the engine with its tool; the output has the response with its sources, and
    the agent's stream has the run's progress.
    """
    tool = as_query_engine_tool(engine_of(streaming=True))
    agent = FunctionAgent(tools=[tool], llm=calling_llm("ask_document"), streaming=False)
    handler = (agent if kind == "FunctionAgent" else AgentWorkflow(agents=[agent])).run(QUESTION)
    events = [event async for event in handler.stream_events()]
    assert str(await handler) == f"It says: {ANSWER}"
    (result,) = [event for event in events if isinstance(event, ToolCallResult)]
    assert not result.tool_output.is_error
    assert len(result.tool_output.raw_output.source_nodes) == 1
    progress = [event for event in events if isinstance(event, RLMWorkflowEvent)]
    assert [event.kind for event in progress] == [
        "run_started",
        "turn_started",
        "block_started",
        "block_finished",
        "turn_finished",
    ]
    assert (progress[0].query, progress[0].depth, progress[3].status) == (QUESTION, 0, "ok")


async def test_an_invalid_question_is_reported_to_the_agent() -> None:
    """The tool's error is returned to the agent, with what is wrong."""
    tool = as_query_engine_tool(engine_of())
    with pytest.raises(InputError, match="the question must be a non-empty string"):
        await tool.acall("  ")


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_called_by_hand(api: str) -> None:
    """The tool works with the sync and the async API, and its description is short enough."""
    tool = as_query_engine_tool(engine_of(), "ask_archive", "Answers questions on the archive.")
    output = tool.call(QUESTION) if api == "sync" else await tool.acall(input=QUESTION)
    assert (output.content, output.tool_name, output.raw_output.metadata["stop_reason"]) == (
        ANSWER,
        "ask_archive",
        "final",
    )
    told = as_query_engine_tool(engine_of()).metadata.to_openai_tool()
    assert told["function"]["name"] == "ask_document"


BUDGET = Budget(max_calls=2)


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_partial_answers_are_marked(api: str) -> None:
    """The output of an incomplete run says that it is partial, even if the run raises; without any
    answer it is an error.
    """
    asks = code("print('nearly 42')", "llm_query('a')")
    for options in ({}, {"on_incomplete": "raise"}):
        tool = as_query_engine_tool(engine_of(finder(asks, asks, asks), budget=BUDGET, **options))
        output = tool.call(QUESTION) if api == "sync" else await tool.acall(QUESTION)
        assert output.content.endswith(
            "(This is a partial answer: the run was stopped by budget_calls.)"
        )
        assert ("nearly 42" in output.content, output.is_error) == (True, False)
    silent = as_query_engine_tool(
        engine_of(finder(*[code("x = 1")] * 3), max_iterations=1, budget=Budget(max_calls=1))
    )
    output = silent.call(QUESTION) if api == "sync" else await silent.acall(QUESTION)
    assert (output.content[:29], output.is_error) == ("There is no answer: the run w", True)


def test_a_tool_is_copied() -> None:
    """Agents may copy their tools: a copy uses the same engine."""
    tool = as_query_engine_tool(engine_of())
    again = copy.deepcopy(tool)
    assert again.query_engine is tool.query_engine
    assert again.call(QUESTION).content == ANSWER


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("made_of", ["tool", "rlm"])
async def test_the_document_of_a_workflow(made_of: str) -> None:
    """One tool queries the document of its agent's context, whichever that is; the document is in
    no event, and is released.
    """
    root = Scripted([code(f"FINAL(context[-9:], evidence=[cite({NEEDLE!r})])")])
    tool = (
        askable(RLM(root), "report")
        if made_of == "rlm"
        else askable(as_query_engine_tool(engine_of(root), "ask_report"), "report")
    )
    agent = FunctionAgent(tools=[tool], llm=calling_llm(tool.metadata.get_name()), streaming=False)
    before = documents_held()
    for end in ("the first", "the other"):
        context = Context(agent)
        await context.store.set("report", f"{TEXT} {end}")
        handler = agent.run(QUESTION, ctx=context)
        events = [event async for event in handler.stream_events()]
        assert str(await handler) == f"It says: {end}"
        assert all(TEXT[:300] not in str(event) for event in events)
        (result,) = [event for event in events if isinstance(event, ToolCallResult)]
        assert [each.node.text for each in result.tool_output.raw_output.source_nodes] == [NEEDLE]
        assert any(isinstance(event, RLMWorkflowEvent) for event in events)
    assert len(documents_held()) <= len(before)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
async def test_a_workflow_without_the_document() -> None:
    """Without a document in the context, a tool with its own documents uses these; a tool of an RLM
    reports the missing key to the model.
    """
    own = askable(as_query_engine_tool(engine_of(), "ask_own", "Of its own."), "report")
    assert (own.metadata.name, own.metadata.description) == ("ask_own", "Of its own.")
    assert own.metadata.get_parameters_dict()["properties"].keys() == {"input"}
    for tool, said in (
        (own, ANSWER),
        (
            askable(RLM(finder()), "report"),
            "there is no document 'report' in the workflow's context",
        ),
    ):
        agent = FunctionAgent(
            tools=[tool], llm=calling_llm(tool.metadata.get_name()), streaming=False
        )
        assert str(await agent.run(QUESTION)) == f"It says: {said}"


def test_bad_arguments_of_askable() -> None:
    """An engine that cannot answer over other documents, and an empty key, are refused at once."""
    with pytest.raises(InputError, match="over an RLMQueryEngine, or an RLM, not str"):
        askable("a tool")  # type: ignore[arg-type] # on purpose
    with pytest.raises(InputError, match="context_key=''"):
        askable(RLM(finder()), "")
    with pytest.raises(InputError, match="1 to 64 letters"):
        askable(RLM(finder()), name="two words")


def test_bad_arguments() -> None:
    """A name or description that models refuse, and anything but an engine, are refused at once."""
    for name in ("", "two words", "x" * 65, None):
        with pytest.raises(InputError, match="1 to 64 letters"):
            as_query_engine_tool(engine_of(), name)
    for description in ("", " ", "x" * 1025, None):
        with pytest.raises(InputError, match="1 to 1,024 characters"):
            as_query_engine_tool(engine_of(), "name", description)
    with pytest.raises(InputError, match="engine must be a query engine, not str"):
        as_query_engine_tool("engine")


class Asking(Workflow):
    """A workflow that queries an engine in one of its steps, with the API that the start event
    names.
    """

    engine: Any = None

    @step
    async def ask(self, ctx: Context, event: StartEvent) -> StopEvent:
        return StopEvent(
            result=str(
                self.engine.query(QUESTION)
                if event.api == "sync"
                else await self.engine.aquery(QUESTION)
            )
        )


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_in_a_step_of_a_workflow(api: str) -> None:
    """The workflow's stream has the progress, even if the step calls the synchronous method and
    blocks the loop.
    """
    workflow = Asking(timeout=30)
    workflow.engine = engine_of()
    handler = workflow.run(api=api)
    kinds = [
        event.kind async for event in handler.stream_events() if isinstance(event, RLMWorkflowEvent)
    ]
    assert (await handler, kinds[0], kinds[-1]) == (ANSWER, "run_started", "turn_finished")


async def test_older_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With versions of workflows that do not report the running step, the answer is the same,
    without progress.
    """
    monkeypatch.delattr(Context, "get_step_context")
    workflow = Asking(timeout=30)
    workflow.engine = engine_of()
    handler = workflow.run(api="async")
    assert [
        event async for event in handler.stream_events() if isinstance(event, RLMWorkflowEvent)
    ] == []
    assert await handler == ANSWER


async def test_a_workflow_that_is_cancelled() -> None:
    """Cancelling a workflow, or its timeout, ends the run in its step: its call is aborted, its
    sandbox is closed (see the fixture).
    """
    root = Scripted([code("print(llm_query('wait'))")], overlong(30))
    workflow = Asking(timeout=30)
    workflow.engine = engine_of(root)
    handler = workflow.run(api="async")
    while not any(request.role == "sub" for request in root.requests):
        await asyncio.sleep(0)
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    while root.open:
        await asyncio.sleep(0)
