"""Fixtures for tests of the loop: scripted models, in this process or over real HTTP, and checks
for leaks.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, OpenAILM, RLMResult
from rlm_integrations._concurrency import runtime
from rlm_integrations.engine import answering
from rlm_integrations.engine.budget import Purse
from rlm_integrations.events import (
    CallFailed,
    CallFinished,
    CallStarted,
    ChildFinished,
    Event,
    Hook,
    RunFinished,
    RunStarted,
)
from rlm_integrations.records import Completion, Request, Usage
from rlm_integrations.sandbox.forkserver import ForkServer
from tests._processes import children_of
from tests.standin import StandIn, serve

Answer = Callable[[Request], str | Awaitable[str]]


class Scripted:
    """A model in this process: as root it gives the replies of its script in turn, as sub-model
    `answer` of the prompt.

    A script's turn is the number of replies in the conversation, so concurrent runs are
    independent. A dict of scripts is for trees: the first key that the question contains selects
    the script.
    """

    context_window: int | None = None

    def __init__(
        self,
        script: Sequence[str] | Mapping[str, Sequence[str]] = (),
        answer: Answer | None = None,
        *,
        name: str = "root",
    ) -> None:
        self.name = name
        self.requests: list[Request] = []
        self.open = 0
        self._script = script
        self._answer = answer or (lambda request: f"re: {request.messages[-1].content}")

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        self.open += 1
        try:
            text = self._next(request) if request.role == "root" else self._answer(request)
            if not isinstance(text, str):
                text = await text
        finally:
            self.open -= 1
        read = sum(len(message.content) for message in request.messages) // 4 + 1
        return Completion(text, Usage(read, len(text) // 4 + 1), self.name, "stop")

    def _next(self, request: Request) -> str:
        script = self._script
        if isinstance(script, Mapping):
            script = next(replies for key, replies in script.items() if key in request.query)
        turn = sum(message.role == "assistant" for message in request.messages)
        return script[turn] if turn < len(script) else f"[the script has no reply {turn}]"

    @property
    def told(self) -> list[str]:
        """The messages to the root, turn by turn."""
        return [request.messages[-1].content for request in self.requests if request.role == "root"]

    @property
    def asked(self) -> list[str]:
        """The prompts of its sub-calls, in order of arrival."""
        return [request.messages[-1].content for request in self.requests if request.role == "sub"]


def code(*lines: str) -> str:
    """A reply with one block."""
    return "\n".join(["```repl", *lines, "```"])


def final(expression: str) -> str:
    """A reply that returns the value of an expression as the final answer."""
    return code(f"FINAL({expression})")


async def run(
    root: Scripted,
    context: object = "a small document",
    question: str = "What is it?",
    **options: Any,
) -> RLMResult:
    """One run with this model as root and sub-model."""
    return await RLM(root, **options).acompletion(question, context)


def overlong(seconds: float) -> Answer:
    """An answer that takes so long that its caller is cancelled first, or the test fails."""

    async def answer(_request: Request) -> str:
        await asyncio.sleep(seconds)
        return "too late"

    return answer


def check_citations(result: RLMResult, *texts: str) -> None:
    """Check that every citation's quote is the document's text, without using the library."""
    for citation in result.citations:
        text = texts[int(citation.source.removeprefix("context_"))]
        assert text[citation.start : citation.end] == citation.quote != ""


def check_ended(events: Sequence[Event]) -> str:
    """Check that every start event has an end event; returns the reason of the last event."""
    ends = {CallStarted: (CallFinished, CallFailed), RunStarted: (ChildFinished, RunFinished)}
    for event in events:
        if type(event) in ends:
            assert any(
                other.id == event.id and isinstance(other, ends[type(event)]) for other in events
            ), event
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    return finished.result.stop_reason


def children() -> list[int]:
    """The processes of open sandboxes of this process."""
    servers = [thing for thing in list(runtime._shared.values()) if isinstance(thing, ForkServer)]
    return [pid for server in servers for pid in children_of(server._process.pid)]


def descriptors() -> list[str]:
    """The open descriptors of this process."""
    links: list[str] = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(str(each.readlink()))
    return links


def documents_held() -> list[str]:
    """The documents and processes that this process still holds, after a garbage collection."""
    gc.collect()
    return [link for link in descriptors() if "memfd:rlm" in link or "pidfd" in link]


def soon(holds: Callable[[], bool], seconds: float = 250) -> bool:
    """Whether this becomes true in time; it blocks, so use it for the work of other processes and
    threads.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture
def time_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Event], bool], float], Hook]:
    """Returns a hook for runs with `max_seconds`: their time ends this number of seconds after the
    first matching event.

    Everything before that event may take any time.
    """

    def ends(meant: Callable[[Event], bool], seconds: float = 0.1) -> Hook:
        end: list[float] = []
        monkeypatch.setattr(
            Purse, "seconds_left", lambda _: end[0] - time.monotonic() if end else 3600.0
        )

        def hook(event: Event) -> None:
            if not end and meant(event):
                end.append(time.monotonic() + seconds)

        return hook

    return ends


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check that no sandbox is left after every test."""
    yield
    assert soon(lambda: not children()), f"sandboxes are left: {children()}"


@pytest.fixture(autouse=True)
def every_result_survives_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that every result of a test is unchanged by its JSON form."""
    results: list[RLMResult] = []
    make = answering.make_result

    def keep(*args: Any) -> RLMResult:
        results.append(make(*args))
        return results[-1]

    monkeypatch.setattr(answering, "make_result", keep)
    yield
    for result in results:
        plain = json.dumps(result.to_dict())
        again = RLMResult.from_dict(json.loads(plain))
        assert json.dumps(again.to_dict()) == plain
        for name in (
            "trajectory",
            "citations",
            "messages",
            "spent",
            "stop_reason",
            "total_calls",
            "error",
            "layers",
            "run_id",
            "question",
            "sources",
            "models",
            "options",
            "version",
            "started",
        ):
            assert getattr(again, name) == getattr(result, name)


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    """A provider on the test's loop."""
    async with serve(keep_requests=True) as standin:
        yield standin


def models(base_url: str, *names: str) -> list[OpenAILM]:
    """Models behind this provider."""
    return [OpenAILM(name, base_url=base_url, api_key="a-key") for name in names]
