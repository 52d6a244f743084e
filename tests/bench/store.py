"""The shared store: writes, searches over 300,000 objects, and the memory per object."""

import asyncio
import gc
import itertools
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlm_integrations.store import SharedStore
from tests.bench.table import Row, median

OBJECTS = 300_000
TYPES = ["claim", "claim", "claim", "note", "note", "evidence", "summary"]
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def vocabulary(size: int = 20_000) -> list[str]:
    """Made-up words, the frequent ones short."""
    pick = random.Random(1)
    words: dict[str, None] = {}
    while len(words) < size:
        syllables = 1 if len(words) < 200 else 2 if len(words) < 4_000 else 3
        words[
            "".join(pick.choice(CONSONANTS) + pick.choice(VOWELS) for _ in range(syllables))
            + pick.choice(["", "n", "r", "s"])
        ] = None
    return list(words)


class Findings:
    """An endless sequence of findings whose words are distributed as in natural language."""

    def __init__(self) -> None:
        self.words = vocabulary()
        self.weights = list(
            itertools.accumulate(1 / (rank + 2.7) for rank in range(len(self.words)))
        )
        self.pick = random.Random(2)

    def __iter__(self) -> Iterator[tuple[str, str, str, list[str]]]:
        while True:
            words = self.pick.choices(self.words, cum_weights=self.weights, k=34)
            tags = [f"tag{int(self.pick.paretovariate(0.6)) % 500}" for _ in range(2)]
            yield self.pick.choice(TYPES), " ".join(words[:8]), " ".join(words[8:]), tags


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def one_writer(count: int = 30_000) -> float:
    """Creates per second."""
    worker = SharedStore().worker("worker_A")
    started = time.perf_counter()
    for number in range(count):
        worker.create(
            "claim",
            f"finding number {number}",
            "what was found, in a sentence or two",
            tags=["x", f"y{number % 50}"],
        )
    return count / (time.perf_counter() - started)


def many_writers(count: int = 1_000) -> float:
    """Total creates per second of 16 threads and 16 tasks, after a check that nothing was lost and
    every worker's order was kept.
    """
    store = SharedStore()

    def write(worker, number):
        worker.create(
            "claim",
            f"finding number {number}",
            "what was found, in a sentence or two",
            tags=["x", f"y{number % 50}"],
        )

    def in_thread(name):
        worker = store.worker(name)
        for number in range(count):
            write(worker, number)

    async def in_task(name):
        worker = store.worker(name)
        for number in range(count):
            write(worker, number)
            if number % 10 == 0:
                await asyncio.sleep(0)

    async def tasks():
        await asyncio.gather(*(in_task(f"task{number}") for number in range(16)))

    threads = [
        threading.Thread(target=in_thread, args=(f"thread{number}",)) for number in range(16)
    ]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    assert store.seq == 32 * count
    for name in (f"{kind}{number}" for kind in ("thread", "task") for number in range(16)):
        cards = store.view(f"worker={name} sort=oldest", 10_000)
        assert [card["description"] for card in cards] == [
            f"finding number {number}" for number in range(count)
        ]
        assert [card["id"] for card in cards] == [
            f"{name}_{number:06d}" for number in range(1, count + 1)
        ]
    return 32 * count / elapsed


def resident() -> float:
    """The resident memory of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
        "SC_PAGESIZE"
    )


def first_search(store: SharedStore, findings: Iterator[tuple[str, str, str, list[str]]]) -> float:
    """The first free-text query after 10,000 creates, in ms."""
    worker = store.worker("late")
    for kind, description, content, tags in itertools.islice(findings, 10_000):
        worker.create(kind, description, content, tags=tags)
    return milliseconds(lambda: store.search_text("baru ton"))


def searches(
    store: SharedStore, make: Callable[[random.Random], str], ask: Callable[[str], list[object]]
) -> tuple[float, float]:
    """Median and 95th percentile of 100 different queries, in ms."""
    pick = random.Random(3)
    queries = list(dict.fromkeys(make(pick) for _ in range(100)))
    ask(queries[0])
    times = sorted(milliseconds(lambda query=query: ask(query)) for query in queries)
    return statistics.median(times), times[len(times) * 95 // 100]


def run() -> list[Row]:
    single = median(one_writer)
    shared = median(many_writers)
    rows = [
        Row("create, one writer", single, 60_000, "/s", at_least=True),
        Row("32 writers (16 threads, 16 tasks), in sum", shared, single / 2, "/s", at_least=True),
    ]
    made = Findings()
    findings = iter(made)
    before = resident()
    store = SharedStore()
    worker = store.worker("worker_A")
    characters = 0
    for kind, description, content, tags in itertools.islice(findings, OBJECTS):
        worker.create(kind, description, content, tags=tags)
        characters += len(content)
    bare = resident() - before
    store.search_text("baru")
    store.search('desc~"baru"')
    store.search('text~"baru"')
    full = resident() - before

    def words(pick: random.Random, count: int) -> str:
        return " ".join(pick.choices(made.words, cum_weights=made.weights, k=count))

    def piece(pick: random.Random) -> str:
        text = " ".join(pick.choices(made.words, cum_weights=made.weights, k=4))
        start = pick.randrange(4)
        return text[start : start + pick.randint(4, 14)].strip()

    kinds = {
        "search('type=claim tag=x')": (
            2,
            lambda pick: f"type={pick.choice(TYPES)} tag=tag{int(pick.paretovariate(0.6)) % 500}",
            store.search,
        ),
        "search('desc~\"…\"'), 4 to 14 characters": (
            5,
            lambda pick: f'desc~"{piece(pick)}"',
            store.search,
        ),
        "search_text, 1 to 4 words": (
            5,
            lambda pick: words(pick, pick.randint(1, 4)),
            store.search_text,
        ),
        "search('text~\"…\"'), 4 to 14 characters": (
            None,
            lambda pick: f'text~"{piece(pick)}"',
            store.search,
        ),
    }
    for what, (goal, make, ask) in kinds.items():
        typical, worst = searches(store, make, ask)
        rows += [
            Row(f"{what}, first 50 of 300,000, median", typical, goal, "ms"),
            Row("… 95th percentile", worst, None, "ms"),
        ]
    rows += [
        Row("summary() at 300,000", median(lambda: milliseconds(store.summary), 21), 2, "ms"),
        Row(
            "first free-text query after 10,000 creates more",
            median(lambda: first_search(store, findings)),
            150,
            "ms",
        ),
        Row(
            "the same in a new store",
            median(lambda: first_search(SharedStore(), findings)),
            150,
            "ms",
        ),
        Row(
            "an object beside its content, before any text search",
            bare / OBJECTS - characters / OBJECTS,
            None,
            "bytes",
        ),
        Row(
            "an object beside its content, with all indexes",
            full / OBJECTS - characters / OBJECTS,
            2_048,
            "bytes",
        ),
    ]
    return rows
