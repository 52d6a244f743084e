"""Prints the turns of runs to stderr. It only reads events, and never stops a run."""

import textwrap

from rlm_integrations.events import (
    BlockFinished,
    BlockStarted,
    CallRetried,
    ChildFinished,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnFinished,
    TurnStarted,
)
from rlm_integrations.records import LLMError
from rlm_integrations.result import RLMResult
from rlm_integrations.terminal import print_whole, printable
from rlm_integrations.trajectory import Execution, Iteration

_SHOWN_CHARS = (3_000, 1_000)  # characters of code or output, from its start and from its end
_SHOWN_LINES = (45, 15)  # and lines, likewise
_RETRY_SECONDS = 1.0  # between two printed retries


class Turns:
    """Prints each turn with its code, its output and its times.

    Every group of lines begins with the id of its run; those of child runs are indented.
    """

    def __init__(self) -> None:
        self._depths: dict[str, int] = {}  # of active runs, by id
        # When the next retry may be printed: there may be hundreds a second
        self._next_retry = 0.0

    def __call__(self, event: Event) -> None:
        """Print the event, with one write."""
        if isinstance(event, RunStarted):
            self._depths[event.id] = event.depth
        if isinstance(event, CallRetried):
            if event.at < self._next_retry:
                return
            self._next_retry = event.at + _RETRY_SECONDS
        lines = _lines_of(event)
        if lines:
            head, *rest = lines
            body = "".join(textwrap.indent(each, "    ") for each in rest)
            print_whole(
                textwrap.indent(
                    f"[{event.id}] {head}\n{body}", "  " * self._depths.get(event.id, 0)
                )
            )
        if isinstance(event, ChildFinished | RunFinished | RunFailed):
            self._depths.pop(event.id, None)


def _lines_of(event: Event) -> list[str]:
    """A line about the event, and its code or output; empty for events that are not shown."""
    match event:
        case RunStarted(query=query, characters=characters):
            return [f"{shortened(query)} ({characters:,} characters)"]
        case TurnStarted(iteration=number):
            return [f"Turn {number}"]
        case BlockStarted(block=block, code=code):
            return [f"Block {block}:", cut_for_display(code)]
        case BlockFinished(execution=execution):
            return [
                _block_line(execution),
                cut_for_display(execution.output),
                cut_for_display(execution.error or ""),
            ]
        case TurnFinished(turn=turn):
            return [
                _turn_line(turn),
                *([] if turn.executions else [cut_for_display(turn.reply)]),
                cut_for_display(turn.note),
            ]
        case CallRetried(error=error, delay=delay):
            retry = f"retried in {delay:.2g} s (attempt {error.retries + 1})"
            return [f"A call failed and is {retry}: {shortened(error)}"]
        case ChildFinished(answer=answer, stop_reason=reason):
            return [f"Child run finished: {reason}", cut_for_display(answer)]
        case RunFinished(result=result):
            return [summary(result)]
        case RunFailed(error=error):
            return [f"Run failed: {shortened(error)}"]
    return []


def _block_line(execution: Execution) -> str:
    calls = len(execution.subcalls)
    failed = sum(isinstance(call.reply, LLMError) for call in execution.subcalls)
    asked = f", {counted(calls, 'call')}{f' ({failed} failed)' if failed else ''}" if calls else ""
    return f"Block {execution.block}: {execution.status}, {execution.elapsed:.2f} s{asked}"


def _turn_line(turn: Iteration) -> str:
    tokens = (
        f", {turn.usage.input_tokens:,} tokens read and {turn.usage.output_tokens:,} written"
        if turn.usage
        else ""
    )
    return f"Turn {turn.iteration} took {turn.end - turn.start:.2f} s{tokens}"


def summary(result: RLMResult) -> str:
    """One line: the stop reason of a run, its turns, calls and time."""
    cached = result.spent.cached
    parts = [
        result.stop_reason,
        counted(result.iterations, "turn"),
        counted(result.total_calls, "call"),
        *([f"{cached:,} from the cache"] if cached else []),
        f"{result.elapsed:.2f} s",
    ]
    return ", ".join([*parts, *([shortened(result.error)] if result.error else [])])


def counted(count: int, thing: str) -> str:
    """The count with its noun, such as "1 turn" or "2 turns"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def shortened(text: str) -> str:
    """The text as one line of limited length."""
    return printable(textwrap.shorten(text[:1_000], 200, placeholder=" …"))


def cut_for_display(text: str) -> str:
    """The beginning and the end of a text, with the number of characters or lines left out. It
    ends with a newline, or is empty.
    """
    if len(text) > sum(_SHOWN_CHARS):
        left_out = len(text) - sum(_SHOWN_CHARS)
        start, end = text[: _SHOWN_CHARS[0]], text[-_SHOWN_CHARS[1] :]
        text = f"{start}\n… {left_out:,} characters left out …\n{end}"
    lines = printable(text.rstrip()).split("\n")
    if len(lines) > sum(_SHOWN_LINES):
        lines[_SHOWN_LINES[0] : -_SHOWN_LINES[1]] = [
            f"… {len(lines) - sum(_SHOWN_LINES):,} lines left out …"
        ]
    return "\n".join([*lines, ""]) if any(lines) else ""
