"""Reading a store's objects within one transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection

from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.stores import codec
from rlm_integrations.storage.stores.tables import ID, LINK, StoreTables
from rlm_integrations.store.backend import Found
from rlm_integrations.store.log import Created, Linked, LinkType, StoreEvent


class StoreView:
    """The objects of a store as one transaction sees them; a `StoreState`.

    Args:
        connection: The transaction.
        tables: The tables.
        name: The store's name.
        store_no: Its number.
    """

    def __init__(
        self, connection: Connection, tables: StoreTables, name: str, store_no: int
    ) -> None:
        self.connection = connection
        self.tables = tables
        self.name = name
        self.store_no = store_no

    def term(self, kind: str, value: str) -> int:
        """The hash of a term of this store."""
        return codec.term_of(self.store_no, kind, value)

    # The names are the protocol's
    def find(self, id: str, /) -> Found | None:  # noqa: A002
        """The object with this id, or None."""
        found = self.find_key(id)
        return None if found is None else found[1]

    def find_key(self, id_: str) -> tuple[int, Found] | None:
        """The key of an object, and the object."""
        for key, found in self._objects(self.term(ID, id_)):
            if found.created.id == id_:
                return key, found
        return None

    def children(self, id_: str) -> list[Found]:
        """The objects that have this one as a parent, oldest first."""
        children = self._objects(self.term("parent", id_))
        return [found for _, found in children if id_ in found.created.parents]

    def _objects(self, term: int) -> list[tuple[int, Found]]:
        rows = self.tables.select_object.fetch(self.connection, wanted=term)
        return [(key, self._found(key, body, invalid)) for key, body, invalid in rows]

    def _found(self, key: int, body: bytes, invalid: str | None) -> Found:
        event = self.event(key, body)
        if not isinstance(event, Created):
            raise DamagedDataError(f"event {event.seq} of store {self.name!r} is damaged")
        reason = None if invalid is None else codec.from_json(invalid, f"object {event.id!r}")
        return Found(event, reason)

    def event(self, key: int, body: bytes) -> StoreEvent:
        """The event of a row."""
        return codec.decode_event(codec.seq_of(key), body, self.name)

    def has_link(self, type: str, src: str, dst: str, /) -> bool:  # noqa: A002
        """Whether `src` already links to `dst` with this type."""
        return (type, dst) in self.links(src)

    def links(self, src: str) -> Sequence[tuple[LinkType, str]]:
        """What an object links to, in order."""
        rows = self.tables.select_linked.fetch(self.connection, wanted=self.term(LINK, src))
        events = (self.event(key, body) for key, body in rows)
        found = [
            (event.type, event.dst)
            for event in events
            if isinstance(event, Linked) and event.id == src
        ]
        return list(dict.fromkeys(found))
