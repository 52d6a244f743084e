"""The engine inside LlamaIndex's own engines, chat engines and evaluators."""

import json
from collections.abc import Callable
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
    needles,
    questions,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import (
    ComposableGraph,
    Document,
    Settings,
    SummaryIndex,
    VectorStoreIndex,
    get_response_synthesizer,
)
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import BatchEvalRunner, FaithfulnessEvaluator, RelevancyEvaluator
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import CustomLLM, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
    RetryQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector

from rlm_integrations.llama_index import RLMQueryEngine, RLMSynthesizer, as_query_engine_tool
from tests.engine.conftest import Scripted, final

APIS = pytest.mark.parametrize("api", ["sync", "async"])


def engine_of(root: Any = None, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(
        Document(text=TEXT, id_="doc-1"), llm=root or finder(), **options
    )


class Says(CustomLLM):
    """A model that answers each prompt with a function."""

    reply: Callable[[str], str]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.reply(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def saying(text: str) -> Says:
    return Says(reply=lambda _: text)


async def ask(engine: Any, api: str) -> Any:
    return engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)


def vector_engine() -> Any:
    index = VectorStoreIndex.from_documents(
        [Document(text="hay")], embed_model=MockEmbedding(embed_dim=2)
    )
    return index.as_query_engine(llm=MockLLM())


@APIS
async def test_in_a_router(api: str) -> None:
    """A router chooses between a vector engine and this one, and writes its choice into the
    response's metadata.
    """
    tools = [
        as_query_engine_tool(vector_engine(), "vectors", "for facts"),
        as_query_engine_tool(engine_of(), "whole", "for all the text"),
    ]
    selector = LLMSingleSelector.from_defaults(
        saying(json.dumps([{"choice": 2, "reason": "long"}]))
    )
    response = await ask(RouterQueryEngine(selector, tools, llm=MockLLM()), api)
    assert str(response) == ANSWER
    assert response.metadata["selector_result"].ind == 1
    both = LLMMultiSelector.from_defaults(
        saying(json.dumps([{"choice": 1, "reason": ""}, {"choice": 2, "reason": ""}]))
    )
    combined = await ask(RouterQueryEngine(both, tools, llm=MockLLM()), api)
    assert ANSWER in str(combined)
    assert NEEDLE in needles(combined.source_nodes)


@APIS
async def test_for_sub_questions(api: str) -> None:
    """Sub-questions run concurrently, with their sources in the response; the synthesizer can
    combine their answers.
    """
    asked = json.dumps(
        [
            {"sub_question": f"Question {number}?", "tool_name": "ask_document"}
            for number in range(3)
        ]
    )
    root = finder()
    engine = SubQuestionQueryEngine(
        LLMQuestionGenerator.from_defaults(saying(f"```json\n{asked}\n```")),
        RLMSynthesizer(Scripted([final('"|".join(context)')])),
        [as_query_engine_tool(engine_of(root))],
        verbose=False,
        use_async=api == "async",
    )
    response = await ask(engine, api)
    assert sorted(questions(root)) == ["Question 0?", "Question 1?", "Question 2?"]
    assert str(response).count(f"Response: {ANSWER}") == 3
    assert needles(response.source_nodes) == [NEEDLE] * 3


def test_in_a_retry() -> None:
    """RetryQueryEngine asks again with the evaluator's feedback, and the evaluator reads the
    citations.
    """
    verdicts = iter(["NO", "YES"])
    root = finder()
    evaluator = RelevancyEvaluator(llm=Says(reply=lambda _: next(verdicts)))
    Settings.llm = MockLLM()  # which LlamaIndex's transformation of the question needs
    response = RetryQueryEngine(engine_of(root), evaluator).query(QUESTION)
    assert str(response) == ANSWER
    assert len(questions(root)) == 2
    assert ANSWER in questions(root)[1]


class Politely(BaseQueryTransform):
    """Makes every question polite."""

    def _run(self, query_bundle: QueryBundle, metadata: Any) -> QueryBundle:
        return QueryBundle(f"Please: {query_bundle.query_str}")

    def _get_prompts(self) -> Any:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        pass


@APIS
async def test_behind_a_transformation(api: str) -> None:
    """TransformQueryEngine's four methods, and its prompts, reach the engine's."""
    root = finder()
    engine = TransformQueryEngine(engine_of(root), Politely())
    assert str(await ask(engine, api)) == ANSWER
    nodes = engine.retrieve(QueryBundle(QUESTION))
    assert [node.node.start_char_idx for node in nodes] == [AT]
    response = (
        engine.synthesize(QueryBundle(QUESTION), nodes)
        if api == "sync"
        else await engine.asynthesize(QueryBundle(QUESTION), nodes)
    )
    assert str(response) == ANSWER
    assert set(questions(root)) == {f"Please: {QUESTION}"}
    assert list(engine.get_prompts()) == ["query_engine:question_template"]


def memory() -> ChatMemoryBuffer:
    """LlamaIndex's older memory: the newer one leaves its database open."""
    return ChatMemoryBuffer.from_defaults(tokenizer_fn=str.split)


async def test_in_a_chat() -> None:
    """All four methods of CondenseQuestionChatEngine work; it streams if the engine does, and can
    switch a synthesizer's streaming.
    """
    llm = saying("What of the needle?")
    root = finder()
    chat = CondenseQuestionChatEngine.from_defaults(engine_of(root), llm=llm, memory=memory())
    reply = chat.chat("Hello?")
    assert (reply.response, len(reply.source_nodes)) == (ANSWER, 1)
    assert (await chat.achat("And?", chat_history=[ChatMessage("before")])).response == ANSWER
    assert questions(root) == ["Hello?", "What of the needle?"]
    streaming = CondenseQuestionChatEngine.from_defaults(
        engine_of(streaming=True), llm=llm, memory=memory()
    )
    stream = streaming.stream_chat("Hello?")
    assert "".join(stream.response_gen) == ANSWER
    astream = await streaming.astream_chat("And?")
    assert "".join([piece async for piece in astream.async_response_gen()]) == ANSWER
    assert [message.content for message in streaming.chat_history][1::2] == [ANSWER, ANSWER]
    retriever = SummaryIndex.from_documents([Document(text=TEXT)]).as_retriever()
    pipeline = RetrieverQueryEngine(retriever, response_synthesizer=RLMSynthesizer(finder()))
    switched = CondenseQuestionChatEngine.from_defaults(pipeline, llm=llm, memory=memory())
    assert "".join(switched.stream_chat("Hello?").response_gen) == ANSWER
    assert switched.chat("Hello?").response == ANSWER


def test_in_a_graph() -> None:
    """A graph of indices gets the evidence of a sub-index from the engine, and combines it."""
    index = SummaryIndex.from_documents([Document(text=TEXT, id_="doc-1")])
    graph = ComposableGraph.from_indices(
        SummaryIndex, [index], ["All of it."], storage_context=index.storage_context
    )
    engine = graph.as_query_engine(
        custom_query_engines={index.index_id: engine_of()},
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        llm=MockLLM(),
    )
    response = engine.query(QUESTION)
    assert ANSWER in str(response)
    assert NEEDLE in needles(response.source_nodes)


# LlamaIndex's runner uses its own old name
@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")
async def test_under_evaluators() -> None:
    """BatchEvalRunner queries the engine, and evaluators read its responses and citations."""
    llm = Says(reply=lambda prompt: "YES" if NEEDLE in prompt else "NO")
    runner = BatchEvalRunner(
        {"faithful": FaithfulnessEvaluator(llm=llm), "relevant": RelevancyEvaluator(llm=llm)},
        workers=2,
    )
    found = await runner.aevaluate_queries(
        engine_of(streaming=True).without_streaming(), queries=[QUESTION, "And?"]
    )
    assert {name: [each.passing for each in results] for name, results in found.items()} == {
        "faithful": [True, True],
        "relevant": [True, True],
    }
