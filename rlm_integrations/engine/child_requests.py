"""What a run asks of a child run, and what comes back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rlm_integrations.engine.budget import Charge
from rlm_integrations.trajectory import Citation, Iteration


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """A question for a child run.

    Attributes:
        path: The child's place in the tree.
        query: The question.
        context: The string or the strings, as code passed them; None for the whole document of the
            run that asks.
        parent: The id in the events of the run that asks.
    """

    path: str
    query: str
    context: str | list[str] | None
    parent: str


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The result of a child run.

    Attributes:
        reply: Its answer, or an `LLMError`.
        turns: What it did.
        citations: The verified places of the root's document that it gave as evidence.
        dropped_citations: How many further ones it gave that are not there.
    """

    reply: str
    turns: tuple[Iteration, ...] = ()
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0


@dataclass(frozen=True, slots=True)
class ChildAnswer:
    """A child run as a journal keeps it.

    Attributes:
        result: Its result.
        charges: What its calls and those of its own child runs took.
        start: When it was asked, in seconds since the run of the tree began.
        end: When it had answered.
    """

    result: ChildResult
    charges: tuple[Charge, ...]
    start: float
    end: float


class ChildRun(Protocol):
    """A child run that is going to answer one request.

    Attributes:
        result: Its result as far as it came: also of a run that was cancelled.
    """

    result: ChildResult | None

    async def run(self) -> ChildResult:
        """Answer. A child that fails answers with an `LLMError`, so that its parent goes on."""
        ...


Spawn = Callable[[ChildRequest], ChildRun]
