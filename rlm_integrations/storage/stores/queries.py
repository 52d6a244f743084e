"""From a query to the objects that match, in SQL as far as it can be.

The plan follows the rarest term that an object must have; if that is frequent, a text index; else
all objects are read in order. Objects are read in portions until there are enough.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, FromClause, bindparam, exists, func, not_, or_, select

from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.state import StoreView
from rlm_integrations.store.log import Created
from rlm_integrations.store.query import CONTAINS, Query, Term
from rlm_integrations.store.text import folded
from rlm_integrations.store.view import ENTRY_CHARS, RETURNED_CHAR_COST, Card

# Up to so many objects of a term, reading them is faster than a text index
MAX_OBJECTS_READ: Final = 20_000
FIRST, LARGEST = 64, 4_096  # portions grow: most queries need few objects
# How each database finds bytes in bytes; others read the objects
_POSITION: Final[dict[str, Callable[[Any, Any], ColumnElement[Any]]]] = {
    "sqlite": func.instr,
    "postgresql": lambda text, needle: func.position(needle.op("IN")(text)),
    "mysql": lambda text, needle: func.locate(needle, text),
    "mariadb": lambda text, needle: func.locate(needle, text),
}


class Candidates(NamedTuple):
    """A table of keys, `event_key`, among which are all matches up to the key `last`."""

    keys: FromClause
    last: int


class KeySource(NamedTuple):
    """Where keys come from, and between which: `first` is included, `last` too."""

    keys: FromClause
    first: int
    last: int


class ObjectQuery:
    """A query over the objects of a store.

    Args:
        view: The store.
        query: What is wanted.
        last: The number of the last event that counts.
        index: The candidates for a term of "desc" or "text", or None.
    """

    def __init__(
        self,
        view: StoreView,
        query: Query,
        last: int,
        index: Callable[[Term], Candidates | None],
    ) -> None:
        self._view = view
        self._query = query
        self._index = index
        self._is_newest_first = query.sort != "oldest"
        self._objects = view.tables.schema.objects
        self._terms = view.tables.schema.terms
        self._first = codec.key_of(view.store_no, 1)
        self._last = codec.key_of(view.store_no, last)
        self._position = _POSITION.get(view.tables.dialect.name)
        in_python = {"text"} if self._position is not None else {"desc", "text"}
        self._driver: Term | None = None  # the term that selects the keys
        self._read = [term for term in query.terms if term.key in in_python]

    def cards(self, limit: int) -> list[Card]:
        """The metadata of the matches in the number and order that the query asks for."""
        limit = self._query.limit or limit
        key: Any = self._query.sort
        if key is None or key in {"newest", "oldest"}:
            size = FIRST if self._read else limit
            found = list(itertools.islice(self._matches(size), limit))
        else:  # stable, so that the newest of equals comes first
            found = heapq.nsmallest(limit, self._matches(LARGEST), key=itemgetter(key))
        for card in found:
            entries = len(card["tags"]) + len(card["parents"])
            spend(RETURNED_CHAR_COST * (len(card["description"]) + ENTRY_CHARS * entries))
        return found

    def all(self) -> Iterator[Card]:
        """The metadata of all matches in order."""
        return self._matches(LARGEST)

    def _matches(self, size: int) -> Iterator[Card]:
        """All matches in order, read in portions that begin with this size."""
        sources = self._sources()
        for source in sources if self._is_newest_first else reversed(sources):
            if source.first <= source.last:
                yield from self._matches_in(source, size)

    def _matches_in(self, source: KeySource, size: int) -> Iterator[Card]:
        objects, events = self._objects, self._view.tables.schema.events
        key: ColumnElement[int] = source.keys.c.event_key
        columns: list[Any] = [key, objects.c.card, objects.c.invalid]
        statement = select(*columns)
        if source.keys is not objects:
            statement = statement.join_from(source.keys, objects, objects.c.event_key == key)
        if any(term.key == "text" for term in self._read):
            statement = statement.add_columns(events.c.body)
            statement = statement.join(events, events.c.event_key == key)
        statement = statement.where(*self._conditions(key)).limit(bindparam("portion"))
        statement = statement.where(key >= bindparam("since"), key <= bindparam("until"))
        statement = statement.order_by(key.desc() if self._is_newest_first else key)
        first, last = source.first, source.last
        while True:
            values = {"portion": size, "since": first, "until": last}
            rows = self._view.connection.execute(statement, values).all()
            spend(ENTRY_CHARS * len(rows))
            yield from filter(None, map(self._read_match, rows))
            if len(rows) < size:
                return
            if self._is_newest_first:
                last = rows[-1][0] - 1
            else:
                first = rows[-1][0] + 1
            size = min(max(size, FIRST) * 4, LARGEST)

    def _read_match(self, row: Any) -> Card | None:
        """The metadata of a row's object, or None if its texts do not match."""
        key, card_text, invalid, *bodies = row
        name = f"object {codec.seq_of(key)} of store {self._view.name!r}"
        card = codec.decode_card(card_text, invalid, name)
        if not self._read:
            return card
        texts = {"desc": card["description"].casefold()}
        if bodies:
            event = self._view.event(key, bodies[0])
            if not isinstance(event, Created):
                raise DamagedDataError(f"{name} is damaged")
            texts["text"] = folded(event, "text")
        for term in self._read:
            spend(len(texts[term.key]))
            has = any(value.casefold() in texts[term.key] for value in term.values)
            if has == term.negated:
                return None
        return card

    def _sources(self) -> list[KeySource]:
        """Where keys come from, the newest first: a term, a text index, or all objects."""
        best: tuple[int, Term] | None = None
        for term in self._query.terms:
            if not term.negated and term.key not in CONTAINS:
                count = self._count(term, MAX_OBJECTS_READ if best is None else best[0])
                if best is None or count < best[0]:
                    best = count, term
        whole = KeySource(self._objects, self._first, self._last)
        if best is None or best[0] > MAX_OBJECTS_READ:
            for term in self._query.terms:
                if term.key in CONTAINS and not term.negated and (found := self._index(term)):
                    last = min(found.last, self._last)
                    return [
                        whole._replace(first=last + 1),
                        KeySource(found.keys, self._first, last),
                    ]
        if best is None or (best[0] > MAX_OBJECTS_READ and len(best[1].values) > 1):
            return [whole]
        self._driver = best[1]
        keys = select(self._terms.c.event_key).where(self._has(self._terms, best[1]))
        if len(best[1].values) > 1:
            keys = keys.distinct()
        return [whole._replace(keys=keys.subquery("driver"))]

    def _count(self, term: Term, most: int) -> int:
        """How many objects have a term; counting stops above `most`."""
        some = select(self._terms.c.event_key).where(self._has(self._terms, term)).limit(most + 1)
        counted = select(func.count()).select_from(some.subquery())
        return self._view.connection.scalar(counted) or 0

    def _has(self, terms: FromClause, term: Term) -> ColumnElement[bool]:
        hashes = [self._view.term(term.key, value) for value in dict.fromkeys(term.values)]
        found: ColumnElement[bool] = (
            terms.c.term == hashes[0] if len(hashes) == 1 else terms.c.term.in_(hashes)
        )
        return found

    def _conditions(self, key: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        """What SQL checks of each object."""
        for term in self._query.terms:
            if term in self._read or term is self._driver:
                continue
            if term.key == "desc":
                yield self._contains(term)
            else:
                terms = self._terms.alias()
                has = exists().where(terms.c.event_key == key, self._has(terms, term))
                yield not_(has) if term.negated else has
        if self._query.invalid == "yes":
            yield self._objects.c.invalid.is_not(None)
        elif self._query.invalid == "no":
            yield self._objects.c.invalid.is_(None)

    def _contains(self, term: Term) -> ColumnElement[bool]:
        position, column = self._position, self._objects.c.folded
        assert position is not None  # noqa: S101 - for mypy: else the term is read
        needles = [codec.as_bytes(value.casefold()) for value in term.values]
        found = or_(
            *(position(column, bindparam(None, each, type_=column.type)) > 0 for each in needles)
        )
        return not_(found) if term.negated else found
