"""The synthesizer works in any pipeline, and changes none of the user's objects."""

import pickle
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    finder,
    needles,
    scripted_llm,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import (
    Document,
    PromptTemplate,
    Settings,
    VectorStoreIndex,
    get_response_synthesizer,
)
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel

from rlm_integrations import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMSynthesizer
from tests.engine.conftest import final

NODES = [
    NodeWithScore(node=TextNode(text=TEXT, id_="n1", metadata={"secret": "metadata"}), score=0.5)
]
APIS = pytest.mark.parametrize("api", ["sync", "async"])


async def answer(synthesizer: Any, api: str, nodes: Any = NODES, **options: Any) -> Any:
    if api == "sync":
        return synthesizer.synthesize(QUESTION, nodes, **options)
    return await synthesizer.asynthesize(QUESTION, nodes, **options)


@APIS
async def test_in_a_pipeline_over_a_large_set(api: str) -> None:
    """A RetrieverQueryEngine answers with it from a thousand nodes; the run reads the nodes' text
    without metadata.
    """
    documents = [
        Document(text=f"Page {number} says nothing.", metadata={"page": number})
        for number in range(1_000)
    ]
    documents[617] = Document(text=TEXT, metadata={"page": 617})
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=2))
    root = finder(
        final(f'str(len(context)) + str("page" in context[0]), evidence=[cite({NEEDLE!r})]')
    )
    synthesizer = RLMSynthesizer(root)
    engine = RetrieverQueryEngine(
        index.as_retriever(similarity_top_k=2_000), response_synthesizer=synthesizer
    )
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    nodes = len(index.docstore.docs)
    assert nodes > 1_000
    assert str(response) == f"{nodes}False"
    assert needles(response.source_nodes) == [NEEDLE]
    assert response.source_nodes[0].node.metadata == {
        "page": 617,
        "document_id": documents[617].id_,
    }
    assert response.metadata["stop_reason"] == "final"
    assert synthesizer.last_store is not None


@APIS
async def test_nothing_of_the_users_is_changed(api: str) -> None:
    """Neither the model nor its callbacks nor the settings are changed, unlike with LlamaIndex's
    own synthesizers.
    """
    llm, manager = scripted_llm(), CallbackManager([])
    theirs = llm.callback_manager
    synthesizer = RLMSynthesizer(llm, callback_manager=manager)
    synthesizer.callback_manager = CallbackManager([])
    assert str(await answer(synthesizer, api)) == ANSWER
    assert llm.callback_manager is theirs
    assert (Settings._llm, Settings._callback_manager, Settings._prompt_helper) == (
        None,
        None,
        None,
    )


class Kinds(BaseEventHandler):
    """Records the kinds of events."""

    seen: list[Any] = []  # noqa: RUF012 - a field of pydantic, which copies it

    @classmethod
    def class_name(cls) -> str:
        return "Kinds"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)


@APIS
@pytest.mark.parametrize("nodes", [NODES, []], ids=["nodes", "nothing"])
async def test_events_and_callbacks(api: str, nodes: Any) -> None:
    """Synthesis emits the same events and callbacks as LlamaIndex's own synthesizers, even without
    text.
    """
    debug, kinds = LlamaDebugHandler(print_trace_on_end=False), Kinds(seen=[])
    get_dispatcher().add_event_handler(kinds)
    try:
        response = await answer(
            RLMSynthesizer(finder(), callback_manager=CallbackManager([debug])), api, nodes
        )
    finally:
        get_dispatcher().event_handlers.remove(kinds)
    assert str(response) == (ANSWER if nodes else "Empty Response")
    assert response.metadata["calls"] == len(nodes)
    assert [type(event) for event in kinds.seen if "Synthesize" in type(event).__name__] == [
        SynthesizeStartEvent,
        SynthesizeEndEvent,
    ]
    ((start, end),) = debug.get_event_pairs(CBEventType.SYNTHESIZE)
    assert (start.payload["query_str"], str(end.payload["response"])) == (QUESTION, str(response))


@APIS
async def test_streaming_types_and_empty_response(api: str) -> None:
    """Streaming, `output_cls` and `empty_response` work as in any synthesizer."""

    class Number(BaseModel):
        value: int

    stream = await answer(RLMSynthesizer(finder(), streaming=True), api)
    assert isinstance(stream, StreamingResponse if api == "sync" else AsyncStreamingResponse)
    assert (
        stream.get_response() if api == "sync" else await stream.get_response()
    ).response == ANSWER
    typed = await answer(RLMSynthesizer(finder(final('{"value": 1}')), output_cls=Number), api)
    assert isinstance(typed, PydanticResponse)
    assert typed.value == 1
    assert (
        str(await answer(RLMSynthesizer(finder(), empty_response="nobody knows"), api, []))
        == "nobody knows"
    )


@APIS
async def test_texts_without_nodes(api: str) -> None:
    """`get_response`, which summarizers call, answers from texts; additional nodes follow the
    citations.
    """
    synthesizer = RLMSynthesizer(finder())
    said = (
        synthesizer.get_response(QUESTION, [TEXT])
        if api == "sync"
        else await synthesizer.aget_response(QUESTION, [TEXT])
    )
    assert said == ANSWER
    more = [NodeWithScore(node=TextNode(text="besides"))]
    assert needles((await answer(synthesizer, api, additional_source_nodes=more)).source_nodes) == [
        NEEDLE,
        "besides",
    ]
    streaming = RLMSynthesizer(finder(), streaming=True)
    pieces = (
        streaming.get_response(QUESTION, [TEXT])
        if api == "sync"
        else await streaming.aget_response(QUESTION, [TEXT])
    )
    assert "".join(pieces if api == "sync" else [piece async for piece in pieces]) == ANSWER


async def test_prompts_and_an_rlm() -> None:
    """Its one prompt can be changed through a pipeline; `from_rlm` takes an RLM unchanged."""
    root = finder()
    synthesizer = RLMSynthesizer.from_rlm(RLM(root))
    index = VectorStoreIndex([NODES[0].node], embed_model=MockEmbedding(embed_dim=2))
    engine = RetrieverQueryEngine(index.as_retriever(), response_synthesizer=synthesizer)
    assert list(engine.get_prompts()) == ["response_synthesizer:question_template"]
    engine.update_prompts(
        {"response_synthesizer:question_template": PromptTemplate("Please: {query_str}")}
    )
    assert str(await engine.aquery(QUESTION)) == ANSWER
    assert root.requests[0].query == f"Please: {QUESTION}"
    with pytest.raises(
        InputError, match="an RLM already has its options: pass max_depth, sub_llm to RLM"
    ):
        RLMSynthesizer(RLM(root), "offline", max_depth=2)


def test_it_is_a_synthesizer() -> None:
    """It is a LlamaIndex synthesizer, but not one of its response modes: it is passed as an
    object.
    """
    assert issubclass(RLMSynthesizer, BaseSynthesizer)
    Settings.llm = scripted_llm()
    assert type(get_response_synthesizer(response_mode="tree_summarize")) is not RLMSynthesizer
    with pytest.raises(InputError, match="create the object again"):
        pickle.dumps(RLMSynthesizer(finder()))
