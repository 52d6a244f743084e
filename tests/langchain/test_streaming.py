"""The same run with every API method: observing a run changes neither how models are called nor
what is counted.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from rlm_integrations import RLM, Budget
from rlm_integrations.langchain import (
    LLMBatchRunnable,
    RLMRunnable,
    as_node,
    create_rlm_tool,
    fast_chat_openai,
)
from tests.engine.conftest import code
from tests.langchain._agents import ASKED, agent
from tests.langchain._agents import END as SAID
from tests.lm._foreign import KEY, foreign
from tests.standin import StandIn

PROGRAM = code(
    "replies = llm_batch([f'part {n}' for n in range(4)])",
    "FINAL(f'{sum(isinstance(reply, LLMError) for reply in replies)} refused')",
)
QUESTION = "Who?"
MODELS = {"root": [PROGRAM]}
WATCHING = [["messages"], ["custom", "messages"], ["updates"], ["values"], ["custom"]]


class State(TypedDict, total=False):
    question: str
    answer: str


def graph(runnable: RLMRunnable) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", as_node(runnable))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()


async def by_events(runnable: RLMRunnable, config: RunnableConfig) -> str:
    *_, last = [event async for event in runnable.astream_events(QUESTION, config, version="v2")]
    return str(last["data"]["output"]["answer"])


async def by_filtered_events(runnable: RLMRunnable, config: RunnableConfig) -> str:
    events = runnable.astream_events(QUESTION, config, version="v2", include_types=["chain"])
    *_, last = [event async for event in events]
    return str(last["data"]["output"]["answer"])


async def by_function(runnable: RLMRunnable, config: RunnableConfig) -> str:
    """An `RLM` without a runnable, in a step of a chain that is streamed."""
    rlm = RLM(runnable.root_llm, runnable.sub_llm, budget=runnable.budget)

    async def ask(question: str) -> str:
        return str((await rlm.acompletion(question, "a document")).answer)

    *_, last = [
        event async for event in RunnableLambda(ask).astream_events(QUESTION, config, version="v2")
    ]
    return str(last["data"]["output"])


async def by_stream(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str(list(runnable.stream(QUESTION, config))[-1]["answer"])


async def by_astream(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str([part async for part in runnable.astream(QUESTION, config)][-1]["answer"])


async def by_ainvoke(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str((await runnable.ainvoke(QUESTION, config))["answer"])


async def by_invoke(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str(runnable.invoke(QUESTION, config)["answer"])


async def by_batch(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str(runnable.batch([QUESTION], config)[0]["answer"])


async def by_abatch(runnable: RLMRunnable, config: RunnableConfig) -> str:
    return str((await runnable.abatch([QUESTION], config))[0]["answer"])


def by_graph(modes: list[str]) -> Callable[[RLMRunnable, RunnableConfig], Awaitable[str]]:
    async def ask(runnable: RLMRunnable, config: RunnableConfig) -> str:
        modes_and_values = [*dict.fromkeys([*modes, "values"])]
        parts = graph(runnable).stream({"question": QUESTION}, config, stream_mode=modes_and_values)
        return str([part for mode, part in parts if mode == "values"][-1]["answer"])

    return ask


def by_agraph(modes: list[str]) -> Callable[[RLMRunnable, RunnableConfig], Awaitable[str]]:
    async def ask(runnable: RLMRunnable, config: RunnableConfig) -> str:
        modes_and_values = [*dict.fromkeys([*modes, "values"])]
        parts = graph(runnable).astream(
            {"question": QUESTION}, config, stream_mode=modes_and_values
        )
        return str([part async for mode, part in parts if mode == "values"][-1]["answer"])

    return ask


ALL_APIS: dict[str, Callable[[RLMRunnable, RunnableConfig], Awaitable[str]]] = {
    **{
        api.__name__: api
        for api in (by_invoke, by_ainvoke, by_stream, by_astream, by_batch, by_abatch)
    },
    **{api.__name__: api for api in (by_events, by_filtered_events, by_function)},
    **{f"graph {'+'.join(modes)}": by_graph(modes) for modes in WATCHING},
    **{f"async graph {'+'.join(modes)}": by_agraph(modes) for modes in WATCHING},
}
EVERY_API = pytest.mark.parametrize("api", ALL_APIS.values(), ids=ALL_APIS)


@EVERY_API
@pytest.mark.parametrize("fast", [False, True], ids=["ChatOpenAI", "fast_chat_openai"])
async def test_a_budget_does_not_differ_between_apis(
    standin: StandIn, api: Any, fast: bool
) -> None:
    """The calls and the tokens are the same, and none is refused, however the run is observed:
    sub-calls are not streamed needlessly.
    """
    standin.change(scripts=MODELS)

    def model(name: str) -> Any:
        return (
            fast_chat_openai(name, base_url=standin.base_url, api_key=KEY)
            if fast
            else foreign("ChatOpenAI", standin.base_url, max_retries=0).bind(model=name)
        )

    runnable = RLMRunnable(
        model("root"), model("sub"), context="a document", budget=Budget(max_tokens=20_000)
    )
    usage = UsageMetadataCallbackHandler()
    assert await api(runnable, {"callbacks": [usage]}) == "0 refused"
    assert sorted(call.model for call in standin.calls()) == ["root", "sub", "sub", "sub", "sub"]
    assert [call.stream for call in standin.calls()] == [False] * 5
    counted = {
        name: (each["input_tokens"], each["output_tokens"])
        for name, each in usage.usage_metadata.items()
    }
    sizes = {"root": 0, "sub": 0}
    for kept in standin.requests():
        sizes[kept.body["model"]] += (
            sum(len(str(each["content"])) for each in kept.body["messages"]) // 4 + 1
        )
    assert {name: read for name, (read, _) in counted.items()} == sizes
    assert counted["sub"][1] > 0 < counted["root"][1]


@EVERY_API
@pytest.mark.parametrize("fast", [False, True], ids=["ChatOpenAI", "fast_chat_openai"])
async def test_tokens_that_are_shown_are_counted_too(
    standin: StandIn, api: Any, fast: bool
) -> None:
    """With `stream_tokens=True` the calls of an observed run are streamed, at any address, and each
    reports its tokens.
    """
    standin.change(scripts=MODELS)

    def model(name: str) -> Any:
        return (
            fast_chat_openai(name, base_url=standin.base_url, api_key=KEY)
            if fast
            else foreign("ChatOpenAI", standin.base_url, max_retries=0).bind(model=name)
        )

    budget = Budget(max_tokens=20_000)
    runnable = RLMRunnable(
        model("root"), model("sub"), context="a document", budget=budget, stream_tokens=True
    )
    usage = UsageMetadataCallbackHandler()
    assert await api(runnable, {"callbacks": [usage]}) == "0 refused"
    assert set(usage.usage_metadata) == {"root", "sub"}
    assert min(each["input_tokens"] for each in usage.usage_metadata.values()) > 0


@pytest.mark.parametrize("api", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    "options", [{"streaming": True}, {"streaming": True, "stream_usage": True}]
)
async def test_a_model_set_to_stream_reports_its_tokens(
    standin: StandIn, api: str, options: dict[str, Any]
) -> None:
    """A model with `streaming=True` is streamed, and its tokens are requested unless the user set
    otherwise.
    """
    standin.change(
        scripts={**MODELS, foreign("ChatOpenAI", standin.base_url).model_name: [PROGRAM]}
    )
    llm = foreign("ChatOpenAI", standin.base_url, max_retries=0, **options)
    runnable = RLMRunnable(
        llm, llm.bind(model="sub"), context="a document", budget=Budget(max_tokens=20_000)
    )
    output = runnable.invoke(QUESTION) if api == "invoke" else await runnable.ainvoke(QUESTION)
    assert output["answer"] == "0 refused"
    assert [call.stream for call in standin.calls()] == [True] * 5
    assert all(
        kept.body["stream_options"] == {"include_usage": True} for kept in standin.requests()
    )
    assert min(each["input_tokens"] for each in output["usage_metadata"].values()) > 0


async def test_stream_usage_false_is_respected(standin: StandIn) -> None:
    """`stream_usage=False`, for servers that refuse the request of tokens, is respected."""
    llm = foreign("ChatOpenAI", standin.base_url, max_retries=0, streaming=True, stream_usage=False)
    assert (await LLMBatchRunnable(llm).ainvoke(["x"]))[0] != ""
    assert "stream_options" not in standin.requests()[0].body


@pytest.mark.parametrize("kind", ["ChatAnthropic", "ChatGoogleGenerativeAI"])
async def test_other_providers_are_not_streamed_either(standin: StandIn, kind: str) -> None:
    """The same holds for every class: nothing is set on the user's object, and no argument is sent
    that a provider refuses.
    """
    runnable = RLMRunnable(foreign(kind, standin.base_url, max_retries=0), context="a document")
    *_, last = [event async for event in runnable.astream_events(QUESTION, version="v2")]
    assert last["data"]["output"]["rlm"]["stop_reason"] == "final"
    assert [call.stream for call in standin.calls()] == [False] * 5


@pytest.mark.parametrize("stream_tokens", [False, True])
async def test_events_of_calls_are_reported(standin: StandIn, stream_tokens: bool) -> None:
    """`astream_events` has the start and end of each call; tokens only with
    `stream_tokens=True`.
    """
    standin.change(scripts=MODELS)
    llm = fast_chat_openai("root", base_url=standin.base_url, api_key=KEY)
    sub = fast_chat_openai("sub", base_url=standin.base_url, api_key=KEY)
    runnable = RLMRunnable(llm, sub, context="a document", stream_tokens=stream_tokens)
    kinds = [event["event"] async for event in runnable.astream_events(QUESTION, version="v2")]
    assert (kinds.count("on_chat_model_start"), kinds.count("on_chat_model_end")) == (5, 5)
    assert ("on_chat_model_stream" in kinds) is stream_tokens


@pytest.mark.parametrize("asynchronously", [False, True], ids=["sync", "async"])
async def test_an_agent_that_is_streamed(standin: StandIn, asynchronously: bool) -> None:
    """The agent's own model is streamed to its reader; the models of its tool are not."""
    standin.change(scripts={**MODELS, "agent": [ASKED, SAID]})
    root = foreign("ChatOpenAI", standin.base_url, max_retries=0).bind(model="root")
    made = agent(
        standin, [create_rlm_tool(RLMRunnable(root, root.bind(model="sub"), context="a document"))]
    )
    given = {"messages": [("user", QUESTION)]}
    if asynchronously:
        shown = [part async for part in made.astream(given, stream_mode="messages")]
    else:
        shown = list(made.stream(given, stream_mode="messages"))
    assert "".join(message.text for message, _ in shown if message.type == "AIMessageChunk") == SAID
    assert {call.model: call.stream for call in standin.calls()} == {
        "agent": True,
        "root": False,
        "sub": False,
    }
