"""Requests to child runs, and their results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rlm_integrations.engine.budget import Charge
from rlm_integrations.engine.locating import RunLocator
from rlm_integrations.trajectory import Citation, Iteration

ChildContext = str | list[str] | dict[str, str]


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """A question for a child run.

    Attributes:
        path: The path of the child in the tree.
        query: The question.
        context: The string, the strings, or the strings by name that code passed; None for the
            parent's whole document.
        parent: The id of the parent run in the events.
        locator: Finds text of the document in what the parent passes.
    """

    path: str
    query: str
    context: ChildContext | None
    parent: str
    locator: RunLocator


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The result of a child run.

    Attributes:
        reply: Its answer, or an `LLMError`.
        turns: Its turns.
        citations: Its verified evidence, as places in the root's document.
        dropped_citations: The number of its citations that could not be verified.
    """

    reply: str
    turns: tuple[Iteration, ...] = ()
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0


@dataclass(frozen=True, slots=True)
class ChildAnswer:
    """The answer of a child run, as a journal stores it.

    Attributes:
        result: Its result.
        charges: The charges of its calls and of its own child runs.
        start: When it began, in seconds since the root's run began.
        end: When it ended.
    """

    result: ChildResult
    charges: tuple[Charge, ...]
    start: float
    end: float


class ChildRun(Protocol):
    """A child run, which answers one request.

    Attributes:
        result: Its result. A cancelled run has a partial one.
    """

    result: ChildResult | None

    async def run(self) -> ChildResult:
        """Answer the request. A failed child returns an `LLMError`, and its parent continues."""
        ...


Spawn = Callable[[ChildRequest], ChildRun]
