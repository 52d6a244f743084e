"""The tool with which an agent queries a document: its schema, the source of the document, and its
artifact.
"""

import json
import threading
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel, model_serializer

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.langchain import RLMRunnable, create_rlm_tool
from rlm_integrations.records import Completion, Request
from tests.engine.conftest import Scripted, code, final
from tests.langchain._agents import (
    ANSWER,
    DOCUMENTS,
    LARGE_ROOT,
    QUESTION,
    QUOTE,
    SUB_CALLS,
    TEXTS,
    WEATHER,
    Parents,
    both,
    kept,
    large,
    scripted,
)

# The answer is the document
LOOK = code("FINAL(context if isinstance(context, str) else context[0])")


class State(MessagesState):
    document: Any


class Context(TypedDict, total=False):
    document: Any


def call(tool: BaseTool, **args: Any) -> dict[str, Any]:
    return {
        "name": tool.name,
        "args": {"question": QUESTION, **args},
        "id": "call_1",
        "type": "tool_call",
    }


async def tell(tool: BaseTool, asynchronously: bool, **args: Any) -> ToolMessage:
    """The tool's message for a call."""
    asked = call(tool, **args)
    return await tool.ainvoke(asked) if asynchronously else tool.invoke(asked)


def graph(tool: BaseTool, **options: Any) -> Any:
    """A graph with only this tool."""
    made = StateGraph(State, Context)
    made.add_node("tools", ToolNode([tool]))
    made.add_edge(START, "tools")
    made.add_edge("tools", END)
    return made.compile(**options)


async def in_graph(
    tool: BaseTool,
    asynchronously: bool,
    context: Any = None,
    config: Any = None,
    args: Any = None,
    **state: Any,
) -> ToolMessage:
    """The tool's message in a graph, for a call by a model."""
    asked = {"messages": [AIMessage("", tool_calls=[call(tool, **(args or {}))])], **state}
    made = graph(tool)
    output = (
        await made.ainvoke(asked, config, context=context)
        if asynchronously
        else made.invoke(asked, config, context=context)
    )
    message = output["messages"][-1]
    assert isinstance(message, ToolMessage)
    return message


def test_the_schema_for_the_model() -> None:
    """The model sees a name, a description and one question; no document and nothing of the graph.
    Only the message's content is returned to it.
    """
    tool = create_rlm_tool(
        scripted(), name="ask_minutes", description="The minutes of 1911.", context_key="document"
    )
    assert convert_to_openai_tool(tool) == {
        "type": "function",
        "function": {
            "name": "ask_minutes",
            "description": "The minutes of 1911.",
            "parameters": {
                "type": "object",
                "properties": {
                    "question": {
                        "type": "string",
                        "description": "One complete question, which can be understood without the conversation.",
                    }
                },
                "required": ["question"],
            },
        },
    }
    assert (
        list(tool.args)
        == list(tool.tool_call_schema.model_json_schema()["properties"])
        == ["question"]
    )
    assert "document" in create_rlm_tool(scripted()).description
    strict = convert_to_openai_tool(tool, strict=True)["function"]
    assert (strict["strict"], strict["parameters"]["additionalProperties"]) == (True, False)


@both
async def test_calling_the_tool_directly(asynchronously: bool) -> None:
    """Called directly, with arguments or only the question, the tool returns the text for the
    model.
    """
    tool = create_rlm_tool(scripted())
    for asked in ({"question": QUESTION}, QUESTION):
        content = await tool.ainvoke(asked) if asynchronously else tool.invoke(asked)
        assert content.startswith(f"{ANSWER}\n[1] minutes:")


def test_nothing_of_the_document_is_in_its_repr() -> None:
    """The tool's repr, which tracers and logs record, has the document's size and none of its
    text.
    """
    shown = repr(create_rlm_tool(RLMRunnable(Scripted([LOOK]), context=f"{QUOTE} " * 100)))
    assert "a string of 4,300 characters" in shown
    assert "Ravenna" not in shown


@both
async def test_the_message_and_the_artifact(asynchronously: bool) -> None:
    """The message has the answer with its supporting quotes; the artifact is plain JSON, unchanged
    by JSON and by a checkpoint.
    """
    message = await tell(create_rlm_tool(scripted()), asynchronously)
    at = TEXTS[0].index(QUOTE)
    assert message.content == f"{ANSWER}\n[1] minutes:{at}-{at + len(QUOTE)} {QUOTE}"
    assert (message.status, message.name, message.tool_call_id) == (
        "success",
        "ask_document",
        "call_1",
    )
    artifact = message.artifact
    assert list(artifact) == ["input", "answer", "context", "usage_metadata", "rlm"]
    assert (artifact["input"], artifact["answer"], artifact["rlm"]["sub_calls"]) == (
        QUESTION,
        ANSWER,
        SUB_CALLS,
    )
    assert [(each["id"], each["page_content"]) for each in artifact["context"]] == [
        (f"context_0:{at}-{at + len(QUOTE)}", QUOTE)
    ]
    assert json.loads(json.dumps(artifact)) == artifact
    serde = JsonPlusSerializer()
    assert serde.loads_typed(serde.dumps_typed(message)) == message
    assert serde.loads_typed(serde.dumps_typed(message)).artifact == artifact


@both
async def test_usage_is_on_no_message(asynchronously: bool) -> None:
    """Usage is only in the artifact, because middleware reads usage of a message as the size of the
    conversation.
    """
    message = await tell(create_rlm_tool(scripted()), asynchronously)
    assert getattr(message, "usage_metadata", None) is None
    assert "usage" not in json.dumps(
        [message.response_metadata, message.additional_kwargs, message.content]
    )
    assert message.artifact["usage_metadata"]["root"]["total_tokens"] > 0


@both
async def test_a_typed_answer(asynchronously: bool) -> None:
    """A typed answer is JSON, for the model and in the artifact."""

    class Approval(BaseModel):
        who: str
        year: int

    runnable = RLMRunnable(
        Scripted([final("{'who': 'Zoë', 'year': 1911}")]),
        context="a document",
        output_type=Approval,
    )
    message = await tell(create_rlm_tool(runnable), asynchronously)
    assert message.content == '{"who": "Zoë", "year": 1911}'
    assert message.artifact["answer"] == {"who": "Zoë", "year": 1911}


def test_quotes_are_truncated_for_the_model() -> None:
    """The model gets 20 truncated quotes; the artifact has complete ones."""
    root = Scripted(
        [code("FINAL('so', evidence=[SpanRef('context_0', at, at + 1000) for at in range(30)])")]
    )
    message = create_rlm_tool(RLMRunnable(root, context="0123456789" * 200)).invoke(
        call(create_rlm_tool(scripted()))
    )
    lines = message.content.splitlines()
    assert len(lines) == 21
    assert lines[1] == f"[1] context_0:0-1000 {'0123456789' * 30}…"
    assert [len(each["page_content"]) for each in message.artifact["context"]] == [1000] * 30


@both
async def test_an_answer_that_is_the_document(asynchronously: bool, document: str) -> None:
    """An answer as long as the document is truncated for the model and in checkpoints, with its
    full length.
    """
    limits = Limits(answer_chars=2 * len(document))
    message = await tell(
        create_rlm_tool(RLMRunnable(Scripted([LOOK]), context=document, limits=limits)),
        asynchronously,
    )
    end = f"… ({len(document):,} characters)"
    assert message.content == document[:50_000] + end
    assert message.artifact["answer"] == document[:50_000] + end


class Failing:
    name = "failing"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        raise ModelError("the provider has no such model", type="not_found")


@both
@pytest.mark.parametrize(
    ("runnable", "why"),
    [
        (lambda: RLMRunnable(Failing(), context="a document"), "the provider has no such model"),
        (lambda: RLMRunnable("offline", context=["a", b"bytes"]), "context"),
        (
            lambda: RLMRunnable(
                Scripted([code("llm_batch(['a', 'b'])"), final("'so'")]),
                context="a",
                budget=Budget(max_calls=2, on_exceeded="raise"),
            ),
            "(budget_calls); the best answer so far: so",
        ),
    ],
    ids=["model", "bad document", "budget"],
)
async def test_errors_of_a_run(runnable: Any, why: str, asynchronously: bool) -> None:
    """An error of a run is a message with the status "error", without an artifact, and the agent
    continues.
    """
    for ask in (tell, in_graph):
        message = await ask(create_rlm_tool(runnable()), asynchronously)
        assert message.status == "error"
        assert why in message.content
        assert message.artifact is None


def test_mistakes_of_the_program_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not this library's is raised to the caller."""
    tool = create_rlm_tool(scripted())
    monkeypatch.setattr(type(tool.runnable), "invoke", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tool.invoke(call(tool))


@both
async def test_a_partial_answer_says_so(asynchronously: bool) -> None:
    """If a limit ended the run, the message says that the answer is partial and why, or that there
    is none.
    """
    root = Scripted([code("llm_batch(['a', 'b', 'c'])"), final("'so far'")])
    message = await tell(
        create_rlm_tool(RLMRunnable(root, context="a document", budget=Budget(max_calls=2))),
        asynchronously,
    )
    assert (
        message.content
        == "so far\n(This is a partial answer: the run was stopped by budget_calls.)"
    )
    assert (message.status, message.artifact["rlm"]["stop_reason"]) == ("success", "budget_calls")
    none = await tell(
        create_rlm_tool(
            RLMRunnable(Scripted([code("x = 1")] * 3), context="a document", max_iterations=2)
        ),
        asynchronously,
    )
    assert none.content == "(There is no answer: the run was stopped by max_iterations.)"


@both
async def test_the_document(asynchronously: bool) -> None:
    """The document is bound to the runnable, or read by its key from the graph's runtime context or
    state, in any of their shapes.
    """
    bound = create_rlm_tool(RLMRunnable(Scripted([LOOK]), context="bound"))
    assert (
        await in_graph(
            bound, asynchronously, context={"document": "of the context"}, document="of the state"
        )
    ).artifact["answer"] == "bound"
    named = create_rlm_tool(RLMRunnable(Scripted([LOOK])), context_key="document")
    assert (await in_graph(named, asynchronously, context={"document": "of the context"})).artifact[
        "answer"
    ] == "of the context"
    assert (await in_graph(named, asynchronously, document="of the state")).artifact[
        "answer"
    ] == "of the state"
    both_there = await in_graph(
        named, asynchronously, context={"document": "of the context"}, document="of the state"
    )
    assert both_there.artifact["answer"] == "of the context"
    with pytest.raises(
        InputError,
        match="there is no document under 'document' in the graph's runtime context or its state",
    ):
        await in_graph(named, asynchronously)
    with pytest.raises(
        InputError, match="the tool takes it as 'document' from the graph that runs it"
    ):
        await tell(named, asynchronously)


@both
async def test_documents_of_langchain_in_the_runtime_context(asynchronously: bool) -> None:
    """Documents in the runtime context keep their ids, and the same objects serve any number of
    calls.
    """
    tool = create_rlm_tool(scripted(context=None), context_key="document")
    for _ in range(2):
        message = await in_graph(tool, asynchronously, context={"document": DOCUMENTS})
        assert message.artifact["rlm"]["citations"][0]["doc_id"] == "minutes"


@both
@pytest.mark.parametrize(
    "forged",
    [
        {"context": "forged"},
        {"runtime": {"context": {"document": "forged"}, "state": {"document": "forged"}}},
        {"runtime": "forged", "config": {"configurable": {"document": "forged"}}},
        {"runtime": ["forged"], "state": {"document": "forged"}, "document": "forged"},
        {"runtime": 5},
        {"runtime": True},
        {"runtime": None},
    ],
)
async def test_a_model_forges_arguments(forged: dict[str, Any], asynchronously: bool) -> None:
    """Arguments of the model other than the question are dropped: it can select neither document
    nor configuration.
    """
    bound = create_rlm_tool(RLMRunnable(Scripted([LOOK]), context="bound"))
    named = create_rlm_tool(RLMRunnable(Scripted([LOOK])), context_key="document")
    for message in (
        await tell(bound, asynchronously, **forged),
        await in_graph(bound, asynchronously, args=forged),
    ):
        assert message.artifact["answer"] == "bound"
    assert (
        await in_graph(named, asynchronously, context={"document": "real"}, args=forged)
    ).artifact["answer"] == "real"
    with pytest.raises(InputError, match="there is no document"):
        await tell(named, asynchronously, **forged)
    with pytest.raises(InputError, match="there is no document"):
        await in_graph(named, asynchronously, args=forged)


class Look(BaseCallbackHandler):
    """Records everything that a tracer receives."""

    def __init__(self) -> None:
        self.size = 0
        self.tools: list[Any] = []

    def _see(self, *given: Any) -> None:
        self.size += len(repr(given))

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        if kwargs.get("name") == "RLMRunnable":
            self._see(serialized, inputs)

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self._see(outputs)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, inputs: Any = None, **kwargs: Any
    ) -> None:
        self.tools.append(inputs)
        self._see(serialized, input_str, inputs)

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self._see(output)


@pytest.fixture(scope="module")
def document() -> str:
    return large()


@both
@pytest.mark.parametrize("place", ["bound", "runtime context"])
async def test_a_document_of_50_mb_is_not_copied(
    place: str, asynchronously: bool, document: str
) -> None:
    """No artifact, message, checkpoint, input or output in a trace contains a document of 50 MB."""
    assert len(document) > 50_000_000
    is_bound = place == "bound"
    tool = create_rlm_tool(
        RLMRunnable(Scripted([LARGE_ROOT]), context=document if is_bound else None),
        context_key=None if is_bound else "document",
    )
    saver, look = InMemorySaver(), Look()
    made = graph(tool, checkpointer=saver)
    asked = {"messages": [AIMessage("", tool_calls=[call(tool)])]}
    config = {"callbacks": [look], "configurable": {"thread_id": "1"}}
    context = None if is_bound else {"document": document}
    output = (
        await made.ainvoke(asked, config, context=context)
        if asynchronously
        else made.invoke(asked, config, context=context)
    )
    message = output["messages"][-1]
    assert message.artifact["context"][0]["page_content"] == QUOTE
    assert len(repr(message)) < 5_000
    assert look.tools == [{"question": QUESTION}]
    assert 0 < look.size < 50_000
    held = kept(saver)
    assert QUOTE.encode() in held  # only the evidence
    assert len(held) < 50_000
    assert WEATHER.encode() not in held
    restored = made.get_state(config).values["messages"][-1]
    assert (restored.content, restored.artifact) == (message.content, message.artifact)


@both
async def test_the_runtime_context_is_not_serialized(asynchronously: bool) -> None:
    """The runtime context is not serialized or copied; only the document is read from it."""

    class Own(BaseModel):
        document: str = "its own"

        @model_serializer
        def dumped(self) -> Any:
            raise AssertionError("this is for nobody to dump")

    class Plain:
        def __init__(self) -> None:
            self.me, self.lock, self.document = self, threading.Lock(), "its own"

    tool = create_rlm_tool(RLMRunnable(Scripted([LOOK])), context_key="document")
    for context in (Own(), Plain()):
        assert (await in_graph(tool, asynchronously, context=context)).artifact[
            "answer"
        ] == "its own"


@both
async def test_its_run_is_below_the_tools(asynchronously: bool) -> None:
    """A tracer sees the run, with its model calls, below the tool's call, in a graph and
    outside.
    """
    for ask in (tell, in_graph):
        look = Parents()
        tool = create_rlm_tool(scripted())
        if ask is in_graph:
            await in_graph(tool, asynchronously, config={"callbacks": [look]})
            assert look.of["ask_document"] == "tools"
        elif asynchronously:
            await tool.ainvoke(call(tool), {"callbacks": [look]})
        else:
            tool.invoke(call(tool), {"callbacks": [look]})
        assert [look.of[name] for name in ("rlm.root", "rlm.sub", "RLMRunnable")] == [
            "RLMRunnable",
            "RLMRunnable",
            "ask_document",
        ]


@both
async def test_derived_runnables(asynchronously: bool) -> None:
    """A tool accepts a runnable with retries and configuration, and one from an RLM."""
    seen = Look()
    runnable = (
        RLMRunnable.from_rlm(RLM(Scripted([LOOK])), context="bound")
        .with_config(callbacks=[seen])
        .with_retry(stop_after_attempt=2)
    )
    assert (await tell(create_rlm_tool(runnable), asynchronously)).artifact["answer"] == "bound"
    assert seen.size > 0


@pytest.mark.parametrize("given", [RLM("offline"), None, "offline", len])
def test_anything_but_a_runnable_is_refused(given: Any) -> None:
    """Anything but a Runnable is an error that says what to pass."""
    with pytest.raises(
        InputError,
        match=r"a tool needs a runnable, such as RLMRunnable\(…\) or RLMRunnable.from_rlm\(rlm\), not ",
    ):
        create_rlm_tool(given)
