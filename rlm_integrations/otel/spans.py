"""The tree of spans: open runs and batches, and what is open in them."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace

from rlm_integrations.events import CallStarted
from rlm_integrations.otel.values import Attributes

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Scope:
    """The spans of an open run or batch. Its times are those of events, in seconds of
    `time.monotonic()`.

    Args:
        tracer: Creates the spans.
        above: The scope that contains it; without one, it is below the current span.
        name: Its name.
        at: When it starts.
        attributes: Its attributes.

    Attributes:
        span: Its span.
        calls: The calls under way, by their ids: the span, and the event of the start.
    """

    def __init__(
        self, tracer: "Tracer", above: "Scope | None", name: str, at: float, attributes: Attributes
    ) -> None:
        self._tracer = tracer
        self._turn: Span | None = None
        self._block: Span | None = None
        self.calls: dict[str, tuple[Span, CallStarted]] = {}
        if above is None:
            # One offset for a whole tree keeps the order of its times
            offset = time.time_ns() - time.monotonic_ns()
            self.nanoseconds: Callable[[float], int] = lambda at: int(at * 1e9) + offset
        else:
            self.nanoseconds = above.nanoseconds
        self.span = self._start(None if above is None else above.inmost, name, at, attributes)

    @property
    def inmost(self) -> "Span":
        """The span of what runs now: a block, a turn, or the run or batch itself."""
        return self._block or self._turn or self.span

    def start_turn(self, at: float, attributes: Attributes) -> None:
        """Start the next turn; it ends the one before."""
        self.end_turn(at)
        self._turn = self._start(self.span, "turn", at, attributes)

    def start_block(self, at: float, attributes: Attributes) -> None:
        """Start the next block of the turn."""
        self._block = self._start(self._turn or self.span, "execute_tool repl", at, attributes)

    def end_block(self, at: float, attributes: Attributes, error: str | None) -> None:
        """End the block, if one is open."""
        if self._block is not None:
            self._block.set_attributes(attributes)
            self.end(self._block, at, error)
            self._block = None

    def end_turn(self, at: float) -> None:
        """End the turn, if one is open; a block that is still open was cancelled."""
        self.end_block(at, {}, "cancelled")
        if self._turn is not None:
            self.end(self._turn, at)
            self._turn = None

    def start(
        self,
        name: str,
        at: float,
        attributes: Attributes,
        *,
        role: str = "",
        is_remote: bool = False,
    ) -> "Span":
        """Start a call: of the turn, with the role "root", else of what runs now."""
        parent = (self._turn or self.span) if role == "root" else self.inmost
        return self._start(parent, name, at, attributes, is_remote=is_remote)

    def end(self, span: "Span", at: float, error: str | None = None) -> None:
        """End a span, with the type of its error."""
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR, error)
        span.end(self.nanoseconds(at))

    def close(self, at: float, error: str | None) -> None:
        """End the run or batch, and all that is left open in it."""
        for span, _ in self.calls.values():
            self.end(span, at, "cancelled")
        self.calls.clear()
        self.end_turn(at)
        self.end(self.span, at, error)

    def _start(
        self,
        parent: "Span | None",
        name: str,
        at: float,
        attributes: Attributes,
        *,
        is_remote: bool = False,
    ) -> "Span":
        current = context.get_current()
        options: dict[str, Any] = {"attributes": attributes, "start_time": self.nanoseconds(at)}
        return self._tracer.start_span(
            name,
            context=current if parent is None else trace.set_span_in_context(parent, current),
            kind=trace.SpanKind.CLIENT if is_remote else trace.SpanKind.INTERNAL,
            **options,
        )
