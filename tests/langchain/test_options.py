"""Options take effect or are refused, however they are set; incomplete runs can be handled."""

import operator
from typing import Annotated, Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from rlm_integrations import IncompleteError, LLMError
from rlm_integrations.errors import ContextError, InputError, ModelError
from rlm_integrations.langchain import LLMBatchRunnable, RLMRunnable, as_node, result_of
from rlm_integrations.lm.asker import Retry
from tests.engine.conftest import Scripted, code, final
from tests.langchain.conftest import Tracer
from tests.langchain.test_trace import APIS, through
from tests.lm._foreign import foreign
from tests.standin import Fault, StandIn, answer_to

LOOKS = [code(f"print('look {n}')") for n in range(9)]
DOWN = "openai:x@http://127.0.0.1:9/v1"  # a port without a server
BOTH = pytest.mark.parametrize("asynchronously", [False, True], ids=["sync", "async"])


class Dam(BaseModel):
    name: str


def looking(**options: Any) -> RLMRunnable:
    """A runnable whose run ends at its limit of turns."""
    return RLMRunnable(Scripted(LOOKS), context="a document", **options)


# Options.


def by_assignment(runnable: RLMRunnable) -> Any:
    runnable.max_iterations = 2
    return runnable


def by_copy(runnable: RLMRunnable) -> Any:
    return runnable.model_copy(update={"max_iterations": 2})


def by_bind(runnable: RLMRunnable) -> Any:
    return runnable.bind(max_iterations=2)


def by_configuration(runnable: RLMRunnable) -> Any:
    fields = runnable.configurable_fields(max_iterations=ConfigurableField(id="turns"))
    return fields.with_config(configurable={"turns": 2})


@APIS
@pytest.mark.parametrize("change", [by_assignment, by_copy, by_bind, by_configuration])
async def test_a_changed_option_takes_effect(change: Any, api: str) -> None:
    """A changed option applies from the next run on, however it was changed."""
    runnable = looking(max_iterations=3)
    # The closing turn is one too
    assert (await through(api, runnable, "Who?"))["rlm"]["iterations"] == 4
    assert (await through(api, change(runnable), "Who?"))["rlm"]["iterations"] == 3


@APIS
async def test_an_unknown_option_of_a_call_is_refused(api: str) -> None:
    """The error for an unknown option of a call names it, and the valid ones."""
    with pytest.raises(
        InputError, match=r"RLMRunnable has no option 'stop'; there are .*max_iterations"
    ):
        await through(api, looking().bind(stop=["x"]), "Who?")
    with pytest.raises(
        InputError, match=r"LLMBatchRunnable has no option 'stop'; there are .*max_concurrent"
    ):
        await through(api, LLMBatchRunnable("offline").bind(stop=["x"]), ["x"])
    with pytest.raises(InputError, match="max_iterations must be"):
        await through(api, looking().bind(max_iterations=0), "Who?")


def test_unknown_options_are_refused_at_once() -> None:
    """Constructors, copies and assignments refuse unknown options."""
    with pytest.raises(TypeError, match="max_concurrency"):
        LLMBatchRunnable("offline", max_concurrency=50)
    with pytest.raises(InputError, match="no option 'max_turns'"):
        looking().model_copy(update={"max_turns": 2})
    with pytest.raises(ValueError, match="max_turns"):
        looking().max_turns = 2  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="on_error='stop'"):
        LLMBatchRunnable("offline", on_error="stop")


async def test_a_changed_model_is_used(standin: StandIn) -> None:
    """An assigned name is resolved once, not at each run."""
    runnable = looking()
    runnable.root_llm = "offline"
    assert runnable.invoke("Who?")["rlm"]["stop_reason"] == "final"
    made = runnable._current()
    assert runnable._current() is made
    batch = LLMBatchRunnable("offline")
    batch.llm = foreign("ChatOpenAI", standin.base_url)
    standin.change(scripts={})
    assert batch.invoke(["x"]) == [answer_to("x")]


# Incomplete runs, and fallbacks.


@APIS
async def test_fallbacks_work_with_every_api(api: str) -> None:
    """If a root fails, or an incomplete run raises, the next runnable answers, with every API
    method.
    """
    good = RLMRunnable(Scripted([final("'Ada'")]), context="a document")
    for bad in (
        RLMRunnable(DOWN, context="a document", retry=Retry(failures=0)),
        looking(max_iterations=1, on_incomplete="raise"),
    ):
        assert (await through(api, bad.with_fallbacks([good]), "Who?"))["answer"] == "Ada"
        assert (await through(api, bad.with_fallbacks([good]).pick("answer"), "Who?")) == "Ada"


async def test_fallbacks_under_events() -> None:
    """Fallbacks work while events are streamed."""
    good = RLMRunnable(Scripted([final("'Ada'")]), context="a document")
    chain = RLMRunnable(DOWN, context="a document", retry=Retry(failures=0)).with_fallbacks([good])
    events = [event async for event in chain.astream_events("Who?", version="v2")]
    assert events[-1]["data"]["output"]["answer"] == "Ada"


@APIS
async def test_an_incomplete_run(api: str) -> None:
    """An incomplete run raises if that is configured; otherwise a typed answer is None, and the
    partial text has its own key.
    """
    with pytest.raises(IncompleteError, match="max_iterations") as caught:
        await through(api, looking(max_iterations=2, on_incomplete="raise"), "Who?")
    assert caught.value.result.stop_reason == "max_iterations"
    output = await through(
        api,
        RLMRunnable(
            Scripted([final("{'name': 1}")] * 9), context="a", output_type=Dam, max_iterations=3
        ),
        "Who?",
    )
    assert (output["answer"], output["rlm"]["partial"]) == (None, '{"name": 1}')
    typed = RLMRunnable(Scripted([final("{'name': 'Ravenna'}")]), context="a", output_type=Dam)
    output = await through(api, typed, "Who?")
    assert (output["answer"], output["rlm"]["partial"]) == (Dam(name="Ravenna"), None)


def test_a_retry_repeats_an_incomplete_run() -> None:
    """`with_retry` repeats an incomplete run that raises."""
    root = Scripted(LOOKS)
    runnable = RLMRunnable(root, context="a document", max_iterations=1, on_incomplete="raise")
    with pytest.raises(IncompleteError):
        runnable.with_retry(
            retry_if_exception_type=(IncompleteError,),
            wait_exponential_jitter=False,
            stop_after_attempt=2,
        ).invoke("Who?")
    assert len([request for request in root.requests if request.path.endswith(":t1")]) == 2


# Batches.


@APIS
async def test_a_batch_that_raises(standin: StandIn, api: str) -> None:
    """With `on_error="raise"` the first failure ends the batch, and `with_fallbacks` handles it."""
    standin.change(scripts={}, faults=[Fault("bad_request", match="bad")])
    llm = foreign("ChatOpenAI", standin.base_url, max_retries=0)
    batch = LLMBatchRunnable(llm, on_error="raise", max_concurrent=1)
    with pytest.raises(ModelError, match="prompt 1: ") as caught:
        await through(api, batch, ["a", "bad", "c"])
    assert caught.value.type == "bad_request"
    assert standin.stats().calls <= 3
    other = RunnableLambda(lambda prompts: ["other"] * len(prompts))
    assert await through(api, batch.with_fallbacks([other]), ["bad"]) == ["other"]


def test_retries_of_a_batch(standin: StandIn) -> None:
    """`retry=` sets how often a failed call is retried; every HTTP call is one of this library's
    attempts.
    """
    standin.change(scripts={}, faults=[Fault("server")])
    llm = foreign("ChatOpenAI", standin.base_url, max_retries=0)
    (reply,) = LLMBatchRunnable(llm, retry=Retry(failures=2, first_delay=0)).invoke(["x"])
    assert isinstance(reply, LLMError)
    assert (reply.retries, standin.stats().calls) == (2, 3)


# Types and schemas.


def test_types_and_schemas() -> None:
    """Input and output schemas have names, and the answer's type is `output_type`."""
    assert RLMRunnable("offline").OutputType == dict[str, Any]
    assert LLMBatchRunnable("offline").OutputType == list[str]
    assert RLMRunnable("offline").get_input_schema().__name__ == "RLMInput"
    assert (
        RLMRunnable("offline").get_output_jsonschema()["properties"]["answer"]["type"] == "string"
    )
    typed = RLMRunnable("offline", output_type=Dam).get_output_jsonschema()
    assert {"$ref": "#/$defs/Dam"} in typed["properties"]["answer"]["anyOf"]
    assert LLMBatchRunnable("offline").get_input_jsonschema()["type"] == "array"
    assert LLMBatchRunnable("offline").get_output_jsonschema()["items"] == {"type": "string"}
    assert "RootModel" not in RLMRunnable("offline", context="a").get_graph().draw_mermaid()


def test_the_output_describes_the_run() -> None:
    """The output has cost and time, and its id leads to the whole result."""
    output = RLMRunnable("offline", context="The dam was approved by Ada.").invoke(
        "Who approved the dam?"
    )
    result = result_of(output)
    assert (output["rlm"]["cost"], output["rlm"]["elapsed"]) == (result.cost, result.elapsed)
    assert result.run_id == output["rlm"]["run_id"]
    assert len(result.trajectory) == output["rlm"]["iterations"]
    assert result_of(output["rlm"]) is result_of(result.run_id) is result


# Conversations.

TALK = [
    SystemMessage("Be brief."),
    HumanMessage("Who approved the dam?"),
    AIMessage("", tool_calls=[{"name": "ask", "args": {}, "id": "1"}]),
    ToolMessage("a long reply of a tool", tool_call_id="1"),
    AIMessage("Ada Conti."),
    HumanMessage("And when did she do it?"),
]
INPUTS = [
    TALK,
    {"messages": TALK},
    {"question": "And when did she do it?", "chat_history": TALK[:-1]},
    {"input": "And when did she do it?", "chat_history": [("system", "Be brief."), *TALK[1:-1]]},
]


@pytest.mark.parametrize("given", INPUTS, ids=range(len(INPUTS)))
def test_a_follow_up_question_has_its_conversation(given: Any) -> None:
    """The root model sees the earlier messages; output and traces have only the question."""
    root, tracer = Scripted([final("'in March'")]), Tracer()
    output = RLMRunnable(root, context="a document").invoke(given, {"callbacks": [tracer]})
    assert (output["input"], output["answer"]) == ("And when did she do it?", "in March")
    said = root.requests[0].messages[-1].content
    assert "System: Be brief.\nUser: Who approved the dam?\nAssistant: Ada Conti." in said
    assert "a long reply of a tool" not in said
    assert tracer.roots[0].inputs["question"] == "And when did she do it?"


def test_a_long_conversation_is_truncated() -> None:
    """The root sees the latest messages, each truncated."""
    root = Scripted([final("'so'")])
    talk = [HumanMessage(f"message {n}: {'x' * 100_000}") for n in range(60)]
    RLMRunnable(root, context="a document").invoke([*talk, HumanMessage("Who?")])
    said = root.requests[0].messages[-1].content
    assert ("message 40:" in said, "message 39:" in said) == (True, False)
    assert len(said) < 100_000


# Retrieved documents.


@APIS
async def test_a_retriever_is_a_context(api: str) -> None:
    """A retriever finds documents for each question; the runnable's input in the trace names the
    retriever, without document text.
    """
    asked: list[str] = []

    def find(question: str) -> list[Document]:
        asked.append(question)
        return [Document("Rain fell."), Document("secret words of the dam", id="minutes")]

    program = code("FINAL(context[1], evidence=[cite('secret words')])")
    tracer = Tracer()
    runnable = RLMRunnable(Scripted([program]), context=RunnableLambda(find))
    output = await through(api, runnable, "Who?", {"callbacks": [tracer]})
    assert (output["answer"], asked) == ("secret words of the dam", ["Who?"])
    assert output["context"][0].metadata["doc_id"] == "minutes"
    assert tracer.roots[0].inputs["context"] == "the documents found by find"
    assert tracer.roots[0].child_runs[0].name == "find"
    with pytest.raises(ContextError, match="the retriever returned int"):
        await through(api, RLMRunnable("offline", context=RunnableLambda(len)), "Who?")


# Concurrent nodes.


class Several(TypedDict, total=False):
    documents: list[str]
    answers: Annotated[list[str], operator.add]
    runs: Annotated[list[dict[str, Any]], operator.add]


@BOTH
@pytest.mark.parametrize("rlm_key", ["runs", None])
async def test_a_node_fans_out(asynchronously: bool, rlm_key: str | None) -> None:
    """With `collect=True` any number of nodes write to keys with a reducer, in the order of their
    `Send`s.
    """
    builder = StateGraph(Several)
    runnable = RLMRunnable(Scripted([code("FINAL(context)")]))
    node = as_node(
        runnable, context_key="document", answer_key="answers", rlm_key=rlm_key, collect=True
    )
    builder.add_node("ask", node)
    builder.add_conditional_edges(
        START,
        lambda state: [
            Send("ask", {"question": "?", "document": each}) for each in state["documents"]
        ],
    )
    builder.add_edge("ask", END)
    graph = builder.compile()
    given: Any = {"documents": [f"document {n}" for n in range(10)]}
    output = await graph.ainvoke(given) if asynchronously else graph.invoke(given)
    assert output["answers"] == given["documents"]
    assert [run["stop_reason"] for run in output.get("runs", [])] == (
        ["final"] * 10 if rlm_key else []
    )


@BOTH
async def test_a_node_is_an_agents_subgraph(asynchronously: bool) -> None:
    """With `messages` a node writes a message, as agents need from a subagent, even for an
    incomplete run and a typed answer.
    """
    fits, wrong = Scripted([final("{'name': 'R'}")]), Scripted([final("{'name': 1}")] * 3)
    cases = [
        (looking(max_iterations=1), "look 1"),
        (RLMRunnable(fits, context="a", output_type=Dam), '{"name": "R"}'),
        (RLMRunnable(wrong, context="a", output_type=Dam, max_iterations=2), '{"name": 1}'),
    ]
    for runnable, said in cases:
        node, given = (
            as_node(runnable, question_key="messages"),
            {"messages": [HumanMessage("Who?")]},
        )
        update = await node.ainvoke(given) if asynchronously else node.invoke(given)
        assert [message.text for message in update["messages"]] == [said]
