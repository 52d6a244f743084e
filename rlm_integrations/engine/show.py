"""What runs show on stderr while they go on. It only reads events, and never breaks a run."""

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

_SHOWN = (3_000, 1_000)  # characters of a code or an output, from its start and from its end
_LINES = (45, 15)  # and lines of these
# What moves a cursor, ends a line, or turns text round.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_EVERY_RETRY = 1.0  # seconds between two failed tries that are told
_EVERY = 0.1  # seconds between two drawings of the bar


def display_hooks(*, verbose: bool, progress: bool) -> Iterator[Hook]:
    """The hooks that show runs; one RLM's may show several at once."""
    if verbose:
        yield Turns()
    if progress:
        yield Calls()


class Turns:
    """Prints each turn with its code, its output and its times.

    Every line group begins with its run's id; a child's is indented.
    """

    def __init__(self) -> None:
        self._depths: dict[str, int] = {}  # of the runs under way, by their ids
        self._next_retry = 0.0  # when another failed try is told: there may be hundreds a second

    def __call__(self, event: Event) -> None:
        """Print what the event tells, all at once."""
        if isinstance(event, RunStarted):
            self._depths[event.id] = event.depth
        if isinstance(event, CallRetried):
            if event.at < self._next_retry:
                return
            self._next_retry = event.at + _EVERY_RETRY
        text = _told(event)
        if text:
            head, *rest = text
            body = "".join(textwrap.indent(each, "    ") for each in rest)
            print_whole(
                textwrap.indent(
                    f"[{event.id}] {head}\n{body}", "  " * self._depths.get(event.id, 0)
                )
            )
        if isinstance(event, ChildFinished | RunFinished | RunFailed):
            self._depths.pop(event.id, None)


def _told(event: Event) -> list[str]:
    """A line about the event, and texts that belong to it; nothing where it is not worth a line."""
    match event:
        case RunStarted(query=query, characters=characters):
            return [f"{shortened(query)} ({characters:,} characters)"]
        case TurnStarted(iteration=number):
            return [f"Turn {number}"]
        case BlockStarted(block=block, code=code):
            return [f"Block {block}:", cut_for_display(code)]
        case BlockFinished(execution=execution):
            return [
                _ran(execution),
                cut_for_display(execution.output),
                cut_for_display(execution.error or ""),
            ]
        case TurnFinished(turn=turn):
            return [
                _took(turn),
                *([] if turn.executions else [cut_for_display(turn.reply)]),
                cut_for_display(turn.note),
            ]
        case CallRetried(error=error, delay=delay):
            return [
                f"A call failed and is tried again in {delay:.2g} s (try {error.retries + 1}): {shortened(error)}"
            ]
        case ChildFinished(answer=answer, stop_reason=reason):
            return [f"Child run over: {reason}", cut_for_display(answer)]
        case RunFinished(result=result):
            return [summary(result)]
        case RunFailed(error=error):
            return [f"Run failed: {shortened(error)}"]
    return []


def _ran(execution: Execution) -> str:
    calls = len(execution.subcalls)
    failed = sum(isinstance(call.reply, LLMError) for call in execution.subcalls)
    asked = f", {counted(calls, 'call')}{f' ({failed} failed)' if failed else ''}" if calls else ""
    return f"Block {execution.block}: {execution.status}, {execution.elapsed:.2f} s{asked}"


def _took(turn: Iteration) -> str:
    tokens = (
        f", {turn.usage.input_tokens:,} tokens read and {turn.usage.output_tokens:,} written"
        if turn.usage
        else ""
    )
    return f"Turn {turn.iteration} took {turn.end - turn.start:.2f} s{tokens}"


def summary(result: RLMResult) -> str:
    """How a run ended and what it took, in a line."""
    told = [
        result.stop_reason,
        counted(result.iterations, "turn"),
        counted(result.total_calls, "call"),
        f"{result.elapsed:.2f} s",
    ]
    return ", ".join([*told, *([shortened(result.error)] if result.error else [])])


def counted(count: int, thing: str) -> str:
    """Such as "1 turn" and "2 turns"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def shortened(text: str) -> str:
    """The text as a line of bounded length."""
    return printable(textwrap.shorten(text[:1_000], 200, placeholder=" …"))


def cut_for_display(text: str) -> str:
    """The beginning and the end of a text, in whole lines, with a count of what is left out; it
    ends with a new line or is empty.
    """
    if len(text) > sum(_SHOWN):
        left_out = len(text) - sum(_SHOWN)
        text = f"{text[: _SHOWN[0]]}\n… {left_out:,} characters left out …\n{text[-_SHOWN[1] :]}"
    lines = printable(text.rstrip()).split("\n")
    if len(lines) > sum(_LINES):
        lines[_LINES[0] : -_LINES[1]] = [f"… {len(lines) - sum(_LINES):,} lines left out …"]
    return "\n".join([*lines, ""]) if any(lines) else ""


def printable(text: str) -> str:
    """The text with control characters spelled out, because nobody has checked what models and
    documents say.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def print_whole(text: str) -> None:
    """Write lines to stderr, none of another thread between them; a bar gives way.

    Where there is no stderr, nothing happens.
    """
    with shared("stderr", threading.Lock), contextlib.suppress(OSError, ValueError, AttributeError):
        # Anybody's bar: ours, or one in the user's own loop over documents
        tqdm = sys.modules.get("tqdm")
        if tqdm is not None:
            tqdm.tqdm.write(text, file=sys.stderr, end="")
        else:
            sys.stderr.write(text)
        sys.stderr.flush()


class Calls:
    """Shows how many calls to models are done, under way and failed: one bar for all runs of an RLM
    that go on at the same time.
    """

    def __init__(self) -> None:
        self._make = bar_class()  # loaded here, and not on an event loop
        self._lock = threading.Lock()
        self._runs: set[str] = set()
        self._open: set[str] = set()
        self._retried: dict[str, str] = {}  # of calls that failed and wait for another try, why
        self._failed = 0
        self._bar: Any = None
        self._next = 0.0  # when the bar is drawn again

    def __call__(self, event: Event) -> None:
        """Follow an event."""
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
                case CallFinished() | CallFailed():
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

    def _count(self, event: CallFinished | CallFailed) -> None:
        error = event.record.error
        if self._bar is not None and (error is None or error.type != "cancelled"):
            self._bar.n += 1
            self._failed += error is not None

    def _draw_soon(self) -> None:
        """Draw on this run's loop in a moment, unless that is to happen anyway: a thousand calls a
        second cost ten drawings.
        """
        now = time.monotonic()
        if self._bar is not None and now >= self._next:
            self._next = now + _EVERY
            asyncio.get_running_loop().call_later(_EVERY, self._draw)

    def _draw(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.set_postfix_str(self._state())

    def _state(self) -> str:
        told = [f"{len(self._open)} under way"] if self._open else []
        told += [retried_state(self._retried.values())] if self._retried else []
        told += [f"{self._failed} failed"] if self._failed else []
        told += [f"{len(self._runs)} runs"] if len(self._runs) > 1 else []
        return ", ".join(told)

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        self._open.clear()
        self._retried.clear()
        if bar is not None:
            bar.set_postfix_str(self._state(), refresh=False)
            bar.close()
        self._failed = 0
