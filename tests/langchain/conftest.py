"""Fixtures for tests of the LangChain face: a stand-in provider, a tracer that keeps whole trees,
and checks for leaks.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run

from rlm_integrations.records import Completion, Request
from tests.engine.conftest import nothing_left
from tests.lm._foreign import SCRIPTS
from tests.lm.conftest import bare_environment, closed_clients
from tests.standin import Ask, StandIn, answer_to, serve_in_thread

__all__ = [
    "Together",
    "Tracer",
    "bare_environment",
    "closed_clients",
    "nothing_left",
    "scripted",
    "standin",
    "tree",
]


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS, keep_requests=True) as server:
        yield server


class Tracer(BaseTracer):
    """Keeps the root runs that have ended, with all their descendants."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []
        self.events: list[tuple[str, Any]] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))

    @property
    def runs(self) -> list[Run]:
        """Every run of every tree, parents first."""
        return [run for root in self.roots for run in below(root)]


class Together:
    """A model whose sub-calls wait until this many are in flight; as root it replies with its
    program.
    """

    name = "together"
    context_window = None

    def __init__(self, wanted: int, program: str = "") -> None:
        self.most = 0
        self._wanted = wanted
        self._program = program
        self._in_flight = 0

    async def complete(self, request: Request) -> Completion:
        if request.role == "root":
            return Completion(self._program)
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        while self.most < self._wanted:
            await asyncio.sleep(0.001)
        self._in_flight -= 1
        return Completion("so")


def below(run: Run) -> list[Run]:
    return [run, *(each for child in run.child_runs for each in below(child))]


def tree(run: Run) -> Any:
    """A run's name, with its descendants, sorted."""
    return (
        (run.name, sorted(tree(child) for child in run.child_runs))
        if run.child_runs
        else (run.name, [])
    )


def scripted(*replies: str, child: str = "") -> Any:
    """A script for a model that is root, child and sub-model of the same run: the root's replies in
    turn, and `child` for a child run.
    """

    def say(ask: Ask) -> str:
        messages = ask.body["messages"]
        if messages[0]["role"] != "system":
            return answer_to(ask.prompt)
        if "Question: child" in str(messages[1]["content"]):
            return child
        return replies[ask.turn]

    return say
