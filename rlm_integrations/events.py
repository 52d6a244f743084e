"""The one stream of events. Everything visible (callbacks, progress, traces, pages) consumes it;
nothing else reports.

A hook is any callable that takes one event. It is called on the event loop that does the work, so
it must be quick; its return value is ignored, and its exceptions never break a run.
"""

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.records import CallRecord, LLMError, Request

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult
    from rlm_integrations.trajectory import Execution, FunctionCall, Iteration

logger = logging.getLogger("rlm_integrations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have in common.

    Attributes:
        id: The thing that it happened to: the same in its started, finished and failed events,
            unique within the process.
        parent: The id of what that thing is part of, or None.
        at: When, in seconds of `time.monotonic()`.
    """

    id: str
    parent: str | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """A model is going to be asked; the call may still have to wait for its turn."""

    model: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried(Event):
    """One try failed, and another will follow.

    Attributes:
        error: Why it failed; its `retries` counts the one that follows.
        delay: After how many seconds at least the next try follows.
    """

    error: LLMError
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A model answered."""

    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(Event):
    """A call came to nothing; `record.reply` is the `LLMError`.

    Its type is "cancelled" where the caller gave up.
    """

    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReplayed(Event):
    """A call was answered from the journal of its run; no model was asked.

    Attributes:
        model: The model's name.
        request: What the model would have been asked.
        record: The recorded call.
        same_prompt: Whether the prompt is the one that the answer was given to.
    """

    model: str
    request: Request
    record: CallRecord
    same_prompt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCalled(Event):
    """Model code called a function of the host other than a model: a tool, `cite` or the store.

    `call` is a `result.FunctionCall`.
    """

    call: "FunctionCall"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStarted(Event):
    """A batch begins; `total` is None where its prompts come from a generator."""

    total: int | None
    max_concurrent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress(Event):
    """One more prompt of a batch is done; `failed` is the part of `done` that came to nothing."""

    done: int
    total: int | None
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFinished(Event):
    """A batch is over: all its prompts are done, its caller gave up, or its source of prompts
    raised.
    """

    done: int
    total: int | None
    failed: int
    outcome: Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterChanged(Event):
    """A model's limiter moved its ceiling or its pause since this caller last looked. The limiter
    serves the whole process.

    Attributes:
        model: The model's name.
        ceiling: How many calls may be in flight now.
        in_use: How many are.
        waiting: How many wait for their turn.
        paused_until: Nobody asks before this time of `time.monotonic()`; None where there is no
            pause.
    """

    model: str
    ceiling: int
    in_use: int
    waiting: int
    paused_until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run begins; `parent` is the run that it is a child of.

    Attributes:
        query: The question.
        path: The run's place in its tree, "r" for the root.
        depth: 0 for the root.
        characters: How long its document is.
    """

    query: str
    path: str
    depth: int
    characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted(Event):
    """The root model is asked for its next turn."""

    iteration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStarted(Event):
    """A block of the model's code is going to run."""

    block: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFinished(Event):
    """A block is done; `execution` is a `result.Execution`."""

    execution: "Execution"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished(Event):
    """A turn is over; `turn` is a `result.Iteration`."""

    turn: "Iteration"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFinished(Event):
    """A child run is over; its answer goes to the code that asked."""

    answer: str
    stop_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run is over. The last event of every stream."""

    result: "RLMResult"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run raised; a stream raises it too, after this event.

    Attributes:
        error: What it raised.
        result: The record of what was done and paid before.
    """

    error: str
    result: "RLMResult | None" = None


Hook = Callable[[Event], object]


class Emitter:
    """Hands events to hooks.

    False where there are none, so that nobody makes events for nothing.
    """

    __slots__ = ("_broken", "_hooks")

    def __init__(self, *hooks: Hook | None) -> None:
        self._hooks = [hook for hook in hooks if hook is not None]
        self._broken: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __call__(self, event: Event) -> None:
        """Hand the event over. A hook's first exception is logged, further ones are not: there may
        be thousands.
        """
        for number, hook in enumerate(self._hooks):
            try:
                hook(event)
            except Exception:
                if number not in self._broken:
                    self._broken.add(number)
                    logger.exception(
                        "%r raised on %s; the run goes on, and it is not logged again",
                        hook,
                        type(event).__name__,
                    )


def new_id(kind: str) -> str:
    """An id such as "call-17", not given twice in a process."""
    return f"{kind}-{next(shared('event ids', lambda: itertools.count(1)))}"
