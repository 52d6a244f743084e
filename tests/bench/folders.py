"""A large folder: from the question to the first model call, memory, `grep`, and the needle."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlm_integrations import RLM
from tests.bench.table import Row

IS_LONG = True
FILES, FILE_BYTES = 100_000, 10_000
NEEDLE_FILES = 10_000

# A process of its own: its peak is that of the folder. `grep -r` and the REPL's take turns.
RUN = """
import asyncio, json, subprocess, sys, time
from pathlib import Path
from rlm_integrations import RLM
from rlm_integrations.records import Completion, Usage
from rlm_integrations.sandbox.process import ProcessSandbox

BLOCKS = [
    "print('nothing was read')",
    *[f"import time\\nbegun = time.perf_counter()\\nfound = grep('needle_zebra')\\n"
      f"print(len(found), time.perf_counter() - begun)  # {number}" for number in range(6)],
    "FINAL('x')",
]

def peak(pid="self"):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

class Sandbox(ProcessSandbox):
    async def open(self, opening):
        self.session = await super().open(opening)
        return self.session

class Root:
    name, context_window = "root", None
    turn = 0
    figures = {"grep": [], "gnu": []}

    async def complete(self, request):
        if self.turn == 0:
            self.figures["first call"] = time.perf_counter() - begun
        elif self.turn == 1:
            self.figures["host"] = peak()
            self.figures["child"] = peak(sandbox.session.child._pid)
        else:
            output = request.messages[-1].content.split()
            place = output.index("100")
            self.figures["grep"].append(float(output[place + 1]))
        if 0 < self.turn < len(BLOCKS) - 1:
            at = time.perf_counter()
            subprocess.run(["grep", "-r", "needle_zebra", sys.argv[1]], capture_output=True, check=True)
            self.figures["gnu"].append(time.perf_counter() - at)
        block = BLOCKS[self.turn]
        self.turn += 1
        return Completion(f"```repl\\n{block}\\n```", Usage(1, 1), "root", "stop")

root, sandbox = Root(), Sandbox()
rlm = RLM(root, sandbox=sandbox)
begun = time.perf_counter()
result = asyncio.run(rlm.acompletion("Where is the zebra?", Path(sys.argv[1])))
assert result.answer == "x", result
print(json.dumps(root.figures))
"""


def make_folder(root: Path, files: int) -> None:
    """Files of text, every thousandth with the needle."""
    lines = [
        f"line {number} of a file says what it says, word {number * 7919 % 10_007}\n"
        for number in range(1_000)
    ]
    text = "".join(lines)
    for number in range(files):
        path = root / f"d{number // 5_000:02}" / f"e{number // 100:04}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = number * 37 % (len(text) - FILE_BYTES)
        needle = "\nthe needle_zebra is here\n" if number % 1_000 == 777 else ""
        path.write_text(f"{number}\n{text[start : start + FILE_BYTES]}{needle}")


def measured(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


async def seconds_to_needle(folder: Path) -> float:
    begun = time.perf_counter()
    result = await RLM("offline").acompletion("What is the secret code of the harbour?", folder)
    seconds = time.perf_counter() - begun
    (citation, *_) = result.citations
    if "4711" not in result.answer or citation.location != "d01/e0050/005000.txt:2":
        raise AssertionError(f"the needle was not found: {result}")
    return seconds


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        make_folder(large, FILES)
        subprocess.run(["grep", "-r", "needle_zebra", large], capture_output=True, check=True)
        runs = [measured(large) for _ in range(3)]
        first = statistics.median(each["first call"] for each in runs)
        peak = max(each["host"] + each["child"] for each in runs)
        ratio = statistics.median(
            ours / gnu for each in runs for ours, gnu in zip(each["grep"], each["gnu"], strict=True)
        )
        seconds = statistics.median(each for one in runs for each in one["grep"])
        make_folder(small, NEEDLE_FILES)
        needle = small / "d01" / "e0050" / "005000.txt"
        needle.write_text("5000\nThe secret code of the harbour is 4711.\n" + needle.read_text())
        found = asyncio.run(seconds_to_needle(small))
    return [
        Row("100,000 files, 1 GB: to the first model call (median of 3)", first, 2.5, "s"),
        Row("the same: peak of host and child before any read", peak / 1e6, 250, "MB"),
        Row("grep over it, one match in 1,000 files", seconds, None, "s"),
        Row("the same, as a multiple of grep -r", ratio, 1.3, "x"),
        Row("the needle in 10,000 files, offline (one run)", found, None, "s"),
    ]
