"""The record of a run while it happens, made from its events."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.call_id import function_in
from rlm_integrations.events import (
    BatchFinished,
    BatchStarted,
    BlockFinished,
    BlockStarted,
    CallCached,
    CallFailed,
    CallFinished,
    CallReplayed,
    CallStarted,
    ChildFinished,
    Event,
    FunctionCalled,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnFinished,
    TurnStarted,
)
from rlm_integrations.lm.pricing import call_cost
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import CallRecord, Request, Usage
from rlm_integrations.report.data import reading_data
from rlm_integrations.report.live.state import State, run_state
from rlm_integrations.result import RLMResult
from rlm_integrations.spending import Spending
from rlm_integrations.trajectory import Execution, FunctionCall, Iteration, SubCall, call_fields

_SHOWN_PROMPT: Final = 500  # characters of a prompt, until its block is recorded


@dataclass(slots=True, eq=False)
class _Block:
    """A block of code that runs."""

    number: int
    code: str
    start: float
    calls: list[SubCall] = field(default_factory=list)
    functions: list[FunctionCall] = field(default_factory=list)
    children: list["_Run"] = field(default_factory=list)

    def so_far(self, now: float) -> Execution:
        """Its record so far."""
        return Execution(
            block=self.number,
            code=self.code,
            status="running",
            start=self.start,
            elapsed=now - self.start,
            subcalls=(*self.calls, *(child.so_far("", now) for child in self.children)),
            function_calls=tuple(self.functions),
        )


@dataclass(slots=True, eq=False)
class _Run:
    """The root's run, or a child run."""

    query: str
    path: str
    depth: int
    start: float
    parent: str | None
    turns: list[Iteration] = field(default_factory=list)
    reply: Iteration | None = None  # of the turn that is not recorded yet
    executions: list[Execution] = field(default_factory=list)
    block: _Block | None = None

    def turns_so_far(self, now: float) -> tuple[Iteration, ...]:
        """Its turns, and the one that is not recorded yet, once its reply is there."""
        if self.reply is None:
            return tuple(self.turns)
        running = () if self.block is None else (self.block.so_far(now),)
        turn = replace(
            self.reply,
            iteration=len(self.turns) + 1,
            executions=(*self.executions, *running),
            end=now if running else self.reply.end,
        )
        return (*self.turns, turn)

    def so_far(self, answer: str, now: float) -> SubCall:
        """The record of a child run so far."""
        return SubCall(
            path=self.path,
            function=function_in(self.path),
            model="",
            prompt=_shown_prompt(self.query),
            reply=answer,
            depth=self.depth,
            start=self.start,
            end=now,
            turns=self.turns_so_far(now),
        )


class LiveRun:
    """A hook that collects the events of one run, and a source of its states. Events come from the
    thread of the run, and the state is read in another one.

    Args:
        corpus: The document: the final state has what was read of it.

    Attributes:
        is_over: Whether the last state was the final one.
    """

    def __init__(self, corpus: Corpus | None = None) -> None:
        self.is_over = False
        self._corpus = corpus
        self._version = 0
        self._seen = 0
        self._lock = threading.Lock()
        self._begun: RLMResult | None = None
        self._result: RLMResult | None = None
        self._origin = 0.0  # the beginning of the run, in seconds of time.monotonic()
        self._at = 0.0  # the last event, in seconds since then
        self._root = ""
        self._runs: dict[str, _Run] = {}
        self._batches: dict[str, str | None] = {}  # the parents of batches
        self._asked: dict[str, CallStarted] = {}
        self._charges: list[tuple[str, int, Usage | None, str]] = []
        self._cached: list[tuple[str, int]] = []
        self._recorded = 0  # blocks and turns
        self._read: tuple[int, State] = (-1, {})  # how many were read, and what of the document
        self._spent = Spending()
        self._store: list[Any] = []
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            RunStarted: self._start_run,
            ChildFinished: self._end_run,
            RunFinished: self._finish,
            RunFailed: self._finish,
            BatchStarted: self._start_batch,
            BatchFinished: self._end_batch,
            TurnStarted: self._start_turn,
            TurnFinished: self._end_turn,
            BlockStarted: self._start_block,
            BlockFinished: self._end_block,
            FunctionCalled: self._add_function,
            CallStarted: self._start_call,
            CallFinished: self._end_call,
            CallFailed: self._end_call,
            CallCached: self._add_cached,
            CallReplayed: self._add_replayed,
        }

    def __call__(self, event: Event) -> None:
        """Note an event."""
        with self._lock:
            if self._begun is None and isinstance(event, RunStarted | RunFinished):
                self._begin(event)
            elif self._begun is not None and (note := self._notes.get(type(event))) is not None:
                self._at = max(self._at, event.at - self._origin)
                note(event)
                self._version += 1

    def look(self) -> State | None:
        """The state, if it changed since the last look. Blocks."""
        with self._lock:
            ended, begun = self._result, self._begun
            if begun is None or self._seen == self._version:
                return None
            self._seen = self._version
            turns = self._runs[self._root].turns_so_far(self._at)
            charges, self._charges = self._charges, []
            cached, self._cached = self._cached, []
            calls, elapsed, recorded = len(self._asked), self._at, self._recorded
        if ended is not None:
            self.is_over = True
            return run_state(ended, self._corpus)
        if charges or cached:
            self._spent += Spending(charges, call_cost, cached)
        result = replace(
            begun,
            iterations=len(turns),
            total_calls=self._spent.total.calls,
            spent=self._spent,
            trajectory=turns,
            elapsed=elapsed,
            store=None,
        )
        if recorded != self._read[0]:
            self._read = recorded, reading_data(result, None)
        state = run_state(result, reading=self._read[1])
        return {**state, "run": {**state["run"], "store": self._stored(begun)}, "calls": calls}

    def _stored(self, begun: RLMResult) -> Any:
        """What the store has so far; a store that outlives its runs is only named."""
        if begun.store is None or isinstance(begun.options.get("store"), str):
            return None
        from rlm_integrations.store.export import HEADER, line_of

        self._store += map(line_of, begun.store.backend.events(len(self._store)))
        return {**HEADER, "events": list(self._store)}

    # One method for each kind of event.

    def _begin(self, event: RunStarted | RunFinished) -> None:
        result = event.result
        if result is None:  # a stored result follows
            return
        self._begun, self._root = result, event.id
        self._origin, self._at = event.at - result.elapsed, result.elapsed
        self._runs[event.id] = _Run(result.question, "r", 0, self._at, None)
        self._version += 1
        if isinstance(event, RunFinished):
            self._result = result

    def _start_run(self, event: RunStarted) -> None:
        child = _Run(event.query, event.path, event.depth, self._at, event.parent)
        self._runs[event.id] = child
        if (block := self._block_of(event.parent)) is not None:
            block.children.append(child)

    def _end_run(self, event: ChildFinished) -> None:
        child = self._runs.pop(event.id, None)
        block = None if child is None else self._block_of(child.parent)
        if child is not None and block is not None and child in block.children:
            block.children.remove(child)
            block.calls.append(child.so_far(event.answer, self._at))

    def _finish(self, event: RunFinished | RunFailed) -> None:
        if event.id == self._root:
            begun = self._begun
            failed = None if begun is None else replace(begun, stop_reason="failed")
            self._result = event.result or failed

    def _start_batch(self, event: BatchStarted) -> None:
        self._batches[event.id] = event.parent

    def _end_batch(self, event: BatchFinished) -> None:
        self._batches.pop(event.id, None)

    def _start_turn(self, event: TurnStarted) -> None:
        if (run := self._runs.get(event.id)) is not None:
            run.reply, run.executions, run.block = None, [], None

    def _end_turn(self, event: TurnFinished) -> None:
        self._recorded += 1
        if (run := self._runs.get(event.id)) is not None:
            run.turns.append(event.turn)
            run.reply, run.executions, run.block = None, [], None

    def _start_block(self, event: BlockStarted) -> None:
        if (run := self._runs.get(event.id)) is not None:
            run.block = _Block(event.block, event.code, self._at)

    def _end_block(self, event: BlockFinished) -> None:
        self._recorded += 1
        if (run := self._runs.get(event.id)) is not None:
            run.executions.append(event.execution)
            run.block = None

    def _add_function(self, event: FunctionCalled) -> None:
        if (block := self._block_of(event.parent)) is not None:
            block.functions.append(event.call)

    def _start_call(self, event: CallStarted) -> None:
        self._asked[event.id] = event

    def _end_call(self, event: CallFinished | CallFailed) -> None:
        if (asked := self._asked.pop(event.id, None)) is not None:
            record, error = event.record, event.record.error
            if error is None or error.type != "budget":  # which was not made
                call = (asked.model, asked.request.depth, record.usage, record.model)
                self._charges.append(call)
            self._add_call(asked.parent, asked.request, record)

    def _add_cached(self, event: CallCached) -> None:
        self._cached.append((event.model, event.request.depth))
        self._add_call(event.parent, event.request, event.record)

    def _add_replayed(self, event: CallReplayed) -> None:
        record = event.record
        self._charges.append((event.model, event.request.depth, record.usage, record.model))
        self._add_call(event.parent, event.request, record)

    def _add_call(self, parent: str | None, request: Request, record: CallRecord) -> None:
        run = self._run_of(parent)
        if run is None:
            return
        start, end = (max(0.0, each - self._origin) for each in (record.start, record.end))
        if request.role == "root":
            if record.error is None:
                run.reply = Iteration(
                    iteration=0,
                    reply=record.reply,
                    start=start,
                    call_end=end,
                    end=end,
                    **call_fields(record),
                )
        elif run.block is not None:
            call = SubCall(
                path=request.path,
                function=function_in(request.path),
                prompt=_shown_prompt(request.messages[-1].content),
                reply=record.reply,
                depth=request.depth,
                start=start,
                end=end,
                **call_fields(record),
            )
            run.block.calls.append(call)

    def _run_of(self, parent: str | None) -> _Run | None:
        """The run that has this id, or the batch of this id."""
        while parent in self._batches:
            parent = self._batches[parent]
        return self._runs.get(parent or "")

    def _block_of(self, parent: str | None) -> _Block | None:
        run = self._run_of(parent)
        return None if run is None else run.block


def _shown_prompt(text: str) -> PromptPieces:
    """The beginning of a prompt: its parts of the document are found when its block has ended."""
    shown = text[:_SHOWN_PROMPT]
    return PromptPieces((shown,) if shown else (), (), "", len(text) - len(shown))
