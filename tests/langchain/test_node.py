"""The runnable as a node of a graph: where its question and its document are read from, and what a
checkpoint contains.
"""

import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Send
from pydantic import BaseModel

from rlm_integrations import RLM, Budget
from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMRunnable, RLMStoreRetriever, as_node
from tests.engine.conftest import Scripted, code, final
from tests.langchain._agents import (
    ANSWER,
    DOCUMENTS,
    LARGE_ROOT,
    PROGRAM,
    QUESTION,
    QUOTE,
    SCRIPTS,
    SUB_CALLS,
    TEXTS,
    WEATHER,
    Parents,
    both,
    kept,
    large,
    over_http,
    scripted,
)
from tests.standin import StandIn, answer_to, serve_in_thread

LOOK = code("FINAL(context)")  # the answer is the document


class Dict(TypedDict, total=False):
    question: str
    document: Any
    answer: Any
    rlm: dict[str, Any]


class Model(BaseModel):
    question: str | None = None
    document: Any = None
    answer: Any = None
    rlm: dict[str, Any] = {}


@dataclass
class Data:
    question: str | None = None
    document: Any = None
    answer: Any = None
    rlm: dict[str, Any] = field(default_factory=dict)


class Context(TypedDict, total=False):
    document: Any


states = pytest.mark.parametrize("state", [Dict, Model, Data])


def graph(node: Any, state: type = Dict, **options: Any) -> Any:
    """A graph with only this node."""
    made = StateGraph(state, Context)
    made.add_node("ask", node)
    made.add_edge(START, "ask")
    made.add_edge("ask", END)
    return made.compile(**options)


async def finished(
    made: Any, asynchronously: bool, given: Any, config: Any = None, **options: Any
) -> dict[str, Any]:
    output: dict[str, Any] = (
        await made.ainvoke(given, config, **options)
        if asynchronously
        else made.invoke(given, config, **options)
    )
    return output


@states
@both
async def test_a_question_of_the_state(state: type, asynchronously: bool) -> None:
    """In every kind of state, the question is read, and the answer is written with ids and spans,
    in plain JSON.
    """
    output = await finished(
        graph(as_node(scripted()), state), asynchronously, {"question": QUESTION}
    )
    assert (output["question"], output["answer"]) == (QUESTION, ANSWER)
    at = TEXTS[0].index(QUOTE)
    rlm = output["rlm"]
    assert rlm["citations"] == [
        {"doc_id": "minutes", "source": "context_0", "start": at, "end": at + len(QUOTE)}
    ]
    assert (rlm["stop_reason"], rlm["sub_calls"], rlm["store_id"]) == (
        "final",
        SUB_CALLS,
        rlm["run_id"],
    )
    assert json.loads(json.dumps(rlm)) == rlm
    assert (
        RLMStoreRetriever(store=rlm["store_id"]).invoke("type=claim")[0].page_content
        == "Ada Conti approved the Ravenna dam."
    )


@states
@both
async def test_the_document(state: type, asynchronously: bool) -> None:
    """The document is bound, or read by its key from the state or else from the runtime context; a
    missing one is an error.
    """
    bound = graph(as_node(RLMRunnable(Scripted([LOOK]), context="bound")), state)
    assert (await finished(bound, asynchronously, {"question": "?", "document": "of the state"}))[
        "answer"
    ] == "bound"
    named = graph(as_node(RLMRunnable(Scripted([LOOK])), context_key="document"), state)
    context = {"document": "of the context"}
    assert (
        await finished(
            named, asynchronously, {"question": "?", "document": "of the state"}, context=context
        )
    )["answer"] == "of the state"
    assert (await finished(named, asynchronously, {"question": "?"}, context=context))[
        "answer"
    ] == "of the context"
    with pytest.raises(
        InputError, match="no document under 'document' in the state or the graph's runtime context"
    ):
        await finished(named, asynchronously, {"question": "?"})


@states
@both
async def test_a_state_without_a_question(state: type, asynchronously: bool) -> None:
    """A missing or empty question key is an error that says how to choose another key."""
    made = graph(as_node(scripted(), question_key="query"), state)
    with pytest.raises(
        InputError, match=r"the state has no 'query': give as_node\(…, question_key=…\)"
    ):
        await finished(made, asynchronously, {"question": QUESTION})
    with pytest.raises(InputError, match="the state has no 'question'"):
        await finished(graph(as_node(scripted()), state), asynchronously, {"document": "x"})


@both
async def test_other_names(asynchronously: bool) -> None:
    """The keys of question and answer can be chosen; a key that the state does not have is not
    written.
    """

    class Mine(TypedDict, total=False):
        ask: str
        said: str

    output = await finished(
        graph(as_node(scripted(), question_key="ask", answer_key="said"), Mine),
        asynchronously,
        {"ask": QUESTION},
    )
    assert output == {"ask": QUESTION, "said": ANSWER}


@both
async def test_a_conversation(asynchronously: bool) -> None:
    """In messages, the last human message is the question, and the answer is also a message,
    without usage.
    """
    given = [
        HumanMessage("Hello."),
        AIMessage("Hello!"),
        HumanMessage(QUESTION),
        AIMessage("Let me look."),
    ]
    root = Scripted([PROGRAM])
    output = await finished(
        graph(
            as_node(RLMRunnable(root, context=DOCUMENTS), question_key="messages"), MessagesState
        ),
        asynchronously,
        {"messages": given},
    )
    assert root.requests[0].query.startswith(f"{QUESTION}\n\n")
    assert [message.content for message in output["messages"]] == [
        "Hello.",
        "Hello!",
        QUESTION,
        "Let me look.",
        ANSWER,
    ]
    last = output["messages"][-1]
    assert (last.type, last.name, last.usage_metadata) == ("ai", "rlm", None)


@both
async def test_a_conversation_in_other_kinds_of_state(asynchronously: bool) -> None:
    """Messages of a pydantic or a dataclass state, or under another key, work too."""

    class Own(BaseModel):
        messages: Annotated[list[AnyMessage], add_messages]
        answer: str = ""

    @dataclass
    class Other:
        talk: Annotated[list[AnyMessage], add_messages]
        answer: str = ""

    output = await finished(
        graph(as_node(scripted(), question_key="messages"), Own),
        asynchronously,
        {"messages": [HumanMessage(QUESTION)]},
    )
    assert (output["answer"], output["messages"][-1].content) == (ANSWER, ANSWER)
    output = await finished(
        graph(as_node(scripted(), question_key="talk"), Other),
        asynchronously,
        {"talk": [("user", QUESTION)]},
    )
    assert (output["answer"], len(output["talk"])) == (ANSWER, 1)


@both
async def test_answers_of_a_type_and_partial_ones(asynchronously: bool) -> None:
    """A typed answer is written in JSON types; a run stopped by its budget reports the reason, and
    the graph continues.
    """

    class Approval(BaseModel):
        who: str

    typed = RLMRunnable(
        Scripted([final("{'who': 'Ada'}")]), context="a document", output_type=Approval
    )
    assert (await finished(graph(as_node(typed)), asynchronously, {"question": "?"}))["answer"] == {
        "who": "Ada"
    }
    root = Scripted([code("llm_batch(['a', 'b', 'c'])"), final("'so far'")])
    output = await finished(
        graph(as_node(RLMRunnable(root, context="a", budget=Budget(max_calls=2)))),
        asynchronously,
        {"question": "?"},
    )
    assert (output["answer"], output["rlm"]["stop_reason"]) == ("so far", "budget_calls")


@pytest.fixture(scope="module")
def document() -> str:
    return large()


@states
@both
@pytest.mark.parametrize("place", ["bound", "runtime context"])
async def test_what_a_checkpoint_holds(
    place: str, asynchronously: bool, state: type, document: str
) -> None:
    """A checkpoint has question, answer, ids and spans, and no text of a document of 50 MB, not
    even its quotes.
    """
    saver = InMemorySaver()
    runnable = RLMRunnable(Scripted([LARGE_ROOT]), context=document if place == "bound" else None)
    made = graph(
        as_node(runnable, context_key=None if place == "bound" else "document"),
        state,
        checkpointer=saver,
    )
    config = {"configurable": {"thread_id": "1"}}
    context = None if place == "bound" else {"document": document}
    output = await finished(made, asynchronously, {"question": QUESTION}, config, context=context)
    held = kept(saver)
    assert ANSWER.encode() in held
    assert len(held) < 50_000
    assert QUOTE.encode() not in held
    assert WEATHER.encode() not in held
    values = made.get_state(config).values
    assert (values["answer"], values["rlm"]) == (ANSWER, output["rlm"])
    (span,) = values["rlm"]["citations"]
    assert document[span["start"] : span["end"]] == QUOTE


@both
async def test_a_graph_continues_from_its_checkpoint(asynchronously: bool) -> None:
    """If a later node fails, the graph continues after the answer without repeating or paying for
    the run.
    """
    root = Scripted([PROGRAM])
    fails = [True]

    def after(state: Dict) -> dict[str, Any]:
        if fails.pop():
            raise OSError("the printer is on fire")
        return {"answer": f"{state['answer']} Of run {state['rlm']['run_id']}."}

    builder = StateGraph(Dict)
    builder.add_node("ask", as_node(RLMRunnable(root, context=DOCUMENTS)))
    builder.add_node("print", after)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "print")
    made = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="printer"):
        await finished(made, asynchronously, {"question": QUESTION}, config)
    asked = len(root.requests)
    assert made.get_state(config).next == ("print",)
    fails[:] = [False]
    output = await finished(made, asynchronously, None, config)
    assert output["answer"] == f"{ANSWER} Of run {output['rlm']['run_id']}."
    assert len(root.requests) == asked == SUB_CALLS + 1


@both
async def test_the_next_question_on_a_thread(asynchronously: bool) -> None:
    """On a thread with checkpoints, each question is a separate run."""
    made = graph(
        as_node(scripted(), question_key="messages"), MessagesState, checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2):
        output = await finished(
            made, asynchronously, {"messages": [HumanMessage(f"Question {turn}?")]}, config
        )
        assert len(output["messages"]) == 2 * turn
    assert [message.content for message in output["messages"][1::2]] == [ANSWER, ANSWER]


@both
async def test_its_run_is_below_the_nodes(asynchronously: bool) -> None:
    """A tracer sees the run, with its model calls, below the graph's node."""
    look = Parents()
    await finished(
        graph(as_node(scripted())), asynchronously, {"question": QUESTION}, {"callbacks": [look]}
    )
    assert [look.of[name] for name in ("rlm.root", "rlm.sub", "RLMRunnable", "ask")] == [
        "RLMRunnable",
        "RLMRunnable",
        "ask",
        "LangGraph",
    ]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS) as standin:
        yield standin


async def streamed(made: Any, mode: str, asynchronously: bool, given: Any) -> list[Any]:
    if asynchronously:
        return [each async for each in made.astream(given, stream_mode=mode)]
    return list(made.stream(given, stream_mode=mode))


@both
async def test_progress(asynchronously: bool, server: StandIn) -> None:
    """The graph's custom stream has each step of the run, like the tool's."""
    pieces = await streamed(
        graph(as_node(over_http(server))), "custom", asynchronously, {"question": QUESTION}
    )
    kinds = [piece["kind"] for piece in pieces]
    assert [kinds[0], kinds[-1], kinds.count("batch_progress")] == [
        "run_started",
        "turn_finished",
        SUB_CALLS,
    ]
    assert all(piece["type"] == f"rlm.{piece['kind']}" for piece in pieces)
    assert pieces[0]["query"] == QUESTION


@both
@pytest.mark.parametrize("stream_tokens", [False, True], ids=["quiet", "tokens"])
async def test_tokens(stream_tokens: bool, asynchronously: bool, server: StandIn) -> None:
    """The stream of messages has the answer once; tokens of the models only with
    `stream_tokens`.
    """
    made = graph(
        as_node(over_http(server, stream_tokens=stream_tokens), question_key="messages"),
        MessagesState,
    )
    pieces = [
        piece
        for piece, _ in await streamed(
            made, "messages", asynchronously, {"messages": [HumanMessage(QUESTION)]}
        )
    ]
    assert [piece.content for piece in pieces if not isinstance(piece, AIMessageChunk)] == [ANSWER]
    said: dict[str | None, str] = {}
    for piece in pieces:
        if isinstance(piece, AIMessageChunk):
            said[piece.id] = said.get(piece.id, "") + piece.text
    expected = (
        [PROGRAM, *(answer_to(f"part {number}") for number in range(SUB_CALLS))]
        if stream_tokens
        else []
    )
    assert sorted(said.values()) == sorted(expected)


@both
async def test_outside_of_a_graph(asynchronously: bool) -> None:
    """A node is a Runnable: it takes a state, and returns the update."""
    node = as_node(RLMRunnable(Scripted([LOOK])), context_key="document")
    given = {"question": QUESTION, "document": "by hand"}
    update = await node.ainvoke(given) if asynchronously else node.invoke(given)
    assert (list(update), update["answer"]) == (["answer", "rlm"], "by hand")
    with pytest.raises(InputError, match="no document under 'document'"):
        await node.ainvoke({"question": QUESTION}) if asynchronously else node.invoke(
            {"question": QUESTION}
        )


@both
async def test_several_documents_side_by_side(asynchronously: bool) -> None:
    """Composed with a function that shapes its update, a node serves a map over documents with
    `Send`.
    """

    class Several(TypedDict, total=False):
        documents: list[str]
        answers: Annotated[list[str], operator.add]

    builder = StateGraph(Several)
    node = as_node(RLMRunnable(Scripted([LOOK])), context_key="document")
    builder.add_node("ask", node | (lambda update: {"answers": [update["answer"]]}))
    builder.add_conditional_edges(
        START,
        lambda state: [
            Send("ask", {"question": "?", "document": each}) for each in state["documents"]
        ],
    )
    builder.add_edge("ask", END)
    output = await finished(
        builder.compile(), asynchronously, {"documents": ["one", "two", "three"]}
    )
    assert output["answers"] == ["one", "two", "three"]


@both
async def test_a_runnable_with_another_output(asynchronously: bool) -> None:
    """A runnable that returns only a part of the output is an error."""
    for runnable in (scripted().pick("answer"), RunnableLambda(lambda _: {"answer": "x"})):
        with pytest.raises(
            InputError,
            match=r"an RLMRunnable's whole output is needed here, without pick\(…\) or a parser",
        ):
            await finished(graph(as_node(runnable)), asynchronously, {"question": QUESTION})


@pytest.mark.parametrize("given", [RLM("offline"), None, ToolNode, "offline"])
def test_anything_but_a_runnable_is_refused(given: Any) -> None:
    """Anything but a Runnable is an error that says what to pass."""
    with pytest.raises(InputError, match=r"a node needs a runnable, such as RLMRunnable\(…\)"):
        as_node(given)
