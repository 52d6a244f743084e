"""The hook that exports events."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.events import (
    BatchFinished,
    BatchStarted,
    BlockFinished,
    BlockStarted,
    CallCached,
    CallFailed,
    CallFinished,
    CallReplayed,
    CallRetried,
    CallStarted,
    ChildFinished,
    Event,
    FunctionCalled,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnFinished,
    TurnStarted,
)
from rlm_integrations.otel.metrics import CallMetrics
from rlm_integrations.otel.values import (
    Attributes,
    content_value,
    messages_value,
    name_value,
    provider_name,
    tool_attributes,
)
from rlm_integrations.records import LLMError, Message
from rlm_integrations.run_setup import VERSION

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from rlm_integrations.otel.spans import Scope

_FAILURES = frozenset({"model_error", "sandbox_lost", "failed", "cancelled"})  # stop reasons


class OTelHook:
    """A hook that exports runs and batches as OpenTelemetry spans and metrics, for
    `RLM(on_event=…)` and `llm_batch(…, on_event=…)`. One hook may serve any number of them at once.

    Args:
        include_content: Whether prompts, replies, questions, answers, code and output are exported.
        provider: The name of the models' provider, such as "openai", or a dict of them by model
            name; by default as the model's name begins, else "_OTHER".
        tracer_provider: Creates the spans; the global one by default.
        meter_provider: Creates the metrics; the global one by default.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        include_content: bool = False,
        provider: str | Mapping[str, str] | None = None,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtraError("OTelHook", "otel") from error
        from rlm_integrations.otel.spans import Scope

        self._include_content = include_content
        self._provider = provider
        name, number = "rlm_integrations", VERSION
        self._tracer = trace.get_tracer(name, number, tracer_provider)
        self._metrics = CallMetrics(metrics.get_meter(name, number, meter_provider))
        self._scope_class = Scope
        self._scopes: dict[str | None, Scope] = {}  # by the ids of runs and batches
        self._handlers: dict[type[Event], Callable[[Any, Scope], None]] = {
            RunFinished: self._end_run,
            RunFailed: self._end_run,
            ChildFinished: self._end_child,
            TurnStarted: self._start_turn,
            TurnFinished: self._end_turn,
            BlockStarted: self._start_block,
            BlockFinished: self._end_block,
            BatchFinished: self._end_batch,
            CallStarted: self._start_call,
            CallRetried: self._retry_call,
            CallFinished: self._end_call,
            CallFailed: self._end_call,
            CallReplayed: self._add_known,
            CallCached: self._add_known,
            FunctionCalled: self._add_function,
        }

    def __call__(self, event: Event) -> None:
        """Export an event."""
        if isinstance(event, RunStarted):
            self._start_run(event)
        elif isinstance(event, BatchStarted):
            self._start_batch(event)
        elif (handler := self._handlers.get(type(event))) is not None:
            # A run and a batch have scopes of their own; a call has that of its parent
            scope = self._scopes.get(event.id) or self._scopes.get(event.parent)
            if scope is not None:
                handler(event, scope)

    # Runs.

    def _start_run(self, event: RunStarted) -> None:
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "rlm",
            "rlm.run.path": event.path,
            "rlm.run.depth": event.depth,
            "rlm.document.characters": event.characters,
        }
        scope = self._open(event, "invoke_agent rlm", attributes)
        self._add_messages(scope.span, "input", [Message("user", event.query)])

    def _end_run(self, event: RunFinished | RunFailed, scope: "Scope") -> None:
        result = event.result
        error = event.error.partition(":")[0] if isinstance(event, RunFailed) else None
        if result is not None:
            scope.span.set_attribute("rlm.run.id", result.run_id)
            scope.span.set_attribute("rlm.stop_reason", result.stop_reason)
            if error is None and result.stop_reason in _FAILURES:
                error = result.stop_reason
            if result.answer:
                self._add_messages(scope.span, "output", [Message("assistant", str(result.answer))])
        self._close(event, scope, error)

    def _end_child(self, event: ChildFinished, scope: "Scope") -> None:
        scope.span.set_attribute("rlm.stop_reason", event.stop_reason)
        self._add_messages(scope.span, "output", [Message("assistant", event.answer)])
        error = event.stop_reason if event.stop_reason in _FAILURES else None
        if isinstance(event.answer, LLMError):
            error = name_value(event.answer.type)
        self._close(event, scope, error)

    def _start_turn(self, event: TurnStarted, scope: "Scope") -> None:
        scope.start_turn(event.at, {"rlm.turn.number": event.iteration})

    def _end_turn(self, event: TurnFinished, scope: "Scope") -> None:
        scope.end_turn(event.at)

    def _start_block(self, event: BlockStarted, scope: "Scope") -> None:
        attributes = tool_attributes("repl", "extension") | {"rlm.block.number": event.block}
        if self._include_content:
            attributes["gen_ai.tool.call.arguments"] = content_value({"code": event.code})
        scope.start_block(event.at, attributes)

    def _end_block(self, event: BlockFinished, scope: "Scope") -> None:
        status = event.execution.status
        attributes: Attributes = {"rlm.block.status": status}
        if self._include_content:
            attributes["gen_ai.tool.call.result"] = content_value(event.execution.output)
        scope.end_block(event.at, attributes, None if status == "ok" else status)

    # Batches and functions.

    def _start_batch(self, event: BatchStarted) -> None:
        attributes: Attributes = {"rlm.batch.max_concurrent": event.max_concurrent}
        if event.total is not None:
            attributes["rlm.batch.total"] = event.total
        self._open(event, "batch", attributes)

    def _end_batch(self, event: BatchFinished, scope: "Scope") -> None:
        scope.span.set_attribute("rlm.batch.done", event.done)
        scope.span.set_attribute("rlm.batch.failed", event.failed)
        self._close(event, scope, None if event.outcome == "completed" else event.outcome)

    def _add_function(self, event: FunctionCalled, scope: "Scope") -> None:
        call = event.call
        attributes = tool_attributes(call.function, "function") | {"rlm.call.path": call.path}
        if self._include_content:
            attributes["gen_ai.tool.call.arguments"] = content_value(call.arguments)
        start = event.at - (call.end - call.start)
        span = scope.start(f"execute_tool {call.function}", start, attributes)
        error = None if call.error is None else name_value(call.error.partition(":")[0])
        scope.end(span, event.at, error)

    # Calls of models.

    def _start_call(self, event: CallStarted, scope: "Scope") -> None:
        request, model = event.request, name_value(event.model)
        attributes = self._about(event.model) | {"rlm.call.path": request.path}
        if request.reply_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = request.reply_tokens
        is_remote = event.model != "offline"
        span = scope.start(
            f"chat {model}", event.at, attributes, role=request.role, is_remote=is_remote
        )
        scope.calls[event.id] = span, event
        self._add_messages(span, "input", request.messages)

    def _retry_call(self, event: CallRetried, scope: "Scope") -> None:
        if (call := scope.calls.get(event.id)) is not None:
            attributes: Attributes = {
                "error.type": name_value(event.error.type),
                "rlm.retry.delay": event.delay,
            }
            call[0].add_event("retry", attributes, scope.nanoseconds(event.at))

    def _end_call(self, event: CallFinished | CallFailed, scope: "Scope") -> None:
        if (call := scope.calls.pop(event.id, None)) is None:
            return
        (span, started), record = call, event.record
        error = None if record.error is None else name_value(record.error.type)
        about = self._about(started.model)
        # The wait for a slot of the limiter, in seconds, is a part of the duration
        attributes: Attributes = {"rlm.call.retries": record.retries, "rlm.call.wait": record.wait}
        if error is None:
            about["gen_ai.response.model"] = name_value(record.model)
            reply = Message("assistant", record.reply)
            self._add_messages(span, "output", [reply], record.finish_reason)
            if record.finish_reason:
                reasons = [name_value(record.finish_reason)]
                span.set_attribute("gen_ai.response.finish_reasons", reasons)
        if (usage := record.usage) is not None:
            attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            if usage.cached_tokens:
                attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
            if usage.cache_write_tokens:
                attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
            if usage.reasoning_tokens:
                attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
        span.set_attributes(about | attributes)
        scope.end(span, event.at, error)
        self._metrics.record(about, max(0.0, event.at - started.at), usage, error)

    def _add_known(self, event: CallReplayed | CallCached, scope: "Scope") -> None:
        """Add a call that was not made now."""
        is_replay, request = isinstance(event, CallReplayed), event.request
        model, record = name_value(event.model), event.record
        attributes: Attributes = {
            "gen_ai.request.model": model,
            "gen_ai.response.model": name_value(record.model),
            "rlm.call.path": request.path,
            "rlm.replayed" if is_replay else "rlm.cached": True,
        }
        name = f"{'replay' if is_replay else 'cache'} {model}"
        span = scope.start(name, event.at, attributes, role=request.role)
        self._add_messages(span, "input", request.messages)
        self._add_messages(span, "output", [Message("assistant", record.reply)])
        scope.end(span, event.at, None if record.error is None else name_value(record.error.type))

    def _about(self, model: str) -> Attributes:
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider_name(model, self._provider),
            "gen_ai.request.model": name_value(model),
        }

    # Scopes and content.

    def _open(self, event: RunStarted | BatchStarted, name: str, attributes: Attributes) -> "Scope":
        above = self._scopes.get(event.parent)
        scope = self._scope_class(self._tracer, above, name, event.at, attributes)
        self._scopes[event.id] = scope
        return scope

    def _close(self, event: Event, scope: "Scope", error: str | None) -> None:
        del self._scopes[event.id]
        scope.close(event.at, error)

    def _add_messages(
        self,
        span: "Span",
        side: str,
        messages: Iterable[Message],
        finish_reason: str | None = None,
    ) -> None:
        if self._include_content and span.is_recording():
            span.set_attribute(f"gen_ai.{side}.messages", messages_value(messages, finish_reason))
