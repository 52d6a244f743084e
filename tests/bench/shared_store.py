"""The shared store compared with none, on one task: four questions that need the same labels of the
same 400 records.

A fan-out as in OOLONG: each record has a label that only a model can determine (here an oracle that
is always right), and each question, in a separate child run, counts them in another way. With a
store, a child finds the labels that its siblings have stored; without one it asks again. The
programs are otherwise the same, so the difference is the saving of the store.
"""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass

from rlm_integrations import RLM
from rlm_integrations.records import Completion, Request, Usage
from tests.bench.table import Row

RECORDS = 400
LABELS = ["complaint", "praise", "question", "request"]
USERS = 20
LATENCY = 0.05

ROOT = """
answers = []
for task in ["How many complaints are there?", "Which label is the most frequent?",
             "Which user complains most?", "How many users ask at least one question?"]:
    answers.append(recursive_lm(task, context))
FINAL(answers)
"""
CHILD = """
import collections, json
records = [line.split(" | ") for line in context.splitlines()]
labels = {}
if "store" in globals():
    labels = {card["description"]: card["tags"][0] for card in store.search("type=label", limit=1000)}
missing = [record for record in records if record[0] not in labels]
replies = llm_batch([f"Label this record.\\n\\n{' | '.join(record)}" for record in missing], max_concurrent=50)
for record, reply in zip(missing, replies):
    labels[record[0]] = reply
    if "store" in globals():
        store.create("label", record[0], None, tags=[reply])
pairs = [(record[1], labels[record[0]]) for record in records]
complaints = collections.Counter(user for user, label in pairs if label == "complaint")
results = {
    "How many complaints are there?": sum(complaints.values()),
    "Which label is the most frequent?": collections.Counter(label for _, label in pairs).most_common(1)[0][0],
    "Which user complains most?": max(complaints, key=lambda user: (complaints[user], user)),
    "How many users ask at least one question?": len({user for user, label in pairs if label == "question"}),
}
FINAL(str(results[QUESTION]))
"""


@dataclass(frozen=True, slots=True)
class Task:
    """A document, the oracle's knowledge of it, and the right answers."""

    text: str
    truth: dict[str, str]
    answers: list[str]


def made(seed: int) -> Task:
    """Records whose order, users and labels are random."""
    chance = random.Random(seed)
    rows = [
        (f"record {number:05d}", f"user {chance.randrange(USERS):02d}", chance.choice(LABELS))
        for number in range(RECORDS)
    ]
    complaints = Counter(user for _, user, label in rows if label == "complaint")
    answers = [
        str(sum(complaints.values())),
        Counter(label for _, _, label in rows).most_common(1)[0][0],
        max(complaints, key=lambda user: (complaints[user], user)),
        str(len({user for _, user, label in rows if label == "question"})),
    ]
    text = "\n".join(
        f"{name} | {user} | what the user wrote that day, at some length" for name, user, _ in rows
    )
    return Task(text, {name: label for name, _, label in rows}, answers)


class Oracle:
    """Writes the two programs as root, and returns each record's label as sub-model."""

    name = "oracle"
    context_window: int | None = None

    def __init__(self, truth: dict[str, str]) -> None:
        self._truth = truth

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(LATENCY)
        if request.role == "sub":
            text = self._truth[request.messages[-1].content.split("\n\n")[1].split(" | ")[0]]
        else:
            program = ROOT if request.depth == 0 else CHILD.replace("QUESTION", repr(request.query))
            text = f"```repl{program}```"
        read = sum(len(message.content) for message in request.messages) // 4
        return Completion(text, Usage(read, len(text) // 4 + 1), self.name, "stop")


@dataclass(frozen=True, slots=True)
class Figures:
    """The cost of one run."""

    sub_calls: int
    tokens: int
    seconds: float
    right: int


async def measure(task: Task, store_mode: str) -> Figures:
    rlm = RLM(Oracle(task.truth), max_depth=2, max_parallel_calls=50, store_mode=store_mode)
    begun = time.perf_counter()
    result = await rlm.acompletion("Answer the four questions.", task.text)
    seconds = time.perf_counter() - begun
    given = json.loads(result.answer)
    usage = result.spent.total.usage
    roots = 5  # the root's turn and one of each child
    right = sum(mine == theirs for mine, theirs in zip(given, task.answers, strict=True))
    return Figures(
        result.total_calls - roots, usage.input_tokens + usage.output_tokens, seconds, right
    )


async def run() -> list[Row]:
    rows: list[Row] = []
    figures: dict[str, list[Figures]] = {"shared": [], "none": []}
    for seed in range(5):
        task = made(seed)
        for mode, runs in figures.items():
            runs.append(await measure(task, mode))
    for mode, runs in figures.items():
        name = f"store_mode={mode!r}"
        rows.append(
            Row(
                f"{name}: right answers of 4, the least of five runs",
                min(each.right for each in runs),
                4,
                "",
                at_least=True,
            )
        )
        rows.append(
            Row(f"{name}: sub-calls", statistics.median(each.sub_calls for each in runs), None, "")
        )
        rows.append(
            Row(f"{name}: tokens", statistics.median(each.tokens for each in runs), None, "")
        )
        rows.append(
            Row(f"{name}: wall time", statistics.median(each.seconds for each in runs), None, "s")
        )
    shared, none = figures["shared"], figures["none"]
    calls = statistics.median(a.sub_calls / b.sub_calls for a, b in zip(shared, none, strict=True))
    wall = statistics.median(a.seconds / b.seconds for a, b in zip(shared, none, strict=True))
    rows.append(Row("sub-calls with the store over those without", calls, 0.26, "x"))
    rows.append(Row("wall time with the store over that without", wall, None, "x"))
    return rows
