"""Storage: durable appends, the queue, and how soon another process sees an event.

PostgreSQL is measured where its programs are installed; its server syncs as in production.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlm_integrations.storage import JournalRecord, Manifest, Storage
from tests.bench.table import Row, median
from tests.storage._postgres import binaries, own_server

ROOT = Path(__file__).parents[2]
BODY = b'{"value": "an answer of a model, in some words", "notes": []}' * 50  # 3 KB
SECONDS = 1.0


def record(number: int) -> JournalRecord:
    return JournalRecord("run-1", f"r.b1/q0123456789~{number}", BODY)


def singly(storage: Storage) -> float:
    """Milliseconds of one append after another."""

    async def work() -> float:
        begun = time.perf_counter()
        for number in range(20):
            await storage.append([record(number)])
        return (time.perf_counter() - begun) / 20 * 1_000

    return asyncio.run(work())


def by_hundreds(storage: Storage) -> float:
    """Records a second, a hundred in each append."""

    async def work() -> float:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            await storage.append([record(number) for number in range(100)])
            done += 100
        return done / (time.perf_counter() - begun)

    return asyncio.run(work())


def by_tasks(storage: Storage, count: int) -> tuple[float, float]:
    """Records a second of tasks that append one by one, and the longest wait in milliseconds."""

    async def work() -> tuple[float, float]:
        waits: list[float] = []
        end = time.perf_counter() + SECONDS

        async def write() -> None:
            while (begun := time.perf_counter()) < end:
                await storage.append([record(len(waits))])
                waits.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(write() for _ in range(count)))
        return len(waits) / (time.perf_counter() - begun), max(waits) * 1_000

    return asyncio.run(work())


def dequeued(storage: Storage, count: int) -> float:
    """Jobs a second that one process takes."""
    total = 1_000 if count == 1 else 5_000
    storage.queue.enqueue_many([Manifest(task_type="bench") for _ in range(total)])
    begun = time.perf_counter()
    done = 0
    while done < total:
        done += len(storage.queue.dequeue_many(min(count, total - done)))
    return total / (time.perf_counter() - begun)


WRITER = """
import sys
from rlm_integrations.storage import Storage
with Storage(sys.argv[1]) as storage:
    worker = storage.store("bench").worker("w")
    print("ready", flush=True)
    while sys.stdin.readline():
        worker.create("note", "d", "c")
        print("written", flush=True)
"""


def seen(place: str) -> float:
    """Milliseconds from the commit of an event in one process until another has it; the median."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    came: list[float] = []
    written: list[float] = []

    async def follow() -> None:
        with Storage(place) as storage:
            async for event in storage.store("bench").follow():
                came.append(time.perf_counter())
                if event["seq"] == 30:
                    return

    reader = threading.Thread(target=lambda: asyncio.run(follow()))
    reader.start()
    for _ in range(30):
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        written.append(time.perf_counter())
        time.sleep(0.02)
    reader.join()
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return statistics.median(b - a for a, b in zip(written, came, strict=True)) * 1_000


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """The databases to measure, by name."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"SQLite": str(Path(folder) / "runs")}
        if binaries() is None:
            yield found
            return
        with own_server(options="") as server:
            yield {**found, "PostgreSQL": server.url()}


# Of SQLite and PostgreSQL; None where there is no goal
GOALS: dict[str, dict[str, float]] = {
    "SQLite": {"hundreds": 10_000, "writers": 4_000, "wait": 200, "one": 2_000, "twenty": 15_000},
    "PostgreSQL": {"twenty": 10_000},
}


def measure(name: str, storage: Storage) -> list[Row]:
    """The rows of one database."""

    def row(what: str, figure: float, goal: str, unit: str = "/s") -> Row:
        return Row(f"{name}: {what}", figure, GOALS[name].get(goal), unit, unit == "/s")

    rows = [
        row("one append of a record", median(lambda: singly(storage)), "", "ms"),
        row("durable append by hundreds", median(lambda: by_hundreds(storage)), "hundreds"),
    ]
    for count, rate, wait in ((64, "writers", "wait"), (256, "", "")):
        runs = [by_tasks(storage, count) for _ in range(5)]
        rates, waits = zip(*runs, strict=True)
        rows += [
            row(f"{count} writers", statistics.median(rates), rate),
            row(f"{count} writers, the longest wait", statistics.median(waits), wait, "ms"),
        ]
    return [
        *rows,
        row("dequeue one by one", median(lambda: dequeued(storage, 1)), "one"),
        row("dequeue by twenty", median(lambda: dequeued(storage, 20)), "twenty"),
    ]


def run() -> list[Row]:
    rows: list[Row] = []
    with places() as found:
        for name, place in found.items():
            with Storage(place) as storage:
                rows += measure(name, storage)
            rows.append(Row(f"{name}: another process has an event", seen(place), 5, "ms"))
    return rows
