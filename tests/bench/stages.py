"""The path of a call: this process's CPU for each stage of it, in microseconds per call.

The models of the stages answer at once, so that a stage is what one path takes more than another.
Paths take turns, so that other load affects all of them.
"""

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rlm_integrations import RLM, Budget, Corpus, OpenAILM, allm_batch
from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine.gate import Function, Gate, HostCall
from rlm_integrations.engine.notebook import Notebook, Quotes
from rlm_integrations.engine.tree import RunStart, Tree
from rlm_integrations.events import Emitter
from rlm_integrations.lm.asker import ModelCaller
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.limiter import Limiter
from rlm_integrations.records import Completion, HostFunction, Message, Request, Usage
from rlm_integrations.storage import Storage
from tests.bench._peers import KEY, MODEL, Fan, Maker, aiohttp_alone, interleaved, median_cpu_ratio
from tests.bench.batch import batch
from tests.bench.table import Row
from tests.standin import serve_in_process

CALLS = 2_000
WIDTH = 100
ROUNDS = 9
LATENCY = 0.05
TOKENS = Budget(max_tokens=10**9)


class Instant:
    """A model that answers at once."""

    name = "instant"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)  # as a real one, it lets others go on
        return Completion("an answer", Usage(20, 10), "instant", "stop")


class Root(Instant):
    """A root model whose code sends so many prompts at once."""

    def __init__(self, calls: int, width: int) -> None:
        prompts = f"[f'prompt {{number}}' for number in range({calls})]"
        self._turns = (f"replies = llm_batch({prompts}, max_concurrent={width})", "FINAL('done')")

    async def complete(self, request: Request) -> Completion:
        turn = sum(message.role == "assistant" for message in request.messages)
        return Completion(f"```repl\n{self._turns[turn]}\n```", Usage(20, 10), "root", "stop")


async def slots() -> None:
    """Takes a slot of a limiter and returns it."""
    limiter = Limiter("m")
    for _ in range(CALLS):
        limiter.release(await limiter.acquire("g"), "answered")


async def model() -> None:
    """Calls the model alone."""
    lm = Instant()

    async def ask(_number: int, prompt: str) -> None:
        await lm.complete(Request((Message("user", prompt),)))

    await pool(prompts(), ask, WIDTH)


async def caller() -> None:
    """Calls it through the limiter, with a timeout and retries, for a record."""
    caller = ModelCaller(Instant(), timeout=60)

    async def ask(_number: int, prompt: str) -> None:
        await caller.ask(Request((Message("user", prompt),)))

    await pool(prompts(), ask, WIDTH)


async def whole_batch() -> None:
    """The public function."""
    await allm_batch(prompts(), Instant(), max_concurrent=WIDTH, timeout=60)


def prompts() -> list[str]:
    return [f"prompt {number}" for number in range(CALLS)]


async def in_a_run(**options: Any) -> None:
    """The same calls from the code of a run."""
    await replies_of_a_run(Instant(), CALLS, WIDTH, **options)


async def replies_of_a_run(lm: LM, calls: int, width: int, **options: Any) -> list[str]:
    """The replies to so many prompts that the code of a run sends."""
    rlm = RLM(Root(calls, width), lm, max_parallel_calls=width, **options)
    result = await rlm.acompletion("What is it?", "a small document")
    if result.stop_reason != "final":
        raise RuntimeError(f"the run went wrong: {result.stop_reason} {result.error}")
    return [str(call.reply) for call in result.repl_history[0].subcalls]


@asynccontextmanager
async def listened_run(base_url: str) -> AsyncIterator[Fan]:
    """The calls of a run with a budget of tokens and a listener."""
    lm = OpenAILM(MODEL, base_url=base_url, api_key=KEY)

    async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
        return await replies_of_a_run(
            lm, len(prompts), concurrency, budget=TOKENS, on_event=lambda _event: None
        )

    yield fan


async def functions() -> None:
    """Calls of a function that does nothing, through the gate."""

    async def nothing(_call: HostCall, _value: str) -> str:
        return "an answer"

    corpus = Corpus.build("a small document")
    settings = RLM(Instant())._settings
    tree = Tree(settings, corpus, RunStart(run_id="run"), Emitter())
    notebook = Notebook(tree.record_room, Quotes())
    gate = Gate("r", [Function(HostFunction("nothing"), nothing)], tree, notebook, "run-1")

    async def call(_number: int, prompt: str) -> None:
        await gate(1, "nothing", [prompt], {})

    await pool(prompts(), call, WIDTH)


async def microseconds(
    paths: Mapping[str, Callable[[], Awaitable[object]]],
) -> dict[str, list[float]]:
    """CPU microseconds per call of each path, round by round."""
    found: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(ROUNDS + 1):
        for name, path in paths.items():
            gc.collect()
            begun = time.process_time()
            await path()
            if number:  # the first one of each warms up
                found[name].append((time.process_time() - begun) / CALLS * 1e6)
    return found


async def over_aiohttp() -> list[Row]:
    """CPU of a call over real HTTP, compared with bare aiohttp."""
    makers: dict[str, Maker] = {
        "aiohttp": aiohttp_alone,
        "batch": batch,
        "run": listened_run,
    }
    with serve_in_process(latency=LATENCY) as server:
        found = await interleaved(makers, server.base_url, CALLS, WIDTH, LATENCY)
    bare = found["aiohttp"]
    return [
        Row("over bare aiohttp: allm_batch", median_cpu_ratio(found["batch"], bare), 1.6, "x"),
        Row(
            "over bare aiohttp: in a run, with a budget and a listener",
            median_cpu_ratio(found["run"], bare),
            2.5,
            "x",
        ),
    ]


async def run() -> list[Row]:
    """Each stage as the median of the differences of neighbouring paths."""
    with tempfile.TemporaryDirectory() as folder, Storage(Path(folder) / "runs") as storage:
        found = await microseconds(
            {
                "slot": slots,
                "model": model,
                "caller": caller,
                "batch": whole_batch,
                "function": functions,
                "run": in_a_run,
                "listener": partial(in_a_run, on_event=lambda _event: None),
                "tokens": partial(in_a_run, budget=TOKENS),
                "seconds": partial(in_a_run, budget=Budget(max_seconds=3_600)),
                "journal": partial(in_a_run, storage=storage),
            }
        )

    def stage(what: str, goal: float, path: str, without: str = "") -> Row:
        rounds = zip(found[path], found[without] if without else [0.0] * ROUNDS, strict=True)
        spent = statistics.median(more - less for more, less in rounds)
        return Row(what, spent, goal, "us")

    return [
        stage("limiter: a slot", 5, "slot"),
        stage("caller: limiter, timeout, retries, record", 18, "caller", "model"),
        stage("allm_batch: order, options, progress", 8, "batch", "caller"),
        stage("gate: a function that does nothing", 25, "function"),
        stage("run: gate, budget, slots, identity, record", 45, "run", "caller"),
        stage("events: a listener", 15, "listener", "run"),
        stage("budget: a limit of tokens", 30, "tokens", "run"),
        stage("budget: a limit of seconds", 12, "seconds", "run"),
        stage("journal", 75, "journal", "run"),
        *await over_aiohttp(),
    ]
