"""A compact, JSON-safe view of run events for LangChain and LlamaIndex, without document text."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from rlm_integrations.events import (
    BatchFinished,
    BatchProgress,
    BatchStarted,
    BlockFinished,
    BlockStarted,
    ChildFinished,
    Event,
    RunStarted,
    TurnFinished,
    TurnStarted,
)

Kind = Literal[
    "run_started",
    "turn_started",
    "turn_finished",
    "block_started",
    "block_finished",
    "batch_started",
    "batch_progress",
    "batch_finished",
    "child_finished",
]

_KINDS: Final = frozenset(
    {
        RunStarted,
        TurnStarted,
        TurnFinished,
        BlockStarted,
        BlockFinished,
        BatchStarted,
        BatchProgress,
        BatchFinished,
        ChildFinished,
    }
)
STEPS: Final = 20  # progress reports of one batch, at most
MAX_SHOWN_CHARS: Final = 1_000  # of a query, of code, or of output


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a run or a batch. Fields that do not apply to its kind are None.

    Attributes:
        kind: The kind of event.
        run: The id of the run or batch.
        parent: The id of the parent run.
        path: The run's path in its tree; "r" for the root.
        depth: The run's depth; 0 for the root.
        query: The run's question.
        iteration: The turn's number, starting at 1.
        block: The block's number, starting at 1.
        code: The beginning of the block's code.
        output: The beginning of the block's output.
        status: How the block ("ok", "error", "interrupted" or "lost"), batch or child run ended.
        done: How many prompts of the batch are finished.
        total: How many prompts the batch has, if known.
        failed: How many of the finished prompts failed.
    """

    kind: Kind
    run: str
    parent: str | None = None
    path: str | None = None
    depth: int | None = None
    query: str | None = None
    iteration: int | None = None
    block: int | None = None
    code: str | None = None
    output: str | None = None
    status: str | None = None
    done: int | None = None
    total: int | None = None
    failed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, as plain JSON."""
        return {
            each.name: value
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }


def progress_of(event: Event) -> Progress | None:
    """The progress that an event reports, or None for events that are not reported: single model
    calls, and most steps of long batches.
    """
    if type(event) not in _KINDS:  # fast path: most of the thousands of events
        return None
    match event:
        case BatchProgress(done=done, total=total) if (
            total is not None and done != total and done % max(1, total // STEPS)
        ):
            return None
        case RunStarted(path=path, depth=depth, query=query):
            about: Mapping[str, Any] = {
                "kind": "run_started",
                "path": path,
                "depth": depth,
                "query": query[:MAX_SHOWN_CHARS],
            }
        case TurnStarted(iteration=iteration):
            about = {"kind": "turn_started", "iteration": iteration}
        case TurnFinished(turn=turn):
            about = {"kind": "turn_finished", "iteration": turn.iteration}
        case BlockStarted(block=block, code=code):
            about = {"kind": "block_started", "block": block, "code": code[:MAX_SHOWN_CHARS]}
        case BlockFinished(execution=execution):
            about = {
                "block": execution.block,
                "status": execution.status,
                "output": execution.output[:MAX_SHOWN_CHARS],
            }
            about = {"kind": "block_finished", **about}
        case BatchStarted(total=total):
            about = {"kind": "batch_started", "total": total}
        case BatchProgress(done=done, total=total, failed=failed):
            about = {"kind": "batch_progress", "done": done, "total": total, "failed": failed}
        case BatchFinished(done=done, total=total, failed=failed, outcome=outcome):
            about = {
                "kind": "batch_finished",
                "done": done,
                "total": total,
                "failed": failed,
                "status": outcome,
            }
        case ChildFinished(stop_reason=stop_reason):
            about = {"kind": "child_finished", "status": stop_reason}
        case _:
            return None
    return Progress(run=event.id, parent=event.parent, **about)


def is_progress(event: Event) -> bool:
    """Whether `progress_of` reports this event."""
    return progress_of(event) is not None
