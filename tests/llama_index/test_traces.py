"""Tracers and handlers receive one trace, every token and the progress, and never the document."""

import asyncio
import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    HAY,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    STRAW,
    TEXT,
    calling_llm,
    finder,
    root_or_sub,
    scripted_llm,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatStartEvent
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, TextNode
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rlm_integrations.llama_index import (
    LLMBatch,
    RLMProgressEvent,
    RLMQueryEngine,
    RLMStoreRetriever,
    RLMSynthesizer,
    as_query_engine_tool,
)
from tests.engine.conftest import Scripted, code, overlong
from tests.lm._foreign import MODEL, foreign
from tests.standin import StandIn

# OpenInference still calls pydantic's `json`; where that raises, its spans are lost.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
KINDS = pytest.mark.parametrize("kind", ["OpenAI", "OpenAILike"])
APIS = pytest.mark.parametrize("api", ["sync", "async"])
NODES = [NodeWithScore(node=TextNode(text=TEXT, id_="n1"))]
CALLS = 5


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """OpenInference's instrumentation, into memory."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield kept
    instrumentor.uninstrument()


def engine_of(llm: Any, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(Document(text=TEXT, id_="doc-1"), llm=llm, **options)


def whole(spans: tuple[ReadableSpan, ...]) -> ReadableSpan:
    """The root of the one trace that contains all spans."""
    ids = {span.context.span_id for span in spans}
    assert len({span.context.trace_id for span in spans}) == 1
    (root,) = [span for span in spans if span.parent is None]
    assert all(span.parent.span_id in ids for span in spans if span is not root)
    return root


def does_not_show(text: str) -> bool:
    return HAY[:200] not in text and STRAW[:200] not in text


@KINDS
@APIS
@pytest.mark.parametrize(
    "what", ["query", "stream", "retrieve", "synthesize", "synthesizer", "tool"]
)
async def test_one_trace(
    provider: StandIn,
    exporter: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    api: str,
    what: str,
) -> None:
    """Every query, with either API, is one trace without orphans, and the document is only in the
    spans of model calls. The tracer logs no errors.
    """
    provider.change(scripts={MODEL: root_or_sub})
    engine = engine_of(foreign(kind, provider.base_url), streaming=what == "stream")
    sync = api == "sync"
    if what in {"query", "stream"}:
        response = engine.query(QUESTION) if sync else await engine.aquery(QUESTION)
        if what == "stream":
            _ = response.get_response() if sync else await response.get_response()
    elif what == "retrieve":
        _ = engine.retrieve(QUESTION) if sync else await engine.aretrieve(QUESTION)
    elif what == "synthesize":
        _ = (
            engine.synthesize(QUESTION, NODES, NODES)
            if sync
            else await engine.asynthesize(QUESTION, NODES, NODES)
        )
    elif what == "synthesizer":
        synthesizer = RLMSynthesizer(foreign(kind, provider.base_url))
        _ = (
            synthesizer.get_response(QUESTION, [TEXT])
            if sync
            else await synthesizer.aget_response(QUESTION, [TEXT])
        )
    else:
        tool = as_query_engine_tool(engine)
        _ = tool.call(QUESTION) if sync else await tool.acall(QUESTION)
    await until(
        lambda: all(span.end_time for span in exporter.get_finished_spans()) and roots(exporter)
    )
    spans = exporter.get_finished_spans()
    names = {"query": "query", "stream": "query", "retrieve": "retrieve", "tool": "call"}
    owner = (
        "RLMSynthesizer"
        if "synth" in what
        else "RLMEngineTool"
        if what == "tool"
        else "RLMQueryEngine"
    )
    assert whole(spans).name == f"{owner}.{'' if sync else 'a'}{names.get(what, 'synthesize')}"
    counted = Counter(span.name for span in spans)
    assert counted[f"{kind}.{'chat' if sync else 'achat'}"] == (
        CALLS if kind == "OpenAI" else 2 * CALLS
    )
    for span in spans:
        if not span.name.startswith(kind):
            assert does_not_show(str(dict(span.attributes)))
    assert caplog.messages == []


async def test_an_agents_trace(exporter: InMemorySpanExporter) -> None:
    """In an agent, the engine's spans are part of the agent's one trace."""
    tool = as_query_engine_tool(engine_of(scripted_llm()))
    assert (
        str(
            await FunctionAgent(tools=[tool], llm=calling_llm("ask_document"), streaming=False).run(
                QUESTION
            )
        )
        == f"It says: {ANSWER}"
    )
    await until(lambda: roots(exporter))
    spans = exporter.get_finished_spans()
    assert whole(spans).name == "FunctionAgent.run"
    assert "RLMQueryEngine._aquery" in {span.name for span in spans}


def roots(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.parent is None]


async def until(holds: Any) -> None:
    """Wait: OpenInference ends spans of streams in its own thread, a little later."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


@APIS
async def test_a_batch_is_one_trace(
    provider: StandIn, exporter: InMemorySpanExporter, api: str
) -> None:
    """A batch is one span, whose arguments do not repeat the prompts, over those of its calls."""
    batch, prompts = (
        LLMBatch(foreign("OpenAI", provider.base_url)),
        [f"prompt {number}" for number in range(4)],
    )
    _ = batch.run(prompts) if api == "sync" else await batch.arun(prompts)
    spans = exporter.get_finished_spans()
    root = whole(spans)
    assert root.name == ("LLMBatch.run" if api == "sync" else "LLMBatch.arun")
    assert "<4 items>" in root.attributes["input.value"]
    assert len(spans) == 5


class Dumps(SimpleSpanHandler):
    """Serializes the arguments and results of spans completely, as a tracer might."""

    dumped: list[tuple[str, str]] = []  # noqa: RUF012 - a field of pydantic, which copies it

    def new_span(
        self, id_: str, bound_args: inspect.BoundArguments, *args: Any, **kwargs: Any
    ) -> SimpleSpan | None:
        self.dumped.append((id_, f"{bound_args.arguments} {vars(bound_args)}"))
        return super().new_span(id_, bound_args, *args, **kwargs)

    def prepare_to_exit_span(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> SimpleSpan | None:
        self.dumped.append((id_, f"{result!r} {result}"))
        return super().prepare_to_exit_span(id_, bound_args, instance, result, **kwargs)


class Told(BaseEventHandler):
    """Records events."""

    events: list[Any] = []  # noqa: RUF012 - a field of pydantic, which copies it

    @classmethod
    def class_name(cls) -> str:
        return "Told"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)


@pytest.fixture
def dumps() -> Iterator[Dumps]:
    handler, root = Dumps(), get_dispatcher()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


@pytest.fixture
def told() -> Iterator[list[Any]]:
    handler, root = Told(events=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.events
    root.event_handlers.remove(handler)


@APIS
async def test_no_span_contains_the_document(dumps: Dumps, told: list[Any], api: str) -> None:
    """No argument or result of a span, however a tracer serializes it, and no event contains the
    document. Nodes passed as arguments are hidden.
    """
    engine, sync = engine_of(finder()), api == "sync"
    _ = engine.query(QUESTION) if sync else await engine.aquery(QUESTION)
    _ = engine.retrieve(QUESTION) if sync else await engine.aretrieve(QUESTION)
    _ = (
        engine.synthesize(QUESTION, NODES, NODES[:0])
        if sync
        else await engine.asynthesize(QUESTION, NODES, NODES[:0])
    )
    retriever = RLMStoreRetriever(engine.last_store)
    _ = retriever.retrieve("needle") if sync else await retriever.aretrieve("needle")
    mine = [(id_, text) for id_, text in dumps.dumped if id_.startswith("RLM")]
    assert len({id_ for id_, _ in mine}) >= 5
    assert any(NEEDLE in text for _, text in mine)
    assert all(does_not_show(text) for _, text in mine)
    assert all(
        does_not_show(str(event))
        for event in told
        if not isinstance(event, LLMChatStartEvent | LLMChatEndEvent)
    )
    assert dumps.open_spans == {}


@KINDS
@APIS
async def test_tokens(
    provider: StandIn, exporter: InMemorySpanExporter, kind: str, api: str
) -> None:
    """The handler of the model's own callbacks, and the traces, count the provider's tokens, each
    once.
    """
    provider.change(scripts={MODEL: root_or_sub})
    counter = TokenCountingHandler(tokenizer=str.split)
    engine = engine_of(
        foreign(kind, provider.base_url, callback_manager=CallbackManager([counter]))
    )
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    usage = engine.last_result.usage[MODEL]
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (
        usage.input_tokens,
        usage.output_tokens,
    )
    assert counter.total_llm_token_count == response.metadata["tokens"]
    assert response.metadata["calls"] == provider.stats().calls == CALLS
    traced = [
        span.attributes.get("llm.token_count.total", 0) for span in exporter.get_finished_spans()
    ]
    assert sum(traced) == response.metadata["tokens"]


@APIS
async def test_progress_as_events(told: list[Any], api: str) -> None:
    """Every step is an instrumentation event that names the query's span."""
    root = Scripted(
        [code("replies = llm_batch([str(n) for n in range(100)])", "FINAL(len(replies))")]
    )
    engine = engine_of(root)
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    assert str(response) == "100"
    events = [event for event in told if isinstance(event, RLMProgressEvent)]
    kinds = [event.progress["kind"] for event in events]
    assert kinds[:3] == ["run_started", "turn_started", "block_started"]
    assert kinds[-2:] == ["block_finished", "turn_finished"]
    span = "RLMQueryEngine._query" if api == "sync" else "RLMQueryEngine._aquery"
    assert {event.query_span_id.partition("-")[0] for event in events} == {span}
    assert all(
        event.class_name() == event.model_dump()["class_name"] == "RLMProgressEvent"
        for event in events
    )


@APIS
async def test_progress_of_a_batch(told: list[Any], api: str) -> None:
    """A batch reports its progress at most twenty times."""
    batch, prompts = LLMBatch(finder()), [str(number) for number in range(100)]
    _ = batch.run(prompts) if api == "sync" else await batch.arun(prompts)
    events = [event.progress for event in told if isinstance(event, RLMProgressEvent)]
    assert (events[0]["kind"], events[-1]["kind"], events[-1]["done"]) == (
        "batch_started",
        "batch_finished",
        100,
    )
    assert 2 < len(events) <= 22


async def test_spans_end_whatever_happens(dumps: Dumps, told: list[Any]) -> None:
    """A query that fails or is cancelled drops its spans and leaves none open."""
    with pytest.raises(ValueError, match="non-empty"):
        await engine_of(finder()).aquery(" ")
    root = Scripted([code("print(llm_query('wait'))")], overlong(30))
    asked = asyncio.create_task(engine_of(root).aquery(QUESTION))
    while not any(request.role == "sub" for request in root.requests):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert dumps.open_spans == {}
    assert sum(isinstance(event, SpanDropEvent) for event in told) == 5
