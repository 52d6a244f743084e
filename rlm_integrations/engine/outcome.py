"""The state of a run."""

from dataclasses import dataclass, field
from typing import Any

from rlm_integrations.records import Message
from rlm_integrations.result import StopReason
from rlm_integrations.trajectory import Citation, Iteration


@dataclass(slots=True)
class Outcome:
    """The state of a run while it runs, and its result at the end."""

    answer: Any = ""  # None with an `output_type`
    partial: str = ""  # the best answer so far, unless `stop_reason` is "final"
    citations: list[Citation] = field(default_factory=list)
    dropped_citations: int = 0
    stop_reason: StopReason = "max_iterations"
    turns: list[Iteration] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    error: str | None = None
