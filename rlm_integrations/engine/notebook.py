"""What a block does while it runs, as the record of the run has it: within a bound, whatever code
sends.
"""

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

_CALL = 1_000  # characters that a call counts as beside its texts
_FUNCTION_CALL = 300  # likewise a call of a function
_PIECE = 50  # likewise a span in its prompt
# Of a store event, in an execution
_EVENT_FIELDS = ("op", "id", "type", "description", "worker", "ts")
# Characters that are kept of a text for which there is no room: half from its start, half from its
# end
_ENDS = 1_000


class RecordRoom:
    """How much the record of a tree may still take.

    Long texts leave a quarter of it to the beginnings and ends of others.
    """

    def __init__(self, characters: int) -> None:
        self._left = characters
        self._kept_back = characters // 4

    @property
    def is_full(self) -> bool:
        """Whether no further call can be kept."""
        return self._left < 2 * _CALL

    def has_room_for(self, call: FunctionCall) -> bool:
        """Take the room for a call of a function, if there is any."""
        return self._take(_FUNCTION_CALL + len(call.arguments) + len(call.error or ""), whole=True)

    def fitted(self, call: SubCall) -> SubCall | None:
        """The call whole, or with shorter texts, or None if it can only be counted."""
        if self._take(_CALL + _length(call.prompt) + len(call.reply), whole=True):
            return call
        shorter = replace(
            call, prompt=_shorter_prompt(call.prompt), reply=_shorter_reply(call.reply)
        )
        return (
            shorter
            if self._take(_CALL + _length(shorter.prompt) + len(shorter.reply), whole=False)
            else None
        )

    def fitted_output(self, execution: Execution) -> Execution:
        """A block with what it printed, or with the beginning of that."""
        texts = {name: getattr(execution, name) for name in ("code", "stdout", "stderr", "output")}
        if self._take(_CALL + sum(map(len, texts.values())), whole=True):
            return execution
        shorter = {name: text[:_ENDS] for name, text in texts.items() if name != "code"}
        self._take(_CALL + len(execution.code) + sum(map(len, shorter.values())), whole=False)
        return replace(
            execution,
            **shorter,
            dropped=execution.dropped + len(execution.output) - len(shorter["output"]),
        )

    def _take(self, characters: int, *, whole: bool) -> bool:
        if characters > self._left - (self._kept_back if whole else 0):
            return False
        self._left -= characters
        return True


def _length(prompt: PromptPieces) -> int:
    return sum(len(piece) if isinstance(piece, str) else _PIECE for piece in prompt.pieces)


def _shorter_prompt(prompt: PromptPieces) -> PromptPieces:
    words = "".join(piece for piece in prompt.pieces if isinstance(piece, str))
    return (
        prompt
        if _length(prompt) <= 2 * _ENDS or len(words) <= 2 * _ENDS
        else prompt.shortened(_ENDS)
    )


def _shorter_reply(reply: str) -> str:
    if len(reply) <= 2 * _ENDS or isinstance(reply, LLMError):
        return reply
    half = _ENDS // 2
    return f"{reply[:half]}\n[{len(reply) - _ENDS:,} characters are not in the record]\n{reply[-half:]}"


@dataclass(slots=True)
class Quotes:
    """What `cite` found out in a run, beside where its quotes are.

    Attributes:
        ambiguous: The first place of each quote that is in several places.
        unchecked: How many quotes could not be looked up, because the document's file has changed.
    """

    ambiguous: set[SpanRef] = field(default_factory=set)
    unchecked: int = 0


class Notebook:
    """What one block does: calls of models, batches, writes to the store, calls of functions.

    Attributes:
        cut: How many replies were cut before their end.
        unrecorded: How many calls of models are not among the others, because the record is full.
        unfinished: Replies by their prompts, of calls whose results the code did not get.
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

    async def note_to_the_end(self, noting: Coroutine[Any, Any, None]) -> None:
        """Run this to its end, even if the block is ended meanwhile."""
        task = asyncio.ensure_future(noting)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.shield(task)

    async def complete(self) -> None:
        """Wait until everything is noted."""
        await wait_until_done(*self._pending)

    def take(self, note: CallNote) -> None:
        """Keep what a call did besides; called in the thread that did it."""
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
        """Keep a call of a model as far as the record has room for it, or only count it."""
        kept = self._room.fitted(call)
        if kept is None:
            self.unrecorded += call.calls
        else:
            self.subcalls.append(kept)

    def add_function(self, call: FunctionCall) -> None:
        """Keep a call of a function, if the record has room for it."""
        if self._room.has_room_for(call):
            self._functions.append(call)

    @property
    def is_full(self) -> bool:
        """Whether further calls are only counted."""
        return self._room.is_full

    def execution(
        self, number: int, code: str, result: ExecutionResult, *, start: float, elapsed: float
    ) -> Execution:
        """The block with everything that is noted of it."""
        return self._room.fitted_output(
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
