"""The loop: its cost in addition to the models. A scripted root over real HTTP; the server is a
separate process.
"""

import asyncio
import gc
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rlm_integrations import RLM, Limits, OpenAILM
from rlm_integrations.records import Message, Request
from tests.bench.table import Row
from tests.standin import Ask, Call, RemoteStandIn, serve_in_process

TURNS = 20
TRIVIAL = [f"```repl\nx = {turn}\n```" for turn in range(TURNS)] + ["```repl\nFINAL('done')\n```"]
LOOP = [
    "```repl\nprint(len(context), context[:100])\n```",
    """```repl
size = len(context) // 20 + 1
chunks = [context[i:i + size][:5000] for i in range(0, len(context), size)]
replies = llm_batch(['Say what this is about. ' + chunk for chunk in chunks], max_concurrent=20)
print(len(replies))
```""",
    "```repl\nFINAL(replies[0], evidence=[cite(context[100:160])])\n```",
]
LATENCY = 0.05


def text_of(size: int) -> str:
    """Lines that all differ, so that the document's text in prompts has to be located."""
    lines = "".join(
        f"line {number:09d} of the document says what it says\n"
        for number in range(min(size, 1_000_000) // 55 + 1)
    )
    return (lines * (size // len(lines) + 1))[:size]


def at_server(calls: list[Call], begun: float, ended: float) -> float:
    """The seconds of this time in which at least one request was at the server."""
    total, reached = 0.0, begun
    for call in sorted(calls, key=lambda each: each.arrived):
        start, end = max(call.arrived, reached), min(call.ended or ended, ended)
        if end > start:
            total, reached = total + end - start, end
    return total


async def trivial_turns(server: RemoteStandIn) -> float:
    """Milliseconds per turn, minus the cost of calling the model in the same way."""
    server.change(scripts={"root": TRIVIAL}, latency=0.0)
    lm = OpenAILM("root", base_url=server.base_url, api_key="x")
    rlm = RLM(lm, max_iterations=TURNS + 1)
    request = Request((Message("user", "x" * 4000),), role="root")
    runs, bare = [], []
    for _ in range(7):
        begun = time.perf_counter()
        await rlm.acompletion("What is it?", "a small document")
        runs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        for _ in range(TURNS + 1):
            await lm.complete(request)
        bare.append(time.perf_counter() - begun)
    opened = await one_turn(server)
    return (
        (statistics.median(runs) - opened - statistics.median(bare) * TURNS / (TURNS + 1))
        / TURNS
        * 1e3
    )


async def one_turn(server: RemoteStandIn) -> float:
    """Seconds of a run with one turn: opening, closing, and one call."""
    server.change(scripts={"root": TRIVIAL[-1:]})
    rlm = RLM(OpenAILM("root", base_url=server.base_url, api_key="x"))
    runs = []
    for _ in range(7):
        begun = time.perf_counter()
        await rlm.acompletion("What is it?", "a small document")
        runs.append(time.perf_counter() - begun)
    return statistics.median(runs)


async def full_loops(server: RemoteStandIn, context: object) -> tuple[float, float]:
    """Overhead and time to the first model call of later runs: medians of five."""
    server.change(scripts={"root": LOOP}, latency=LATENCY)
    model = {"base_url": server.base_url, "api_key": "x"}
    rlm = RLM(
        OpenAILM("root", **model),
        OpenAILM("sub", **model),
        max_parallel_calls=20,
        limits=Limits(memory=8 << 30),
    )
    overheads, firsts = [], []
    for _ in range(6):
        server.reset()
        begun = time.monotonic()
        result = await rlm.acompletion("What is it about?", context)
        ended = time.monotonic()
        if (result.stop_reason, len(result.citations), result.total_calls) != ("final", 1, 23):
            raise RuntimeError(
                f"the run went wrong: {result.stop_reason} {result.total_calls} {result.error} {result.trajectory[-1:]}"
            )
        calls = server.calls()
        overheads.append(ended - begun - at_server(calls, begun, ended))
        firsts.append(min(call.arrived for call in calls) - begun)
    return statistics.median(overheads[1:]), statistics.median(firsts[1:])


MEMORY = """
    import asyncio, os, sys, threading, time
    from pathlib import Path
    from rlm_integrations import RLM, OpenAILM
    from rlm_integrations._concurrency import runtime
    from tests.bench import engine

    def kilobytes(pid, field):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)

    def memfds():
        total = 0
        for link in Path("/proc/self/fd").iterdir():
            try:
                if "memfd" in os.readlink(link):
                    total += link.stat().st_blocks // 2
            except OSError:
                pass
        return total

    def children():
        server = next((each for each in list(runtime._shared.values()) if type(each).__name__ == "ForkServer"), None)
        if server is None:
            return []
        return Path(f"/proc/{server._process.pid}/task/{server._process.pid}/children").read_text().split()

    model = {"base_url": sys.argv[1], "api_key": "x"}
    rlm = RLM(OpenAILM("root", **model), OpenAILM("sub", **model), max_parallel_calls=20)
    asyncio.run(rlm.acompletion("warm", "small"))
    base, peak, done = kilobytes("self", "VmRSS"), 0, False

    def watch():
        global peak
        while not done:
            peak = max(peak, kilobytes("self", "VmRSS") + memfds() + sum(kilobytes(pid, "VmRSS") for pid in children()))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch); watcher.start()
    context = Path(sys.argv[2]) if len(sys.argv) > 2 else "0123456789" * 10_000_000
    asyncio.run(rlm.acompletion("What is it about?", context))
    done = True; watcher.join()
    print((peak - base) * 1024)
"""


def peak_memory(server: RemoteStandIn, *arguments: str) -> float:
    """The peak memory of host and child together, in bytes, with a document of 100 MB."""
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), server.base_url, *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


PARENT = """```repl
parts = [context[at:at + 1000] for at in range(0, 20_000, 1000)]
FINAL(recursive_batch([{"query": "child", "context": part} for part in parts]))
```"""
CHILD = "```repl\nFINAL(llm_query('What is it? ' + context[:100]))\n```"


async def twenty_children(server: RemoteStandIn) -> float:
    """Seconds for twenty concurrent child runs, each with one turn and one sub-call: two levels of
    50 ms. Warm.
    """
    server.change(scripts={"root": "tests.bench.engine:parent_or_child"}, latency=LATENCY)
    model = {"base_url": server.base_url, "api_key": "x"}
    rlm = RLM(
        OpenAILM("root", **model), OpenAILM("sub", **model), max_depth=2, max_parallel_calls=20
    )
    spent = []
    for _ in range(6):
        result = await rlm.acompletion("parent", text_of(100_000))
        if result.stop_reason != "final" or result.total_calls != 41:
            raise RuntimeError(
                f"the run went wrong: {result.stop_reason} {result.total_calls} {result.error}"
            )
        spent.append(result.repl_history[0].elapsed)
    return statistics.median(spent[1:])


FOUR = [
    LOOP[0],
    """```repl
chunks = [context[at : at + 40_000] for at in range(0, len(context), len(context) // 20 + 1)]
replies = llm_batch([f"What is this about?\\n\\n{chunk}" for chunk in chunks])
found = [cite(chunk[100:180]) for chunk in chunks]
```""",
    "```repl\nFINAL(replies[0], evidence=found)\n```",
]


async def longest_hold(server: RemoteStandIn) -> float:
    """The longest time, in seconds, for which four runs over ten megabytes each block the loop: the
    median of five rounds.
    """
    server.change(scripts={"root": FOUR}, latency=0.02)
    text = text_of(10_000_000)
    texts = [text, text.replace("says", "säys"), text[1:], text[2:]]
    model = {"base_url": server.base_url, "api_key": "x"}
    rlm = RLM(OpenAILM("root", **model), OpenAILM("sub", **model), max_parallel_calls=20)
    await rlm.acompletion("What is it?", "warm")
    rounds = []
    for _ in range(5):
        gc.collect()
        latest = [0.0]
        watch = asyncio.ensure_future(_record_hold(latest))
        results = await asyncio.gather(*(rlm.acompletion("What is it?", each) for each in texts))
        watch.cancel()
        if [(each.stop_reason, each.total_calls, len(each.citations)) for each in results] != [
            ("final", 23, 20)
        ] * 4:
            raise RuntimeError(f"a run went wrong: {results}")
        rounds.append(latest[0])
    return statistics.median(rounds)


async def _record_hold(latest: list[float], beat: float = 0.002) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(beat)
        latest[0] = max(latest[0], time.perf_counter() - begun - beat)


def parent_or_child(ask: Ask) -> str:
    """The script of both, distinguished by their question."""
    return PARENT if "Question: parent" in ask.prompt else CHILD


async def run() -> list[Row]:
    rows = []
    with serve_in_process() as server:
        rows.append(
            Row(
                f"{TURNS} trivial turns, per turn, over the bare cost of asking",
                await trivial_turns(server),
                1.5,
                "ms",
            )
        )
        for size, goal in ((200_000, 0.03), (10_000_000, 0.06), (100_000_000, 0.18)):
            overhead, first = await full_loops(server, text_of(size))
            rows.append(
                Row(f"full loop, 20 sub-calls, {size / 1e6:g} MB: overhead", overhead, goal, "s")
            )
        rows.append(Row("time to the first model call, 100 MB, warm", first, 0.25, "s"))
        spent = await twenty_children(server)
        rows.append(Row("20 child runs, two levels of 50 ms, warm", spent, 0.2, "s"))
        rows.append(
            Row(
                "four runs on one loop, 10 MB each: longest hold",
                await longest_hold(server) * 1e3,
                10,
                "ms",
            )
        )
        megabytes = await asyncio.to_thread(peak_memory, server) / 1e6
        rows.append(
            Row(
                "peak memory at 100 MB given as a str, host and child",
                megabytes,
                3.2 * 100 + 100,
                "MB",
            )
        )
        with TemporaryDirectory() as folder:
            path = Path(folder) / "document.txt"
            path.write_text("0123456789" * 10_000_000)
            megabytes = await asyncio.to_thread(peak_memory, server, str(path)) / 1e6
        rows.append(
            Row(
                "peak memory at 100 MB given as a path, host and child",
                megabytes,
                1.15 * 100 + 80,
                "MB",
            )
        )
    return rows
