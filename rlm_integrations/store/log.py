"""Every write is an event: three kinds, numbered in one order, never changed.

Whatever else a store shows is derived from them.
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
    """An object was made.

    Attributes:
        seq: The event's number, from 1, without gaps.
        ts: When, in seconds since 1970.
        worker: Who wrote it.
        takes: How many of its worker's numbers it used up: 1, more where it reserved some for its
            children, 0 where its id has none.
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

    def brief(self) -> dict[str, Any]:
        """The event without content."""
        return _brief(self, self.type, self.description)


@dataclass(frozen=True, slots=True)
class Invalidated:
    """An object was declared wrong; it stays, and queries skip it. `type` is the object's."""

    op: ClassVar[Literal["invalidate"]] = "invalidate"
    seq: int
    ts: float
    worker: str
    id: str
    type: str
    reason: str

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

    def brief(self) -> dict[str, Any]:
        """The event, with what was linked as description."""
        return _brief(self, self.type, f"{self.id} {self.type} {self.dst}")


StoreEvent = Created | Invalidated | Linked


def _brief(event: StoreEvent, type: str, description: str) -> dict[str, Any]:  # noqa: A002 - the field's name is the contract
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
    """Where events are kept. A store writes here first and shows a write only once it is kept."""

    def append(self, events: Sequence[StoreEvent]) -> None:
        """Keep all of them, in this order, or raise and keep none.

        Never called by two threads at once.
        """
        ...

    def since(self, seq: int) -> Iterable[StoreEvent]:
        """The events after that number, oldest first; 0 gives all.

        Called at any time, also beside an `append`.
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
        """Those after that number, as far as they are kept now."""
        return self._events[seq:]
