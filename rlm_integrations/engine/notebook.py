"""Records the activity of a block while it runs, within a limit of size."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.engine.citations import MAX_CITATIONS
from rlm_integrations.engine.notes import AmbiguousQuote, CallNote, UncheckedQuote
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import LLMError, SpanRef
from rlm_integrations.sandbox.base import ExecutionResult
from rlm_integrations.trajectory import Execution, FunctionCall, SubCall

# The size of a record without its strings
_CALL_CHARS = 1_000  # a model call or a block
_FUNCTION_CALL_CHARS = 300
_SPAN_CHARS = 50  # a span in a prompt
# The recorded fields of a store event
_EVENT_FIELDS = ("op", "id", "type", "description", "worker", "ts")
# Half from the start of a string, half from its end
_SHORTENED_CHARS = 1_000


class RecordRoom:
    """The remaining size of the record of a tree.

    A quarter of it is reserved for shortened strings.
    """

    def __init__(self, characters: int) -> None:
        self._left = characters
        self._reserve = characters // 4

    @property
    def is_full(self) -> bool:
        """Whether no further call can be recorded."""
        return self._left < 2 * _CALL_CHARS

    def has_room_for(self, call: FunctionCall) -> bool:
        """Take the room for a function call. Returns whether there was enough."""
        return self._take(
            _FUNCTION_CALL_CHARS + len(call.arguments) + len(call.error or ""), whole=True
        )

    def fit(self, call: SubCall) -> SubCall | None:
        """The complete call, or with shortened strings, or None if it can only be counted."""
        if self._take(_CALL_CHARS + _length(call.prompt) + len(call.reply), whole=True):
            return call
        shorter = replace(
            call, prompt=_shorter_prompt(call.prompt), reply=_shorter_reply(call.reply)
        )
        return (
            shorter
            if self._take(_CALL_CHARS + _length(shorter.prompt) + len(shorter.reply), whole=False)
            else None
        )

    def fit_prompt(self, prompt: PromptPieces) -> PromptPieces:
        """The complete prompt of a turn, or with shortened strings."""
        if self._take(_length(prompt), whole=True):
            return prompt
        shorter = _shorter_prompt(prompt)
        self._take(_length(shorter), whole=False)
        return shorter

    def fit_output(self, execution: Execution) -> Execution:
        """A block with its output, or with the beginning of its output."""
        texts = {name: getattr(execution, name) for name in ("code", "stdout", "stderr", "output")}
        if self._take(_CALL_CHARS + sum(map(len, texts.values())), whole=True):
            return execution
        shorter = {name: text[:_SHORTENED_CHARS] for name, text in texts.items() if name != "code"}
        self._take(_CALL_CHARS + len(execution.code) + sum(map(len, shorter.values())), whole=False)
        return replace(
            execution,
            **shorter,
            dropped=execution.dropped + len(execution.output) - len(shorter["output"]),
        )

    def _take(self, characters: int, *, whole: bool) -> bool:
        if characters > self._left - (self._reserve if whole else 0):
            return False
        self._left -= characters
        return True


def _length(prompt: PromptPieces) -> int:
    return sum(len(piece) if isinstance(piece, str) else _SPAN_CHARS for piece in prompt.pieces)


def _shorter_prompt(prompt: PromptPieces) -> PromptPieces:
    words = "".join(piece for piece in prompt.pieces if isinstance(piece, str))
    return (
        prompt
        if _length(prompt) <= 2 * _SHORTENED_CHARS or len(words) <= 2 * _SHORTENED_CHARS
        else prompt.shortened(_SHORTENED_CHARS)
    )


def _shorter_reply(reply: str) -> str:
    if len(reply) <= 2 * _SHORTENED_CHARS or isinstance(reply, LLMError):
        return reply
    half = _SHORTENED_CHARS // 2
    left_out = f"[{len(reply) - _SHORTENED_CHARS:,} characters are not in the record]"
    return f"{reply[:half]}\n{left_out}\n{reply[-half:]}"


@dataclass(slots=True)
class Quotes:
    """The quotes of `cite` in a run that are ambiguous or could not be checked.

    Attributes:
        ambiguous: The first place of each quote that is in several places.
        unchecked: The number of quotes that could not be looked up, because the document's file
            has changed.
    """

    ambiguous: set[SpanRef] = field(default_factory=set)
    unchecked: int = 0


class Notebook:
    """Records one block: model calls, batches, writes to the store, and function calls.

    Attributes:
        cut: The number of truncated replies.
        unrecorded: The number of model calls that were not recorded, because the record is full.
        unfinished: Replies by prompt, of calls whose results the code did not receive.
    """

    def __init__(self, room: RecordRoom, quotes: Quotes) -> None:
        self.cut = 0
        self.unrecorded = 0
        self.subcalls: list[SubCall] = []
        self.batches: list[Mapping[str, Any]] = []
        self.unfinished: dict[str, str] = {}
        self._room = room
        self._quotes = quotes
        self._functions: list[FunctionCall] = []
        self._store_events: list[Mapping[str, Any]] = []
        self._pending: set[asyncio.Task[None]] = set()

    async def note_despite_cancel(self, noting: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end, even if the block is cancelled meanwhile."""
        task = asyncio.ensure_future(noting)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.shield(task)

    async def complete(self) -> None:
        """Wait until everything is recorded."""
        await wait_until_done(*self._pending)

    def add_note(self, note: CallNote) -> None:
        """Record a side effect of a call, in the thread of the call."""
        match note:
            case AmbiguousQuote(span):
                if len(self._quotes.ambiguous) < MAX_CITATIONS:
                    self._quotes.ambiguous.add(span)
            case UncheckedQuote():
                self._quotes.unchecked += 1
            case _:
                brief = note.brief()
                self._store_events.append({name: brief[name] for name in _EVENT_FIELDS})

    def add(self, call: SubCall) -> None:
        """Record a model call, complete or shortened, or only count it."""
        kept = self._room.fit(call)
        if kept is None:
            self.unrecorded += call.calls
        else:
            self.subcalls.append(kept)

    def add_function(self, call: FunctionCall) -> None:
        """Record a function call if there is room."""
        if self._room.has_room_for(call):
            self._functions.append(call)

    @property
    def is_full(self) -> bool:
        """Whether further calls are only counted."""
        return self._room.is_full

    def execution(
        self, number: int, code: str, result: ExecutionResult, *, start: float, elapsed: float
    ) -> Execution:
        """The record of the block."""
        return self._room.fit_output(
            Execution(
                block=number,
                code=code,
                status=result.status,
                stdout=result.stdout,
                stderr=result.stderr,
                output=result.output,
                dropped=result.dropped,
                error=None
                if result.error is None
                else result.error.traceback or f"{result.error.type}: {result.error.message}",
                start=start,
                elapsed=result.elapsed or elapsed,
                store_events=tuple(self._store_events),
                batch_calls=tuple(self.batches),
                subcalls=tuple(self.subcalls),
                function_calls=tuple(self._functions),
                unrecorded=self.unrecorded,
            )
        )
