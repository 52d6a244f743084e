"""A store in a database: durable writes, and searches over 1,000,000 objects (minutes to build).

`python -m tests.bench stored_store`; it is not among the benchmarks that run by default.
"""

import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rlm_integrations.storage import Storage, StoredStore
from rlm_integrations.store.draft import Draft
from rlm_integrations.store.log import Created
from rlm_integrations.store.query import Query
from tests.bench.store import Findings
from tests.bench.table import Row

IS_LONG = True
OBJECTS = int(os.environ.get("RLM_BENCH_OBJECTS", "1000000"))
SECONDS = 2.0


def append(store: StoredStore, findings: object, count: int) -> None:
    """One durable write of `count` objects."""
    some = list(itertools.islice(findings, count))  # type: ignore[call-overload]
    worker = store.worker("bench")

    def build(state: object, seq: int, ts: float) -> list[Created]:
        return [
            Created(
                seq + at, ts, "bench", f"bench/{seq + at}",
                *Draft(kind, description, content, (), (), tuple(dict.fromkeys(tags))), 0,
            )
            for at, (kind, description, content, tags) in enumerate(some)
        ]  # fmt: skip

    worker.append(build)


def by_writers(store: StoredStore, count: int) -> tuple[float, float]:
    """Creates a second of threads that write one by one, and the longest wait in milliseconds."""
    waits: list[float] = []
    end = time.perf_counter() + SECONDS

    def write(number: int) -> None:
        worker = store.worker(f"w{number}")
        while (begun := time.perf_counter()) < end:
            worker.create("note", "a finding in some words", "what was found", tags=["x"])
            waits.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(waits) / (time.perf_counter() - begun), max(waits) * 1_000


def milliseconds(work: Callable[[], object], times: int = 15) -> float:
    """The median time of a call."""

    def once() -> float:
        begun = time.perf_counter()
        work()
        return (time.perf_counter() - begun) * 1_000

    return statistics.median(once() for _ in range(times))


def built(store: StoredStore, findings: object, words: list[str]) -> float:
    """Objects a second while the store is filled, by hundreds, with its indexes kept current."""
    append(store, findings, 6_000)
    store.view(f"desc~{words[5_000]}")  # from here on there are indexes
    store.search_text(words[5_000])
    begun = time.perf_counter()
    for _ in range((OBJECTS - 6_000) // 100):
        append(store, findings, 100)
    store.view(f"desc~{words[5_001]}")
    store.search_text(words[5_001])
    return (OBJECTS - 6_000) / (time.perf_counter() - begun)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, Storage(Path(folder) / "runs") as storage:
        writers = [by_writers(storage.store(f"writers{number}"), 64) for number in range(5)]
        rates, waits = zip(*writers, strict=True)
        store, findings = storage.store("large"), Findings()
        words = findings.words
        rate = built(store, iter(findings), words)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        needle = words[4_500]

        def row(what: str, work: Callable[[], object], goal: float | None = None) -> Row:
            return Row(f"{OBJECTS:,} objects: {what}", milliseconds(work), goal, "ms")

        tagged = f"type=claim tag=tag7 desc~{needle}"
        return [
            Row("durable append by hundreds, all indexes", rate, 10_000, "/s", at_least=True),
            Row("64 writers", statistics.median(rates), 4_000, "/s", at_least=True),
            Row("64 writers, the longest wait", statistics.median(waits), 200, "ms"),
            row("newest 20, description", lambda: store.view(f"desc~{needle}", 20), 1),
            row("newest 20, with tag", lambda: store.view(tagged, 20), 15),
            row("counters", lambda: store.backend.counts(Query(), 10), 0.1),
            row("summary", lambda: store.summary("", 10)),
            row("newest 20", lambda: store.view("", 20)),
            row("needle of 2 characters that is rare", lambda: store.view("desc~qx", 20)),
            row("text search", lambda: store.search_text(f"{needle} {words[900]}", 10)),
            row("one object", lambda: store.get("bench/5000")),
            Row(f"{OBJECTS:,} objects on the disk", size / 1e6, None, "MB"),
        ]
