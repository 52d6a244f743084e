"""The runnable: its output, composition, API methods, and released resources."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import BudgetExceededError, ContextError, InputError, ModelError
from rlm_integrations.langchain import RLMRunnable
from rlm_integrations.langchain.runnable import OWN
from rlm_integrations.storage import Storage
from tests.engine.conftest import documents_held
from tests.langchain.conftest import Together, scripted
from tests.langchain.test_trace import APIS, through
from tests.lm._foreign import ANSWER, CALLS, MODEL, foreign
from tests.standin import Fault, StandIn, answer_to

TEXT = "The valley was surveyed in 1901. The Ravenna dam was approved by Ada Conti. Rain fell."
QUOTE = "The Ravenna dam was approved by Ada Conti."
CITED = f'```repl\nFINAL("Ada Conti", evidence=[{QUOTE!r}, "never said"])\n```'


@pytest.fixture
def cited(standin: StandIn) -> RLMRunnable:
    standin.change(scripts={MODEL: scripted(CITED)})
    return RLMRunnable(foreign("ChatOpenAI", standin.base_url))


@APIS
async def test_the_output(cited: RLMRunnable, api: str) -> None:
    """The output has the answer, its evidence as Documents with valid spans, tokens by model, ids
    and counts; everything except the answer is in JSON types.
    """
    documents = [
        Document("Nothing here."),
        Document(TEXT, id="report", metadata={"year": 1911, "tags": ["dam"]}),
    ]
    output = await through(api, cited, {"question": "Who?", "context": documents})
    assert list(output) == ["input", "answer", "context", "usage_metadata", "rlm"]
    assert (output["input"], output["answer"]) == ("Who?", "Ada Conti")
    (evidence,) = output["context"]
    start = TEXT.index(QUOTE)
    place = {"doc_id": "report", "source": "context_1", "start": start, "end": start + len(QUOTE)}
    assert evidence.page_content == QUOTE == TEXT[place["start"] : place["end"]]
    assert evidence.metadata == {
        "kind": "citation",
        "type": "",
        "description": "",
        "tags": [],
        "source": "report",
        "location": "",
        "doc_id": "report",
        "spans": [place],
        "parents": [],
        "call": "root",
        "score": 1.0,
        "source_metadata": {"year": 1911, "tags": ["dam"]},
    }
    about = output["rlm"]
    assert (about["iterations"], about["sub_calls"], about["stop_reason"], about["error"]) == (
        1,
        0,
        "final",
        None,
    )
    assert (about["citations"], about["dropped_citations"]) == ([place], 1)
    assert about["store_id"] == about["run_id"] != ""
    assert set(output["usage_metadata"]) == {MODEL}
    assert json.loads(json.dumps(output["rlm"])) == output["rlm"]


def test_counts(standin: StandIn) -> None:
    """Sub-calls are the calls of code, without the root's own."""
    about = RLMRunnable(foreign("ChatOpenAI", standin.base_url)).invoke(
        {"input": "Who?", "context": TEXT}
    )["rlm"]
    assert (about["iterations"], about["sub_calls"]) == (1, CALLS - 1)


def test_composition(cited: RLMRunnable) -> None:
    """The runnable works in a chain: after a retriever, before a parser, with `pick`, in a dict."""
    retriever = RunnableLambda(lambda _question: [Document(TEXT)])
    chain = (
        {"context": retriever, "question": RunnablePassthrough()}
        | cited.pick("answer")
        | RunnableLambda(str.upper)
    )
    assert chain.invoke("Who?") == "ADA CONTI"
    assert list(chain.stream("Who?")) == ["ADA CONTI"]
    assert chain.batch(["Who?", "Who is it?"]) == ["ADA CONTI"] * 2
    assert (
        cited.with_context(TEXT).pick(["answer", "rlm"]).invoke([HumanMessage("Who?")])["answer"]
        == "Ada Conti"
    )


async def test_composition_in_async_chains(cited: RLMRunnable) -> None:
    """The same in async chains."""
    chain = RunnablePassthrough.assign(context=lambda _: [Document(TEXT)]) | cited.pick("answer")
    assert await chain.ainvoke({"question": "Who?"}) == "Ada Conti"
    assert [part async for part in chain.astream({"question": "Who?"})] == ["Ada Conti"]
    assert await chain.abatch([{"question": "Who?"}] * 2) == ["Ada Conti"] * 2


def test_retries_and_fallbacks(standin: StandIn) -> None:
    """If a root's first call fails, `with_retry` and `with_fallbacks` handle it."""
    standin.change(faults=[Fault("bad_request", times=1)])
    runnable = RLMRunnable(foreign("ChatOpenAI", standin.base_url), context=TEXT)
    with pytest.raises(ModelError):
        runnable.invoke("Who?")
    standin.reset()
    retried = runnable.with_retry(
        retry_if_exception_type=(ModelError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert retried.invoke("Who?")["answer"] == ANSWER
    standin.reset()
    offline = RLMRunnable("offline", context=TEXT)
    assert (
        QUOTE
        in runnable.with_fallbacks([offline], exceptions_to_handle=(ModelError,)).invoke(
            "Who approved the dam?"
        )["answer"]
    )


def test_configuration(standin: StandIn) -> None:
    """Options are configurable fields, with the usual checks; models too, and a bound document is
    not read again.
    """
    standin.change(
        scripts={
            MODEL: "looking".__add__
            and (
                lambda ask: (
                    "```repl\nprint(1)\n```" if ask.turn < 3 else '```repl\nFINAL("at last")\n```'
                )
            )
        }
    )
    runnable = RLMRunnable(
        foreign("ChatOpenAI", standin.base_url), context=TEXT
    ).configurable_fields(
        max_iterations=ConfigurableField(id="turns"),
        root_llm=ConfigurableField(id="root"),
        budget=ConfigurableField(id="budget"),
    )
    assert runnable.invoke("Who?")["rlm"]["iterations"] == 4
    few = runnable.invoke("Who?", {"configurable": {"turns": 2}})
    assert (few["rlm"]["stop_reason"], few["rlm"]["iterations"]) == ("max_iterations", 3)
    spent = runnable.with_config(configurable={"budget": Budget(max_calls=2)}).invoke("Who?")
    assert spent["rlm"]["stop_reason"] == "budget_calls"
    offline = runnable.invoke("Who approved the dam?", {"configurable": {"root": "offline"}})
    assert QUOTE in offline["answer"]
    assert offline["context"][0].metadata["spans"][0]["start"] == TEXT.index(QUOTE)
    with pytest.raises(InputError, match="max_iterations must be an integer of at least 1, not 0"):
        runnable.invoke("Who?", {"configurable": {"turns": 0}})


def test_schemas() -> None:
    """Input and output have schemas, for forms and servers."""
    runnable = RLMRunnable("offline")
    assert "question" in json.dumps(runnable.get_input_jsonschema())
    assert set(runnable.get_output_jsonschema()["properties"]) == {
        "input",
        "answer",
        "context",
        "usage_metadata",
        "rlm",
    }
    output = runnable.invoke({"question": "Who approved the dam?", "context": TEXT})
    assert runnable.get_output_schema().model_validate(output).answer == output["answer"]


async def test_the_inner_fan_out_is_bounded() -> None:
    """`max_concurrency` of a configuration limits the calls of a run, with the sync and the async
    API, and never raises the runnable's own limit.
    """
    program = "```repl\nFINAL(len(llm_batch([str(n) for n in range(30)], max_concurrent=30)))\n```"
    for config, most in (({"max_concurrency": 3}, 3), ({"max_concurrency": 100}, 12), ({}, 12)):
        for api in ("ainvoke", "invoke"):
            model = Together(most, program)
            runnable = RLMRunnable(model, context=TEXT, max_parallel_calls=12)
            assert (await through(api, runnable, "Who?", config))["answer"] == "30"
            assert model.most == most


async def use(runnable: RLMRunnable) -> str:
    return str((await runnable.ainvoke("Who?"))["answer"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("reused", [True, False], ids=["one model", "fresh models"])
def test_every_api_method_repeatedly(standin: StandIn, reused: bool) -> None:
    """Every API method works twice, on several loops, inside a running loop and from concurrent
    threads: every question is answered, no call is made twice.
    """
    first = foreign("ChatOpenAI", standin.base_url)

    def made() -> RLMRunnable:
        return RLMRunnable(
            first if reused else foreign("ChatOpenAI", standin.base_url), context=TEXT
        )

    async def cell() -> list[str]:
        runnable = made()
        inside = [runnable.invoke("Who?")["answer"], list(runnable.stream("Who?"))[-1]["answer"]]
        return [*inside, await use(runnable), await use(runnable)]

    answers = [made().invoke("Who?")["answer"] for _ in range(2)]
    answers += [asyncio.run(use(made())) for _ in range(2)]
    for _ in range(2):
        answers += asyncio.run(cell())
    with ThreadPoolExecutor(6) as threads:
        futures = [threads.submit(lambda: made().invoke("Who?")["answer"]) for _ in range(6)]
        futures += [threads.submit(lambda: asyncio.run(use(made()))) for _ in range(6)]
        answers += [future.result() for future in futures]
    assert answers == [ANSWER] * 24
    assert standin.stats().calls == 24 * CALLS
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith("rlm-invoke")
    ]


async def test_runs_do_not_block_the_loop(standin: StandIn) -> None:
    """Two runs of one runnable on one loop run concurrently."""
    standin.change(latency=0.1)
    runnable = RLMRunnable(foreign("ChatOpenAI", standin.base_url), context=TEXT)
    await asyncio.gather(*(runnable.ainvoke("Who?") for _ in range(3)))
    assert standin.stats().most_in_flight >= 3


def test_documents_are_released(cited: RLMRunnable) -> None:
    """A document passed with a question is released with it, however the run ends; a bound one is
    kept and read once.
    """
    before = documents_held()
    cited.invoke({"question": "Who?", "context": TEXT})
    with pytest.raises(InputError):
        cited.invoke({"question": " ", "context": TEXT})
    assert documents_held() == before
    bound = cited.with_context(TEXT)
    assert cited.context is None
    for _ in range(3):
        assert bound.invoke("Who?")["answer"] == "Ada Conti"
    assert len(documents_held()) == len(before) + 1
    corpus = Corpus.build(TEXT)
    cited.invoke({"question": "Who?", "context": corpus})
    assert corpus.text("context_0") == TEXT
    corpus.close()
    del bound
    assert documents_held() == before


def test_a_path_is_a_document(cited: RLMRunnable, tmp_path: Path) -> None:
    """The runnable reads a path; a file that cannot be read is an error before any call."""
    (tmp_path / "report.txt").write_text(TEXT)
    assert (
        cited.invoke({"question": "Who?", "context": tmp_path / "report.txt"})["context"][
            0
        ].page_content
        == QUOTE
    )
    with pytest.raises(ContextError, match="cannot be read"):
        cited.with_context(tmp_path / "missing.txt").invoke("Who?")


def test_from_an_rlm(standin: StandIn) -> None:
    """`from_rlm` uses the RLM's models and options."""
    rlm = RLM(
        foreign("ChatOpenAI", standin.base_url), max_iterations=3, limits=Limits(stdout_shown=77)
    )
    runnable = RLMRunnable.from_rlm(rlm, TEXT)
    assert runnable.invoke("Who?")["answer"] == ANSWER
    assert (runnable.max_iterations, runnable.limits) == (3, Limits(stdout_shown=77))
    assert rlm.replace(max_iterations=5).options["max_iterations"] == 5
    with pytest.raises(InputError, match="no option 'max_turns'"):
        rlm.replace(max_turns=5)


class Dam(BaseModel):
    name: str


def test_typed_answers_and_tools(standin: StandIn) -> None:
    """Options of an RLM are options of the runnable."""
    standin.change(scripts={MODEL: scripted('```repl\nFINAL({"name": town(1)})\n```')})

    def town(number: int) -> str:
        """A town."""
        return f"Ravenna {number}"

    runnable = RLMRunnable(
        foreign("ChatOpenAI", standin.base_url), context=TEXT, output_type=Dam, tools=[town]
    )
    assert runnable.invoke("Which?")["answer"] == Dam(name="Ravenna 1")


def test_budgets(standin: StandIn) -> None:
    """A run stopped by its budget returns the best answer so far and the reason, or raises if that
    is configured.
    """
    standin.change(
        scripts={
            MODEL: lambda ask: f"```repl\nprint({ask.turn})\n```" if ask.turn < 2 else "It was Ada."
        }
    )
    llm = foreign("ChatOpenAI", standin.base_url)
    output = RLMRunnable(llm, context=TEXT, budget=Budget(max_calls=3)).invoke("Who?")
    assert (output["answer"], output["rlm"]["stop_reason"]) == ("It was Ada.", "budget_calls")
    with pytest.raises(BudgetExceededError) as raised:
        RLMRunnable(llm, context=TEXT, budget=Budget(max_calls=3, on_exceeded="raise")).invoke(
            "Who?"
        )
    assert raised.value.result.answer == "It was Ada."


def test_invalid_options() -> None:
    """Invalid options are refused by the constructor, with this library's messages."""
    for wrong in (
        {"max_iterations": 0},
        {"store_mode": "nobody"},
        {"sandbox": "paper"},
        {"max_parallel_calls": -1},
    ):
        with pytest.raises(InputError):
            RLMRunnable("offline", **wrong)
    with pytest.raises(InputError, match="a model is a name"):
        RLMRunnable(object())
    with pytest.raises(TypeError, match="max_turns"):
        RLMRunnable("offline", max_turns=3)


def test_every_option_of_an_rlm_is_one_of_the_runnable() -> None:
    """The runnable has every option of RLM, with the same default."""
    fields = {
        name: each.get_default()
        for name, each in RLMRunnable.model_fields.items()
        if name not in OWN
    }
    defaults = {
        name: each.default
        for name, each in signature(RLM.__init__).parameters.items()
        if name not in {"self", "root_llm"}
    }
    assert {name: default for name, default in fields.items() if name != "root_llm"} == defaults


def test_it_is_not_serializable() -> None:
    """A runnable is not serializable; LangChain's placeholder for it has no document text."""
    runnable = RLMRunnable("offline", context="secret words")
    assert not RLMRunnable.is_lc_serializable()
    assert "not_implemented" in dumps(runnable)
    assert "secret" not in dumps(runnable) + repr(runnable) + str(runnable.model_dump())


async def test_progress_as_events(standin: StandIn) -> None:
    """`astream_events` has the model calls and the steps of the run, in order, and the output at
    the end.
    """
    runnable = RLMRunnable(foreign("ChatOpenAI", standin.base_url), context=TEXT)
    events = [event async for event in runnable.astream_events("Who?", version="v2")]
    custom = [
        (event["name"], event["data"]) for event in events if event["event"] == "on_custom_event"
    ]
    assert [name for name, _ in custom if name != "rlm.batch_progress"] == [
        "rlm.run_started", "rlm.turn_started", "rlm.block_started", "rlm.batch_started", "rlm.batch_finished", "rlm.block_finished",
        "rlm.turn_finished",
    ]  # fmt: skip
    assert [data["done"] for name, data in custom if name == "rlm.batch_progress"] == [1, 2, 3, 4]
    assert all(
        data["kind"] == name.removeprefix("rlm.") and json.dumps(data) for name, data in custom
    )
    assert sum(event["event"] == "on_chat_model_end" for event in events) == CALLS
    assert events[-1]["data"]["output"]["answer"] == ANSWER
    assert len({event["run_id"] for event in events if event["event"] == "on_custom_event"}) == 1


def test_names_are_resolved_once() -> None:
    """Names of models, including registered sub-models, are resolved once: configured copies share
    the models with their connections.
    """
    runnable = RLMRunnable("offline", {"fast": "offline", "strong": "offline"})
    assert not any(
        isinstance(model, str) for model in (runnable.root_llm, *runnable.sub_llm.values())
    )
    assert list(runnable.sub_llm) == ["fast", "strong"]
    with pytest.raises(InputError, match="needs a name for each model"):
        RLMRunnable("offline", {})


def test_a_long_batch_reports_twenty_steps(standin: StandIn) -> None:
    """A batch reports progress at most twenty times, however many prompts it has."""
    from tests.langchain.conftest import Tracer

    standin.change(
        scripts={
            MODEL: scripted("```repl\nFINAL(len(llm_batch([str(n) for n in range(207)])))\n```")
        }
    )
    tracer = Tracer()
    assert (
        RLMRunnable(foreign("ChatOpenAI", standin.base_url), context=TEXT).invoke(
            "Who?", {"callbacks": [tracer]}
        )["answer"]
        == "207"
    )
    steps = [data["done"] for name, data in tracer.events if name == "rlm.batch_progress"]
    assert len(steps) <= 22
    assert steps[-1] == 207


def test_registered_sub_models(standin: StandIn) -> None:
    """A sub-model can be a different model, bound or not, registered by name."""
    standin.change(
        scripts={
            MODEL: scripted('```repl\nFINAL(llm_query("x", model="strong") + llm_query("y"))\n```')
        }
    )
    root = foreign("ChatOpenAI", standin.base_url)
    subs = {
        "fast": root.bind(model="fast").with_config(tags=["t"]),
        "strong": foreign("ChatOpenAI", standin.base_url),
    }
    assert RLMRunnable(root, subs, context=TEXT).invoke("Who?")["answer"] == answer_to(
        "x"
    ) + answer_to("y")
    assert [call.model for call in standin.calls()] == [MODEL, MODEL, "fast"]


@APIS
async def test_a_run_is_stored_and_resumed(cited: RLMRunnable, api: str, tmp_path: Path) -> None:
    """`storage=` stores the run of a chain with its documents; `RLM.resume` returns the same answer
    and evidence without asking a model.
    """
    with Storage(tmp_path / "runs") as storage:
        stored = cited.model_copy(update={"storage": storage})
        documents = [Document("Nothing here."), Document(TEXT, id="report")]
        output = await through(api, stored, {"question": "Who?", "context": documents})
        (info,) = storage.runs()
        assert (info.run_id, info.status) == (output["rlm"]["run_id"], "final")
        result = await RLM("offline", storage=storage).aresume(info.run_id)
        assert (result.answer, result.citations[0].quote) == ("Ada Conti", QUOTE)
        assert [source.id for source in result.sources] == [None, "report"]
