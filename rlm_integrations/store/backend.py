"""What a store needs of the place where its objects are kept."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.draft import NewObject
from rlm_integrations.store.log import Created, LinkType, StoreEvent
from rlm_integrations.store.query import Query
from rlm_integrations.store.view import Card


class Found(NamedTuple):
    """An object: the event that created it, and the reason if it is invalid."""

    created: Created
    invalid: str | None


class Counts(NamedTuple):
    """The number of matching objects, and the most frequent types and tags, highest first."""

    total: int
    types: dict[str, int]
    tags: dict[str, int]


# The path of a call and its journal's record, made from the events that the call has written. Like
# `Build`, it may be called again
Record: TypeAlias = Callable[[Sequence[StoreEvent]], tuple[str, bytes]]


class StoreState(Protocol):
    """What the function that builds events may read while no other write happens."""

    def find(self, id: str, /) -> Found | None:  # noqa: A002 - the field's name
        """The object with this id, or None."""
        ...

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        ...


# Builds the events of a write from the state, the number of the first event and the time. It must
# be quick, because other writers wait, and may be called again.
Build: TypeAlias = Callable[[StoreState, int, float], Sequence[StoreEvent]]


class StoreBackend(StoreState, Protocol):
    """Keeps the events of a store and finds its objects. Arguments were checked before.

    Attributes:
        corpus: The document that spans point into; None for a store without one.
        max_size: The most bytes; see `view.weight`.
        keeps_records: Whether `recording` works; the backend then also keeps its events itself.
    """

    corpus: SpanText | None
    max_size: int
    keeps_records: bool

    @property
    def seq(self) -> int:
        """The number of the latest event, 0 before the first."""
        ...

    def count_valid(self) -> int:
        """The number of objects, without invalid ones."""
        ...

    def links(self, id: str, /) -> Sequence[tuple[LinkType, str]]:  # noqa: A002
        """What an object links to, in order."""
        ...

    def children(self, id: str, /) -> Sequence[Found]:  # noqa: A002
        """The objects that have this one as a parent, oldest first."""
        ...

    def cards(self, query: Query, limit: int) -> list[Card]:
        """The metadata of the objects that match; `limit` applies if the query has none."""
        ...

    def rank(self, text: str, limit: int) -> list[Card]:
        """The metadata of the objects that share words with a text, with scores, best first."""
        ...

    def counts(self, query: Query, most: int) -> Counts:
        """Counts over all objects that match; at most `most` types and tags."""
        ...

    def events(self, after: int) -> Iterable[StoreEvent]:
        """The events after that number, oldest first."""
        ...

    def create(self, new: NewObject) -> Created:
        """Write one object."""
        ...

    def append(self, build: Build) -> Sequence[StoreEvent]:
        """Write several events or none."""
        ...

    def recording(self, record: Record, /) -> "StoreBackend":
        """The same store, which keeps a record of a journal in one unit with its next write."""
        ...

    def restore(self, events: Iterable[StoreEvent]) -> None:
        """Write the events that a run's journal has, unless the backend has kept them itself."""
        ...
