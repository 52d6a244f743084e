"""Objects of the shared store, and the spans of the document that they refer to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class SpanRef:
    """A span of one source: the characters from `start` up to, but not including, `end`."""

    source: str
    start: int
    end: int
    unit: Literal["chars"] = "chars"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreObject:
    """An object of the shared store, as `get`, `children` and `parents` return it.

    Its fields are read as attributes or as keys (`found.content`, `found["content"]`), also in the
    REPL, which receives it as `to_dict()`. Its content is a copy: changing it does not change the
    store.

    Attributes:
        id: `worker_A_000001`; with slashes if a commit or an import created it.
        type: A word such as "note", "claim" or "summary", chosen by the writer.
        description: The line that lists of objects show.
        content: Any JSON value.
        backrefs: The spans of the document that support it.
        parents: The ids of the objects that it was derived from.
        tags: Words to search for.
        worker: The worker that created it.
        seq: The number of the event that created it.
        ts: The time of that event, in seconds since 1970.
        links: Its relations to other objects: pairs of "supports", "contradicts" or "refines" and
            an id.
        invalid: Why it was invalidated, or None.
    """

    id: str
    type: str
    description: str
    content: Any
    backrefs: tuple[SpanRef, ...]
    parents: tuple[str, ...]
    tags: tuple[str, ...]
    worker: str
    seq: int
    ts: float
    links: tuple[tuple[str, str], ...] = ()
    invalid: str | None = None

    def __getitem__(self, key: str) -> Any:
        """The field with this name, so that objects can be read like the dicts of queries."""
        if key not in self.__slots__:
            raise KeyError(key)
        return getattr(self, key)

    def to_dict(self) -> dict[str, Any]:
        """The object as plain JSON."""
        plain = {key: getattr(self, key) for key in self.__slots__}
        backrefs = [
            {"source": span.source, "start": span.start, "end": span.end} for span in self.backrefs
        ]
        lists = {
            "parents": list(self.parents),
            "tags": list(self.tags),
            "links": [list(link) for link in self.links],
        }
        return {**plain, "backrefs": backrefs, **lists}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        backrefs = tuple(SpanRef(**span) for span in data["backrefs"])
        links = tuple((str(word), str(other)) for word, other in data["links"])
        return cls(
            **{
                **data,
                "backrefs": backrefs,
                "parents": tuple(data["parents"]),
                "tags": tuple(data["tags"]),
                "links": links,
            }
        )
