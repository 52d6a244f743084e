"""A document's metadata: all of them on its citations, and none in prompts if they are excluded."""

import datetime as dt
from typing import Any

import pytest

from tests.llama_index._world import NEEDLE, NO_LLAMA_INDEX, QUESTION, TEXT, finder, splitter

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, SummaryIndex
from llama_index.core.chat_engine import CondensePlusContextChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceWindowNodeParser
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore

from rlm_integrations import RLM
from rlm_integrations.llama_index import RLMQueryEngine, RLMSynthesizer
from tests.engine.conftest import Scripted, code, final
from tests.lm._foreign import MODEL, foreign
from tests.standin import StandIn

PATH = "/home/me/secret.txt"
DOCUMENT = Document(
    text=TEXT,
    id_="archive",
    metadata={"file_path": PATH, "year": 1911},
    excluded_llm_metadata_keys=["file_path"],
    excluded_embed_metadata_keys=["year"],
    metadata_template="{key} is {value}",
    text_template="<<{metadata_str}>> {content}",
)
SHOWS = code("print(context_metadata)", f"FINAL('done', evidence=[cite({NEEDLE!r})])")
QUOTES = final(f"'done', evidence=[cite({NEEDLE!r})]")


async def test_a_citation_is_displayed_like_its_document() -> None:
    """Excluded keys and templates are copied to the source node with the metadata, from a document
    or a chunk.
    """
    nodes = splitter().get_nodes_from_documents([DOCUMENT])
    for source in (
        {"documents": DOCUMENT},
        {"nodes": nodes},
        {"nodes": [NodeWithScore(node=node, score=0.5) for node in nodes]},
    ):
        (cited,) = await RLMQueryEngine.from_defaults(llm=finder(), **source).aretrieve(QUESTION)
        node = cited.node
        assert node.metadata.items() >= DOCUMENT.metadata.items()
        whole = (
            DOCUMENT
            if node.ref_doc_id == "archive"
            else next(each for each in nodes if each.node_id == node.ref_doc_id)
        )
        alike = whole.model_copy(deep=True)
        alike.set_content(NEEDLE)
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert node.get_content(mode) == alike.get_content(mode)
        assert PATH not in node.get_content(MetadataMode.LLM)


async def test_the_repl_has_no_excluded_metadata() -> None:
    """`context_metadata` omits the metadata that a document excludes from prompts; results have
    them.
    """
    root = Scripted([code("print(context_metadata)"), SHOWS])
    result = await RLM(root).acompletion(QUESTION, [DOCUMENT])
    assert "'year': 1911" in result.repl_history[0].stdout
    assert PATH not in result.repl_history[0].stdout
    assert all(
        PATH not in message.content for request in root.requests for message in request.messages
    )
    assert result.citations[0].metadata == DOCUMENT.metadata


async def test_children_have_no_excluded_metadata() -> None:
    """A child run over a part of the document omits the same keys."""
    root = Scripted(
        {
            QUESTION: [code("print(recursive_lm('inner', context[0]))", "FINAL('done')")],
            "inner": [code("print(context_metadata)"), SHOWS],
        }
    )
    result = await RLM(root, max_depth=2).acompletion(QUESTION, [DOCUMENT])
    printed = result.repl_history[0].subcalls[0].turns[0].executions[0].stdout
    assert "'year': 1911" in printed
    assert PATH not in printed


async def test_windows_of_sentences_are_not_in_the_repl() -> None:
    """Metadata with the surroundings of each sentence do not put the document into the REPL several
    times.
    """
    nodes = SentenceWindowNodeParser(
        sentence_splitter=lambda text: text.split(". ")
    ).get_nodes_from_documents([Document(text=TEXT)])
    root = Scripted([code("print(context_metadata)"), SHOWS])
    engine = RLMQueryEngine.from_defaults(nodes=nodes, llm=root)
    await engine.aquery(QUESTION)
    assert "window" not in engine.last_result.repl_history[0].stdout


def test_no_other_model_sees_excluded_metadata(provider: StandIn) -> None:
    """A chat engine that puts evidence into its prompt sends no more metadata than for LlamaIndex's
    own nodes.
    """
    engine = RLMQueryEngine.from_defaults(DOCUMENT, llm=finder())
    llm = foreign("OpenAILike", provider.base_url)
    chat = CondensePlusContextChatEngine.from_defaults(
        retriever=engine, llm=llm, memory=ChatMemoryBuffer.from_defaults()
    )
    chat.chat(QUESTION)
    sent = str(provider.requests())
    assert MODEL in sent
    assert NEEDLE in sent
    assert PATH not in sent


async def test_metadata_are_copied_unchanged() -> None:
    """Citations have the document's dates and tuples, as copies: changing them does not change the
    document.
    """
    made = {"date": dt.date(1911, 3, 1), "pages": (1, 2), "more": {"a": [1]}}
    document = Document(text=TEXT, metadata=dict(made))
    (cited,) = await RLMQueryEngine.from_defaults(document, llm=finder()).aretrieve(QUESTION)
    assert cited.node.metadata == made
    cited.node.metadata["more"]["a"].append(2)
    assert document.metadata["more"]["a"] == [1]


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_behind_a_retriever_the_document_is_known(api: str) -> None:
    """If the SOURCE is a chunk, `document_id` names its document, and is excluded from prompts."""
    index = SummaryIndex.from_documents([DOCUMENT])
    engines = [
        RetrieverQueryEngine(index.as_retriever(), response_synthesizer=RLMSynthesizer(finder())),
        RLMQueryEngine.from_defaults(retriever=index.as_retriever(), llm=finder()),
        RLMQueryEngine.from_defaults(index=index, llm=finder()),
    ]
    for engine in engines:
        response: Any = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
        (cited,) = response.source_nodes
        assert (cited.node.ref_doc_id == "archive", cited.node.metadata["document_id"]) == (
            False,
            "archive",
        )
        assert "archive" not in cited.node.get_content(MetadataMode.LLM) + cited.node.get_content(
            MetadataMode.EMBED
        )
    again = await RLMQueryEngine.from_defaults(
        nodes=response.source_nodes, llm=Scripted([QUOTES])
    ).aretrieve(QUESTION)
    assert again[0].node.metadata["document_id"] == "archive"


async def test_a_retriever_whose_store_has_the_document() -> None:
    """Citations in a retriever's nodes are mapped to the document if its document store has it."""
    index = SummaryIndex.from_documents([DOCUMENT])
    index.docstore.add_documents([DOCUMENT])
    (cited,) = await RLMQueryEngine.from_defaults(
        retriever=index.as_retriever(), llm=finder()
    ).aretrieve(QUESTION)
    assert (cited.node.ref_doc_id, TEXT[cited.node.start_char_idx : cited.node.end_char_idx]) == (
        "archive",
        NEEDLE,
    )
    assert "document_id" not in cited.node.metadata


async def test_documents_with_the_same_id() -> None:
    """If two documents have the same id, the SOURCE is the name of the text in the run, and
    `document_id` has the id.
    """
    documents = [
        Document(text=f"first. {NEEDLE}", id_="D"),
        Document(text=f"the second. {NEEDLE}", id_="D"),
    ]
    places = "FINAL('done', evidence=[SpanRef('context_0', 7, 24), SpanRef('context_1', 12, 29)])"
    nodes = await RLMQueryEngine.from_defaults(documents, llm=Scripted([code(places)])).aretrieve(
        QUESTION
    )
    assert [each.node.ref_doc_id for each in nodes] == ["context_0", "context_1"]
    assert [each.node.metadata["document_id"] for each in nodes] == ["D", "D"]
    for each, document in zip(nodes, documents, strict=True):
        assert (
            document.text[each.node.start_char_idx : each.node.end_char_idx]
            == each.node.text
            == NEEDLE
        )
