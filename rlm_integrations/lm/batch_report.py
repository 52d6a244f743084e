"""The events of one batch, inside and outside of a run."""

from typing import Literal

from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Emitter, new_id

Outcome = Literal["completed", "cancelled", "failed"]


class BatchReport:
    """Counts what is done of a batch, and emits its events.

    Args:
        emit: Receives the events.
        parent: The parent's id in the events.
        total: How many prompts there are, or None if unknown.
        max_concurrent: How many calls may be in flight.

    Attributes:
        id: The batch's id in the events.
        outcome: How the batch ends; "cancelled" until something else is known.
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
        """The batch begins."""
        self._emit(
            BatchStarted(
                id=self.id,
                parent=self._parent,
                total=self._total,
                max_concurrent=self._max_concurrent,
            )
        )

    def note(self, *, is_failed: bool) -> None:
        """One more prompt is done."""
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
        """The batch is over."""
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
