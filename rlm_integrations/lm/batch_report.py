"""The events of one batch, inside or outside a run."""

from typing import Literal

from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Emitter, new_id

Outcome = Literal["completed", "cancelled", "failed"]


class BatchReport:
    """Counts the finished prompts of a batch, and emits its events.

    Args:
        emit: Receives the events.
        parent: The parent's id in the events.
        total: The number of prompts, or None if unknown.
        max_concurrent: How many calls may be in flight.

    Attributes:
        id: The batch's id in the events.
        outcome: How the batch ended; "cancelled" until another outcome is known.
    """

    def __init__(
        self, emit: Emitter, *, parent: str | None, total: int | None, max_concurrent: int
    ) -> None:
        self.id = new_id("batch")
        self.outcome: Outcome = "cancelled"
        self._emit = emit
        self._parent = parent
        self._total = total
        self._max_concurrent = max_concurrent
        self._done = self._failed = 0

    def start(self) -> None:
        """Emit the start of the batch."""
        self._emit(
            BatchStarted(
                id=self.id,
                parent=self._parent,
                total=self._total,
                max_concurrent=self._max_concurrent,
            )
        )

    def note(self, *, is_failed: bool) -> None:
        """Count a finished prompt, and emit the progress."""
        self._done += 1
        self._failed += is_failed
        if self._emit:
            self._emit(
                BatchProgress(
                    id=self.id,
                    parent=self._parent,
                    done=self._done,
                    total=self._total,
                    failed=self._failed,
                )
            )

    def finish(self) -> None:
        """Emit the end of the batch."""
        self._emit(
            BatchFinished(
                id=self.id,
                parent=self._parent,
                done=self._done,
                total=self._total,
                failed=self._failed,
                outcome=self.outcome,
            )
        )
