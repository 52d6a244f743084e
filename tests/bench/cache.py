"""A batch of 1,000 prompts whose replies a storage has, compared with the calls: 50 ms each, 50 at
once, medians of five runs.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from rlm_integrations import OpenAILM, allm_batch, allm_batch_records
from rlm_integrations.storage import Storage
from tests.bench.table import Row
from tests.standin import serve_in_process
from tests.storage._postgres import binaries, own_server

PROMPTS = [f"Translate into Italian: word {number}" for number in range(1_000)]
LATENCY, CONCURRENT = 0.05, 50


async def measure(name: str, place: str, base_url: str) -> list[Row]:
    """Milliseconds of the whole batch: without a cache, with an empty one, and with all replies."""
    lm = OpenAILM("bench", base_url=base_url, api_key="none")
    await allm_batch(PROMPTS[:CONCURRENT], lm, max_concurrent=CONCURRENT)  # opens connections
    figures: dict[str, list[float]] = {"not cached": [], "cached now": [], "from the cache": []}

    async def timed(what: str, cache: Storage | None) -> None:
        begun = time.perf_counter()
        records = await allm_batch_records(PROMPTS, lm, max_concurrent=CONCURRENT, cache=cache)
        figures[what].append((time.perf_counter() - begun) * 1_000)
        hits = sum(record.saved is not None for record in records)
        assert hits == (len(PROMPTS) if what == "from the cache" else 0)

    with Storage(place) as storage:
        for _ in range(5):
            await timed("not cached", None)
            storage.clear_cache()
            await timed("cached now", storage)
            await timed("from the cache", storage)
    plain, kept, found = (statistics.median(each) for each in figures.values())
    return [
        Row(f"{name}: 1,000 prompts that are kept, over the same without a cache", kept / plain, 1.5, "x"),
        Row(f"{name}: 1,000 prompts from the cache", found, 500, "ms"),
    ]  # fmt: skip


def run() -> list[Row]:
    rows: list[Row] = []
    with serve_in_process(latency=LATENCY) as server, tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "runs")
        rows += asyncio.run(measure("SQLite", place, server.base_url))
        if binaries() is not None:
            with own_server(options="") as postgres:
                rows += asyncio.run(measure("PostgreSQL", postgres.url(), server.base_url))
    return rows
