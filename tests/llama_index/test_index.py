"""An engine over an index reads its current text at each question, whatever has changed and
wherever the text is stored.
"""

import copy
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    finder,
    splitter,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine

EMBED = MockEmbedding(embed_dim=4)
APIS = pytest.mark.parametrize("api", ["sync", "async"])


class TextStore(BasePydanticVectorStore):
    """A vector store that stores the text itself, as Qdrant and Chroma do, in an arbitrary
    order.
    """

    stores_text: bool = True
    nodes: dict[str, Any] = {}  # noqa: RUF012 - a field of pydantic, which copies it
    listed: int = 0

    @property
    def client(self) -> Any:
        return None

    def add(self, nodes: Any, **_: Any) -> list[str]:
        for node in nodes:
            self.nodes[node.node_id] = copy.deepcopy(node)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        for id_ in [id_ for id_, node in self.nodes.items() if node.ref_doc_id == ref_doc_id]:
            del self.nodes[id_]

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        found = list(self.nodes.values())[: query.similarity_top_k]
        return VectorStoreQueryResult(found, [0.5] * len(found), [node.node_id for node in found])

    def get_nodes(
        self, node_ids: Any = None, filters: Any = None, limit: int = 3
    ) -> list[BaseNode]:
        self.listed += 1
        return [copy.deepcopy(node) for node in reversed(self.nodes.values())][:limit]


class Unlisted(TextStore):
    """A vector store that can only be searched."""

    def get_nodes(self, node_ids: Any = None, filters: Any = None) -> list[BaseNode]:
        raise NotImplementedError


def index_in(store: Any, *documents: Document, **options: Any) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(
        list(documents),
        storage_context=context,
        embed_model=EMBED,
        transformations=[splitter()],
        **options,
    )


async def ask(engine: RLMQueryEngine, api: str, question: str) -> Any:
    return engine.query(question) if api == "sync" else await engine.aquery(question)


@APIS
async def test_a_text_that_changes_under_its_id_is_read_again(api: str) -> None:
    """An update that keeps the node's id is noticed, and citations are in the new text."""
    stable = SentenceSplitter(
        id_func=lambda number, document: f"{document.id_}-{number}", chunking_tokenizer_fn=str.split
    )
    price = Document(text="The price is 5 lire.", id_="D")
    index = VectorStoreIndex.from_documents([price], embed_model=EMBED, transformations=[stable])
    engine = RLMQueryEngine.from_defaults(index=index, llm="offline")
    assert str(await ask(engine, api, "What is the price?")) == "The price is 5 lire."
    index.update_ref_doc(Document(text="The price is 9 lire.", id_="D"))
    response = await ask(engine, api, "What is the price?")
    node = response.source_nodes[0].node
    held = index.docstore.get_node(node.ref_doc_id).text
    assert [str(response), held[node.start_char_idx : node.end_char_idx], node.text] == [
        "The price is 9 lire."
    ] * 3


async def test_changes_of_nodes_with_equal_hashes_are_noticed() -> None:
    """Changes are noticed although the document store lists only one of several nodes with equal
    hashes.
    """
    nodes = [
        TextNode(id_="a", text="one"),
        TextNode(id_="b", text="one"),
        TextNode(id_="c", text="two"),
    ]
    index = VectorStoreIndex(nodes, embed_model=EMBED)
    engine = RLMQueryEngine.from_defaults(index=index, llm=finder())
    first, again = [(await engine._source.open()).corpus for _ in range(2)]
    index.docstore.add_documents([TextNode(id_="a", text="two")])
    changed = (await engine._source.open()).corpus
    assert first is again is not changed
    assert [changed.text(source.name) for source in changed.sources] == ["two", "one", "two"]


@APIS
async def test_a_vector_store_that_keeps_its_text(api: str) -> None:
    """All nodes of such a store are read, document by document; changes are noticed."""
    other = Document(text="Nothing of note in here. " * 200, id_="a")
    index = index_in(TextStore(), Document(text=TEXT, id_="doc-1"), other)
    engine = RLMQueryEngine.from_defaults(index=index, llm=finder())
    response = await ask(engine, api, QUESTION)
    assert (str(response), [each.node.text for each in response.source_nodes]) == (ANSWER, [NEEDLE])
    assert response.source_nodes[0].node.metadata["document_id"] == "doc-1"
    corpus = (await engine._source.open()).corpus
    cut = splitter().get_nodes_from_documents([other, Document(text=TEXT, id_="doc-1")])
    assert len(cut) > 3
    assert [corpus.text(source.name) for source in corpus.sources] == [node.text for node in cut]
    assert (await engine._source.open()).corpus is corpus
    index.delete_ref_doc("a")
    assert len((await engine._source.open()).corpus.sources) < len(cut)


async def test_a_vector_store_and_a_document_store() -> None:
    """An index that also stores nodes in the document store is read from there, once."""
    store = TextStore()
    index = index_in(store, Document(text=TEXT, id_="doc-1"), store_nodes_override=True)
    response = await RLMQueryEngine.from_defaults(index=index, llm=finder()).aquery(QUESTION)
    assert (str(response), store.listed) == (ANSWER, 0)


async def test_a_vector_store_that_does_not_list() -> None:
    """If a store can only be searched, the error names it and says what to pass instead."""
    engine = RLMQueryEngine.from_defaults(
        index=index_in(Unlisted(), Document(text=TEXT)), llm=finder()
    )
    with pytest.raises(
        InputError,
        match=r"in its Unlisted, which does not list them: pass retriever=index\.as_retriever",
    ):
        await engine.aquery(QUESTION)


async def test_an_empty_vector_store() -> None:
    """A store without nodes has no text."""
    engine = RLMQueryEngine.from_defaults(index=index_in(TextStore()), llm=finder())
    assert str(await engine.aquery(QUESTION)) == "Empty Response"


async def test_a_further_question_reads_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further question on an unchanged index reads no node and prepares no text for the
    sandbox.
    """
    index = VectorStoreIndex(
        [TextNode(text=f"{NEEDLE} {number}") for number in range(300)], embed_model=EMBED
    )
    engine = RLMQueryEngine.from_defaults(index=index, llm=finder())
    assert str(await engine.aquery(QUESTION)) == ANSWER

    def asked_for(_: Any) -> Any:
        raise AssertionError("a list of all texts was made again")

    monkeypatch.setattr(type(index.docstore), "docs", property(asked_for))
    for name in ("metadata", "handover"):
        monkeypatch.setattr(Corpus, name, property(asked_for))
    assert str(await engine.aquery(QUESTION)) == ANSWER
    assert engine.query(QUESTION).source_nodes[0].node.text == NEEDLE
