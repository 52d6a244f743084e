"""Displays the progress of runs on stderr. It only reads events, and never stops a run."""

import asyncio
import contextlib
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

from rlm_integrations._concurrency.runtime import shared
from rlm_integrations.events import (
    BlockFinished,
    BlockStarted,
    CallCached,
    CallFailed,
    CallFinished,
    CallRetried,
    CallStarted,
    ChildFinished,
    Event,
    Hook,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnFinished,
    TurnStarted,
)
from rlm_integrations.progress_bar import bar_class, retried_state
from rlm_integrations.records import LLMError
from rlm_integrations.result import RLMResult
from rlm_integrations.trajectory import Execution, Iteration

_SHOWN_CHARS = (3_000, 1_000)  # characters of code or output, from its start and from its end
_SHOWN_LINES = (45, 15)  # and lines, likewise
# Characters that move the cursor, end a line, or change the direction of text
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_RETRY_SECONDS = 1.0  # between two printed retries
_REDRAW_SECONDS = 0.1  # between two updates of the bar


def display_hooks(*, verbose: bool, progress: bool) -> Iterator[Hook]:
    """The hooks that display runs. They can display several concurrent runs."""
    if verbose:
        yield Turns()
    if progress:
        yield Calls()


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


def printable(text: str) -> str:
    """The text with control characters escaped: models and documents are not trusted."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def print_whole(text: str) -> None:
    """Write lines to stderr without lines of other threads between them, above a progress bar.

    Without a stderr, do nothing.
    """
    with shared("stderr", threading.Lock), contextlib.suppress(OSError, ValueError, AttributeError):
        # Any bar: of this library, or of the user's loop over documents
        tqdm = sys.modules.get("tqdm")
        if tqdm is not None:
            tqdm.tqdm.write(text, file=sys.stderr, end="")
        else:
            sys.stderr.write(text)
        sys.stderr.flush()


class Calls:
    """Shows the numbers of finished, active and failed model calls: one bar for all concurrent runs
    of an RLM.
    """

    def __init__(self) -> None:
        self._make = bar_class()  # imported here, not on an event loop
        self._lock = threading.Lock()
        self._runs: set[str] = set()
        self._open: set[str] = set()
        self._retried: dict[str, str] = {}  # error types of calls that wait for a retry, by id
        self._failed = 0
        self._bar: Any = None
        self._next = 0.0  # when the bar may be drawn again

    def __call__(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            match event:
                case RunStarted(parent=None):
                    self._runs.add(event.id)
                    if self._bar is None:
                        self._bar = self._make(desc="models", unit=" calls")
                case CallStarted():
                    self._open.add(event.id)
                case CallRetried(error=error):
                    self._retried[event.id] = error.type
                case CallFinished() | CallFailed() | CallCached():
                    self._open.discard(event.id)
                    self._retried.pop(event.id, None)
                    self._count(event)
                case RunFinished() | RunFailed():
                    self._runs.discard(event.id)
                    if not self._runs:
                        self._close()
                case _:
                    return
            self._draw_soon()

    def _count(self, event: CallFinished | CallFailed | CallCached) -> None:
        error = event.record.error
        if self._bar is not None and (error is None or error.type != "cancelled"):
            self._bar.n += 1
            self._failed += error is not None

    def _draw_soon(self) -> None:
        """Schedule an update of the bar on this run's loop, at most ten a second."""
        now = time.monotonic()
        if self._bar is not None and now >= self._next:
            self._next = now + _REDRAW_SECONDS
            asyncio.get_running_loop().call_later(_REDRAW_SECONDS, self._draw)

    def _draw(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.set_postfix_str(self._state())

    def _state(self) -> str:
        parts = [f"{len(self._open)} under way"] if self._open else []
        parts += [retried_state(self._retried.values())] if self._retried else []
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{len(self._runs)} runs"] if len(self._runs) > 1 else []
        return ", ".join(parts)

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        self._open.clear()
        self._retried.clear()
        if bar is not None:
            bar.set_postfix_str(self._state(), refresh=False)
            bar.close()
        self._failed = 0
