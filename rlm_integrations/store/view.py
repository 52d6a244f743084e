"""The current state of a store: objects, exact-term indexes and counts, derived from the events of
its log alone.
"""

import sys
from array import array
from collections.abc import Iterable
from sys import getsizeof
from typing import Any, Final, NotRequired, TypedDict

from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import InputError
from rlm_integrations.store.content import length, memory
from rlm_integrations.store.log import Created, Invalidated, LinkType, StoreEvent

MAPPED: Final = "llm_map"  # the tag of a batch and of its results
ENTRY_CHARS: Final = 20  # that a tag or the id of a parent counts as
# Cost of a character that a query returns, compared with one that it reads: it is copied several
# times
RETURNED_CHAR_COST: Final = 10
# Bytes of an event without its texts; an index entry takes a tenth
WEIGHT: Final = 1_000


class Card(TypedDict):
    """An object's metadata, as queries return it. `chars` is the length of its content.

    Only invalidated objects have `invalid` (the reason), and only results of `search_text` have
    `score` (higher is better).
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
    """Counts of names, with fast access to the most frequent ones."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        # The names of each count, in the order in which they reached it
        self._levels: dict[int, dict[str, None]] = {}

    def add(self, name: str, by: int = 1) -> None:
        """Add 1 to the count of a name, or -1."""
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
    and postings (the rows that have a term) only grow: a reader needs no lock, only the number of
    rows at its start.
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
        self.taken: dict[str, int] = {}  # the last number that each worker has used or reserved
        self.invalid: dict[int, str] = {}  # row: reason
        self.links: dict[str, dict[tuple[LinkType, str], None]] = {}  # by the object that links
        # By type, then the object linked to: the rows that link
        self.linking: dict[str, dict[str, list[int]]] = {}
        self.types = TopCounts()
        self.tags = TopCounts()
        for event in events:
            self.apply(event)

    def apply(self, event: StoreEvent) -> None:
        """Apply the next event."""
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
        _add_posting(postings["type"], event.type, row)
        _add_posting(postings["worker"], event.worker, row)
        for tag in event.tags:
            _add_posting(postings["tag"], tag, row)
        for parent in event.parents:
            _add_posting(postings["parent"], parent, row)
        self._count(event, 1)

    def _count(self, event: Created, by: int) -> None:
        self.types.add(event.type, by)
        for tag in event.tags:
            self.tags.add(tag, by)

    def card(self, row: int) -> Card:
        """The metadata of an object."""
        return card_of(self.rows[row], self.invalid.get(row))

    def state(self) -> dict[str, Any]:
        """The whole state, as plain values that can be compared."""
        values = {
            name: value for name, value in vars(self).items() if not isinstance(value, TopCounts)
        }
        return {**values, "types": self.types.top(sys.maxsize), "tags": self.tags.top(sys.maxsize)}


def card_of(event: Created, invalid: str | None) -> Card:
    """The metadata of an object, which is invalid if there is a reason."""
    spend(
        RETURNED_CHAR_COST
        * (len(event.description) + ENTRY_CHARS * (len(event.tags) + len(event.parents)))
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
    if invalid is not None:
        card["invalid"] = invalid
    return card


def weight(event: StoreEvent) -> int:
    """The approximate bytes of memory of an event and its index entries, without those of text
    searches.
    """
    size = WEIGHT + (0 if event.origin is None else getsizeof(event.origin))
    if isinstance(event, Created):
        entries = len(event.tags) + len(event.parents) + 2 * len(event.backrefs)
        size += getsizeof(event.description) + memory(event.content) + entries * (WEIGHT // 10)
    return size


def check_room(size: int, more: int, most: int) -> None:
    """Raise if a store of this size has no room for more bytes.

    Raises:
        InputError: It has none.
    """
    if size + more > most:
        raise InputError(
            f"the store is full: it holds {size:,} of {most:,} bytes, and {more:,} more do not fit"
        )


def _add_posting(postings: "dict[str, array[int]]", term: str, row: int) -> None:
    rows = postings.get(term)
    if rows is None:
        rows = postings[term] = array("I")
    rows.append(row)
