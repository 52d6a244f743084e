"""The log of a store: every write is an event of one of three kinds, numbered in one order, and
never changed.

Everything else that a store shows is derived from its events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from rlm_integrations.records import SpanRef
from rlm_integrations.store.content import Content

LinkType = Literal["supports", "contradicts", "refines"]
LINK_TYPES: tuple[LinkType, ...] = get_args(LinkType)


@dataclass(frozen=True, slots=True)
class Created:
    """An object was created.

    Attributes:
        seq: The event's number; the first is 1, and there are no gaps.
        ts: The time of the write, in seconds since 1970.
        worker: The worker that wrote it.
        takes: How many of its worker's numbers it uses: 1 as a rule, more if it reserves some for
            its children, 0 if its id has no number.
        origin: The id of the call that wrote the event, so that a journal can link the two; None
            if the writer did not name one.
    """

    op: ClassVar[Literal["create"]] = "create"
    seq: int
    ts: float
    worker: str
    id: str
    type: str
    description: str
    content: Content
    backrefs: tuple[SpanRef, ...]
    parents: tuple[str, ...]
    tags: tuple[str, ...]
    takes: int
    origin: str | None = None

    def brief(self) -> dict[str, Any]:
        """The event without content."""
        return _brief(self, self.type, self.description)


@dataclass(frozen=True, slots=True)
class Invalidated:
    """An object was marked as wrong; it stays, and queries skip it. `type` is the object's."""

    op: ClassVar[Literal["invalidate"]] = "invalidate"
    seq: int
    ts: float
    worker: str
    id: str
    type: str
    reason: str
    origin: str | None = None

    def brief(self) -> dict[str, Any]:
        """The event, with its reason as description."""
        return _brief(self, self.type, self.reason)


@dataclass(frozen=True, slots=True)
class Linked:
    """An object supports, contradicts or refines another, `dst`."""

    op: ClassVar[Literal["link"]] = "link"
    seq: int
    ts: float
    worker: str
    id: str
    type: LinkType
    dst: str
    origin: str | None = None

    def brief(self) -> dict[str, Any]:
        """The event, with what was linked as description."""
        return _brief(self, self.type, f"{self.id} {self.type} {self.dst}")


StoreEvent = Created | Invalidated | Linked


# The field's name is the contract
def _brief(event: StoreEvent, type: str, description: str) -> dict[str, Any]:  # noqa: A002
    return {
        "seq": event.seq,
        "op": event.op,
        "id": event.id,
        "type": type,
        "description": description,
        "worker": event.worker,
        "ts": event.ts,
    }


class StoreLog(Protocol):
    """Keeps events. A store writes here first, and shows a write only once the log has kept it."""

    def append(self, events: Sequence[StoreEvent]) -> None:
        """Keep all of them, in this order, or raise and keep none.

        Never called by two threads at once.
        """
        ...

    def since(self, seq: int) -> Iterable[StoreEvent]:
        """The events after that number, oldest first; 0 returns all.

        Called at any time, also during an `append`.
        """
        ...


class MemoryLog:
    """A log that lives as long as its store."""

    def __init__(self, events: Iterable[StoreEvent] = ()) -> None:
        self._events = list(events)

    def append(self, events: Sequence[StoreEvent]) -> None:
        """Keep them."""
        self._events.extend(events)

    def since(self, seq: int) -> list[StoreEvent]:
        """The events after that number that are kept now."""
        return self._events[seq:]
