"""The retriever over a run's findings, with the sync and the async API."""

import copy
import json
import pickle
from typing import Any

import pytest

from tests.llama_index._world import AT, NEEDLE, NO_LLAMA_INDEX, QUESTION, TEXT, finder

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, VectorStoreIndex, get_response_synthesizer
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode

from rlm_integrations import SharedStore, SpanRef
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine, RLMStoreRetriever

APIS = pytest.mark.parametrize("api", ["sync", "async"])


def filled() -> SharedStore:
    store = SharedStore(
        Corpus.build([Document(text=TEXT, id_="doc-1", metadata={"pages": [1, 2]})])
    )
    worker = store.worker("worker_A")
    note = worker.create(
        "note",
        "needle",
        "The needle is 42.",
        [SpanRef("context_0", AT, AT + len(NEEDLE))],
        tags=["found", "b"],
    )
    worker.create("claim", "hay", {"hay": "dry"}, parents=[note])
    return store


async def found(retriever: RLMStoreRetriever, api: str, query: str) -> list[Any]:
    return retriever.retrieve(query) if api == "sync" else await retriever.aretrieve(query)


@APIS
async def test_searching(api: str) -> None:
    """Free text searches words, the store's language its terms; scores are above 0, ids are stable,
    metadata are flat and excluded from prompts.
    """
    retriever = RLMStoreRetriever(filled())
    (hit,) = await found(retriever, api, "what of the needle")
    assert hit.score > 0
    assert hit.node.text == "The needle is 42."
    assert hit.node.ref_doc_id == "doc-1"
    metadata = hit.node.metadata
    assert (metadata["id"], metadata["type"], metadata["tags"], metadata["call"]) == (
        "worker_A_000001",
        "note",
        "found, b",
        "worker_A",
    )
    assert json.loads(metadata["spans"]) == [
        {"doc_id": "doc-1", "source": "context_0", "start": AT, "end": AT + len(NEEDLE)}
    ]
    assert json.loads(metadata["source_metadata"]) == {"pages": [1, 2]}
    assert all(isinstance(value, str | int | float | None) for value in metadata.values())
    assert (
        hit.node.get_content(MetadataMode.LLM)
        == hit.node.get_content(MetadataMode.EMBED)
        == "The needle is 42."
    )
    (claim,) = await found(retriever, api, "type=claim")
    assert (claim.node.text, claim.node.metadata["parents"], claim.node.ref_doc_id) == (
        '{"hay": "dry"}',
        "worker_A_000001",
        None,
    )
    assert [
        each.node.node_id for each in await found(RLMStoreRetriever(filled()), api, "needle")
    ] == [hit.node.node_id]


@APIS
async def test_summarizing(api: str) -> None:
    """In mode "summary" there is one node, with counts and the most relevant findings."""
    (node,) = await found(RLMStoreRetriever(filled(), mode="summary", k=1), api, "needle")
    assert node.node.text.splitlines()[0] == "2 objects"
    assert "worker_A_000001 (note): needle" in node.node.text
    assert node.node.metadata["kind"] == "summary"


@APIS
async def test_k_and_questions_like_terms(api: str) -> None:
    """`k` limits the number of findings; a question that begins with a term and does not parse is
    free text.
    """
    assert len(await found(RLMStoreRetriever(filled(), k=1), api, "")) == 1
    for mode in ("search", "summary"):
        (hit, *_) = await found(
            RLMStoreRetriever(filled(), mode=mode), api, "type=note tag= needle?"
        )
        assert "needle" in hit.node.text


@APIS
async def test_scores_are_relative(api: str) -> None:
    """The best finding has the score 1.0, however common its words are, and passes a cutoff; the
    search's own score is in the metadata.
    """
    store = SharedStore()
    for number in range(3):
        store.worker("w").create("note", "a dam", f"The dam {'of Ravenna ' * number}stands.")
    hits = await found(RLMStoreRetriever(store), api, "dam Ravenna")
    assert (len(hits), hits[0].score, hits[0].node.metadata["score"]) == (
        3,
        1.0,
        max(hit.node.metadata["score"] for hit in hits),
    )
    assert all(0 < hit.score <= 1 for hit in hits)
    common = await found(RLMStoreRetriever(store), api, "stands")
    assert SimilarityPostprocessor(similarity_cutoff=0.1).postprocess_nodes(common)


def test_it_is_pickled_with_its_findings() -> None:
    """A pickled copy finds the same in another process."""
    retriever = RLMStoreRetriever(filled())
    for again in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        assert [each.node.text for each in again.retrieve("needle")] == ["The needle is 42."]


async def test_after_a_run() -> None:
    """The findings of a query can be searched afterwards, in pipelines and in fusion with other
    retrievers too.
    """
    engine = RLMQueryEngine.from_defaults(TEXT, llm=finder())
    await engine.aquery(QUESTION)
    retriever = RLMStoreRetriever(engine.last_store)
    pipeline = RetrieverQueryEngine(retriever, get_response_synthesizer(llm=MockLLM()))
    assert "It is 42." in str(await pipeline.aquery("needle"))
    index = VectorStoreIndex.from_documents(
        [Document(text="hay")], embed_model=MockEmbedding(embed_dim=2)
    )
    fusion = QueryFusionRetriever([retriever, index.as_retriever()], llm=MockLLM(), num_queries=1)
    assert {each.node.get_content() for each in await fusion.aretrieve("needle")} == {
        "It is 42.",
        "hay",
    }
    index.insert_nodes([each.node for each in retriever.retrieve("needle")])


def test_invalid_arguments() -> None:
    """An invalid store, an unknown mode and an invalid `k` are refused."""
    for options, hint in (
        ({"store": None}, "a store, a result, a response or its run_id, not NoneType"),
        ({"store": filled(), "mode": "find"}, "choose 'search' or 'summary'"),
        ({"store": filled(), "k": 0}, "at least 1"),
        ({"store": filled(), "k": True}, "at least 1"),
    ):
        with pytest.raises(InputError, match=hint):
            RLMStoreRetriever(**options)
    assert RLMStoreRetriever.__mro__[1] is BaseRetriever
