"""Tools over the findings of a run: search, summary, and the document's text."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import ValidationError

from rlm_integrations import SharedStore
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.langchain import RLMStoreRetriever, RLMStoreToolkit, toolkit
from rlm_integrations.records import SpanRef
from rlm_integrations.storage import Storage
from tests.langchain._agents import DOCUMENTS, QUOTE, TEXTS, both, findings, scripted

AT = TEXTS[0].index(QUOTE)


def tools(store: object) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in RLMStoreToolkit(store=store).get_tools()}


async def tell(tool: BaseTool, asynchronously: bool, **args: Any) -> ToolMessage:
    """The tool's message for a call."""
    asked = {"name": tool.name, "args": args, "id": "call_1", "type": "tool_call"}
    message = await tool.ainvoke(asked) if asynchronously else tool.invoke(asked)
    assert isinstance(message, ToolMessage)
    return message


def test_the_schemas_for_the_model() -> None:
    """The model sees three tools, each with a description and described arguments, none of which is
    the store.
    """
    shown = {
        name: convert_to_openai_tool(tool)["function"] for name, tool in tools(findings()).items()
    }
    assert {name: list(each["parameters"]["properties"]) for name, each in shown.items()} == {
        "search_findings": ["query", "k"],
        "summarise_findings": ["query", "k"],
        "read_span": ["source", "start", "end"],
    }
    assert {name: each["parameters"]["required"] for name, each in shown.items()} == {
        "search_findings": ["query"],
        "summarise_findings": ["query"],
        "read_span": ["source", "start", "end"],
    }
    for each in shown.values():
        assert each["description"]
        assert all(about["description"] for about in each["parameters"]["properties"].values())


@both
async def test_search(asynchronously: bool) -> None:
    """Each finding has its id, type and spans, which `read_span` accepts; the artifact is the
    retriever's Documents in plain JSON.
    """
    store = findings()
    message = await tell(tools(store)["search_findings"], asynchronously, query="tag=people")
    assert (
        message.content
        == f"worker_A_000001 (claim) Ada Conti approved the Ravenna dam. [context_0:{AT}-{AT + len(QUOTE)}]"
    )
    (found,) = RLMStoreRetriever(store=store).invoke("tag=people")
    assert message.artifact == [
        {"id": found.id, "page_content": found.page_content, "metadata": found.metadata}
    ]
    many = await tell(tools(store)["search_findings"], asynchronously, query="", k=3)
    assert (len(many.content.split("\n\n")), len(many.artifact)) == (3, 3)
    none = await tell(tools(store)["search_findings"], asynchronously, query="nowhere")
    assert (none.content, none.artifact, none.status) == ("nothing was found", [], "success")


@both
async def test_summary(asynchronously: bool) -> None:
    """The summary has counts and the first findings."""
    message = await tell(
        tools(findings())["summarise_findings"], asynchronously, query="type=claim", k=1
    )
    assert message.content.splitlines() == [
        "2 objects",
        "types: claim 2",
        "tags: dam 2, money 1, people 1",
        "worker_A_000002 (claim): what the dam cost",
    ]
    assert message.artifact["metadata"]["parents"] == ["worker_A_000002"]


@both
@pytest.mark.parametrize("source", ["context_0", "minutes"])
async def test_reading_a_span(source: str, asynchronously: bool) -> None:
    """A span's text is read by the name of the source or by the document's id."""
    message = await tell(
        tools(findings())["read_span"], asynchronously, source=source, start=AT, end=AT + len(QUOTE)
    )
    assert (message.content, message.artifact) == (
        QUOTE,
        {"source": source, "start": AT, "end": AT + len(QUOTE), "text": QUOTE},
    )


@both
async def test_artifacts_are_plain(asynchronously: bool) -> None:
    """Every artifact is unchanged by JSON and by a checkpoint."""
    serde = JsonPlusSerializer()
    made = tools(findings())
    calls = {
        "search_findings": {"query": ""},
        "summarise_findings": {"query": ""},
        "read_span": {"source": "context_1", "start": 0, "end": 9},
    }
    for name, args in calls.items():
        message = await tell(made[name], asynchronously, **args)
        assert json.loads(json.dumps(message.artifact)) == message.artifact
        assert serde.loads_typed(serde.dumps_typed(message)) == message


def by_id(*ids: str) -> SharedStore:
    return SharedStore(
        Corpus.build([Document(f"the text of {number}", id=id_) for number, id_ in enumerate(ids)])
    )


@both
@pytest.mark.parametrize(
    ("store", "args", "why"),
    [
        (
            findings,
            {"source": "context_2", "start": 0, "end": 1},
            "there is no source 'context_2': there are context_0 to context_1",
        ),
        (findings, {"source": "context_0", "start": 5, "end": 2}, "there is no span from 5 to 2"),
        (
            findings,
            {"source": "context_0", "start": 0, "end": 9_999},
            f"has {len(TEXTS[0]):,} characters",
        ),
        (
            findings,
            {"source": "context_0", "start": 0, "end": 20_001},
            "20,001 characters are more than can be read at once: at most 20,000",
        ),
        (
            SharedStore,
            {"source": "context_0", "start": 0, "end": 1},
            "these findings have no document",
        ),
        (
            lambda: by_id("same", "same"),
            {"source": "same", "start": 0, "end": 1},
            "there is no source 'same'",
        ),
    ],
)
async def test_invalid_spans(
    store: Any, args: dict[str, Any], why: str, asynchronously: bool
) -> None:
    """An invalid span is a message with the status "error" that says what is wrong."""
    message = await tell(tools(store())["read_span"], asynchronously, **args)
    assert (message.status, message.artifact) == ("error", None)
    assert why in message.content


def test_a_documents_id_that_looks_like_a_name() -> None:
    """The name of a source has precedence over a document's id."""
    read = tools(by_id("context_1", "context_0"))["read_span"]
    assert read.invoke({"source": "context_0", "start": 0, "end": 13}) == "the text of 0"


@both
async def test_a_query_with_a_mistake(asynchronously: bool) -> None:
    """The model gets the column of a syntax error."""
    for name in ("search_findings", "summarise_findings"):
        message = await tell(tools(findings())[name], asynchronously, query="type=claim tag=")
        assert (message.status, "column 16" in message.content) == ("error", True)


@both
@pytest.mark.parametrize(
    "args", [{}, {"query": "x", "k": 0}, {"query": "x", "k": 51}, {"query": 5}]
)
async def test_invalid_arguments(args: dict[str, Any], asynchronously: bool) -> None:
    """LangChain refuses invalid arguments by the schema before they reach the store, and an agent
    reports them to its model.
    """
    with pytest.raises(ValidationError):
        await tell(tools(findings())["search_findings"], asynchronously, **args)


@both
async def test_long_findings(asynchronously: bool) -> None:
    """Long findings and long lists of spans are truncated for the model and in checkpoints."""
    store = SharedStore(Corpus.build("x" * 500))
    store.worker("w").create(
        "note",
        "a book",
        "b" * 5_000_000,
        backrefs=[SpanRef("context_0", at, at + 1) for at in range(500)],
    )
    message = await tell(tools(store)["search_findings"], asynchronously, query="")
    assert message.content.startswith(
        f"w_000001 (note) {'b' * 2_000}… (5,000,000 characters) [context_0:0-1] "
    )
    assert len(message.content) < 3_000
    assert message.artifact[0]["page_content"] == f"{'b' * 20_000}… (5,000,000 characters)"
    assert len(message.artifact[0]["metadata"]["spans"]) == 500


def test_a_bound_document_stays_for_its_store() -> None:
    """The tools can read a document bound to a runnable; one passed with a question is released,
    and the tools say so.
    """
    span = {"source": "context_0", "start": AT, "end": AT + len(QUOTE)}
    bound = scripted()
    assert tools(bound.invoke("Who?"))["read_span"].invoke(span) == QUOTE
    came_along = scripted(context=None).invoke({"question": "Who?", "context": DOCUMENTS})
    assert "the document is no longer in memory" in tools(came_along)["read_span"].invoke(span)
    assert "bound to it keeps it" in tools(came_along)["read_span"].invoke(span)
    assert "Ada Conti approved" in tools(came_along)["search_findings"].invoke(
        {"query": "type=claim"}
    )


async def test_calls_do_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asynchronous calls run in a thread and do not block the loop."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(*_: Any) -> list[Any]:
        begun.set()
        assert may_end.wait(60), "the loop did not go on"
        return []

    monkeypatch.setattr(toolkit, "search_evidence", slow)
    searching = asyncio.create_task(tell(tools(findings())["search_findings"], True, query="x"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    may_end.set()
    assert (await searching).content == "nothing was found"


def test_no_store() -> None:
    """A toolkit without a store is an error when it is created."""
    with pytest.raises(InputError, match="no run 'gone'"):
        RLMStoreToolkit(store="gone")


async def test_the_findings_of_a_stored_run(tmp_path: Path) -> None:
    """The retriever and the tools open a run of a storage by its id, as another process does, with
    the text of its spans; half of the two arguments is an error.
    """
    with Storage(tmp_path / "runs") as storage:
        output = await scripted(storage=storage).ainvoke("Who approved the dam?")
        run_id = output["rlm"]["run_id"]
    with Storage(tmp_path / "runs") as storage:
        (found,) = RLMStoreRetriever(storage=storage, run_id=run_id).invoke("type=claim")
        assert found.page_content == "Ada Conti approved the Ravenna dam."
        assert found.metadata["spans"][0]["doc_id"] == "minutes"
        made = RLMStoreToolkit(storage=storage, run_id=run_id).get_tools()
        read = next(tool for tool in made if tool.name == "read_span")
        place = {"source": "minutes", "start": AT, "end": AT + len(QUOTE)}
        assert (await tell(read, True, **place)).content == QUOTE
        for given in ({"storage": storage}, {"store": output, "storage": storage}):
            with pytest.raises(InputError, match=r"pass store=…, or storage=… and run_id=…"):
                RLMStoreToolkit(**given)
        with pytest.raises(InputError, match="there is no run 'other' in this storage"):
            RLMStoreRetriever(storage=storage, run_id="other")
        with pytest.raises(InputError, match="storage must be a Storage"):
            RLMStoreRetriever(storage="runs/", run_id=run_id)
