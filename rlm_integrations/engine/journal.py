"""The record of everything that crosses the sandbox's boundary, from which a run can be replayed.

The engine owns the protocol; a storage implements it. Three doors use it: the gate for calls that
are answered without a model (tools, `cite`, the store), `ModelCalls` for every call of a model, and
`ChildFunctions` for child runs. Outcomes of blocks are recorded as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.notes import CallNote
from rlm_integrations.errors import JournalError
from rlm_integrations.store.log import Created, Invalidated, Linked, StoreEvent


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered with, and what it did.

    Attributes:
        value: What the code received: plain data for a host function; otherwise a `ModelAnswer`, a
            `ChildAnswer` or an `ExecutionResult`.
        notes: What the call did besides: store events, and what `cite` found out.
        error: The type and the message of the exception that the code received instead of a value.
        prompt: SHA-256 of the messages that a model was asked with.
    """

    value: Any = None
    notes: tuple[CallNote, ...] = ()
    error: tuple[str, str] | None = None
    prompt: str = ""


class Journal(Protocol):
    """Keeps the answers of one run and of its child runs.

    Attributes:
        is_complete: Whether nothing is missing before the last answer that was kept. A block that
            had ended can then make no further call.
    """

    is_complete: bool

    def find(self, call: CallId) -> Answer | None:
        """The answer of this call, if it was kept. Called on the event loop: it must be quick."""
        ...

    async def keep(self, call: CallId, answer: Answer) -> None:
        """Keep an answer, with its notes as one unit; the call is answered when this returns.

        An answer of the same call that was kept before is replaced.
        """
        ...

    def store_events(self) -> Sequence[StoreEvent]:
        """The store events of all answers, in the order in which they were written."""
        ...


async def keep_answer(journal: Journal | None, call: CallId, answer: Answer) -> None:
    """Keep an answer, also if the caller is cancelled meanwhile; without a journal do nothing.

    Raises:
        JournalError: The journal could not keep it.
    """
    if journal is None:
        return
    try:
        await finish_despite_cancel(journal.keep(call, answer))
    except Exception as error:
        raise JournalError(f"the answer of {call.path} could not be kept: {error}") from error


class MemoryJournal:
    """A journal in memory, which can be pickled.

    Attributes:
        answers: All answers by their calls.
    """

    is_complete = False

    def __init__(self) -> None:
        self.answers: dict[CallId, Answer] = {}

    def find(self, call: CallId) -> Answer | None:
        """The answer of this call, if it was kept."""
        return self.answers.get(call)

    async def keep(self, call: CallId, answer: Answer) -> None:
        """Keep an answer."""
        self.answers[call] = answer

    def store_events(self) -> list[StoreEvent]:
        """The store events of all answers, in the order in which they were written."""
        notes = [note for answer in self.answers.values() for note in answer.notes]
        events = [note for note in notes if isinstance(note, Created | Invalidated | Linked)]
        return sorted(events, key=lambda event: event.seq)
