"""The events of runs, calls and batches. Callbacks, progress bars, traces and pages are built on
them only.

A hook is any callable that takes one event. It is called on the event loop that runs the work, so
it must be fast; its return value is ignored, and its exceptions never break a run.
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
    """The base class of all events.

    Attributes:
        id: The id of the run, call, batch, turn or block; the same in its started, finished and
            failed events, and unique within the process.
        parent: The id of the run, turn or batch that contains it, or None.
        at: The time of the event, in seconds of `time.monotonic()`.
    """

    id: str
    parent: str | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """A model call starts; it may still have to wait for a slot of the limiter."""

    model: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried(Event):
    """An attempt failed, and will be retried.

    Attributes:
        error: The failure; its `retries` includes the coming retry.
        delay: The minimum delay before the next attempt, in seconds.
    """

    error: LLMError
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A model call succeeded."""

    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(Event):
    """A model call failed; `record.reply` is the `LLMError`.

    Its type is "cancelled" if the caller cancelled the call.
    """

    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReplayed(Event):
    """A call was answered from the journal of its run, without calling a model.

    Attributes:
        model: The model's name.
        request: The request that was not sent.
        record: The recorded call.
        same_prompt: Whether the prompt equals the recorded call's.
    """

    model: str
    request: Request
    record: CallRecord
    same_prompt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCached(Event):
    """A call was answered from the cache, without calling a model.

    Attributes:
        model: The model's name.
        request: The request that was not sent.
        record: Its record; `record.saved` has the tokens that were not paid for again.
    """

    model: str
    request: Request
    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCalled(Event):
    """Model code called a host function other than a model: a tool, `cite` or the store.

    `call` is a `result.FunctionCall`.
    """

    call: "FunctionCall"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStarted(Event):
    """A batch starts; `total` is None if its prompts come from a generator."""

    total: int | None
    max_concurrent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress(Event):
    """Another prompt of a batch is done; `done` includes the `failed` ones."""

    done: int
    total: int | None
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFinished(Event):
    """A batch has ended: all prompts are done, the caller cancelled it, or the source of prompts
    raised.
    """

    done: int
    total: int | None
    failed: int
    outcome: Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterChanged(Event):
    """A model's limiter changed its ceiling or its pause since the last report to this caller. The
    limiter is shared by the whole process.

    Attributes:
        model: The model's name.
        ceiling: How many calls may be in flight.
        in_use: How many calls are in flight.
        waiting: How many calls wait for a slot.
        paused_until: No call is sent before this time, in seconds of `time.monotonic()`; None if
            there is no pause.
    """

    model: str
    ceiling: int
    in_use: int
    waiting: int
    paused_until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run starts; `parent` is the parent run's id.

    Attributes:
        query: The question.
        path: The run's path in its tree; "r" for the root.
        depth: The run's depth; 0 for the root.
        characters: The length of its document.
        result: For the root, its record at this moment, with the `stop_reason` "running": documents,
            models, options, and the store, which fills as the run goes on. None for a child run.
    """

    query: str
    path: str
    depth: int
    characters: int
    result: "RLMResult | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted(Event):
    """A turn starts: the root model is called."""

    iteration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStarted(Event):
    """A block of the model's code starts."""

    block: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFinished(Event):
    """A block has ended; `execution` is a `result.Execution`."""

    execution: "Execution"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished(Event):
    """A turn has ended; `turn` is a `result.Iteration`."""

    turn: "Iteration"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFinished(Event):
    """A child run has ended; its answer is returned to the code that started it."""

    answer: str
    stop_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run has ended. The last event of every stream."""

    result: "RLMResult"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run raised; a stream raises it too, after this event.

    Attributes:
        error: The exception.
        result: The record of the run up to the exception.
    """

    error: str
    result: "RLMResult | None" = None


Hook = Callable[[Event], object]


class Emitter:
    """Passes events to hooks.

    False if there are no hooks, so that callers need not create events.
    """

    __slots__ = ("_broken", "_hooks")

    def __init__(self, *hooks: Hook | None) -> None:
        self._hooks = [hook for hook in hooks if hook is not None]
        self._broken: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __call__(self, event: Event) -> None:
        """Pass an event to every hook. Only a hook's first exception is logged, because there may
        be thousands.
        """
        for number, hook in enumerate(self._hooks):
            try:
                hook(event)
            except Exception:
                if number not in self._broken:
                    self._broken.add(number)
                    logger.exception(
                        (
                            "%r raised on %s; the run continues, and further errors of this hook "
                            "are not logged"
                        ),
                        hook,
                        type(event).__name__,
                    )


def new_id(kind: str) -> str:
    """An id such as "call-17", unique within the process."""
    return f"{kind}-{next(shared('event ids', lambda: itertools.count(1)))}"
