"""A real LangChain agent, with ChatOpenAI over real HTTP, that queries a document and the findings
of a run.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_integrations.langchain import RLMStoreToolkit, create_rlm_tool
from tests.langchain._agents import (
    ANSWER,
    ASKED,
    DOCUMENTS,
    END,
    PROGRAM,
    QUESTION,
    QUOTE,
    SCRIPTS,
    SUB_CALLS,
    TEXTS,
    agent,
    both,
    chat,
    closed,
    kept,
    over_http,
    scripted,
    told,
)
from tests.standin import Ask, Fault, Reply, StandIn, answer_to, serve_in_thread

SUB_ANSWERS = [answer_to(f"part {number}") for number in range(SUB_CALLS)]
INPUT = {"messages": [HumanMessage("What of the dam?")]}
STEPS = [
    "run_started",
    "turn_started",
    "block_started",
    "batch_started",
    *["batch_progress"] * SUB_CALLS,
]
STEPS += ["batch_finished", "block_finished", "turn_finished"]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS, keep_requests=True) as standin:
        yield standin


async def finished(agent: Any, asynchronously: bool, **options: Any) -> dict[str, Any]:
    """The agent's final state."""
    output: dict[str, Any] = (
        await agent.ainvoke(INPUT, **options) if asynchronously else agent.invoke(INPUT, **options)
    )
    return output


async def streamed(agent: Any, mode: str, asynchronously: bool, **options: Any) -> list[Any]:
    """The agent's stream."""
    if asynchronously:
        return [each async for each in agent.astream(INPUT, stream_mode=mode, **options)]
    return list(agent.stream(INPUT, stream_mode=mode, **options))


@both
async def test_an_agent_asks_a_document(asynchronously: bool, server: StandIn) -> None:
    """The model sees a tool that takes a question, calls it, gets the answer with quotes, and
    ends.
    """
    messages = (
        await finished(agent(server, [create_rlm_tool(over_http(server))]), asynchronously)
    )["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[-1].content == END
    (answer,) = told(messages)
    assert answer.content.startswith(f"{ANSWER}\n[1] minutes:")
    assert QUOTE in answer.content
    assert answer.artifact["rlm"]["sub_calls"] == SUB_CALLS
    first, second = (each.body for each in server.requests() if each.body["model"] == "agent")
    assert [tool["function"]["name"] for tool in first["tools"]] == ["ask_document"]
    assert list(first["tools"][0]["function"]["parameters"]["properties"]) == ["question"]
    assert second["messages"][-1]["content"] == answer.content


@both
async def test_usage(asynchronously: bool, server: StandIn) -> None:
    """A callback counts the tokens of every model call once; the tool's message has no usage."""
    counting = UsageMetadataCallbackHandler()
    made = agent(server, [create_rlm_tool(over_http(server))])
    messages = (await finished(made, asynchronously, config={"callbacks": [counting]}))["messages"]
    assert sorted(counting.usage_metadata) == ["agent", "root", "sub"]
    artifact = told(messages)[0].artifact
    for model in ("root", "sub"):
        assert (
            counting.usage_metadata[model]["total_tokens"]
            == artifact["usage_metadata"][model]["total_tokens"]
            > 0
        )
    own = [
        message.usage_metadata["total_tokens"]
        for message in messages
        if isinstance(message, AIMessage) and message.usage_metadata
    ]
    assert sum(own) == counting.usage_metadata["agent"]["total_tokens"]


@both
async def test_updates(asynchronously: bool, server: StandIn) -> None:
    """A stream of updates has the model's call, the tool's answer and the end."""
    updates = await streamed(
        agent(server, [create_rlm_tool(over_http(server))]), "updates", asynchronously
    )
    assert [list(update) for update in updates] == [["model"], ["tools"], ["model"]]
    assert updates[1]["tools"]["messages"][0].content.startswith(ANSWER)


@both
async def test_progress_in_the_custom_stream(asynchronously: bool, server: StandIn) -> None:
    """Each step of the run is reported in the custom stream, in order and as plain data."""
    pieces = await streamed(
        agent(server, [create_rlm_tool(over_http(server))]), "custom", asynchronously
    )
    assert [piece["type"] for piece in pieces] == [f"rlm.{step}" for step in STEPS]
    assert pieces[0]["query"] == QUESTION
    assert [piece["done"] for piece in pieces if piece["type"] == "rlm.batch_progress"] == [1, 2, 3]


@both
async def test_progress_of_the_tool(asynchronously: bool, server: StandIn) -> None:
    """The stream of tools has the steps as output deltas of the tool call, between its start and
    its end.
    """
    events = await streamed(
        agent(server, [create_rlm_tool(over_http(server))]), "tools", asynchronously
    )
    assert [each["event"] for each in events] == [
        "tool-started",
        *["tool-output-delta"] * len(STEPS),
        "tool-finished",
    ]
    assert [each["delta"]["kind"] for each in events[1:-1]] == STEPS
    assert events[0]["input"] == {"question": QUESTION}
    assert len({each["tool_call_id"] for each in events}) == 1


async def test_progress_among_the_events(server: StandIn) -> None:
    """`astream_events` has the steps as custom events below the tool, next to the calls of all
    models.
    """
    made = agent(server, [create_rlm_tool(over_http(server))])
    events = [each async for each in made.astream_events(INPUT, version="v2")]
    assert [each["name"] for each in events if each["event"] == "on_custom_event"] == [
        f"rlm.{step}" for step in STEPS
    ]
    (tool,) = [each for each in events if each["event"] == "on_tool_start"]
    assert tool["data"]["input"] == {"question": QUESTION}
    below = [each for each in events if tool["run_id"] in each["parent_ids"]]
    assert {each["name"] for each in below if each["event"] == "on_chat_model_end"} == {
        "rlm.root",
        "rlm.sub",
    }
    assert all(each in below for each in events if each["event"] == "on_custom_event")


async def test_an_agent_is_cancelled(server: StandIn) -> None:
    """Cancelling the agent ends the run: calls in flight are aborted, and no further call is
    made.
    """
    many = PROGRAM.replace("range(3)", "range(50)")
    hangs = Fault("hang", match="part ")
    server.change(scripts={**SCRIPTS, "root": lambda _ask: many}, faults=[hangs])
    asking = asyncio.create_task(
        finished(agent(server, [create_rlm_tool(over_http(server, max_parallel_calls=4))]), True)
    )
    await until(lambda: len(server.calls()) == 6)  # the agent, the root, and four parts that hang
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: server.stats().in_flight == 0)
    assert (server.stats().calls, server.stats().aborted) == (6, 4)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for work of another thread."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


@both
async def test_two_questions_at_once(asynchronously: bool, server: StandIn) -> None:
    """Tool calls of one turn run concurrently, and each reports only its own progress."""
    two = Reply(
        None,
        "tool_calls",
        tool_calls=[("ask_document", {"question": question}) for question in ("Who?", "When?")],
    )
    server.change(scripts={**SCRIPTS, "agent": [two, END]})
    events = await streamed(
        agent(server, [create_rlm_tool(over_http(server))]), "tools", asynchronously
    )
    started = {
        each["tool_call_id"]: each["input"]["question"]
        for each in events
        if each["event"] == "tool-started"
    }
    assert sorted(started.values()) == ["When?", "Who?"]
    for id_, question in started.items():
        deltas = [
            each["delta"]
            for each in events
            if each["tool_call_id"] == id_ and each["event"] == "tool-output-delta"
        ]
        assert [delta["kind"] for delta in deltas] == STEPS
        assert deltas[0]["query"] == question


@both
@pytest.mark.parametrize("stream_tokens", [False, True], ids=["quiet", "tokens"])
async def test_messages(stream_tokens: bool, asynchronously: bool, server: StandIn) -> None:
    """The user's stream of messages has the agent's own tokens and the tool's answer; tokens of
    other models only with `stream_tokens`.
    """
    runnable = over_http(server, stream_tokens=stream_tokens)
    pieces = await streamed(agent(server, [create_rlm_tool(runnable)]), "messages", asynchronously)
    said: dict[str | None, str] = {}  # models speak at the same time
    for piece, _ in pieces:
        if isinstance(piece, AIMessageChunk):
            said[piece.id] = said.get(piece.id, "") + piece.text
    assert sorted(said.values()) == sorted(
        ["", END, *([PROGRAM, *SUB_ANSWERS] if stream_tokens else [])]
    )
    (answer,) = told([piece for piece, _ in pieces])
    assert answer.content.startswith(ANSWER)


@both
async def test_several_streams_at_once(asynchronously: bool, server: StandIn) -> None:
    """Several stream modes can be combined."""
    made = agent(server, [create_rlm_tool(over_http(server))])
    pieces = await streamed(made, ["custom", "tools", "updates"], asynchronously)  # type: ignore[arg-type] # a list is fine
    counts = {
        mode: sum(each == mode for each, _ in pieces) for mode in ("custom", "tools", "updates")
    }
    assert counts == {"custom": len(STEPS), "tools": len(STEPS) + 2, "updates": 3}


@both
async def test_a_model_that_fails(asynchronously: bool, server: StandIn) -> None:
    """The agent gets the failure in a message with the status "error", and continues."""
    server.change(faults=[Fault("auth", match=QUESTION)])
    messages = (
        await finished(agent(server, [create_rlm_tool(over_http(server))]), asynchronously)
    )["messages"]
    (answer,) = told(messages)
    assert (answer.status, messages[-1].content) == ("error", END)
    assert "Incorrect API key" in answer.content
    assert "sk-0123456789" not in answer.content


@dataclass
class Context:
    minutes: Any = None


@both
async def test_a_document_of_the_agents_context(asynchronously: bool, server: StandIn) -> None:
    """One agent serves many documents: each call passes its own in the runtime context, and no
    checkpoint contains one.
    """
    saver = InMemorySaver()
    tool = create_rlm_tool(over_http(server, context=None), context_key="minutes")
    made = agent(server, [tool], context_schema=Context, checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}
    messages = (await finished(made, asynchronously, config=config, context=Context(DOCUMENTS)))[
        "messages"
    ]
    assert told(messages)[0].artifact["rlm"]["citations"][0]["doc_id"] == "minutes"
    assert [message.content for message in made.get_state(config).values["messages"]] == [
        message.content for message in messages
    ]
    assert QUOTE.encode() in kept(saver)  # only the evidence
    assert TEXTS[0][:60].encode() not in kept(saver)


@both
async def test_an_agent_uses_the_findings_of_a_run(asynchronously: bool, server: StandIn) -> None:
    """After a run, another agent can search and summarize its findings, and read their spans."""
    runnable = scripted()  # it keeps the document, whose spans are read
    output = runnable.invoke(QUESTION)
    at = TEXTS[0].index(QUOTE)
    calls = [("search_findings", {"query": "type=claim"}), ("summarise_findings", {"query": ""})]
    calls += [
        ("read_span", {"source": "context_0", "start": at, "end": at + len(QUOTE)}),
        ("search_findings", {"query": "type="}),
    ]
    calls += [
        ("read_span", {"source": "context_9", "start": 0, "end": 5}),
        ("search_findings", {"query": "dam", "k": 0}),
    ]

    def says(ask: Ask) -> Reply:
        return Reply(None, "tool_calls", tool_calls=calls) if ask.turn == 0 else Reply(END)

    server.change(scripts={"agent": says})
    messages = (
        await finished(agent(server, RLMStoreToolkit(store=output).get_tools()), asynchronously)
    )["messages"]
    await closed(server)
    found, summary, span, *errors = told(messages)
    assert (
        found.content
        == f"root_000001 (claim) Ada Conti approved the Ravenna dam. [context_0:{at}-{at + len(QUOTE)}]"
    )
    assert summary.content.splitlines()[:2] == ["2 objects", "types: claim 1, summary 1"]
    assert span.content == QUOTE
    assert [
        (each.status, why in each.content)
        for each, why in zip(errors, ["column 6", "context_9", "greater than"], strict=True)
    ] == [("error", True)] * 3
    assert messages[-1].content == END


def test_scripted_tool_calls_reach_the_client(server: StandIn) -> None:
    """The client reads the stand-in's tool calls, streamed or not."""
    for streaming in (False, True):
        reply = chat(server, "agent", streaming=streaming).invoke("x")
        assert [(call["name"], call["args"]) for call in reply.tool_calls] == [
            (name, dict(args)) for name, args in ASKED.tool_calls
        ]


def test_return_direct(server: StandIn) -> None:
    """With `return_direct` the agent ends with the tool's message, without another turn of its
    model.
    """
    server.change(scripts={**SCRIPTS, "agent": [ASKED]})
    output = agent(server, [create_rlm_tool(over_http(server), return_direct=True)]).invoke(
        {"messages": [("user", QUESTION)]}
    )
    assert ANSWER in output["messages"][-1].content
    assert sum(call.model == "agent" for call in server.calls()) == 1
