"""What the events of a log amount to: objects, exact-term indexes and counts.

Derived from the events alone, and rebuilt at will.
"""

import sys
from array import array
from collections.abc import Iterable
from sys import getsizeof
from typing import Any, Final, NotRequired, TypedDict

from rlm_integrations._concurrency.work import spend
from rlm_integrations.records import StoreObject
from rlm_integrations.store.content import decode_content, length, memory
from rlm_integrations.store.log import Created, Invalidated, LinkType, StoreEvent

MAPPED: Final = "llm_map"  # the tag of a batch and of its results
ENTRY: Final = 20  # characters that a tag or the id of a parent counts
# What a character counts that a query gives out, and not only reads: it is copied several times
HANDED_OVER: Final = 10
# Bytes that an object or a link takes beside its text; an index entry takes a tenth
WEIGHT: Final = 1_000


class Card(TypedDict):
    """An object's metadata: what queries return. `chars` says how long its content is.

    `invalid` (the reason) is there for invalidated objects only, `score` (higher is better) in
    answers of `search_text` only.
    """

    id: str
    type: str
    description: str
    tags: list[str]
    parents: list[str]
    worker: str
    ts: float
    chars: int
    invalid: NotRequired[str]
    score: NotRequired[float]


class TopCounts:
    """How often each name occurs, with the most frequent at hand however many names there are."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        # The names of each count, in the order in which they reached it
        self._levels: dict[int, dict[str, None]] = {}

    def add(self, name: str, by: int = 1) -> None:
        """Count one more, or with -1 one less."""
        old = self.counts.get(name, 0)
        new = self.counts[name] = old + by
        if old:
            level = self._levels[old]
            del level[name]
            if not level:
                del self._levels[old]
        if new:
            self._levels.setdefault(new, {})[name] = None
        else:
            del self.counts[name]

    def top(self, limit: int) -> dict[str, int]:
        """The most frequent names with their counts, highest first."""
        found: dict[str, int] = {}
        for count in sorted(self._levels, reverse=True):
            for name in self._levels[count]:
                if len(found) == limit:
                    return found
                found[name] = count
        return found


class View:
    """The state after some events.

    A row is an object's place in the order of creation. Rows are only ever added and never change,
    and postings (the rows that have a term) only grow: whoever reads them needs no lock, just the
    number of rows when it began.
    """

    def __init__(self, events: Iterable[StoreEvent] = ()) -> None:
        self.seq = 0
        self.size = 0
        self.rows: list[Created] = []
        self.row_of: dict[str, int] = {}
        self.postings: dict[str, dict[str, array[int]]] = {
            "type": {},
            "tag": {},
            "worker": {},
            "parent": {},
        }
        self.taken: dict[str, int] = {}  # how many numbers each worker has used up
        self.invalid: dict[int, str] = {}  # row: reason
        self.links: dict[str, dict[tuple[LinkType, str], None]] = {}  # by the object that links
        # By type, then the object linked to: the rows that link
        self.linking: dict[str, dict[str, list[int]]] = {}
        self.types = TopCounts()
        self.tags = TopCounts()
        for event in events:
            self.apply(event)

    def apply(self, event: StoreEvent) -> None:
        """Take in the next event."""
        if isinstance(event, Created):
            self._create(event)
        elif isinstance(event, Invalidated):
            row = self.row_of[event.id]
            self.invalid[row] = event.reason
            self._count(self.rows[row], -1)
        else:
            self.links.setdefault(event.id, {})[event.type, event.dst] = None
            self.linking.setdefault(event.type, {}).setdefault(event.dst, []).append(
                self.row_of[event.id]
            )
        self.size += weight(event)
        self.seq = event.seq

    def _create(self, event: Created) -> None:
        row = len(self.rows)
        self.rows.append(event)
        self.row_of[event.id] = row
        self.taken[event.worker] = self.taken.get(event.worker, 0) + event.takes
        postings = self.postings
        _post(postings["type"], event.type, row)
        _post(postings["worker"], event.worker, row)
        for tag in event.tags:
            _post(postings["tag"], tag, row)
        for parent in event.parents:
            _post(postings["parent"], parent, row)
        self._count(event, 1)

    def _count(self, event: Created, by: int) -> None:
        self.types.add(event.type, by)
        for tag in event.tags:
            self.tags.add(tag, by)

    def card(self, row: int) -> Card:
        """The metadata of an object."""
        event = self.rows[row]
        spend(
            HANDED_OVER * (len(event.description) + ENTRY * (len(event.tags) + len(event.parents)))
        )
        card = Card(
            id=event.id,
            type=event.type,
            description=event.description,
            tags=list(event.tags),
            parents=list(event.parents),
            worker=event.worker,
            ts=event.ts,
            chars=length(event.content),
        )
        if row in self.invalid:
            card["invalid"] = self.invalid[row]
        return card

    def object(self, row: int) -> StoreObject:
        """The whole object."""
        event = self.rows[row]
        spend(HANDED_OVER * length(event.content))
        return StoreObject(
            id=event.id,
            type=event.type,
            description=event.description,
            content=decode_content(event.content),
            backrefs=event.backrefs,
            parents=event.parents,
            tags=event.tags,
            worker=event.worker,
            seq=event.seq,
            ts=event.ts,
            links=tuple(self.links.get(event.id, ())),
            invalid=self.invalid.get(row),
        )

    def in_task_order(self, rows: Iterable[int]) -> list[int]:
        """The children of an `llm_map` batch: first its results, whose ids follow its tasks, then
        the others as they were created.
        """

        def order(row: int) -> tuple[int, int, str]:
            event = self.rows[row]
            return (0, len(event.id), event.id) if MAPPED in event.tags else (1, row, "")

        return sorted(rows, key=order)

    def state(self) -> dict[str, Any]:
        """Everything derived, as plain values that can be compared."""
        values = {
            name: value for name, value in vars(self).items() if not isinstance(value, TopCounts)
        }
        return {**values, "types": self.types.top(sys.maxsize), "tags": self.tags.top(sys.maxsize)}


def weight(event: StoreEvent) -> int:
    """About how many bytes of memory an event takes with all its indexes, but for those of text
    searches.
    """
    size = WEIGHT + (0 if event.origin is None else getsizeof(event.origin))
    if isinstance(event, Created):
        entries = len(event.tags) + len(event.parents) + 2 * len(event.backrefs)
        size += getsizeof(event.description) + memory(event.content) + entries * (WEIGHT // 10)
    return size


def _post(postings: "dict[str, array[int]]", term: str, row: int) -> None:
    rows = postings.get(term)
    if rows is None:
        rows = postings[term] = array("I")
    rows.append(row)
