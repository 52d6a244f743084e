"""The sources of an engine's texts, and the precision of its citations."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    AT,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    finder,
    splitter,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import (
    Document,
    DocumentSummaryIndex,
    SummaryIndex,
    TreeIndex,
    VectorStoreIndex,
)
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices import EmptyIndex
from llama_index.core.indices.keyword_table import SimpleKeywordTableIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, NodeWithScore, ObjectType, TextNode

from rlm_integrations import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine
from tests.engine.conftest import Scripted, code, final

DOCUMENT = Document(text=TEXT, id_="doc-1", metadata={"file_name": "a.txt", "year": 1911})
OTHER = Document(
    text="Nothing of note in here. " * 40, id_="doc-2", metadata={"file_name": "b.txt"}
)
SPLITTER = splitter()


def cut(*documents: Document) -> list[Any]:
    return SPLITTER.get_nodes_from_documents(list(documents))


def engine_of(**source: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(llm=finder(), **source)


async def cited(engine: RLMQueryEngine) -> list[NodeWithScore]:
    response = await engine.aquery(QUESTION)
    assert str(response) == ANSWER
    assert [node.node.get_content() for node in response.source_nodes] == [NEEDLE]
    return response.source_nodes


async def test_of_nodes_the_node_is_the_source() -> None:
    """Without the document, a citation points into the node, and has the node's metadata."""
    nodes = cut(OTHER, DOCUMENT)
    (cite,) = await cited(engine_of(nodes=nodes))
    held = next(node for node in nodes if NEEDLE in node.text)
    assert (cite.node.ref_doc_id, cite.node.source_node.node_type) == (
        held.node_id,
        ObjectType.TEXT,
    )
    assert held.text[cite.node.start_char_idx : cite.node.end_char_idx] == NEEDLE
    assert cite.node.metadata == {**DOCUMENT.metadata, "document_id": "doc-1"}
    assert NodeRelationship.PARENT not in cite.node.relationships


async def test_a_unique_node_is_mapped_to_its_document() -> None:
    """If the document is available and contains the node's text exactly once, citations point into
    the document, and name the node.
    """
    engine, nodes = engine_of(documents=[OTHER, DOCUMENT]), cut(DOCUMENT)
    response = await engine.asynthesize(
        QUESTION, [NodeWithScore(node=node, score=0.5) for node in nodes]
    )
    (cite,) = response.source_nodes
    held = next(node for node in nodes if NEEDLE in node.text)
    assert (cite.node.ref_doc_id, cite.node.start_char_idx, cite.score) == ("doc-1", AT, 0.5)
    assert cite.node.relationships[NodeRelationship.PARENT].node_id == held.node_id


async def test_an_ambiguous_node_is_not_mapped() -> None:
    """If the node's text occurs twice in its document, LlamaIndex's offset may be wrong, so the
    node stays the source.
    """
    page = f"over and over. {NEEDLE}"
    document = Document(text=f"{page} {page}", id_="twice")
    sources = {NodeRelationship.SOURCE: document.as_related_node_info()}
    # It is at 33
    second = TextNode(
        text=page, id_="page-2", start_char_idx=0, end_char_idx=len(page), relationships=sources
    )
    response = await engine_of(documents=document).asynthesize(
        QUESTION, [NodeWithScore(node=second)]
    )
    (cite,) = response.source_nodes
    assert (cite.node.ref_doc_id, cite.node.start_char_idx, cite.node.source_node.node_type) == (
        "page-2",
        15,
        ObjectType.TEXT,
    )


async def test_our_own_slices_keep_their_place() -> None:
    """The offset of a slice that this library cut is certain in any document; one that only claims
    to be such a slice is not.
    """
    document = Document(text=f"{NEEDLE} {NEEDLE} {NEEDLE}", id_="thrice")
    engine = RLMQueryEngine.from_defaults(
        document, llm=finder(final(f'"{ANSWER}", evidence=[SpanRef("context_0", 18, 35)]'))
    )
    nodes = await engine.aretrieve(QUESTION)
    assert [(each.node.text, each.node.start_char_idx) for each in nodes] == [(NEEDLE, 18)]
    again = await engine_of(documents=document).asynthesize(QUESTION, nodes)
    assert [(each.node.ref_doc_id, each.node.start_char_idx) for each in again.source_nodes] == [
        ("thrice", 18)
    ]
    nodes[0].node.start_char_idx, nodes[0].node.end_char_idx = 0, 17
    forged = await engine_of(documents=document).asynthesize(QUESTION, nodes)
    assert forged.source_nodes[0].node.ref_doc_id == nodes[0].node.node_id


def index_of(kind: Any, *documents: Document, **options: Any) -> Any:
    return kind.from_documents(list(documents), transformations=[SPLITTER], **options)


class Keywords(SimpleKeywordTableIndex):
    """A table of keywords without NLTK; see `splitter`."""

    def _extract_keywords(self, text: str) -> set[str]:
        return set(text.split()[:5])


KINDS = [
    (VectorStoreIndex, {"embed_model": MockEmbedding(embed_dim=2)}),
    (SummaryIndex, {}),
    (TreeIndex, {"llm": MockLLM(max_tokens=5)}),
    (Keywords, {"llm": MockLLM()}),
    (
        DocumentSummaryIndex,
        {"llm": MockLLM(max_tokens=5), "embed_model": MockEmbedding(embed_dim=2)},
    ),
]


# LlamaIndex's tree asks for one
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_an_engine_over_an_index(kind: Any, options: Any) -> None:
    """Every index with a document store provides its documents' text, in order and without its own
    summaries, with their metadata.
    """
    index = index_of(kind, OTHER, DOCUMENT, **options)
    engine = engine_of(index=index)
    (cite,) = asyncio.run(cited(engine))
    assert cite.node.metadata == {**DOCUMENT.metadata, "document_id": "doc-1"}
    texts = asyncio.run(engine._source.open()).corpus
    assert [texts.text(source.name) for source in texts.sources] == [
        node.text for node in cut(OTHER, DOCUMENT)
    ]


async def test_an_index_that_grows() -> None:
    """Text that is inserted later is read at the next question; unchanged text is not read
    again.
    """
    index = index_of(SummaryIndex, OTHER)
    engine = engine_of(index=index)
    assert (await engine.aquery(QUESTION)).source_nodes == []
    first, again = [(await engine._source.open()).corpus for _ in range(2)]
    index.insert(DOCUMENT)
    assert first is again is not (await engine._source.open()).corpus
    await cited(engine)


async def test_an_index_whose_store_has_the_documents() -> None:
    """If a document store has whole documents too, as after an ingestion pipeline, citations are
    mapped to them.
    """
    index = index_of(SummaryIndex, OTHER, DOCUMENT)
    index.docstore.add_documents([DOCUMENT])
    (cite,) = await cited(engine_of(index=index))
    assert (cite.node.ref_doc_id, cite.node.start_char_idx) == ("doc-1", AT)


async def test_an_index_that_is_empty() -> None:
    """An index without texts results in the empty response: no model is called."""
    root = finder()
    engine = RLMQueryEngine.from_defaults(index=SummaryIndex([]), llm=root)
    assert (str(await engine.aquery(QUESTION)), root.requests) == ("Empty Response", [])


async def test_an_index_that_cannot_be_listed() -> None:
    """An index whose texts cannot be listed is refused, and the error says what to pass instead."""
    with pytest.raises(InputError, match="this EmptyIndex cannot be listed"):
        await engine_of(index=EmptyIndex()).aquery(QUESTION)
    index = index_of(SummaryIndex, DOCUMENT)
    index.docstore.delete_document(index.index_struct.nodes[0])
    index.index_struct.nodes = index.index_struct.nodes[:1]
    with pytest.raises(
        InputError, match=r"has none of its 1 nodes: pass retriever=index\.as_retriever"
    ):
        await engine_of(index=index).aquery(QUESTION)


class Fixed(BaseRetriever):
    """A retriever that returns given nodes."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes, self.asked = nodes, []

    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        return self.nodes


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_an_engine_over_a_retriever(api: str) -> None:
    """A retriever is called at each question; its scores are copied to the citations, and without
    nodes there is no run.
    """
    nodes = [NodeWithScore(node=node, score=0.25) for node in cut(DOCUMENT)]
    retriever = Fixed(nodes)
    engine = engine_of(retriever=retriever)
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    assert retriever.asked == [QUESTION]
    assert [(each.node.text, each.score) for each in response.source_nodes] == [(NEEDLE, 0.25)]
    retriever.nodes = []
    empty = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    assert (str(empty), empty.source_nodes, empty.metadata["calls"]) == ("Empty Response", [], 0)
    assert (engine.retrieve(QUESTION) if api == "sync" else await engine.aretrieve(QUESTION)) == []


async def test_texts_without_ids() -> None:
    """The sources of plain texts are their names in the run."""
    (cite,) = await cited(engine_of(documents=["nothing here", TEXT]))
    assert (cite.node.ref_doc_id, cite.node.source_node.node_type, cite.node.start_char_idx) == (
        "context_1",
        None,
        AT,
    )


async def test_a_node_without_a_document() -> None:
    """A node without a document is its own source."""
    (cite,) = await cited(engine_of(nodes=[TextNode(text=TEXT, id_="by-hand")]))
    assert (cite.node.ref_doc_id, cite.node.start_char_idx) == ("by-hand", AT)


async def test_a_folder_is_cited_by_path_and_line(tmp_path: Path) -> None:
    """A folder is a source of an engine; the node of a citation has the path and the line."""
    (tmp_path / "app.py").write_text("x = 1\n# The port is 8080.\n")
    root = Scripted([code("FINAL('8080', evidence=[cite('The port is 8080.')])")])
    engine = RLMQueryEngine.from_rlm(RLM(root), tmp_path)
    (node,) = (await engine.aquery("Which port?")).source_nodes
    assert node.node.metadata["location"] == "app.py:2"
    assert "location" in node.node.excluded_llm_metadata_keys
