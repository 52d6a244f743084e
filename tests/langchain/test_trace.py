"""One trace for a tree of runs: no run is an orphan, tokens add up, the document is not in it, and
every end is reported.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.runnables import RunnableLambda

from rlm_integrations import OpenAILM, SharedStore
from rlm_integrations.langchain import LLMBatchRunnable, RLMRunnable, RLMStoreRetriever
from tests.langchain.conftest import Tracer, scripted, tree
from tests.lm._foreign import ANSWER, CALLS, KEY, MODEL, foreign
from tests.standin import Fault, StandIn, answer_to

APIS = pytest.mark.parametrize("api", ["invoke", "ainvoke", "stream", "astream"])
MODELS = pytest.mark.parametrize("kind", ["ChatOpenAI", "OpenAILM"])

CHILDREN = """```repl
FINAL("|".join(recursive_batch([{"query": "child", "context": context[:9]}] * 2) + [llm_query("mine")]))
```"""
CHILD = """```repl
FINAL(llm_query("yours"))
```"""
CHILDREN_ANSWER = "|".join([answer_to("yours"), answer_to("yours"), answer_to("mine")])


def model(kind: str, standin: StandIn) -> Any:
    return (
        OpenAILM(MODEL, base_url=standin.base_url, api_key=KEY)
        if kind == "OpenAILM"
        else foreign(kind, standin.base_url)
    )


async def through(api: str, runnable: Any, given: Any, config: Any = None) -> Any:
    """The whole output, with the given API method."""
    match api:
        case "invoke":
            return await asyncio.to_thread(runnable.invoke, given, config)
        case "ainvoke":
            return await runnable.ainvoke(given, config)
        case "stream":
            parts = await asyncio.to_thread(lambda: list(runnable.stream(given, config)))
        case _:
            parts = [part async for part in runnable.astream(given, config)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@APIS
@MODELS
async def test_one_tree(standin: StandIn, kind: str, api: str) -> None:
    """Root, sub-calls, child runs with their calls, and a retriever after them are one tree, with
    every API method and for models of every provider.
    """
    standin.change(scripts={MODEL: scripted(CHILDREN, child=CHILD)})
    tracer = Tracer()
    store = SharedStore()
    store.worker("w").create("note", "found", "it")
    retriever = RLMStoreRetriever(store=store)
    runnable = RLMRunnable(model(kind, standin), max_depth=2, context="a document of some length")
    chain = (
        runnable.pick("answer")
        | RunnableLambda(lambda answer: [answer, *retriever.invoke("found")])
    ).with_config(run_name="chain")
    answer, found = await through(api, chain, "Who?", {"callbacks": [tracer]})
    assert (answer, found.page_content) == (CHILDREN_ANSWER, "it")
    (root,) = tracer.roots
    child = ("rlm.child", [("rlm.root", []), ("rlm.sub", [])])
    run = ("RLMRunnable", [child, child, ("rlm.root", []), ("rlm.sub", [])])
    assert tree(root) == (
        "chain",
        [run, ("RunnableLambda", [("RLMStoreRetriever", [])]), ("RunnablePick<answer>", [])],
    )
    assert all(each.end_time is not None and each.error is None for each in tracer.runs)
    assert {each.trace_id for each in tracer.runs} == {root.trace_id}


@APIS
@MODELS
async def test_the_metadata_of_calls(standin: StandIn, kind: str, api: str) -> None:
    """Each call has its path in the run, its depth, and the user's own tags and metadata; and
    `nostream` unless tokens are streamed.
    """
    for tokens in (False, True):
        tracer = Tracer()
        runnable = RLMRunnable(model(kind, standin), context="a document", stream_tokens=tokens)
        await through(
            api,
            runnable,
            "Who?",
            {"callbacks": [tracer], "tags": ["mine"], "metadata": {"user": "u"}},
        )
        calls = [run for run in tracer.runs if run.run_type in {"llm", "chat_model"}]
        paths = [call.metadata["rlm_path"] for call in calls]
        assert len(set(paths)) == len(paths) == CALLS
        for call in calls:
            depth = "rlm:depth=0" if call.name == "rlm.root" else "rlm:depth=1"
            assert {*(call.tags or ()), "nostream"} >= {depth, "mine", "nostream"}
            assert ("nostream" in (call.tags or ())) is not tokens
            assert call.metadata["user"] == "u"


@APIS
@MODELS
async def test_tokens_add_up(standin: StandIn, kind: str, api: str) -> None:
    """The tokens that LangChain's usage callback counts are the sum over the calls, and equal those
    in the output.
    """
    usage = UsageMetadataCallbackHandler()
    output = await through(
        api,
        RLMRunnable(model(kind, standin), context="a document"),
        "Who?",
        {"callbacks": [usage]},
    )
    assert output["answer"] == ANSWER
    told = usage.usage_metadata[MODEL]
    said = output["usage_metadata"][MODEL]
    assert standin.stats().calls == CALLS
    sizes = [
        sum(len(str(each["content"])) for each in kept.body["messages"]) // 4 + 1
        for kept in standin.requests()
    ]
    assert said["input_tokens"] == told["input_tokens"] == sum(sizes)
    assert said["output_tokens"] == told["output_tokens"] > 0
    assert said["total_tokens"] == told["total_tokens"]


class Slow(AsyncCallbackHandler):
    """A user's tracer with asynchronous methods, which records its events."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.models: list[BaseException] = []

    async def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.models.append(error)


@MODELS
@pytest.mark.parametrize("children", [False, True], ids=["run", "children"])
async def test_cancelling_is_reported(standin: StandIn, kind: str, children: bool) -> None:
    """Cancelling aborts all calls at once, and tracers receive the end of every run. LangChain
    itself does not report the end of a cancelled chat model call, so the enclosing runs do.
    """
    ask = CHILDREN if children else '```repl\nllm_batch(["hang"] * 7)\n```'
    standin.change(
        scripts={MODEL: scripted(ask, child='```repl\nllm_batch(["hang"] * 4)\n```')},
        faults=[Fault("hang", match="hang")],
    )
    tracer, slow = Tracer(), Slow()
    runnable = RLMRunnable(model(kind, standin), max_depth=2, context="a document")
    tasks = asyncio.all_tasks()
    run = asyncio.ensure_future(runnable.ainvoke("Who?", {"callbacks": [tracer, slow]}))
    hanging = 8 if children else 7
    await until(lambda: standin.stats().in_flight == hanging)
    calls = standin.stats().calls
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until(lambda: standin.stats().aborted == hanging)
    assert standin.stats().calls == calls
    assert len(tracer.roots) == 1
    ours = [each for each in tracer.runs if kind == "OpenAILM" or each.run_type == "chain"]
    assert all(each.end_time is not None for each in ours)
    cancelled = [each.name for each in ours if each.error]
    assert all("Cancelled" in str(each.error) for each in ours if each.error)
    assert cancelled.count("RLMRunnable") == 1
    assert cancelled.count("rlm.child") == (2 if children else 0)
    assert cancelled.count("rlm.sub") == len(slow.models) == (hanging if kind == "OpenAILM" else 0)
    assert [type(error) for error in slow.errors] == [asyncio.CancelledError] * (
        3 if children else 1
    )
    assert asyncio.all_tasks() - tasks == set()


async def test_closing_a_stream_is_cancelling(standin: StandIn) -> None:
    """Closing a stream early ends its run."""
    standin.change(
        scripts={MODEL: scripted('```repl\nllm_batch(["hang"] * 3)\n```')},
        faults=[Fault("hang", match="hang")],
    )
    parts = RLMRunnable(foreign("ChatOpenAI", standin.base_url), context="a document").astream(
        "Who?"
    )
    waiting = asyncio.ensure_future(anext(parts))
    await until(lambda: standin.stats().in_flight == 3)
    waiting.cancel()
    await asyncio.wait({waiting})
    await parts.aclose()
    await until(lambda: standin.stats().aborted == 3)


LONG = "The dam was approved in March. " * (50_000_000 // 31)


@APIS
@pytest.mark.parametrize("bound", [False, True], ids=["in the input", "bound"])
async def test_the_document_is_in_no_trace(standin: StandIn, api: str, bound: bool) -> None:
    """A context of fifty megabytes is in no input, output, metadata or event of a run."""
    standin.change(
        scripts={
            MODEL: scripted(
                '```repl\nFINAL("approved", evidence=["The dam was approved in March."])\n```'
            )
        }
    )
    tracer = Tracer()
    runnable = RLMRunnable(foreign("ChatOpenAI", standin.base_url))
    given: Any = {"question": "When?", "context": [LONG]}
    if bound:
        runnable, given = runnable.with_context(LONG), "When?"
    output = await through(api, runnable, given, {"callbacks": [tracer]})
    assert output["context"][0].page_content == "The dam was approved in March."
    shown = [
        [run.inputs, run.outputs, run.metadata, run.extra, run.serialized] for run in tracer.runs
    ]
    assert len(json.dumps([shown, tracer.events], default=str)) < 100_000
    assert len(repr(runnable)) < 2_000


def test_a_handler_that_fails_breaks_nothing(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """LangChain reports the exceptions of a user's handler; the run continues."""

    class Broken(Tracer):
        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            raise RuntimeError("mine")

    assert (
        RLMRunnable(foreign("ChatOpenAI", standin.base_url), context="text").invoke(
            "Who?", {"callbacks": [Broken()]}
        )["answer"]
        == ANSWER
    )
    assert "mine" in caplog.text


@APIS
async def test_a_batch_is_one_tree(standin: StandIn, api: str) -> None:
    """Calls of a batch are below the batch's run, with the numbers of their prompts, and failed
    ones are marked as such.
    """
    standin.change(faults=[Fault("bad_request", match="wrong")])
    tracer = Tracer()
    batch = LLMBatchRunnable(foreign("ChatOpenAI", standin.base_url))
    replies = await through(api, batch, ["a", "wrong", "b"], {"callbacks": [tracer]})
    assert [replies[0], replies[2]] == [answer_to("a"), answer_to("b")]
    (root,) = tracer.roots
    assert tree(root) == ("LLMBatchRunnable", [("rlm.sub", [])] * 3)
    assert {run.metadata["rlm_path"]: run.error is None for run in root.child_runs} == {
        "b.0": True,
        "b.1": False,
        "b.2": True,
    }
    assert root.inputs in ({"prompts": 3}, {"input": {"prompts": 3}})
