"""The corpus: built from a string or a path, filled in another process, searched; time, memory, and
how long the interpreter is blocked.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.corpus.spans import Locator, find_quote
from tests.bench.table import Row

MB = 1 << 20
LINE = "The quick brown fox jumps over the lazy dog, once more and again. \n"

# A separate process for each subject, so that the peak is that subject's. It builds the corpus five
# times, and another process fills it.
HOST = """
import json, statistics, subprocess, sys, time
from pathlib import Path
from rlm_integrations.corpus import Corpus

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10

kind, path, unit, count, child = sys.argv[1:]
corpus = Corpus.build("warm")
before = peak()
context = Path(path) if kind == "path" else unit * int(count)
figures = []
for _ in range(5):
    corpus.close()  # two at once would be another subject
    begun = time.perf_counter()
    corpus = Corpus.build(context)
    figures.append(time.perf_counter() - begun)
held = peak() - before
handover = corpus.handover()
(piece,) = handover.pieces
filled = []
for fd in handover.files():
    if kind == "str":
        held += piece.chars * piece.stored
    command = [sys.executable, "-c", child, str(fd), *map(str, (piece.offset, piece.chars, piece.stored, piece.maxchar))]
    for _ in range(5):
        filled.append(json.loads(subprocess.run(command, pass_fds=[fd], capture_output=True, check=True).stdout))
size = piece.chars * corpus.sources[0].width
fill, child_peak = (statistics.median(each[key] for each in filled) for key in ("seconds", "peak"))
print(json.dumps({"build": statistics.median(figures), "host": held / size, "fill": fill, "child": child_peak / size}))
"""

CHILD = """
import json, sys, time
from rlm_integrations.sandbox.fill import fill

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10

before, begun = peak(), time.perf_counter()
text = fill(*map(int, sys.argv[1:]))
print(json.dumps({"seconds": time.perf_counter() - begun, "peak": peak() - before}))
"""


def measured(kind: str, unit: str, count: int, path: Path) -> dict[str, float]:
    """The figures of one subject; a path's file is written first."""
    if kind == "path":
        with path.open("w", encoding="utf-8") as file:
            for _ in range(64):
                file.write(unit * (count // 64))
    command = [sys.executable, "-c", HOST, kind, str(path), unit, str(count), CHILD]
    figures: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout
    )
    return figures


def rows_of(what: str, figures: dict[str, float], build: float | None, host: float) -> list[Row]:
    return [
        Row(f"{what}: corpus made", figures["build"], build, "s"),
        Row(f"{what}: filled in another process", figures["fill"], None, "s"),
        Row(f"{what}: host's memory, text and memory file included", figures["host"], host, "x"),
        Row(f"{what}: child's memory, peak included", figures["child"], 1.1, "x"),
    ]


def sizes(folder: Path) -> list[Row]:
    path = folder / "text.txt"
    hundred, thousand = 100 * MB // len(LINE), 1024 * MB // len(LINE)
    accented, emoji = LINE.replace("o", "\u00f6", 1), LINE.replace("o", "\U0001f600", 1)
    return [
        *rows_of("100 MB str", measured("str", LINE, hundred, path), 0.2, 2.1),
        *rows_of("100 MB ASCII file", measured("path", LINE, hundred, path), 0.2, 0.1),
        *rows_of("100 MB file with accents", measured("path", accented, hundred, path), None, 0.1),
        *rows_of("100 MB str with emoji", measured("str", emoji, hundred // 4, path), None, 2.1),
        *rows_of("1 GB str", measured("str", LINE, thousand, path), 2, 2.1),
        *rows_of("1 GB ASCII file", measured("path", LINE, thousand, path), 2, 0.1),
    ]


async def longest_hold(text: str) -> float:
    """The longest delay of the event loop while a corpus is built in a thread."""
    worst = 0.0
    making = asyncio.ensure_future(runtime.offload(Corpus.build, text))
    while not making.done():
        begun = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - begun)
    making.result().close()
    return worst


def document(size: int) -> str:
    """Text without repetition."""
    draw = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(30_000)]
    lines = []
    while size > 0:
        lines.append(" ".join(draw.choices(words, k=2000)) + "\n")
        size -= len(lines[-1])
    return "".join(lines)


def median_of(work: Callable[[], Any], times: int = 5) -> float:
    figures = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        figures.append(time.perf_counter() - begun)
    return statistics.median(figures)


def searches(text: str) -> list[Row]:
    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        places = [random.Random(number).randrange(len(text) - 20_000) for number in range(50)]
        prompts = [
            f"What is said here?\n\n{text[place : place + 20_000]}\n\nOne line." for place in places
        ]
        quote = text[-300:-100].strip()
        subjects: list[tuple[str, Callable[[], Any], float]] = [
            ("index of places", lambda: Locator(corpus), 0.2),
            (
                "50 prompts with 20,000 of its characters located",
                lambda: [locator.locate(each) for each in prompts],
                0.025,
            ),
            ("an exact quote found at the end", lambda: find_quote(corpus, quote), 0.2),
            (
                "a quote with other white space found at the end",
                lambda: find_quote(corpus, quote.replace(" ", "\n")),
                0.2,
            ),
        ]
        return [Row(f"100 MB: {what}", median_of(work), goal, "s") for what, work, goal in subjects]


def misquote() -> Row:
    """A row of a table of zeros, quoted with one wrong value: every place of the document begins
    like it.
    """
    quote = " ".join(["0"] * 4_000) + " 1"
    with Corpus.build("0 " * (MB // 2)) as corpus:
        return Row(
            "1 MB of zeros: a quote of 4,000 of them and a one, not found",
            median_of(lambda: locate_quote(corpus, quote)),
            0.2,
            "s",
        )


async def run() -> list[Row]:
    text = document(100 * MB)
    holds = [await longest_hold(text) for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        return [
            *sizes(Path(folder)),
            Row(
                "100 MB: event loop held at most while the corpus is made",
                statistics.median(holds) * 1e3,
                30,
                "ms",
            ),
            *searches(text),
            misquote(),
        ]
