"""Shows runs as lines that are redrawn on stderr: a line for each run, and below it one for each of
its child runs. It only reads events, and never stops a run.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from rlm_integrations.engine.show import counted, shortened, summary
from rlm_integrations.events import (
    BatchFinished,
    BatchProgress,
    BatchStarted,
    CallCached,
    CallFailed,
    CallFinished,
    CallReplayed,
    CallRetried,
    CallStarted,
    ChildFinished,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnStarted,
)
from rlm_integrations.lm.running_cost import RunningCost
from rlm_integrations.progress_bar import bar_class, is_shown, retried_state
from rlm_integrations.terminal import (
    has_colours,
    has_terminal,
    print_whole,
    printable,
    progress_screen,
)

MAX_LINES: Final = 10  # on the screen, for all runs that share this hook
MAX_CHILDREN: Final = 5  # lines below one run
_REDRAW_SECONDS = 0.1  # between two redraws; events in between are only counted
_NAME_CHARS = 40  # of a question, where it names a line
# How soon a part is left out of a narrow line, its words, and its colour
Part = tuple[int, str, str]
_CLEAR = "\x1b[K"  # the rest of the line, where the terminal may have echoed Ctrl-C
_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class _Run:
    """What is known of one run, with its child runs."""

    __slots__ = (
        *("asked", "children", "cost", "done", "failed", "finished", "live", "loop", "name"),
        *("parent", "replayed", "retried", "started", "tokens", "turn"),
    )

    def __init__(self, started: RunStarted, parent: "_Run | None") -> None:
        self.parent = parent
        words = textwrap.shorten(started.query[:1_000], _NAME_CHARS, placeholder=" …")
        self.name = printable(words)
        self.started = started.at
        self.children: dict[str, _Run] = {}  # those that are running
        self.finished = 0  # child runs
        self.turn = 0
        self.asked = 0  # calls, with those of a batch that wait for their turn
        self.done = 0
        self.live = 0  # calls that were made now
        self.failed = 0
        self.replayed = 0
        self.tokens = 0
        self.retried: dict[str, str] = {}  # the errors of calls that wait for a retry
        if parent is None:
            self.cost = RunningCost()
            self.loop = asyncio.get_running_loop()

    def lineage(self) -> "Iterator[_Run]":
        """The run and those above it."""
        run: _Run | None = self
        while run is not None:
            yield run
            run = run.parent

    def parts(self, now: float) -> Iterator[Part]:
        """The parts of its line."""
        seconds = max(now - self.started, 1e-9)
        yield 0, f"turn {self.turn}", ""
        yield 1, f"{self.done:,}/{self.asked:,} calls", ""
        if self.failed:
            yield 2, f"{self.failed:,} failed", _RED
        if self.retried:
            yield 3, retried_state(self.retried.values()), _YELLOW
        if self.replayed:
            yield 7, f"{self.replayed:,} replayed", ""
        if self.tokens:
            yield 5, f"{self.tokens:,} tokens", ""
        if self.parent is None:
            if cost := self.cost.shown():
                yield 4, cost, ""
            if self.live:
                yield 8, f"{self.live / seconds:.1f} calls/s", ""
            if number := self.finished + len(self.children):
                yield 9, counted(number, "child run"), ""
        yield 6, _clock(seconds), ""


class RunLines:
    """Shows the turn, the calls, the tokens, the cost and the rate of runs, of any number at once.

    Nothing is shown where stderr is no terminal, outside of a notebook. At the end of a run its
    line is replaced by its summary.

    Args:
        keep: Whether the summary is written; without it, nothing remains of the line.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._make = bar_class()  # imported here, not on an event loop
        self._lock = threading.Lock()
        self._roots: dict[str, _Run] = {}
        self._owners: dict[str | None, _Run] = {}  # of events, by the ids of runs and batches
        self._batches: set[str | None] = set()
        self._asked: dict[str, str] = {}  # models of calls that are under way
        self._loops: Counter[asyncio.AbstractEventLoop] = Counter()  # those that redraw
        self._rows: list[Any] = []
        self._next = 0.0  # when the lines may be drawn again
        self._has_several = False  # runs, which need names
        self._counts: dict[type[Event], Callable[[Any], None]] = {
            RunStarted: self._begin,
            TurnStarted: self._turn,
            CallStarted: self._ask,
            CallRetried: self._retry,
            CallFinished: self._answer,
            CallFailed: self._answer,
            CallReplayed: self._recall,
            CallCached: self._recall,
            BatchStarted: self._begin_batch,
            BatchProgress: self._go_on,
            BatchFinished: self._end_batch,
            ChildFinished: self._end_child,
            RunFinished: self._end,
            RunFailed: self._end,
        }

    def __call__(self, event: Event) -> None:
        """Count an event."""
        count = self._counts.get(type(event))
        if count is not None:
            with self._lock:
                count(event)

    # Runs.

    def _begin(self, event: RunStarted) -> None:
        parent = self._owners.get(event.parent)
        if event.parent is None:
            if not is_shown(self._make):
                return
        elif parent is None:  # the root is not shown
            return
        run = self._owners[event.id] = _Run(event, parent)
        if parent is not None:
            parent.children[event.id] = run
            return
        if not self._roots:
            progress_screen().enter()
        self._roots[event.id] = run
        self._has_several = self._has_several or len(self._roots) > 1
        self._loops[run.loop] += 1
        if self._loops[run.loop] == 1:
            run.loop.call_later(_REDRAW_SECONDS, self._tick, run.loop)
        self._draw()

    def _turn(self, event: TurnStarted) -> None:
        if (run := self._owners.get(event.id)) is not None:
            run.turn = event.iteration

    def _end_child(self, event: ChildFinished) -> None:
        run = self._owners.pop(event.id, None)
        if run is not None and run.parent is not None:
            run.parent.children.pop(event.id, None)
            for each in run.parent.lineage():
                each.finished += 1

    def _end(self, event: RunFinished | RunFailed) -> None:
        run = self._owners.pop(event.id, None)
        if run is None or self._roots.pop(event.id, None) is None:
            return
        self._owners = {id_: own for id_, own in self._owners.items() if run not in own.lineage()}
        self._loops[run.loop] -= 1
        if not self._loops[run.loop]:
            del self._loops[run.loop]
        self._draw()
        words = f"{self._named(run)}{_last_words(run, event)}\n"
        if not self._roots:
            progress_screen().leave()
            self._has_several = False
            self._batches.clear()
            self._asked.clear()
        if self._keep:
            print_whole(words)

    # Calls.

    def _ask(self, event: CallStarted) -> None:
        run = self._owners.get(event.parent)
        if run is not None:
            self._asked[event.id] = event.model
            if event.parent not in self._batches:
                _add(run, asked=1)

    def _retry(self, event: CallRetried) -> None:
        run = self._owners.get(event.parent)
        if run is not None:
            for each in run.lineage():
                each.retried[event.id] = event.error.type

    def _answer(self, event: CallFinished | CallFailed) -> None:
        asked = self._asked.pop(event.id, None)
        run = self._owners.get(event.parent)
        if run is None or asked is None:
            return
        record, error = event.record, event.record.error
        is_cancelled = error is not None and error.type == "cancelled"
        is_single = event.parent not in self._batches
        tokens = 0
        if record.usage is not None:
            tokens = record.usage.input_tokens + record.usage.output_tokens
        while True:
            if is_cancelled:
                run.asked -= is_single
            else:
                run.done += is_single
                run.live += 1
                run.failed += error is not None
                run.tokens += tokens
            if run.retried:
                run.retried.pop(event.id, None)
            if run.parent is None:
                break
            run = run.parent
        if error is None:
            run.cost.add(record, asked)

    def _recall(self, event: CallReplayed | CallCached) -> None:
        run = self._owners.get(event.parent)
        if run is not None:
            number = int(event.parent not in self._batches)
            replayed = isinstance(event, CallReplayed)
            _add(run, asked=number, done=number, replayed=int(replayed))

    # Batches: all their calls are asked for at once.

    def _begin_batch(self, event: BatchStarted) -> None:
        run = self._owners.get(event.parent)
        if run is not None:
            self._owners[event.id] = run
            self._batches.add(event.id)
            _add(run, asked=event.total or 0)

    def _go_on(self, event: BatchProgress) -> None:
        run = self._owners.get(event.id)
        if run is not None:
            _add(run, done=1)

    def _end_batch(self, event: BatchFinished) -> None:
        run = self._owners.pop(event.id, None)
        self._batches.discard(event.id)
        if run is not None:
            _add(run, asked=event.done - (event.total or 0))

    # The lines.

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if loop not in self._loops:
                return
            loop.call_later(_REDRAW_SECONDS, self._tick, loop)
            if time.monotonic() >= self._next:
                self._draw()

    def _draw(self) -> None:
        self._next = time.monotonic() + _REDRAW_SECONDS / 2
        # A terminal that is gone ends no run
        with contextlib.suppress(OSError, ValueError):
            stream = progress_screen().stderr
            columns, lines = _size_of(stream)
            texts = list(self._texts(columns - 1, min(MAX_LINES, max(1, lines - 1))))
            while len(self._rows) > len(texts):
                self._rows.pop().close()
                if not self._rows and has_terminal():
                    stream.write(_CLEAR)
                    stream.flush()
            for row, text in zip(self._rows, texts, strict=False):
                if row.desc != text:
                    row.set_description_str(text)
            for text in texts[len(self._rows) :]:
                self._rows.append(
                    self._make(
                        desc=text,
                        bar_format="{desc}",
                        leave=False,
                        file=stream,
                        dynamic_ncols=True,
                    )
                )

    def _texts(self, width: int, most: int) -> Iterator[str]:
        """The lines of all runs, each run before its child runs."""
        left = most - min(len(self._roots), most)  # lines for child runs
        now = time.monotonic()
        for shown, run in enumerate(self._roots.values()):
            if shown == most - 1 and len(self._roots) > most:
                words = f"and {counted(len(self._roots) - shown, 'more run')}"
                yield _fitted("", [(0, words, "")], width)
                return
            yield _fitted(self._named(run), run.parts(now), width)
            for depth, child in itertools.islice(_below(run), min(MAX_CHILDREN, left)):
                left -= 1
                name = f"{'  ' * min(depth, 4)}{child.name}: "
                yield _fitted(name, child.parts(now), width)

    def _named(self, run: _Run) -> str:
        return f"{run.name}: " if self._has_several else ""


def _below(run: _Run, depth: int = 1) -> Iterator[tuple[int, _Run]]:
    """The child runs that are running, each before its own."""
    for child in run.children.values():
        yield depth, child
        yield from _below(child, depth + 1)


def _add(run: _Run, *, asked: int = 0, done: int = 0, replayed: int = 0) -> None:
    """Add calls to a run and those above it."""
    for each in run.lineage():
        each.asked += asked
        each.done += done
        each.replayed += replayed


def _fitted(name: str, parts: Iterable[Part], width: int) -> str:
    """A line of at most this many columns: the least important parts are left out."""
    from tqdm.utils import disp_len, disp_trim

    kept = list(parts)
    name = disp_trim(name, max(width // 2, width - 40))
    while len(kept) > 1 and disp_len(name + ", ".join(words for _, words, _ in kept)) > width:
        kept.remove(max(kept))
    colours = has_colours()
    shown = ", ".join(
        f"{colour}{words}{_PLAIN}" if colour and colours else words for _, words, colour in kept
    )
    return str(disp_trim(f"{name}{shown}", width))


def _last_words(run: _Run, event: RunFinished | RunFailed) -> str:
    """The summary of a run that has ended."""
    if event.result is None:
        return f"failed: {shortened(getattr(event, 'error', ''))}"
    tokens = [f"{run.tokens:,} tokens"] if run.tokens else []
    cost = run.cost.shown() if run.cost.is_complete else ""
    return ", ".join([summary(event.result), *tokens, *([cost] if cost else [])])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _size_of(stream: Any) -> tuple[int, int]:
    """The columns and lines of a terminal."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):
        size = shutil.get_terminal_size()
    return size.columns or 80, size.lines or 24
