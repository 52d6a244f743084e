"""Models given by name: LlamaIndex's tracers and counters see their calls like those of its own
objects.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX, QUESTION, TEXT, finder, root_or_sub

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, Settings
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.errors import ModelError
from rlm_integrations.llama_index import LLMBatch, RLMQueryEngine, RLMSynthesizer, traced
from rlm_integrations.records import Request
from tests.standin import Fault, StandIn

# Of OpenInference
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
APIS = pytest.mark.parametrize("api", ["sync", "async"])
DOCUMENT = Document(text=TEXT, id_="doc-1")


@pytest.fixture
def named(provider: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The provider at OPENAI_BASE_URL."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    provider.change(scripts={"gpt-5": root_or_sub})
    return provider


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield kept
    instrumentor.uninstrument()


@APIS
@pytest.mark.parametrize("where", ["Settings", "engine"])
async def test_tokens_are_counted(named: StandIn, api: str, where: str) -> None:
    """A TokenCountingHandler counts root and sub-calls like the provider, in `Settings` or in the
    engine.
    """
    counter = TokenCountingHandler(tokenizer=str.split)
    manager = CallbackManager([counter])
    options: Any = {} if where == "Settings" else {"callback_manager": manager}
    if where == "Settings":
        Settings.callback_manager = manager
    engine = RLMQueryEngine.from_defaults(DOCUMENT, llm="gpt-5", sub_llm="gpt-5-mini", **options)
    response = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    assert (response.metadata["calls"], len(counter.llm_token_counts)) == (5, 5)
    assert counter.total_llm_token_count == response.metadata["tokens"] > 0


@APIS
@pytest.mark.parametrize("what", ["engine", "rlm", "synthesizer", "batch"])
async def test_calls_are_in_the_trace(
    named: StandIn, exporter: InMemorySpanExporter, api: str, what: str
) -> None:
    """Each call is a span of kind LLM with its model and tokens, in the one trace of the query."""
    sync, model = api == "sync", OpenAILM("gpt-5")
    if what == "batch":
        _ = (
            LLMBatch("gpt-5-mini").run(["a", "b"])
            if sync
            else await LLMBatch("gpt-5-mini").arun(["a", "b"])
        )
        calls = 2
    elif what == "synthesizer":
        synthesizer = RLMSynthesizer("gpt-5", "gpt-5-mini")
        _ = (
            synthesizer.get_response(QUESTION, [TEXT])
            if sync
            else await synthesizer.aget_response(QUESTION, [TEXT])
        )
        calls = 5
    else:
        rlm = RLM(model, "gpt-5-mini")
        engine = (
            RLMQueryEngine.from_rlm(rlm, DOCUMENT)
            if what == "rlm"
            else RLMQueryEngine.from_defaults(DOCUMENT, llm=model)
        )
        _ = engine.query(QUESTION) if sync else await engine.aquery(QUESTION)
        calls = 5
    spans = exporter.get_finished_spans()
    llm = [span for span in spans if span.attributes["openinference.span.kind"] == "LLM"]
    assert len({span.context.trace_id for span in spans}) == 1
    assert (len(llm), {span.name for span in llm}) == (calls, {"NamedModel.achat"})
    assert all(span.attributes["llm.token_count.total"] > 0 for span in llm)
    models = Counter(span.attributes["llm.model_name"] for span in llm)
    assert models == (
        {"gpt-5-mini": 2}
        if what == "batch"
        else {"gpt-5": 5}
        if what == "engine"
        else {"gpt-5": 1, "gpt-5-mini": 4}
    )


async def test_a_failed_call_is_reported(named: StandIn) -> None:
    """The callbacks of a failed call end with its error, and the call raises that error."""
    ended: list[Any] = []

    class Ends(TokenCountingHandler):
        def on_event_end(
            self, event_type: CBEventType, payload: Any = None, event_id: str = "", **_: Any
        ) -> None:
            if event_type == CBEventType.LLM:
                ended.append(payload)

    named.change(faults=[Fault("bad_request")])
    engine = RLMQueryEngine.from_defaults(
        DOCUMENT, llm="gpt-5", callback_manager=CallbackManager([Ends(tokenizer=str.split)])
    )
    with pytest.raises(ModelError):
        await engine.aquery(QUESTION)
    assert [type(payload[EventPayload.EXCEPTION]) for payload in ended] == [ModelError]


async def test_without_handlers_no_events_are_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without handlers, no LlamaIndex message or event is created."""

    def made(**_: Any) -> Any:
        raise AssertionError("an object of LlamaIndex was made")

    monkeypatch.setattr(traced, "NamedModel", made)
    root = finder()
    model = traced.traced(root, lambda: CallbackManager([]))
    assert (await model.complete(Request((), role="root", query=QUESTION))).text == (
        await root.complete(root.requests[0])
    ).text
    assert traced.traced(model, lambda: CallbackManager([])) is model
