"""What a run asks of a child run, and what comes back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rlm_integrations.result import Citation, Iteration


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """A question for a child run.

    Attributes:
        path: The child's place in the tree.
        query: The question.
        context: The text or the texts, as code handed them over; None for the whole document of the
            run that asks.
        parent: The id in the events of the run that asks.
        tell: Takes what became of it, also where it was cancelled.
    """

    path: str
    query: str
    context: str | list[str] | None
    parent: str
    tell: "Callable[[ChildResult], None]"


@dataclass(frozen=True, slots=True)
class ChildResult:
    """What became of a child run.

    Attributes:
        reply: Its answer, or an `LLMError`.
        turns: What it did.
        citations: The verified places of the root's document that it gave as evidence.
        dropped_citations: How many further ones it gave that are not there.
    """

    reply: str
    turns: tuple[Iteration, ...]
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0


Spawn = Callable[[ChildRequest], Awaitable[str]]
