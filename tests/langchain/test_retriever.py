"""The retriever over the findings of a run."""

import asyncio
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_core.tools import create_retriever_tool

from rlm_integrations import RLM, SharedStore
from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.faces import evidence
from rlm_integrations.faces.kept_results import MAX_KEPT_RESULTS
from rlm_integrations.langchain import (
    RLMRunnable,
    RLMStoreRetriever,
    kept_stores,
    result_of,
    retriever,
)
from rlm_integrations.records import SpanRef
from rlm_integrations.result import Citation, RLMResult
from tests.engine.conftest import Scripted, code, documents_held, final
from tests.langchain._agents import COST, DOCUMENTS, QUOTE, TEXTS, Parents, findings, scripted

A, B, SUMMARY, NOTE = "worker_A_000001", "worker_A_000002", "root_000001", "worker_A_000003"


@pytest.fixture
def store() -> SharedStore:
    return findings()


def ids(found: list[Document]) -> list[str | None]:
    return [each.id for each in found]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=claim tag=dam", [B, A]),
        ("type=claim sort=oldest", [A, B]),
        ("-type=claim", [NOTE, SUMMARY]),
        ('desc~"the dam" limit=1', [SUMMARY]),
        ("  tag=money", [B]),
        ("", [NOTE, SUMMARY, B, A]),
        (" ", [NOTE, SUMMARY, B, A]),
        ("approved by whom?", [A]),
    ],
)
async def test_a_search(query: str, expected: list[str], store: SharedStore) -> None:
    """The query language and free text work with the sync and async API and with the method
    `search`.
    """
    found = RLMStoreRetriever(store=store)
    assert ids(found.invoke(query)) == expected
    assert found.invoke(query) == await found.ainvoke(query) == found.search(query)


FREE = [
    "(",
    '"',
    "'; DROP TABLE x --",
    "a:b*",
    "NEAR(",
    "AND OR NOT",
    "dam -rain",
    "desc ~ 'x'",
    "types=claim",
    "is type=claim it?",
    "\0",
    "\ud800",
]


@pytest.mark.parametrize(
    "query",
    [
        *FREE,
        "--type=claim",
        "Type=claim",
        "id",
        "type",
        "context_0:5",
        "水",
        pytest.param("dam" * 9_000, id="long"),
    ],
)
def test_any_other_text_is_free_text(query: str, store: SharedStore) -> None:
    """A string that does not begin with a term of the language is free text, and never an error."""
    for mode in ("search", "summary"):
        assert isinstance(RLMStoreRetriever(store=store, mode=mode).invoke(query), list)
    assert RLMStoreRetriever(store=store).invoke(f"rained {query}")[0].id == NOTE


@pytest.mark.parametrize(
    "query",
    [
        "type=",
        'type=claim tag="dam',
        "desc=x",
        "tag=dam weather",
        "-limit=3",
        "sort=up",
        "id=7 is missing",
    ],
)
async def test_an_invalid_query_is_free_text(query: str, store: SharedStore) -> None:
    """A string that begins with a term and does not parse is searched as free text, with every API
    method.
    """
    for mode in ("search", "summary"):
        found = RLMStoreRetriever(store=store, mode=mode)
        assert found.invoke(query) == await found.ainvoke(query)
        assert isinstance(found.search(query), list)
        assert found.summary(query).metadata["kind"] == "summary"
    assert ids(RLMStoreRetriever(store=store, k=1).invoke("parent=Conti subsidiaries?")) != []


def test_k(store: SharedStore) -> None:
    """`k` of a call overrides that of the constructor; a query's own limit can only lower it."""
    found = RLMStoreRetriever(store=store, k=2)
    assert [
        len(found.invoke("")),
        len(found.invoke("", k=3)),
        len(found.search("", 1)),
        len(found.invoke("dam approved cost", k=1)),
    ] == [
        2,
        3,
        1,
        1,
    ]
    assert [len(found.invoke("limit=1")), len(found.invoke("limit=9"))] == [1, 2]
    assert len(found.summary("", 1).metadata["parents"]) == 1


async def test_k_asynchronously(store: SharedStore) -> None:
    """The async API accepts `k` too."""
    assert len(await RLMStoreRetriever(store=store).ainvoke("", k=3)) == 3


def test_the_shape_of_a_document(store: SharedStore) -> None:
    """A Document has the finding's text, and metadata in plain JSON about the finding and its
    source document.
    """
    found = {each.id: each for each in RLMStoreRetriever(store=store).invoke("")}
    place = {
        "doc_id": "minutes",
        "source": "context_0",
        "start": TEXTS[0].index(QUOTE),
        "end": TEXTS[0].index(QUOTE) + len(QUOTE),
    }
    other = {
        "doc_id": "context_1",
        "source": "context_1",
        "start": TEXTS[1].index(COST),
        "end": TEXTS[1].index(COST) + len(COST),
    }
    assert found[A].page_content == "Ada Conti approved the Ravenna dam."
    assert found[A].metadata == {
        "kind": "object",
        "type": "claim",
        "description": "who approved the dam",
        "tags": ["dam", "people"],
        "source": "minutes",
        "location": "",
        "doc_id": "minutes",
        "spans": [place],
        "parents": [],
        "call": "worker_A",
        "score": 1.0,
        "source_metadata": {"page": 7, "box": {"shelf": [1, 2]}},
    }
    assert json.loads(found[SUMMARY].page_content) == {"who": "Ada Conti", "lire": 4_200_000}
    assert [found[SUMMARY].metadata[name] for name in ("spans", "parents", "call")] == [
        [place, other],
        [A],
        "root",
    ]
    assert found[B].metadata["source_metadata"] == {"page": 8}
    assert [
        found[NOTE].metadata[name] for name in ("source", "doc_id", "spans", "source_metadata")
    ] == ["", "", [], {}]
    for each in found.values():
        assert json.loads(json.dumps(each.metadata)) == each.metadata
        for span in each.metadata["spans"]:
            number = int(span["source"].removeprefix("context_"))
            assert 0 <= span["start"] < span["end"] <= len(TEXTS[number])
            assert TEXTS[number][span["start"] : span["end"]] in {QUOTE, COST}


def test_documents_are_the_callers_own(store: SharedStore) -> None:
    """Changing a returned Document changes neither the store nor the source document."""
    found = RLMStoreRetriever(store=store)
    before = json.dumps([each.metadata for each in found.invoke("")])
    for each in found.invoke(""):
        each.metadata["tags"].append("mine")
        each.metadata["source_metadata"].setdefault("box", {}).clear()
        for span in each.metadata["spans"]:
            span.clear()
    assert json.dumps([each.metadata for each in found.invoke("")]) == before


def test_metadata_that_is_not_json() -> None:
    """Metadata of other types in the source document is converted to JSON."""
    about = {
        "when": datetime(1911, 3, 1, tzinfo=UTC),
        "path": Path("minutes.txt"),
        "share": float("nan"),
        "tags": {"dam"},
        5: b"five",
    }
    store = SharedStore(Corpus.build([Document("the dam", metadata=about)]))
    store.worker("w").create("note", "d", "c", backrefs=[SpanRef("context_0", 0, 3)])
    (found,) = RLMStoreRetriever(store=store).invoke("type=note")
    assert json.loads(json.dumps(found.metadata, allow_nan=False)) == found.metadata
    assert list(found.metadata["source_metadata"]) == ["when", "path", "share", "tags", "5"]


def test_scores(store: SharedStore) -> None:
    """Free text is ranked: every score is above 0 and the best is first."""
    scores = [
        each.metadata["score"]
        for each in RLMStoreRetriever(store=store).invoke("dam approved by Conti")
    ]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0


def test_a_summary(store: SharedStore) -> None:
    """A summary is one Document that counts types and tags of the matches, and lists the first
    ones; for free text, everything is counted.
    """
    found = RLMStoreRetriever(store=store, mode="summary", k=1)
    (summary,) = found.invoke("type=claim")
    assert summary.page_content.splitlines() == [
        "2 objects",
        "types: claim 2",
        "tags: dam 2, money 1, people 1",
        f"{B} (claim): what the dam cost",
    ]
    assert [summary.metadata[name] for name in ("kind", "parents", "spans")] == ["summary", [B], []]
    assert json.loads(json.dumps(summary.metadata)) == summary.metadata
    assert found.invoke("approved")[0].page_content.splitlines() == [
        "4 objects",
        "types: claim 2, summary 1, note 1",
        "tags: dam 2, people 1, money 1",
        "on 'approved':",
        f"{A} (claim): who approved the dam",
    ]
    assert found.invoke("nowhere")[0].page_content.endswith("\nnothing on 'nowhere'")
    assert found.summary().page_content.splitlines()[-1] == f"{NOTE} (note): the weather"
    assert found.summary("tag=people").page_content.startswith("1 object\n")
    assert len(found.summary("word " * 5_000).id or "") < 300


async def test_a_search_does_not_block_the_loop(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An async search runs in a thread and does not block the loop."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> list[evidence.Evidence]:
        begun.set()
        assert may_end.wait(60), "the loop did not go on"
        return evidence.search_evidence(*args, **options)

    monkeypatch.setattr(retriever, "search_evidence", slow)
    searching = asyncio.create_task(RLMStoreRetriever(store=store).ainvoke("approved"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    may_end.set()
    assert ids(await searching) == [A]


async def test_its_run_is_a_child_of_the_chains(store: SharedStore) -> None:
    """A tracer sees the search below its caller, in a chain and within a step."""
    found = RLMStoreRetriever(store=store)
    for chain, above in (
        (found | RunnableLambda(len), "RunnableSequence"),
        (RunnableLambda(lambda query: len(found.invoke(query))), "RunnableLambda"),
    ):
        for asynchronously in (False, True):
            look = Parents()
            config = RunnableConfig(callbacks=[look])
            assert (
                await chain.ainvoke("approved", config)
                if asynchronously
                else chain.invoke("approved", config)
            ) == 1
            assert look.of["RLMStoreRetriever"] == above


async def test_langchain_features_of_a_retriever(store: SharedStore) -> None:
    """Configurable fields, batches and LangChain's retriever tool work as with any retriever."""
    found = RLMStoreRetriever(store=store)
    fields = found.configurable_fields(
        k=ConfigurableField(id="k"), mode=ConfigurableField(id="mode")
    )
    assert len(fields.invoke("", {"configurable": {"k": 2}})) == 2
    (summary,) = await fields.with_config(configurable={"mode": "summary"}).ainvoke("")
    assert summary.metadata["kind"] == "summary"
    with pytest.raises(InputError, match="not 0"):
        fields.invoke("", {"configurable": {"k": 0}})
    assert [ids(each) for each in await found.abatch(["approved", "tag=money"])] == [[A], [B]]
    assert (
        create_retriever_tool(found, "find", "Finds.").invoke({"query": "approved"})
        == "Ada Conti approved the Ravenna dam."
    )


def test_all_forms_of_a_store() -> None:
    """A store, a worker's view of it, a result, a runnable's output and its id all identify the
    same store.
    """
    output = scripted().invoke("Who?")
    result = RLM(Scripted([final("store.create('note', 'one', 'of a result')")])).completion(
        "Who?", "a document"
    )
    assert (
        ids(RLMStoreRetriever(store=result).invoke(""))
        == ids(RLMStoreRetriever(store=result.store).invoke(""))
        == ["root_000001"]
    )
    shared = findings()
    assert RLMStoreRetriever(store=shared.worker("reader")).invoke("") == RLMStoreRetriever(
        store=shared
    ).invoke("")
    again = json.loads(json.dumps(output["rlm"]))
    for given in (output, {"rlm": again}, again["store_id"]):
        (newest, claim) = RLMStoreRetriever(store=given).invoke("")
        assert (claim.page_content, claim.metadata["doc_id"]) == (
            "Ada Conti approved the Ravenna dam.",
            "minutes",
        )
        assert newest.metadata["parents"] == [claim.id]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            "no-such-run",
            "no run 'no-such-run' in this process: the results of its last 32 runs are kept",
        ),
        (None, "not NoneType"),
        (5, "not int"),
        ({}, "not dict"),
        ({"rlm": "x"}, "not dict"),
        ({"rlm": {"store_id": None}}, 'this output has no store: its run had store_mode="none"'),
        (RLMResult(answer=""), "this result has no store"),
        ([], "not list"),
    ],
)
def test_an_invalid_store(given: object, why: str) -> None:
    """Anything else is an error that says what to pass, or why there is no store."""
    with pytest.raises(InputError, match=why):
        RLMStoreRetriever(store=given)


def test_a_result_that_is_no_longer_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 32 results of runnables are found by their ids, and no older ones."""
    monkeypatch.setattr(runtime, "_shared", {})  # only this test's: those of other tests stay
    for number in range(MAX_KEPT_RESULTS + 1):
        kept_stores.keep(RLMResult(answer="", run_id=f"run{number}", store=SharedStore()))
    with pytest.raises(InputError, match="no run 'run0' in this process"):
        RLMStoreRetriever(store="run0")
    assert RLMStoreRetriever(store="run1").invoke("") == []
    assert (
        result_of({"rlm": {"run_id": "run32"}})
        is result_of({"run_id": "run32"})
        is result_of("run32")
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [("no", "no run 'no'"), (5, "not int"), ({}, "not dict"), (None, "not NoneType")],
)
def test_an_unknown_run(given: object, why: str) -> None:
    """The error for an unknown run says what to pass, or that the run is no longer kept."""
    with pytest.raises(InputError, match=why):
        result_of(given)


def test_the_findings_outlive_the_document() -> None:
    """The findings of a run can be found by its id after its runnable, and with it the bound
    document, was closed.
    """
    before = documents_held()
    program = code("store.create('note', 'when', 'It was approved in March.')", "FINAL('March')")
    bound = RLMRunnable(Scripted([program])).with_context("The dam was approved in March.")
    output = bound.invoke("When was the dam approved?")
    configured = bound.configurable_fields(max_iterations=ConfigurableField(id="turns"))
    other = configured.invoke("When was the dam approved?", {"configurable": {"turns": 9}})
    assert len(documents_held()) == len(before) + 1
    del bound, configured
    assert documents_held() == before
    for each in (output, other):
        (found,) = RLMStoreRetriever(store=each).invoke("approved")
        assert "approved in March" in found.page_content
        assert result_of(each).answer == each["answer"]


def test_the_source_of_a_document() -> None:
    """`source` is the original `source` metadata of LangChain's loaders, else the document's id,
    else the name of the source.
    """
    documents = [
        Document("one dam", metadata={"source": "minutes.txt"}),
        Document("two dams", id="second"),
        Document("three dams"),
    ]
    store = SharedStore(Corpus.build(documents))
    for number in range(3):
        store.worker("w").create("note", "d", "c", backrefs=[SpanRef(f"context_{number}", 0, 3)])
    found = RLMStoreRetriever(store=store).invoke("sort=oldest")
    assert [each.metadata["source"] for each in found] == ["minutes.txt", "second", "context_2"]


def test_unknown_options_of_the_retriever(store: SharedStore) -> None:
    """Unknown options are refused by name."""
    with pytest.raises(TypeError, match="top_k"):
        RLMStoreRetriever(store=store, top_k=9)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"mode": "both"}, "mode='both': choose 'search' or 'summary'"),
        ({"mode": None}, "mode=None"),
        ({"k": 0}, "k must be an integer of at least 1 and at most 10,000"),
        ({"k": -1}, "not -1"),
        ({"k": True}, "not True"),
        ({"k": 2.0}, "not 2.0"),
        ({"k": "3"}, "not '3'"),
        ({"k": 10_001}, "not 10001"),
    ],
)
def test_invalid_arguments(options: dict[str, Any], why: str, store: SharedStore) -> None:
    """Invalid arguments of the constructor and of a call are refused at once."""
    with pytest.raises(InputError, match=why):
        RLMStoreRetriever(store=store, **options)
    if "k" in options:
        with pytest.raises(InputError, match=why):
            RLMStoreRetriever(store=store).invoke("dam", **options)


def test_evidence_of_an_answer() -> None:
    """A citation's text is the exact document text; the first quotes are included, up to a million
    characters in total, and the spans of all are.
    """
    text = "".join(chr(97 + number % 26) for number in range(evidence.MAX_SHOWN_CHARS))
    corpus = Corpus.build(
        [Document(text, id="long", metadata={"page": 1}), Document("short and plain")]
    )

    def citation(source: str, start: int, end: int) -> Citation:
        return Citation(source, start, end, corpus.text(source, start, end))

    given = [
        citation("context_0", 5, 9),
        citation("context_1", 0, 5),
        citation("context_0", 0, len(text)),
        citation("context_0", 9, len(text)),
    ]
    shown = evidence.citations_as_evidence(given, corpus)
    assert [(each.id, each.text) for each in shown] == [
        ("context_0:5-9", "fghi"),
        ("context_1:0-5", "short"),
    ]
    assert [each.doc_id for each in shown] == ["long", "context_1"]
    assert [dict(each.source_metadata) for each in shown] == [{"page": 1}, {}]
    assert [
        (each["doc_id"], each["source"], each["start"], each["end"])
        for each in evidence.places(given, corpus)
    ] == [
        ("long", "context_0", 5, 9),
        ("context_1", "context_1", 0, 5),
        ("long", "context_0", 0, len(text)),
        ("long", "context_0", 9, len(text)),
    ]
    (bare,) = evidence.citations_as_evidence(given[:1], None)
    assert (bare.doc_id, dict(bare.source_metadata)) == ("context_0", {})


def test_a_store_without_its_document() -> None:
    """Without the document, findings are returned with their spans, and without metadata of the
    sources.
    """
    store = SharedStore()
    store.worker("w").create("note", "d", "c", backrefs=[SpanRef("context_3", 1, 2)])
    (found,) = RLMStoreRetriever(store=store).invoke("type=note")
    assert found.metadata["spans"] == [
        {"doc_id": "context_3", "source": "context_3", "start": 1, "end": 2}
    ]
    assert (found.metadata["doc_id"], found.metadata["source_metadata"]) == ("context_3", {})


def test_output_citations_are_exact_quotes() -> None:
    """For the evidence in a runnable's output, `document[start:end] == quote`, with the original's
    id and metadata.
    """
    (quoted,) = scripted().invoke("Who?")["context"]
    (span,) = quoted.metadata["spans"]
    assert DOCUMENTS[0].page_content[span["start"] : span["end"]] == quoted.page_content == QUOTE
    assert (quoted.metadata["kind"], span["doc_id"]) == ("citation", DOCUMENTS[0].id)
    assert quoted.metadata["source_metadata"] == DOCUMENTS[0].metadata
