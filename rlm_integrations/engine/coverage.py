"""Which parts of the document models had in their prompts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Literal

from rlm_integrations.engine.prompts.observation import cut_output, output_shares
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import SpanRef
from rlm_integrations.trajectory import Iteration

Locate = Callable[[str], PromptPieces]


@dataclass(frozen=True, slots=True)
class Reading:
    """A call of a model whose prompt contained parts of the document.

    Attributes:
        kind: "turn" for a call of a root model, "call" for a call by its code.
        number: Its number among the turns, or among the calls and child runs, of the whole record:
            each turn comes before the calls of its blocks, and a child run before its turns. The
            first is 1.
        spans: The parts, in the order of the prompt.
    """

    kind: Literal["turn", "call"]
    number: int
    spans: tuple[SpanRef, ...]


def readings_of(
    trajectory: Sequence[Iteration], *, shown: int = 0, locate: Locate | None = None
) -> list[Reading]:
    """What the calls of a run read, by its recorded prompts.

    Args:
        trajectory: The turns of the root.
        shown: `Limits.stdout_shown` of the run.
        locate: Finds the document's parts in a text. With it, output that a turn was shown counts
            as read by the turn; without it, only recorded prompts count.
    """
    return list(_readings(trajectory, shown, locate, count(1), count(1)))


def _readings(
    turns: Sequence[Iteration],
    shown: int,
    locate: Locate | None,
    turn_numbers: Iterator[int],
    call_numbers: Iterator[int],
) -> Iterator[Reading]:
    before: Iteration | None = None
    for turn in turns:
        spans = list(turn.prompt.spans) if turn.prompt is not None else []
        if before is not None and locate is not None:
            spans += _shown_spans(before, shown, locate)
        number = next(turn_numbers)
        if spans:
            yield Reading("turn", number, tuple(spans))
        for execution in turn.executions:
            for call in execution.subcalls:
                number = next(call_numbers)
                # The prompt of a child run is its question, which no model read in this form
                if call.prompt.spans and not call.turns:
                    yield Reading("call", number, call.prompt.spans)
                yield from _readings(call.turns, shown, locate, turn_numbers, call_numbers)
        before = turn


def _shown_spans(turn: Iteration, shown: int, locate: Locate) -> list[SpanRef]:
    """The parts of the document in the output that the next turn was shown."""
    ran = turn.executions
    shares = output_shares([len(each.output) + each.dropped for each in ran], shown)
    return [
        span
        for each, share in zip(ran, shares, strict=True)
        for span in locate(cut_output(each.output.rstrip("\n"), share, each.dropped)).spans
    ]


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Adjacent characters of a source that were read equally often.

    Attributes:
        start: The offset of the first one.
        end: The offset after the last one.
        times: In how many prompts they were; 0 for a part that was never read.
    """

    start: int
    end: int
    times: int


def read_parts(spans: Iterable[SpanRef], length: int) -> list[ReadPart]:
    """The parts of a source of this length, in order and without gaps.

    Args:
        spans: What each reading had of this source; parts beyond its end are ignored.
        length: The length of the source in characters.
    """
    changes: dict[int, int] = {0: 0, length: 0}
    for span in spans:
        start, end = min(span.start, length), min(span.end, length)
        changes[start] = changes.get(start, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    parts: list[ReadPart] = []
    times, places = 0, sorted(changes)
    for start, end in pairwise(places):
        times += changes[start]
        if parts and parts[-1].times == times:
            parts[-1] = ReadPart(parts[-1].start, end, times)
        else:
            parts.append(ReadPart(start, end, times))
    return parts
