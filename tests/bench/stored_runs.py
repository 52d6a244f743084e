"""Stored runs: what a journal costs a run, a run resumed, and a list of runs."""

import statistics
import tempfile
import time
from operator import truediv
from pathlib import Path
from typing import Any

from rlm_integrations import RLM, Corpus, OpenAILM
from rlm_integrations.run_setup import ModelNames, RunSetup
from rlm_integrations.storage import Storage
from tests.bench.engine import TRIVIAL, TURNS
from tests.bench.table import Row, median
from tests.standin import RemoteStandIn, serve_in_process

FAN_OUT = 2_048
LATENCY = 0.05
RUNS = 1_000


def fan_out(calls: int) -> list[str]:
    """A root that asks so many sub-calls at once, 256 at a time."""
    batch = f"replies = llm_batch([f'Say {{n}}' for n in range({calls})], max_concurrent=256)"
    return [f"```repl\n{batch}\n```", "```repl\nFINAL(len(replies))\n```"]


def rlm_of(server: RemoteStandIn, storage: Storage | None) -> RLM[Any]:
    model = {"base_url": server.base_url, "api_key": "x"}
    return RLM(
        OpenAILM("root", **model),
        OpenAILM("sub", **model),
        max_iterations=TURNS + 1,
        max_parallel_calls=256,
        storage=storage,
    )


async def seconds(rlm: RLM[Any]) -> float:
    begun = time.perf_counter()
    result = await rlm.acompletion("What is it?", "a small document")
    if result.stop_reason != "final":
        raise RuntimeError(f"the run went wrong: {result.stop_reason} {result.error}")
    return time.perf_counter() - begun


async def pairs(server: RemoteStandIn, storage: Storage, times: int) -> tuple[list[float], ...]:
    """Seconds of runs without and with a storage, in turns."""
    plain, stored = rlm_of(server, None), rlm_of(server, storage)
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(times + 1):
        for kept, rlm in zip(found, (plain, stored), strict=True):
            spent = await seconds(rlm)
            if number:  # the first one of each warms up
                kept.append(spent)
    return found


async def share_of_throughput(server: RemoteStandIn, storage: Storage) -> float:
    """Per cent of the throughput of a fan-out that is left with a journal."""
    server.change(scripts={"root": fan_out(FAN_OUT)}, latency=LATENCY)
    plain, stored = await pairs(server, storage, 9)
    return statistics.median(map(truediv, plain, stored)) * 100  # of neighbours: load varies


async def cost_of_a_turn(server: RemoteStandIn, storage: Storage) -> float:
    """Milliseconds that a journal adds to a turn: runs of 21 turns less those of one."""
    differences = []
    for script in (TRIVIAL, TRIVIAL[-1:]):
        server.change(scripts={"root": script}, latency=0.0)
        plain, stored = await pairs(server, storage, 9)
        differences.append(statistics.median(stored) - statistics.median(plain))
    return (differences[0] - differences[1]) / TURNS * 1_000


async def resumed(server: RemoteStandIn, storage: Storage) -> tuple[float, int]:
    """Seconds in which the result of a run of 200 calls is there again, and calls of models."""
    server.change(scripts={"root": fan_out(200)}, latency=0.0)
    rlm = rlm_of(server, storage)
    result = await rlm.acompletion("What is it?", "a small document")
    server.reset()
    spent = []
    for _ in range(5):
        begun = time.perf_counter()
        await rlm.aresume(result.run_id)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent), len(server.calls())


async def add_runs(storage: Storage) -> None:
    models = ModelNames(root="gpt-5", subs={"gpt-5": "gpt-5"}, default="gpt-5")
    with Corpus.build("a document") as corpus:
        for number in range(RUNS):
            question = f"Who approved the dam of Ravenna in the year {number}?"
            setup = RunSetup(
                question=question, sources=(), models=models, options={}, version="1", started=1.0
            )
            kept = await storage.begin(f"run-{number}", setup, corpus)
            await kept.finish("final" if number % 2 else "failed", b"{}")


def listed(storage: Storage, query: str, status: str | None, wanted: int) -> float:
    """Milliseconds of a list; the median."""

    def once() -> float:
        begun = time.perf_counter()
        found = storage.runs(query, status=status, limit=RUNS)
        spent = time.perf_counter() - begun
        if len(found) != wanted:
            raise RuntimeError(f"{len(found)} runs were found")
        return spent * 1_000

    return median(once, 11)


async def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, serve_in_process() as server:
        with Storage(Path(folder) / "runs") as storage:
            share = await share_of_throughput(server, storage)
            turn = await cost_of_a_turn(server, storage)
            again, calls = await resumed(server, storage)
        with Storage(Path(folder) / "many") as storage:
            await add_runs(storage)
            everything = listed(storage, "", None, RUNS)
            some = listed(storage, "ravenna in the year 9", "final", 56)
    return [
        Row("fan-out with a journal, c=256: share of the throughput", share, 85, "%", True),
        Row("a trivial turn: what a journal adds", turn, 1.5, "ms"),
        Row("a finished run of 200 calls is resumed", again, 0.5, "s"),
        Row("the same: calls of models", calls, 0, ""),
        Row("1,000 runs listed", everything, 50, "ms"),
        Row("1,000 runs filtered by words and status", some, 50, "ms"),
    ]
