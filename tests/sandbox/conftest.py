"""Sessions for tests: a real corpus, a gate that records its calls, and a check that nothing
leaks.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import HostFunction, Limits
from rlm_integrations.sandbox import sandbox_named
from rlm_integrations.sandbox.base import ExecutionResult, HostCallError, Opening, Sandbox, Session

FUNCTIONS = [
    HostFunction("llm_query", "(prompt, model=None)", "Ask a model.", aliases=("ask",)),
    HostFunction("llm_batch", "(prompts, max_concurrent=10, model=None)"),
    HostFunction("slow", "(seconds)"),
    HostFunction("together", "()"),
    HostFunction("fail", "(kind, message)"),
    HostFunction("give", "(what)"),
    HostFunction("store.create", "(type, description)"),
    HostFunction("store.search", "(query='')"),
]


class RecordingGate:
    """Answers like a host, and records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, list[Any], dict[str, Any]]] = []
        self.open = 0
        self.most_open = 0
        self.cancelled = 0
        self.together: set[asyncio.Future[None]] = set()
        self.gifts: dict[str, Any] = {}

    async def __call__(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        self.calls.append((block, function, args, kwargs))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(function, args, kwargs)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    async def _answer(self, function: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        match function:
            case "llm_query":
                await asyncio.sleep(0)
                return f"echo: {args[0]}"
            case "llm_batch":
                return [f"echo: {prompt}" for prompt in args[0]]
            case "slow":
                await asyncio.sleep(args[0])
                return "slept"
            case "together":
                # Answers only when three such calls are open at the same time.
                mine = asyncio.get_running_loop().create_future()
                self.together.add(mine)
                if len(self.together) == 3:
                    for each in self.together:
                        each.set_result(None)
                await mine
                return "met"
            case "fail":
                raise HostCallError(args[1], type=args[0])
            case "give":
                return self.gifts[args[0]]
            case "store.create":
                return "worker_A_000001"
        raise ZeroDivisionError("a fault of the host")


Opener = Callable[..., Awaitable[Session]]


@pytest.fixture(params=["process", "inprocess"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "inprocess":
        with pytest.warns(RuntimeWarning, match="debugging only"):
            return sandbox_named("inprocess")
    return sandbox_named("process")


@pytest.fixture
def gate() -> RecordingGate:
    return RecordingGate()


@pytest.fixture
async def open_session(sandbox: Sandbox, gate: RecordingGate) -> AsyncIterator[Opener]:
    """Opens sessions and closes them after the test."""
    opened: list[tuple[Session, Corpus]] = []

    async def open_one(
        context: Any = "the quick brown fox", *, limits: Limits | None = None, seed: int = 0
    ) -> Session:
        corpus = Corpus.build(context)
        session = await sandbox.open(
            Opening(corpus, FUNCTIONS, gate, limits or Limits(block_seconds=20), seed)
        )
        opened.append((session, corpus))
        return session

    yield open_one
    for session, corpus in opened:
        await session.close()
        corpus.close()


@pytest.fixture
async def session(open_session: Opener) -> Session:
    return await open_session()


@pytest.fixture
def run(session: Session) -> Callable[[str], Awaitable[ExecutionResult]]:
    """Runs blocks in one session, numbered starting at 1."""
    blocks = iter(range(1, 10_000))

    async def run_one(code: str) -> ExecutionResult:
        return await session.execute(code, next(blocks))

    return run_one
