"""How far a run is, in little: what the faces tell their frameworks of its events, in JSON's types
and without the document.
"""

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
STEPS: Final = 20  # reports of one batch at most
MAX_SHOWN_CHARS: Final = 1_000  # characters of code and output


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a run. Fields that do not concern its kind are None.

    Attributes:
        kind: What happened.
        run: The id of the run or the batch that it happened to.
        parent: The id of the run that this one is part of.
        path: A run's place in its tree, "r" for the root.
        depth: A run's depth, 0 for the root.
        query: A run's question.
        iteration: A turn's number, from 1.
        block: A block's number, from 1.
        code: The beginning of a block's code.
        output: The beginning of what it printed.
        status: How a block ended: "ok", "error", "interrupted" or "lost"; how a batch or a child
            run ended.
        done: Prompts of a batch that are done.
        total: Prompts of a batch.
        failed: Those of them that came to nothing.
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
        """What is known, as plain JSON."""
        return {
            each.name: value
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }


def progress_of(event: Event) -> Progress | None:
    """What an event says of a run's progress, or None where it is too small to be told: single
    calls, and most steps of long batches.
    """
    if type(event) not in _KINDS:  # as most events, and there are thousands
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
    """Whether `progress_of` has something to say of it."""
    return progress_of(event) is not None
