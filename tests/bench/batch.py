"""Batches of 1,000 prompts at 50 ms compared with other ways to send them; and 100,000 from a
generator.

Medians of five runs in turn.
"""

import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rlm_integrations import allm_batch, allm_batch_iter
from rlm_integrations.lm.limiter import Limiter
from rlm_integrations.lm.openai import OpenAILM
from tests.bench._peers import (
    KEY,
    MODEL,
    Fan,
    aiohttp_alone,
    interleaved,
    median_cpu,
    median_cpu_ratio,
    median_wall,
    median_wall_ratio,
    peers,
)
from tests.bench.table import Row
from tests.standin import Fault, serve_in_process

LATENCY = 0.05
GOALS = {10: 1.15, 50: 1.4, 100: 1.5}
# Calls in flight: prompts, and the goal for the wall time over that of aiohttp alone
BESIDE_AIOHTTP = {100: (1000, 1.25), 500: (5000, 1.3)}
CPU_GOAL = 1.6  # times that of aiohttp alone
# Fewer if the ratio is the same and the wait is long
PEERS_PROMPTS = {10: 200, 50: 1000, 100: 1000}
LONG, SECTION, SHORT = 100_000, 5_000, 1_000


@asynccontextmanager
async def batch(base_url: str) -> AsyncIterator[Fan]:
    """The public API, with a timeout for each call."""
    lm = OpenAILM(MODEL, base_url=base_url, api_key=KEY)

    async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
        return await allm_batch(prompts, lm, max_concurrent=concurrency, timeout=60)

    yield fan


async def slot() -> float:
    """CPU microseconds for acquiring a limiter's slot without a wait and releasing it."""
    limiter = Limiter("m")
    begun = time.process_time()
    for _ in range(20_000):
        limiter.release(await limiter.acquire("g"), "answered")
    return (time.process_time() - begun) / 20_000 * 1e6


async def run() -> list[Row]:
    """Wall time over the ideal compared with the peers, with faults, and over a long generator."""
    rows = [Row("a slot of the limiter, processor time", await slot(), 50, "us")]
    with serve_in_process(latency=LATENCY) as server:
        for concurrency in BESIDE_AIOHTTP:
            rows += await beside_aiohttp(server.base_url, concurrency)
        for concurrency, goal in GOALS.items():
            rows += await beside_peers(server.base_url, concurrency, goal)
        for name, peer in peers().items():
            if "default" in name:  # slow: once, and with fewer prompts
                found = await interleaved({name: peer}, server.base_url, 200, 100, LATENCY, times=1)
                rows.append(
                    Row(
                        f"wall over ideal, c=100, {name}, 200 prompts once",
                        median_wall(found[name]),
                        None,
                        "x",
                    )
                )
        server.change(faults=[Fault("rate_limit", rate=0.1), Fault("server", rate=0.1)])
        found = await interleaved({"ours": batch}, server.base_url, 1000, 50, LATENCY)
        rows.append(
            Row(
                "wall over ideal, c=50, 10 % refused and 10 % failing",
                median_wall(found["ours"]),
                4.0,
                "x",
            )
        )
    rows.append(
        Row(
            "wall over ideal, c=80 at a provider that serves 8 at once",
            await slowing_down(),
            1.6,
            "x",
        )
    )
    return rows + await slower_calls() + await long_generator()


async def slower_calls() -> list[Row]:
    """A batch of calls that take a second, after one of quick calls of the same model: the limiter
    must not treat them as an overload.
    """
    ratios = []
    with serve_in_process() as server:
        for number, concurrency in enumerate((20, 50, 100) * 2):
            lm = OpenAILM(f"model-{number}", base_url=server.base_url, api_key=KEY)
            server.change(latency=0.005)
            await allm_batch([str(each) for each in range(500)], lm, max_concurrent=concurrency)
            server.change(latency=1.0)
            start = time.perf_counter()
            await allm_batch(
                [str(each) for each in range(3 * concurrency)], lm, max_concurrent=concurrency
            )
            ratios.append((time.perf_counter() - start) / 3)
    return [
        Row(
            "wall over ideal, calls of 1 s after calls of 5 ms, c=20, 50 and 100",
            statistics.median(ratios),
            1.3,
            "x",
        )
    ]


async def slowing_down() -> float:
    """Wall time over the ideal with a provider that serves eight calls at once, at a concurrency of
    eighty: more calls only make each slower.
    """
    with serve_in_process(latency=0.06, slow_above=8) as server:
        lm = OpenAILM(MODEL, base_url=server.base_url, api_key=KEY)
        await allm_batch([str(each) for each in range(60)], lm, max_concurrent=8)
        start = time.perf_counter()
        await allm_batch([str(each) for each in range(300)], lm, max_concurrent=80)
        return (time.perf_counter() - start) / (300 / 8 * 0.06)


async def beside_aiohttp(base_url: str, concurrency: int) -> list[Row]:
    """This library compared with aiohttp alone, the lower bound of its transport."""
    makers = {"allm_batch": batch, "aiohttp alone": aiohttp_alone}
    count, goal = BESIDE_AIOHTTP[concurrency]
    found = await interleaved(makers, base_url, count, concurrency, LATENCY)
    ours, bare = found.values()
    what = f"c={concurrency}, {count} prompts"
    return [
        Row(f"wall over that of aiohttp alone, {what}", median_wall_ratio(ours, bare), goal, "x"),
        Row(
            f"CPU per call over that of aiohttp alone, {what}",
            median_cpu_ratio(ours, bare),
            CPU_GOAL,
            "x",
        ),
        *(
            Row(f"wall over ideal, {what}, {name}", median_wall(runs), None, "x")
            for name, runs in found.items()
        ),
        *(
            Row(f"CPU per call, {what}, {name}", median_cpu(runs), None, "ms")
            for name, runs in found.items()
        ),
    ]


async def beside_peers(base_url: str, concurrency: int, goal: float) -> list[Row]:
    """This library and the peers over aiohttp, the faster transport for all of them."""
    makers = {"allm_batch": batch} | {
        name: peer for name, peer in peers().items() if "default" not in name
    }
    count = PEERS_PROMPTS[concurrency]
    found = await interleaved(makers, base_url, count, concurrency, LATENCY)
    rows = [
        Row(
            f"wall over ideal, c={concurrency}, {name}, {count} prompts",
            median_wall(runs),
            goal if name == "allm_batch" and count == 1000 else None,
            "x",
        )
        for name, runs in found.items()
    ]
    if count < 1000:
        ours = await interleaved({"allm_batch": batch}, base_url, 1000, concurrency, LATENCY)
        rows.append(
            Row(
                f"wall over ideal, c={concurrency}, allm_batch, 1000 prompts",
                median_wall(ours["allm_batch"]),
                goal,
                "x",
            )
        )
    if concurrency == 100:
        rows += [
            Row(f"CPU per call, c=100, {name}", median_cpu(runs), None, "ms")
            for name, runs in found.items()
        ]
    return rows


async def long_generator() -> list[Row]:
    """Throughput and memory over a hundred thousand prompts from a generator, against a server that
    answers at once.

    A slow reader delays a batch, so short batches can be measured between the sections of the long
    one: other load affects both.
    """
    with serve_in_process() as server:
        lm = OpenAILM(MODEL, base_url=server.base_url, api_key=KEY)
        await read(allm_batch_iter(prompts(SHORT), lm, max_concurrent=50), SHORT)
        long = allm_batch_iter(prompts(LONG), lm, max_concurrent=50)
        ratios, marks, total = [], [], 0.0
        for _ in range(LONG // SECTION):
            section = await read(long, SECTION)
            short = await read(allm_batch_iter(prompts(SHORT), lm, max_concurrent=50), SHORT)
            ratios.append((SECTION / section) / (SHORT / short))
            marks.append(resident())
            total += section
        assert await anext(long, None) is None
    return [
        Row(
            "throughput of 100,000 prompts over that of 1,000",
            statistics.median(ratios),
            0.9,
            "x",
            at_least=True,
        ),
        Row(
            f"memory after 100,000 prompts over that after {SECTION}",
            (marks[-1] - marks[0]) / 1e6,
            5.0,
            "MB",
        ),
        Row("time per call, 100,000 prompts, c=50, no latency", total / LONG * 1000, None, "ms"),
    ]


def prompts(count: int) -> Iterator[str]:
    yield from (f"prompt {number}" for number in range(count))


async def read(replies: AsyncIterator[tuple[int, str]], count: int) -> float:
    """The time for this many replies."""
    start = time.perf_counter()
    for _ in range(count):
        await anext(replies)
    return time.perf_counter() - start


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
