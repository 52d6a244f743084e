"""Which parts of the document models had in their prompts, by the record of a run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Literal

from rlm_integrations._files import write_whole
from rlm_integrations.call_prompts import CallPrompt, PromptWalk, Shown
from rlm_integrations.certificate import certificate_of
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.trajectory import Iteration

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult


@dataclass(frozen=True, slots=True)
class Reading:
    """An answered call of a model whose prompt contained parts of the document.

    Attributes:
        path: The path of the call, as in `SubCall.path`; for a turn the path of its run and its
            number, such as `r:t2`.
        kind: "turn" for a call of a root model, "call" for a call by its code.
        number: Its number among the turns, or among the calls and child runs, of the whole record:
            each turn comes before the calls of its blocks, and a child run before its turns. The
            first is 1.
        spans: The parts, in the order of the prompt.
        ambiguous: Those of `spans` whose text also occurs elsewhere in the document; the place is
            the likely one.
    """

    path: str
    kind: Literal["turn", "call"]
    number: int
    spans: tuple[SpanRef, ...]
    ambiguous: tuple[SpanRef, ...] = ()


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


@dataclass(frozen=True, slots=True)
class SourceCoverage:
    """What was read of one source.

    Attributes:
        source: The name of the source.
        length: Its length in characters.
        parts: All its characters, in order and without gaps.
    """

    source: str
    length: int
    parts: tuple[ReadPart, ...]

    @property
    def characters_read(self) -> int:
        """How many of its characters were read."""
        return sum(part.end - part.start for part in self.parts if part.times)

    @property
    def read(self) -> tuple[SpanRef, ...]:
        """The parts that were read, joined."""
        joined = _joined((part.start, part.end) for part in self.parts if part.times)
        return tuple(SpanRef(self.source, start, end) for start, end in joined)

    @property
    def unread(self) -> tuple[SpanRef, ...]:
        """The parts that were never read."""
        return tuple(
            SpanRef(self.source, part.start, part.end) for part in self.parts if not part.times
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which parts of the document were in which prompts, and which in none.

    Attributes:
        sources: What was read of each source.
        readings: The calls that read something, in the order of the record.
        uncounted: How many calls are not counted, or not in full, because their prompts
            are not, or not in full, in the record (`Limits.recorded_chars`).
        result: The run, for its certificate.
    """

    sources: tuple[SourceCoverage, ...]
    readings: tuple[Reading, ...] = field(repr=False)
    uncounted: int = 0
    result: "RLMResult | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, result: "RLMResult", shown: Shown | None = None) -> "Coverage":
        """The coverage of a run; see `RLMResult.coverage`.

        Args:
            result: The run.
            shown: Finds the parts of the document in the output of a turn. It is used for turns
                whose prompts are not recorded.
        """
        lengths = {source.name: source.length for source in result.sources}
        return replace(coverage_of(result.trajectory, lengths, shown), result=result)

    @property
    def characters(self) -> int:
        """The length of the document in characters."""
        return sum(source.length for source in self.sources)

    @property
    def characters_read(self) -> int:
        """How many of them were in a prompt."""
        return sum(source.characters_read for source in self.sources)

    @property
    def share(self) -> float:
        """The share of the document that was read, from 0 to 1; 1 for an empty document."""
        return self.characters_read / self.characters if self.characters else 1.0

    @property
    def unread(self) -> tuple[SpanRef, ...]:
        """The parts that were never read, in the order of the document."""
        return tuple(span for source in self.sources for span in source.unread)

    def readings_of(self, span: SpanRef) -> tuple[Reading, ...]:
        """The calls that read a character of this span."""
        return tuple(
            reading
            for reading in self.readings
            if any(
                each.source == span.source and each.start < span.end and span.start < each.end
                for each in reading.spans
            )
        )

    def certificate(self, path: str | PathLike[str]) -> None:
        """Write a file from which anyone who has the documents can verify what was read, and the
        citations: `python -m rlm_integrations.verify FILE DOCUMENT…`.

        It has the question, the answer and the prompts, with the documents as hashes and spans. It
        is not signed: it proves that it agrees with the documents, not who made it.

        Raises:
            OSError: The file cannot be written.
            InputError: This is not the coverage of a result.
        """
        if self.result is None:
            raise InputError("a certificate needs a result: result.coverage.certificate(path)")
        write_whole(path, [json.dumps(certificate_of(self.result, self.uncounted), indent=0)])

    def __str__(self) -> str:
        """One line: how much was read, and in how many prompts."""
        return (
            f"{self.share:.1%} read: {self.characters_read:,} of {self.characters:,} characters, "
            f"by {len(self.readings):,} calls"
        )


def coverage_of(
    turns: Sequence[Iteration], lengths: Mapping[str, int], shown: Shown | None = None
) -> Coverage:
    """The coverage of a run with these turns over sources of these lengths; see `Coverage.of`."""
    walk = PromptWalk(shown)
    prompts = list(walk.prompts(turns))
    readings = tuple(_reading(each) for each in prompts if each.prompt.spans)
    spans: dict[str, list[SpanRef]] = {source: [] for source in lengths}
    for reading in readings:
        for span in reading.spans:
            if span.source in spans:  # a damaged record may name any
                spans[span.source].append(span)
    return Coverage(
        tuple(
            SourceCoverage(source, length, read_parts(spans[source], length))
            for source, length in lengths.items()
        ),
        readings,
        walk.unrecorded + sum(each.prompt.left_out > 0 for each in prompts),
    )


def _reading(call: CallPrompt) -> Reading:
    prompt, spans = call.prompt, call.prompt.spans
    unsure = {prompt.pieces[at] for at in prompt.ambiguous if at < len(prompt.pieces)}
    ambiguous = tuple(each for each in spans if each in unsure) if unsure else ()
    return Reading(call.path, call.kind, call.number, spans, ambiguous)


def read_parts(spans: Iterable[SpanRef], length: int) -> tuple[ReadPart, ...]:
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
    times = 0
    for start, end in pairwise(sorted(changes)):
        times += changes[start]
        if parts and parts[-1].times == times:
            parts[-1] = ReadPart(parts[-1].start, end, times)
        else:
            parts.append(ReadPart(start, end, times))
    return tuple(parts)


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Adjacent spans as one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined
