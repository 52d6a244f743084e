"""The state of a run."""

from dataclasses import dataclass, field
from typing import Any

from rlm_integrations.cited_answer import renumbered
from rlm_integrations.engine.citations import VerifiedEvidence
from rlm_integrations.records import Message
from rlm_integrations.result import StopReason
from rlm_integrations.trajectory import Citation, DroppedEvidence, Iteration


@dataclass(slots=True)
class Outcome:
    """The state of a run while it runs, and its result at the end."""

    answer: Any = ""  # None with an `output_type`
    partial: str = ""  # the best answer so far, unless `stop_reason` is "final"
    citations: list[Citation] = field(default_factory=list)
    dropped: list[DroppedEvidence] = field(default_factory=list)
    dropped_citations: int = 0
    stop_reason: StopReason = "max_iterations"
    turns: list[Iteration] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    error: str | None = None

    def cite(
        self, evidence: VerifiedEvidence, *, unchecked: int = 0, in_place: bool = True
    ) -> None:
        """Take the evidence of the answer. Numbers in an answer become those of its citations.

        Args:
            evidence: The verified evidence.
            unchecked: How many quotes code could not check, because the document had changed.
            in_place: Whether numbers stay in the answer. Where code gets it, they would be taken
                for those of the code's own evidence.
        """
        if isinstance(self.answer, str):
            numbers = evidence.numbers if in_place else [() for _ in evidence.numbers]
            self.answer, unknown = renumbered(self.answer, numbers)
            for number in unknown:
                evidence.drop(number, "unknown number")
        self.citations, self.dropped = evidence.citations, evidence.dropped
        self.dropped_citations = evidence.dropped_count + unchecked
