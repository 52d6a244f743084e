"""Tools over a run's findings, for LlamaIndex agents."""

from pathlib import Path
from typing import Any

import pytest

from tests.llama_index._world import AT, NEEDLE, NO_LLAMA_INDEX, QUESTION, TEXT, finder

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.tools.tool_spec.base import BaseToolSpec

from rlm_integrations import SharedStore
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine, RLMStoreRetriever, RLMStoreToolSpec
from rlm_integrations.storage import Storage

APIS = pytest.mark.parametrize("api", ["sync", "async"])


async def call(spec: RLMStoreToolSpec, api: str, name: str, **arguments: Any) -> str:
    (tool,) = [tool for tool in spec.to_tool_list() if tool.metadata.name == name]
    output = tool.call(**arguments) if api == "sync" else await tool.acall(**arguments)
    return output.content


@APIS
async def test_the_three_tools(api: str) -> None:
    """An agent can search and summarize the findings of a run, and read their spans by the source's
    name or the document's id.
    """
    engine = RLMQueryEngine.from_defaults(Document(text=TEXT, id_="doc-1"), llm=finder())
    response = await engine.aquery(QUESTION)
    for store in (engine.last_store, engine.last_result, response):
        spec = RLMStoreToolSpec(store)
        assert isinstance(spec, BaseToolSpec)
        found = await call(spec, api, "search_findings", query="needle")
        assert found == f"root_000001 (note) It is 42. [context_0:{AT}-{AT + len(NEEDLE)}]"
        assert (await call(spec, api, "summarise_findings")).startswith("1 object\ntypes: note 1")
        for source in ("context_0", "doc-1"):
            assert (
                await call(spec, api, "read_passage", source=source, start=AT, end=AT + len(NEEDLE))
                == NEEDLE
            )
        assert await call(spec, api, "search_findings", query="cabbage") == "nothing was found"


def test_the_schemas_for_the_model() -> None:
    """Each tool has a name, parameters and a description for the model."""
    tools = [
        tool.metadata.to_openai_tool()["function"]
        for tool in RLMStoreToolSpec(SharedStore()).to_tool_list()
    ]
    assert [tool["name"] for tool in tools] == [
        "search_findings",
        "summarise_findings",
        "read_passage",
    ]
    assert [list(tool["parameters"]["properties"]) for tool in tools] == [
        ["query", "k"],
        ["query", "k"],
        ["source", "start", "end"],
    ]
    assert all("self" not in tool["description"] for tool in tools)


@APIS
async def test_invalid_arguments(api: str) -> None:
    """Invalid arguments and spans are errors that an agent passes on; they name no internal
    class.
    """
    engine = RLMQueryEngine.from_defaults(Document(text=TEXT * 3, id_="doc-1"), llm=finder())
    await engine.aquery(QUESTION)
    spec = RLMStoreToolSpec(engine.last_store)
    wrong: list[tuple[str, dict[str, Any], str]] = [
        (
            "search_findings",
            {"query": "a", "k": 51},
            "k must be an integer of at least 1 and at most 50, not 51",
        ),
        ("read_passage", {"source": "context_9", "start": 0, "end": 1}, "no source 'context_9'"),
        ("read_passage", {"source": "doc-1", "start": 0, "end": 30_000}, "at most 20,000"),
    ]
    for name, arguments, hint in wrong:
        with pytest.raises(InputError, match=hint):
            await call(spec, api, name, **arguments)
    with pytest.raises(InputError, match="these findings have no document"):
        await call(
            RLMStoreToolSpec(SharedStore()),
            api,
            "read_passage",
            source="context_0",
            start=0,
            end=1,
        )
    with pytest.raises(InputError, match="a store, a result, a response or its run_id"):
        RLMStoreToolSpec(None)


@APIS
async def test_the_findings_of_a_stored_run(api: str, tmp_path: Path) -> None:
    """The tools and the retriever open a run of a storage by its id, as another process does, with
    the document's text.
    """
    with Storage(tmp_path / "runs") as storage:
        engine = RLMQueryEngine.from_defaults(Document(text=TEXT), llm=finder(), storage=storage)
        run_id = (await engine.aquery(QUESTION)).metadata["run_id"]
    with Storage(tmp_path / "runs") as storage:
        spec = RLMStoreToolSpec(storage=storage, run_id=run_id)
        (found,) = RLMStoreRetriever(storage=storage, run_id=run_id).retrieve("needle")
        assert found.text == "It is 42."
    place = {"source": "context_0", "start": AT, "end": AT + len(NEEDLE)}
    assert await call(spec, api, "read_passage", **place) == NEEDLE
