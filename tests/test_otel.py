"""The export to OpenTelemetry, with an exporter that keeps all spans in memory."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rlm_integrations import RLM, Retry, RLMResult, allm_batch, llm_batch
from rlm_integrations.errors import MissingExtraError, ModelError
from rlm_integrations.events import CallFinished, CallStarted, Event, RunFinished, RunStarted
from rlm_integrations.otel import OTelHook
from rlm_integrations.otel.values import MAX_CONTENT_CHARS, provider_name
from rlm_integrations.records import CallRecord, Completion, Message, Request, Usage
from rlm_integrations.storage import Storage

SECRET = "swordfish"
CHILD = f"Of what {SECRET}?"


def block(code: str) -> str:
    return f"```repl\n{code}\n```"


def lookup(word: str) -> str:
    """Look up a word."""
    if word == "bad":
        raise ValueError(SECRET)
    return f"found {word}"


class Model:
    """A root that gives its replies in turn, and a sub-model that answers, hangs or fails."""

    context_window = None

    def __init__(self, *replies: str, name: str = "gpt-5-mini") -> None:
        self.name = name
        self.replies = replies
        self.hanging = asyncio.Event()
        self.failures = 0

    def cache_identity(self, _: Request) -> str:
        return self.name

    async def complete(self, request: Request) -> Completion:
        asked = request.messages[-1].content
        if request.role == "root" and request.depth:
            text = block("FINAL(llm_query('in the child'))")
        elif request.role == "root":
            text = self.replies[sum(each.role == "assistant" for each in request.messages)]
        elif "hang" in asked:
            self.hanging.set()
            await asyncio.Event().wait()
        elif "fail" in asked:
            raise ModelError(f"no {SECRET}", type="refusal")
        elif "flaky" in asked and not self.failures:
            self.failures += 1
            raise ModelError("busy", type="server", retryable=True)
        else:
            text = f"a {SECRET} answer"
        usage = Usage(20_000, 30, cached_tokens=7, reasoning_tokens=5)
        return Completion(text, usage, f"{self.name}-2026", "stop")


class Telemetry:
    """A hook, and what it exported."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._metrics])
        self.tracer = tracers.get_tracer("the user's")
        self.hook = OTelHook(tracer_provider=tracers, meter_provider=self._meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """All ended spans, by their start."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """The names of all spans, indented below their parents. Checks that each child is within
        the time of its parent, and that nothing is left open.
        """
        assert self.hook._scopes == {}
        spans = {span.context.span_id: span for span in self.spans if span.context}
        depths = {0: -1}
        lines = []
        below: dict[int, list[int]] = {}
        for id_, span in spans.items():
            above = 0 if span.parent is None else span.parent.span_id
            below.setdefault(above, []).append(id_)
            if above:
                outer = spans[above]
                assert (outer.start_time or 0) <= (span.start_time or 0)
                assert (span.end_time or 0) <= (outer.end_time or 0)
        waiting = below.get(0, [])[::-1]
        while waiting:
            id_ = waiting.pop()
            parent = spans[id_].parent
            depths[id_] = depths[0 if parent is None else parent.span_id] + 1
            lines.append("  " * depths[id_] + spans[id_].name)
            waiting += below.get(id_, [])[::-1]
        assert len(lines) == len(spans)
        return lines

    def one(self, name: str, number: int = 0) -> ReadableSpan:
        """The span of this name, the first or a later one."""
        return [span for span in self.spans if span.name == name][number]

    def totals(self) -> dict[str, float]:
        """The sum of each metric; of the duration, the number of calls."""
        data = self._metrics.get_metrics_data()
        found: dict[str, float] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        is_histogram = isinstance(point, HistogramDataPoint)
                        value = point.count if is_histogram else point.value  # type: ignore[union-attr]
                        found[metric.name] = found.get(metric.name, 0) + value
        self._meters.shutdown()
        return found


PROGRAM = (
    block("replies = llm_batch(['a', 'b'])\nlookup('x')"),
    block(f"recursive_lm({CHILD!r}, context[:20])\nstore.create('note', 'd', 'c')"),
    block(f"print({SECRET!r})\nFINAL(replies[0])"),
)
TREE = """\
mine
  invoke_agent rlm
    turn
      chat gpt-5-mini
      execute_tool repl
        batch
          chat gpt-5-mini
          chat gpt-5-mini
        execute_tool lookup
    turn
      chat gpt-5-mini
      execute_tool repl
        invoke_agent rlm
          turn
            chat gpt-5-mini
            execute_tool repl
              chat gpt-5-mini
        execute_tool store.create
    turn
      chat gpt-5-mini
      execute_tool repl""".splitlines()


def ask(rlm: RLM) -> None:
    rlm.completion(f"Who is {SECRET}?", f"The {SECRET} is here. " * 50)


def ask_in_a_loop(rlm: RLM) -> None:
    asyncio.run(_ask(rlm))


async def _ask(rlm: RLM) -> None:
    await rlm.acompletion("q", "text " * 50)


def read_a_stream(rlm: RLM) -> None:
    assert isinstance(list(rlm.stream("q", "text " * 50))[-1], RunFinished)


def ask_in_a_session(rlm: RLM) -> None:
    with rlm.session("text " * 50) as chat:
        chat.completion("q")


@pytest.mark.parametrize("door", [ask, ask_in_a_loop, read_a_stream, ask_in_a_session])
def test_the_tree_of_a_run(door: Callable[[RLM], None]) -> None:
    """Runs, turns, blocks, batches, calls, tools and child runs nest below the caller's current
    span, whichever way the run is started.
    """
    told = Telemetry()
    rlm = RLM(Model(*PROGRAM), max_depth=2, tools=[lookup], on_event=told.hook)
    with told.tracer.start_as_current_span("mine"):
        door(rlm)
    assert told.tree() == TREE


def test_attributes_and_metrics() -> None:
    """Spans have the names and numbers of the conventions; the metrics count each call once."""
    told = Telemetry()
    ask(RLM(Model(*PROGRAM), max_depth=2, tools=[lookup], on_event=told.hook))
    call = told.one("chat gpt-5-mini", 1)
    path = call.attributes["rlm.call.path"]  # type: ignore[index]
    assert call.kind is SpanKind.CLIENT
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.model": "gpt-5-mini-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20_000,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "rlm.call.path": path,
        "rlm.call.retries": 0,
        "rlm.call.wait": call.attributes["rlm.call.wait"],  # type: ignore[index]
    }
    run = dict(told.one("invoke_agent rlm").attributes or {})
    assert run.pop("rlm.run.id")
    assert run == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "rlm",
        "rlm.run.path": "r",
        "rlm.run.depth": 0,
        "rlm.document.characters": 1_150,
        "rlm.stop_reason": "final",
    }
    tool = dict(told.one("execute_tool lookup").attributes or {})
    assert tool.pop("gen_ai.tool.name") == "lookup"
    assert tool.pop("gen_ai.operation.name") == "execute_tool"
    assert {span.status.status_code for span in told.spans} == {StatusCode.UNSET}
    assert told.totals() == {
        "gen_ai.client.inference.duration": 7,
        "gen_ai.client.inference.usage.input_tokens": 7 * 20_000,
        "gen_ai.client.inference.usage.output_tokens": 7 * 30,
        "gen_ai.client.inference.usage.cache_read.input_tokens": 7 * 7,
        "gen_ai.client.inference.usage.reasoning.output_tokens": 7 * 5,
    }


def test_no_content_by_default() -> None:
    """Neither question, document, prompts, replies, code, output, arguments nor messages of errors
    are exported.
    """
    told = Telemetry()
    code = f"llm_batch(['fail {SECRET}', 'b'])\nlookup('{SECRET}')\nlookup('bad')"
    program = (
        block(code),
        *PROGRAM[1:2],
        block(f"raise ValueError({SECRET!r})"),
        block("FINAL(1)"),
    )
    ask(RLM(Model(*program), max_depth=2, tools=[lookup], on_event=told.hook))
    assert SECRET not in "".join(span.to_json() for span in told.spans)
    assert told.one("execute_tool lookup", 1).attributes["error.type"] == "ValueError"  # type: ignore[index]


def test_content_on_request() -> None:
    """With `include_content` prompts, replies, code, output, question and answer are exported as
    JSON in the form of the conventions, without the ends of long ones.
    """
    told = Telemetry(include_content=True)
    ask(RLM(Model(*PROGRAM), max_depth=2, tools=[lookup], on_event=told.hook))

    def content(span: ReadableSpan, name: str) -> Any:
        return json.loads((span.attributes or {})[name])  # type: ignore[arg-type]

    run, call = told.one("invoke_agent rlm"), told.one("chat gpt-5-mini", 1)
    question = {"type": "text", "content": f"Who is {SECRET}?"}
    assert content(run, "gen_ai.input.messages") == [{"role": "user", "parts": [question]}]
    (message,) = content(call, "gen_ai.output.messages")
    assert message == {
        "role": "assistant",
        "parts": [{"type": "text", "content": f"a {SECRET} answer"}],
        "finish_reason": "stop",
    }
    last = told.one("execute_tool repl", 3)
    assert SECRET in content(last, "gen_ai.tool.call.arguments")["code"]
    assert content(last, "gen_ai.tool.call.result") == f"{SECRET}\n"
    assert "'x'" in content(told.one("execute_tool lookup"), "gen_ai.tool.call.arguments")

    told = Telemetry(include_content=True)
    asyncio.run(allm_batch(["x" * (MAX_CONTENT_CHARS + 5)], Model(), on_event=told.hook))
    (message,) = content(told.one("chat gpt-5-mini"), "gen_ai.input.messages")
    assert message["parts"][0]["content"] == "x" * MAX_CONTENT_CHARS + "… 5 characters left out"


def test_failed_calls_and_retries() -> None:
    """A call that fails is an error with its type, and a retry an event; the batch goes on."""
    told = Telemetry()
    retry = Retry(first_delay=0.001)
    with told.tracer.start_as_current_span("mine"):
        llm_batch(
            ["flaky", "fail", "a"], Model(), max_concurrent=1, on_event=told.hook, retry=retry
        )
    assert told.tree() == ["mine", "  batch", *["    chat gpt-5-mini"] * 3]
    retried, failed, _ = (told.one("chat gpt-5-mini", number) for number in range(3))
    assert [event.name for event in retried.events] == ["retry"]
    assert (retried.events[0].attributes or {})["error.type"] == "server"
    assert retried.status.status_code is StatusCode.UNSET
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "refusal")
    batch = told.one("batch").attributes or {}
    assert (batch["rlm.batch.total"], batch["rlm.batch.failed"]) == (3, 1)
    assert told.totals()["gen_ai.client.inference.usage.output_tokens"] == 60


async def test_a_cancelled_run() -> None:
    """All that was under way is an error of the type "cancelled", and ends with the run."""
    told, model = Telemetry(), Model(block("llm_batch(['a', 'hang', 'hang'])"))
    rlm = RLM(model, on_event=told.hook)
    task = asyncio.ensure_future(rlm.acompletion("q", "text " * 50))
    await model.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lines = told.tree()
    assert lines[:5] == [
        "invoke_agent rlm",
        "  turn",
        "    chat gpt-5-mini",
        "    execute_tool repl",
        "      batch",
    ]
    errors = {span.name: (span.attributes or {}).get("error.type") for span in told.spans}
    assert errors["invoke_agent rlm"] == errors["batch"] == "cancelled"
    assert errors["execute_tool repl"] == "interrupted"
    assert errors["chat gpt-5-mini"] == "cancelled"
    assert told.one("chat gpt-5-mini").status.status_code is StatusCode.UNSET


def test_a_run_that_raises() -> None:
    """A run that raises is an error with the exception's name, and its turn ends."""
    told = Telemetry()

    class Failing(Model):
        async def complete(self, request: Request) -> Completion:
            raise ModelError(f"no {SECRET}", type="not_found")

    with pytest.raises(ModelError):
        ask(RLM(Failing(), on_event=told.hook))
    assert told.tree() == ["invoke_agent rlm", "  turn", "    chat gpt-5-mini"]
    run = told.one("invoke_agent rlm")
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "ModelError")
    assert (run.attributes or {})["rlm.stop_reason"] == "model_error"


async def test_runs_at_once_have_traces_of_their_own() -> None:
    """One hook serves many runs at once."""
    told = Telemetry()
    rlm = RLM(Model(*PROGRAM), max_depth=2, tools=[lookup], on_event=told.hook)
    await asyncio.gather(*(rlm.acompletion("q", "text " * 50) for _ in range(3)))
    whole = [line.removeprefix("  ") for line in TREE[1:]]
    assert sorted(told.tree()) == sorted(whole * 3)
    assert len({span.context.trace_id for span in told.spans if span.context}) == 3


async def test_replayed_and_cached_calls(tmp_path: Path) -> None:
    """A resumed run marks the calls that it takes from its journal, and a run with a cache those
    that it answers; only new ones have tokens and are in the metrics.
    """
    with Storage(tmp_path) as storage:
        model = Model(block("a = llm_query('a')\nb = llm_query('hang')"), block("FINAL(a + b)"))
        rlm = RLM(model, storage=storage)
        task = asyncio.ensure_future(rlm.acompletion("q", "text " * 50, run_id="one"))
        await model.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        told = Telemetry()
        again = RLM(_Answering(*model.replies), storage=storage, on_event=told.hook)
        await again.aresume("one")
        assert told.tree() == [
            "invoke_agent rlm",
            "  turn",
            "    replay gpt-5-mini",
            "    execute_tool repl",
            "      replay gpt-5-mini",
            "      chat gpt-5-mini",
            "  turn",
            "    chat gpt-5-mini",
            "    execute_tool repl",
        ]
        replayed = told.one("replay gpt-5-mini").attributes or {}
        assert replayed["rlm.replayed"] is True
        assert not [name for name in replayed if name.startswith("gen_ai.usage")]
        assert told.totals()["gen_ai.client.inference.duration"] == 2

        told = Telemetry()
        for hook in (None, told.hook):
            cached = RLM(_Answering(*model.replies), storage=storage, cache=True, on_event=hook)
            await cached.acompletion("q", "other text " * 50)
        names = {span.name for span in told.spans}
        assert "cache gpt-5-mini" in names
        assert "chat gpt-5-mini" not in names
        assert (told.one("cache gpt-5-mini").attributes or {})["rlm.cached"] is True
        assert told.totals() == {}


class _Answering(Model):
    """Its sub-model always answers."""

    async def complete(self, request: Request) -> Completion:
        if request.role == "sub":
            request = Request((Message("user", "a"),))
        return await super().complete(request)


def test_names_of_providers_and_models() -> None:
    """The provider is the given one, or follows from the model's name. Half of a surrogate pair in
    a name, as servers send it, is replaced, so that it can be exported.
    """
    assert [provider_name(name, None) for name in ("claude-5", "gpt-5", "x")] == [
        "anthropic",
        "openai",
        "_OTHER",
    ]
    assert provider_name("gpt-5", "azure.ai.openai") == "azure.ai.openai"
    assert provider_name("mine", {"mine": "groq"}) == "groq"
    assert provider_name("gpt-5", {"mine": "groq"}) == "openai"
    told = Telemetry(provider="groq")
    record = CallRecord(reply="yes", model="m\ud83d")
    run = RunStarted(id="run-1", query="q", path="r", depth=0, characters=1)
    at = {"id": "call-1", "parent": "run-1"}
    events: list[Event] = [
        run,
        CallStarted(**at, model="m\ud83d", request=Request(())),
        CallFinished(**at, record=record),
        RunFinished(id="run-1", result=RLMResult(answer="")),
    ]
    for event in events:
        told.hook(event)
    assert told.tree() == ["invoke_agent rlm", "  chat m?"]
    assert (told.one("chat m?").attributes or {})["gen_ai.provider.name"] == "groq"


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry, the hook says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"rlm-integrations\[otel\]"):
        OTelHook()
