"""The read methods of every store, for all backends."""

from typing import Any, Protocol, TypedDict

from rlm_integrations.records import StoreObject
from rlm_integrations.store.checks import SpanText
from rlm_integrations.store.log import Created
from rlm_integrations.store.view import Card


class Summary(TypedDict):
    """The number of matching objects, the first of them, and the most frequent types and tags with
    their counts, highest first.
    """

    total: int
    matches: list[Card]
    types: dict[str, int]
    tags: dict[str, int]


class Store(Protocol):
    """The reads that commits, `llm_map`, `llm_reduce`, passages and evidence need.

    `StoreReader` implements them over a `StoreBackend`. Code outside this folder reads a store through these
    methods only, never through its log or its view.
    """

    @property
    def corpus(self) -> SpanText | None:
        """The document that spans point into; None for a store without one."""
        ...

    def required_id(self, name: str, id: Any, /) -> str:  # noqa: A002 - the field's name
        """The id itself if it names an object; `name` is the argument that messages mention.

        Raises:
            InputError: No object has this id.
        """
        ...

    def created(self, id: str, /) -> Created | None:  # noqa: A002
        """The event that created an object; None for an unknown id."""
        ...

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        ...

    def get(self, id: str) -> StoreObject:  # noqa: A002
        """The object with this id."""
        ...

    def children(self, id: str) -> list[StoreObject]:  # noqa: A002
        """The objects made from this one."""
        ...

    def view(self, query: str = "", limit: int = 50) -> list[Card]:
        """The metadata of the objects that match a query."""
        ...

    def search(self, query: str = "", limit: int = 50) -> list[Card]:
        """The same as `view`."""
        ...

    def search_text(self, text: str, limit: int = 50) -> list[Card]:
        """The metadata of the objects that share words with a text, best first."""
        ...

    def summary(self, query: str = "", limit: int = 10) -> Summary:
        """Counts over the objects that match a query."""
        ...
