"""Ask three questions over ten megabytes of text, and compare the answers and their citations with
the facts hidden in it.

No key and no network are needed: the model is "offline", a stand-in that finds sentences by their
words and quotes them. The loop, the sandbox and the citation check are real. Documents, facts and
places are new in each run.

    python examples/demo.py [--seed N] [--megabytes M] [--spoil]
"""

import argparse
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from rlm_integrations import RLM, RLMResult
from rlm_integrations.events import BlockFinished, CallFailed, CallFinished, CallStarted, Event

PLACES = (
    "Lisbon Porto Bergen Tallinn Ghent Trieste Cadiz Galway Utrecht Turku Malmö Kraków Nantes "
    "Bilbao Varna Siena"
).split()
NAMES = (
    "Ana Bruno Carla Dario Elena Félix Greta Hugo Irene Jonas Klara Leif Marta Nils Olga Pablo"
).split()
SURNAMES = (
    "Almeida Berg Castro Dahl Ekström Ferro Girard Holt Ibáñez Juhl Kovač Lund Moreau Novak "
    "Orsini Petit"
).split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
WHO = (
    "The clerk|A merchant|The old harbour master|Her cousin|The surveyor|A retired captain|The "
    "baker's son|Nobody"
).split("|")
DID = "counted|forgot|described|sold|repaired|drew|praised|weighed|carried home|wrote down".split(
    "|"
)
WHAT = (
    "the barrels of salt|nine crates of lemons|a map of the coast|the price of wool|two broken "
    "oars|the café's ledger"
).split("|")
WHEN = (
    "before noon|in the rain|during the fair|after supper|at low tide|without a word|as every "
    "year|for the third time"
).split("|")
SOURCES = 5


@dataclass(frozen=True, slots=True)
class Needle:
    """A fact hidden in the document: its question, and the place of its answer."""

    question: str
    sentence: str
    value: str
    source: str = ""
    start: int = 0


def facts(random: Random) -> Iterable[list[Needle]]:
    """For each kind of fact, one about each of four places: the first is the one in question, the
    others are distractors.
    """
    for kind in range(3):
        alike = []
        for place in random.sample(PLACES, 4):
            if kind == 0:
                value = str(random.randrange(10_000, 100_000))
                ask, say = (
                    f"What is the access code of the {place} vault?",
                    f"The access code of the {place} vault is {value}.",
                )
            elif kind == 1:
                value = (
                    f"{random.choice(NAMES)} {random.choice(SURNAMES)}-{random.choice(SURNAMES)}"
                )
                ask, say = (
                    f"Who is the guardian of the {place} archive?",
                    f"The guardian of the {place} archive is {value}.",
                )
            else:
                value = (
                    f"{random.randrange(1, 29)} {random.choice(MONTHS)} "
                    f"{random.randrange(1800, 2000)}"
                )
                ask, say = (
                    f"When did the {place} expedition depart?",
                    f"The {place} expedition did depart on {value}.",
                )
            alike.append(Needle(ask, say, value))
        yield alike


def made_up(random: Random, characters: int) -> tuple[list[str], list[Needle]]:
    """A document of several texts of different lengths, and the needles in it."""
    chatter = [f"{' '.join(map(random.choice, (WHO, DID, WHAT, WHEN)))}." for _ in range(2_000)]
    shares = [random.uniform(0.5, 1.5) for _ in range(SOURCES)]
    texts = []
    for share in shares:
        sentences = random.choices(chatter, k=int(characters * share / sum(shares) / 56))
        texts.append(
            [
                f"{sentence}\n\n" if random.random() < 0.1 else f"{sentence} "
                for sentence in sentences
            ]
        )
    hidden = []
    for alike in facts(random):
        for needle in alike:
            number = random.randrange(SOURCES)
            texts[number].insert(random.randrange(len(texts[number])), f"{needle.sentence} ")
            hidden.append((needle, number))
    document = ["".join(sentences) for sentences in texts]
    places = [
        (needle, number, document[number].index(needle.sentence)) for needle, number in hidden[::4]
    ]
    return document, [
        Needle(each.question, each.sentence, each.value, f"context_{number}", start)
        for each, number, start in places
    ]


class Clock:
    """Adds up, from the events of a run, the time of model calls and of code."""

    def __init__(self) -> None:
        self.root = self.sub = self.blocks = 0.0
        self._asked: dict[str, bool] = {}  # calls in flight, and whether the root made them
        # when the first of them began; the root makes no calls while its code runs
        self._since = 0.0

    def __call__(self, event: Event) -> None:
        """Follow an event."""
        if isinstance(event, CallStarted):
            if not self._asked:
                self._since = event.at
            self._asked[event.id] = event.request.role == "root"
        elif isinstance(event, CallFinished | CallFailed):
            is_root = self._asked.pop(event.id)
            if is_root:
                self.root += event.at - self._since
            elif not self._asked:
                self.sub += event.at - self._since
        elif isinstance(event, BlockFinished):
            self.blocks += event.execution.elapsed


def wrong_with(result: RLMResult, needle: Needle, document: Sequence[str]) -> str:
    """The errors of an answer; empty if it is right."""
    for each in result.citations:
        number = int(each.source.removeprefix("context_"))
        if document[number][each.start : each.end] != each.quote:
            return f"the citation {each} differs from the document at that place"
    if needle.value not in result.answer:
        return f"the document says {needle.value!r}, the answer does not"
    end = needle.start + len(needle.sentence)
    if not any(
        each.source == needle.source and each.start <= needle.start and end <= each.end
        for each in result.citations
    ):
        return f"no citation has its place: {needle.source}, {needle.start}-{end}"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 if every answer is right and cited, otherwise 1."""
    parser = argparse.ArgumentParser(
        description="Ask questions over a large document and check the answers."
    )
    parser.add_argument("--seed", type=int, help="repeats a run")
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument(
        "--spoil",
        action="store_true",
        help="remove a hidden fact, to see the check fail",
    )
    options = parser.parse_args(argv)
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    document, needles = made_up(Random(seed), int(options.megabytes * 1e6))  # noqa: S311 - no secret
    print(
        f"{sum(map(len, document)):,} characters in {len(document)} texts; repeat this run "
        f"with --seed {seed}"
    )
    if options.spoil:
        spoiled = needles[0]
        number = int(spoiled.source.removeprefix("context_"))
        document[number] = document[number].replace(spoiled.sentence, "*" * len(spoiled.sentence))

    clock, wrong, calls, begun = Clock(), 0, 0, time.monotonic()
    with RLM("offline", on_event=clock).session(document) as chat:
        for needle in needles:
            result = chat.completion(needle.question)
            calls += result.total_calls
            problem = wrong_with(result, needle, document)
            wrong += bool(problem)
            print(f"\nQ: {needle.question}\nA: {result.answer}")
            for each in result.citations:
                held = (
                    document[int(each.source.removeprefix("context_"))][each.start : each.end]
                    == each.quote
                )
                print(
                    f"   {each.source} {each.start:,}-{each.end:,} "
                    f"{'holds' if held else 'does NOT hold'} {each.quote!r}"
                )
            print(f"   WRONG: {problem}" if problem else "   right, and cited at its place")
    total = time.monotonic() - begun

    code = clock.blocks - clock.sub
    parts = {
        "root calls": clock.root,
        "sub calls": clock.sub,
        "code": code,
        "the rest": total - clock.root - clock.sub - code,
    }
    print(f"\nTime: {total:.2f} s, with {calls} calls to the model:")
    print(
        "\n".join(
            f"   {name:<12}{seconds:6.2f} s{100 * seconds / total:5.0f} %"
            for name, seconds in parts.items()
        )
    )
    print(
        f"\n{wrong} of {len(needles)} answers are wrong"
        if wrong
        else "\nAll answers are right, and every citation is valid."
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
