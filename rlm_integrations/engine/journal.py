"""The journal: the record of all calls across the sandbox's boundary, from which a run is replayed.

The engine defines the protocol; a storage implements it. Three components use it: the gate for
calls that need no model (tools, `cite`, the store), `ModelCalls` for model calls, and
`ChildFunctions` for child runs. The results of blocks are recorded as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.notes import CallNote
from rlm_integrations.errors import JournalError
from rlm_integrations.store.log import Created, Invalidated, Linked, StoreEvent


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a call, and its side effects.

    Attributes:
        value: The value: plain data for a host function; otherwise a `ModelAnswer`, a `ChildAnswer`
            or a `BlockOutcome`.
        notes: The side effects: store events, and ambiguous or unchecked quotes of `cite`.
        error: The type and the message of the exception that the code received instead of a value.
        prompt: SHA-256 of the messages of a model call.
    """

    value: Any = None
    notes: tuple[CallNote, ...] = ()
    error: tuple[str, str] | None = None
    prompt: str = ""


class Journal(Protocol):
    """Stores the answers of one run and its child runs.

    Attributes:
        is_complete: Whether no answer is missing before the last stored one. A block that has ended
            can then make no further call.
        on_end: Called instead of the first call that is not stored, to cancel a run that is only
            to be replayed; None for other runs.
    """

    is_complete: bool
    on_end: Callable[[], object] | None

    def find(self, call: CallId) -> Answer | None:
        """The stored answer of a call, or None. Called on the event loop: it must be fast."""
        ...

    def keep(self, call: CallId, answer: Answer) -> Awaitable[None]:
        """Begin to store an answer and its notes atomically. The call is answered when the
        awaitable is done. A task that awaits it and is cancelled meanwhile ends then.

        An earlier answer of the same call is replaced.
        """
        ...

    def store_events(self) -> Sequence[StoreEvent]:
        """The store events of all answers, in the order of their writing."""
        ...


async def wait_if_ended(journal: Journal | None) -> None:
    """Before a call that is not stored: if the run is only to be replayed, end it and wait."""
    if journal is not None and journal.on_end is not None:
        journal.on_end()
        await asyncio.get_running_loop().create_future()


async def keep_answer(journal: Journal | None, call: CallId, answer: Answer) -> None:
    """Store an answer, even if the caller is cancelled meanwhile. Without a journal, do nothing.

    Raises:
        JournalError: The journal could not store it.
    """
    if journal is None:
        return
    try:
        await journal.keep(call, answer)
    except Exception as error:
        raise JournalError(f"the answer of {call.path} could not be kept: {error}") from error


class MemoryJournal:
    """A journal in memory, which can be pickled.

    Attributes:
        answers: All answers, by call.
    """

    is_complete = False
    on_end: Callable[[], object] | None = None

    def __init__(self) -> None:
        self.answers: dict[CallId, Answer] = {}

    def find(self, call: CallId) -> Answer | None:
        """The stored answer of a call, or None."""
        return self.answers.get(call)

    def keep(self, call: CallId, answer: Answer) -> Awaitable[None]:
        """Store an answer."""
        self.answers[call] = answer
        return asyncio.sleep(0)

    def store_events(self) -> list[StoreEvent]:
        """The store events of all answers, in the order of their writing."""
        notes = [note for answer in self.answers.values() for note in answer.notes]
        events = [note for note in notes if isinstance(note, Created | Invalidated | Linked)]
        return sorted(events, key=lambda event: event.seq)
