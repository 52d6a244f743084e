"""Evidence as a LlamaIndex retriever, and postprocessors of a retriever's nodes."""

from typing import Any

import pytest

from tests.llama_index._world import NEEDLE, NO_LLAMA_INDEX, QUESTION, TEXT, finder, needles

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, SummaryIndex, get_response_synthesizer
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import KeywordNodePostprocessor, SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine

from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMQueryEngine
from tests.engine.conftest import final

APIS = pytest.mark.parametrize("api", ["sync", "async"])
DOCUMENT = Document(text=TEXT, id_="doc-1")


@APIS
async def test_an_engine_as_a_retriever(api: str) -> None:
    """The engine's retriever has its own callbacks, returns the citations of a run, and works in a
    pipeline with postprocessors.
    """
    debug = LlamaDebugHandler(print_trace_on_end=False)
    engine = RLMQueryEngine.from_defaults(DOCUMENT, llm=finder())
    retriever = engine.as_retriever(callback_manager=CallbackManager([debug]))
    assert isinstance(retriever, BaseRetriever)
    nodes = retriever.retrieve(QUESTION) if api == "sync" else await retriever.aretrieve(QUESTION)
    assert (needles(nodes), nodes[0].node.ref_doc_id) == ([NEEDLE], "doc-1")
    assert len(debug.get_event_pairs(CBEventType.RETRIEVE)) == 1
    pipeline = RetrieverQueryEngine(
        engine.as_retriever(),
        get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.5)],
    )
    response = pipeline.query(QUESTION) if api == "sync" else await pipeline.aquery(QUESTION)
    assert (needles(response.source_nodes), NEEDLE in str(response)) == ([NEEDLE], True)


@APIS
async def test_postprocessors_change_the_text_of_the_run(api: str) -> None:
    """A run reads the nodes that the postprocessors return; if they return none, no model is
    called.
    """
    index = SummaryIndex.from_documents([DOCUMENT, Document(text="Of cabbages and kings.")])
    root = finder(final(f"str(len(context)), evidence=[cite({NEEDLE!r})]"))
    options: Any = {"retriever": index.as_retriever(), "llm": root}
    keeps = RLMQueryEngine.from_defaults(
        node_postprocessors=[Kept(exclude_keywords=["cabbages"])], **options
    )
    response: Any = keeps.query(QUESTION) if api == "sync" else await keeps.aquery(QUESTION)
    assert (str(response), needles(response.source_nodes)) == (
        str(len(index.docstore.docs) - 1),
        [NEEDLE],
    )
    drops = RLMQueryEngine.from_defaults(
        node_postprocessors=[Kept(), SimilarityPostprocessor(similarity_cutoff=0.5)], **options
    )
    response = drops.query(QUESTION) if api == "sync" else await drops.aquery(QUESTION)
    assert (
        str(response),
        len([request for request in root.requests if request.role == "root"]),
    ) == ("Empty Response", 1)


class Kept(KeywordNodePostprocessor):
    """One of LlamaIndex's own postprocessors, without the package that it needs for languages."""

    exclude: list[str] = []  # noqa: RUF012 - a field of pydantic, which copies it

    def __init__(self, exclude_keywords: Any = ()) -> None:
        super().__init__(exclude=list(exclude_keywords))

    def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
        return [
            node
            for node in nodes
            if not any(word in node.node.get_content() for word in self.exclude)
        ]


def test_postprocessors_need_a_retriever() -> None:
    """Postprocessors without a retriever, and other objects as postprocessors, are errors."""
    with pytest.raises(InputError, match="without a retriever"):
        RLMQueryEngine.from_defaults(DOCUMENT, llm=finder(), node_postprocessors=[Kept()])
    with pytest.raises(InputError, match="expected BaseNodePostprocessor"):
        options: Any = {"node_postprocessors": ["rerank"]}
        RLMQueryEngine.from_defaults(
            retriever=SummaryIndex([]).as_retriever(), llm=finder(), **options
        )


def test_without_streaming_the_postprocessors_stay() -> None:
    """The engine of a tool has the same postprocessors."""
    index = SummaryIndex.from_documents([DOCUMENT])
    engine = RLMQueryEngine.from_defaults(
        retriever=index.as_retriever(),
        llm=finder(),
        streaming=True,
        node_postprocessors=[Kept(exclude_keywords=["hay", "straw"])],
    )
    assert str(engine.without_streaming().query(QUESTION)) == "Empty Response"
