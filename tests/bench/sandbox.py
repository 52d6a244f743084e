"""The process sandbox: starting, running, calling, closing; and large contexts."""

import asyncio
import os
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.records import HostFunction, Limits
from rlm_integrations.sandbox.base import Opening
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.process import ProcessSandbox, ProcessSession
from rlm_integrations.sandbox.wire import HEADER_CAP
from tests.bench.table import Row

ECHO = [HostFunction("echo", "(value)")]
MB = 1 << 20


async def echo(_block: int, _function: str, args: list[Any], _kwargs: dict[str, Any]) -> Any:
    return args[0]


async def open_session(corpus: Corpus) -> ProcessSession:
    return await ProcessSandbox().open(Opening(corpus, ECHO, echo, Limits(memory=8 << 30)))


async def seconds(work: Callable[[], Awaitable[Any]], times: int = 5) -> float:
    figures = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        figures.append(time.perf_counter() - begun)
    return statistics.median(figures)


FIRST = """
    import asyncio, time
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.records import Limits
    from rlm_integrations.sandbox.base import Opening
    from rlm_integrations.sandbox.process import ProcessSandbox
    async def main():
        corpus = Corpus.build("x")
        begun = time.perf_counter()
        session = await ProcessSandbox().open(Opening(corpus, [], None, Limits()))
        print(time.perf_counter() - begun)
        await session.close()
    asyncio.run(main())
"""


async def first_session() -> float:
    command = [sys.executable, "-c", textwrap.dedent(FIRST)]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5)
    )


async def later_sessions(corpus: Corpus) -> float:
    figures = []
    for _ in range(20):
        begun = time.perf_counter()
        session = await open_session(corpus)
        figures.append(time.perf_counter() - begun)
        await session.close()
    return statistics.median(figures)


async def inside(session: ProcessSession, code: str) -> float:
    """The measurement that a block prints: the median of its calls."""
    result = await session.execute(textwrap.dedent(code), 1)
    if result.error is not None:
        raise RuntimeError(result.error.traceback)
    return float(result.stdout)


CALLS = """
    import statistics, time
    value = 'x' * {size}
    figures = []
    for _ in range({times}):
        begun = time.perf_counter()
        echo(value)
        figures.append(time.perf_counter() - begun)
    statistics.median(figures)
"""


def worst_header() -> float:
    """Seconds for a header of maximum size with the worst JSON."""
    header = b'{"op":"x","v":[' + b"[]," * ((HEADER_CAP - 100) // 3) + b"0]}"
    frame = len(header).to_bytes(4, "big") + header
    figures = []
    for _ in range(5):
        begun = time.perf_counter()
        Decoder(1 << 30).decode(frame)
        figures.append(time.perf_counter() - begun)
    return statistics.median(figures)


async def fifty(corpus: Corpus) -> None:
    async def one() -> None:
        session = await open_session(corpus)
        await session.execute("1", 1)
        await session.close()

    await asyncio.gather(*[one() for _ in range(50)])


async def watched(work: Awaitable[Any]) -> float:
    """The longest time for which the event loop was blocked meanwhile."""
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        while running:
            begun = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - begun)

    watcher = asyncio.ensure_future(watch())
    await work
    running = False
    await watcher
    return longest


async def to_first_block(text: str) -> None:
    corpus = await runtime.offload(Corpus.build, text)
    session = await open_session(corpus)
    await session.execute("len(context)", 1)
    await session.close()
    await runtime.offload(corpus.close)


async def hundred_megabytes() -> list[Row]:
    text = "0123456789" * 10_000_000
    spent = await seconds(lambda: to_first_block(text))
    held = statistics.median([await watched(to_first_block(text)) for _ in range(5)])
    return [
        Row("100 MB text: corpus made to first block run", spent, 0.35, "s"),
        Row("100 MB text: event loop held at most", held * 1e3, 30, "ms"),
    ]


MEMORY = """
    import asyncio, os, sys, time
    from pathlib import Path
    from rlm_integrations._concurrency import runtime
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.records import Limits
    from rlm_integrations.sandbox.base import Opening
    from rlm_integrations.sandbox.process import ProcessSandbox

    def kilobytes(pid, field):
        return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))

    async def main():
        empty = await ProcessSandbox().open(Opening(Corpus.build("x"), [], None, Limits()))
        base, child = kilobytes("self", "VmRSS"), kilobytes(empty.child._pid, "VmRSS")
        size = 1 << 30
        context = Path(sys.argv[1]) if len(sys.argv) > 1 else "0123456789abcdef" * (size // 16)
        begun = time.perf_counter()
        corpus = await runtime.offload(Corpus.build, context)
        session = await ProcessSandbox().open(Opening(corpus, [], None, Limits()))
        await session.execute("len(context)", 1)
        spent = time.perf_counter() - begun
        # Pages of a memfd are shared memory: they are counted here as the file's, since the host
        # writes and never maps them.
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and "memfd" in os.readlink(link)]
        memfd = sum(link.stat().st_blocks * 512 for link in links)
        host = (kilobytes("self", "VmHWM") - base) * 1024 + memfd
        print(spent, host / size, (kilobytes(session.child._pid, "VmHWM") - child) * 1024 / size)
        await session.close(); await empty.close()
    asyncio.run(main())
"""


def gigabyte(*arguments: str) -> tuple[float, float, float]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    spent, host, child = map(float, done.stdout.split())
    return spent, host, child


async def run() -> list[Row]:
    corpus = Corpus.build("the quick brown fox")
    rows = [
        Row("first session in a process", await first_session() * 1e3, 250, "ms"),
        Row("later sessions", await later_sessions(corpus) * 1e3, 12, "ms"),
    ]
    session = await open_session(corpus)
    block = await seconds(lambda: session.execute("1 + 1", 1), 200)
    rows.append(Row("trivial block", block * 1e3, 0.8, "ms"))
    rows.append(
        Row(
            "host call there and back, 100 bytes",
            await inside(session, CALLS.format(size=100, times=500)) * 1e3,
            0.8,
            "ms",
        )
    )
    rows.append(
        Row(
            "host call there and back, 1 MB each way",
            await inside(session, CALLS.format(size=MB, times=50)) * 1e3,
            6,
            "ms",
        )
    )
    await session.close()
    rows.append(Row("the largest header of a frame, of the worst JSON", worst_header(), 1, "s"))
    rows.append(
        Row(
            "50 sessions at once, opened, run and closed",
            await seconds(lambda: fifty(corpus)),
            0.6,
            "s",
        )
    )
    rows += await hundred_megabytes()
    figures = [gigabyte() for _ in range(5)]
    rows.append(
        Row(
            "1 GB text: corpus made to first block run",
            statistics.median(each[0] for each in figures),
            4,
            "s",
        )
    )
    rows.append(
        Row(
            "1 GB text: memory of the host, its str and the memfd",
            max(each[1] for each in figures),
            2.1,
            "x",
        )
    )
    rows.append(
        Row("1 GB text: memory of the child, peak", max(each[2] for each in figures), 1.1, "x")
    )
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"rlm-bench-{os.getpid()}.txt"
    try:
        with path.open("w") as file:
            for _ in range(1024):
                file.write("0123456789abcdef" * (MB // 16))
        figures = [gigabyte(str(path)) for _ in range(5)]
    finally:
        path.unlink(missing_ok=True)
    rows.append(
        Row(
            "1 GB file: corpus made to first block run",
            statistics.median(each[0] for each in figures),
            4,
            "s",
        )
    )
    rows.append(
        Row(
            "1 GB file: memory of the host beside the mapping",
            max(each[1] for each in figures),
            0.1,
            "x",
        )
    )
    rows.append(
        Row("1 GB file: memory of the child, peak", max(each[2] for each in figures), 1.1, "x")
    )
    return rows
