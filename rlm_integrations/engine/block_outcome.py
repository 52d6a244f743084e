"""How a block ended, as a journal keeps it."""

from dataclasses import dataclass

from rlm_integrations.engine.call_id import CallId
from rlm_integrations.sandbox.base import ExecutionResult


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """A block as a journal keeps it.

    Attributes:
        result: How it ended.
        unanswered: The calls that it had made and that were not answered when it ended, such as
            those of threads that it left behind.
    """

    result: ExecutionResult
    unanswered: tuple[CallId, ...] = ()
