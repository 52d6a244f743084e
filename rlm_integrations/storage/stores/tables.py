"""The statements of stores, compiled once per database."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, literal, select, union_all, update

from rlm_integrations.storage.event_feed import NOTIFY_CHANNEL
from rlm_integrations.storage.schema import Schema, utc_now
from rlm_integrations.storage.statements import RawInsert, RawStatement, insert_new

# The first part of a term: what an object has of the value
ID: Final = "id"
LINK: Final = "link"  # the keys are those of the link events of an object
INVALID: Final = "invalid"
# The kinds of counts
TYPES, TAGS, WORKERS = 0, 1, 2
VALID: Final = -1  # of the row with the number of valid objects


@dataclass(frozen=True, slots=True)
class StoreRow:
    """The row of a store."""

    store_no: int
    document_sha256: str | None
    last_seq: int
    last_unit: int
    objects: int
    invalid_objects: int
    size: int
    desc_seq: int | None
    text_seq: int | None
    words_seq: int | None


_ROW: Final = StoreRow.__slots__


class StoreTables:
    """The tables of stores in one database, and the statements that run often.

    Args:
        dialect: The database's.
        schema: All tables.
    """

    def __init__(self, dialect: Any, schema: Schema) -> None:
        self.schema = schema
        self.dialect = dialect
        stores, events, objects = schema.stores, schema.events, schema.objects
        terms, counts = schema.terms, schema.counts
        self._select_row = self._raw(self._row_query())
        self._lock_row = self._raw(
            self._row_query()
            .with_for_update()
            .with_hint(stores, "WITH (UPDLOCK, HOLDLOCK, ROWLOCK)", "mssql")
        )
        self._update_row = self._raw(
            update(stores)
            .where(stores.c.store_no == bindparam("store"))
            .values(
                last_seq=bindparam("last"),
                last_unit=bindparam("unit"),
                objects=bindparam("all"),
                invalid_objects=bindparam("invalid"),
                size=bindparam("bytes"),
            )
        )
        self.insert_events = RawInsert(dialect, events, ["event_key", "unit", "body"])
        self.insert_objects = RawInsert(
            dialect, objects, ["event_key", "card", "folded", "invalid"]
        )
        self.insert_terms = RawInsert(dialect, terms, ["term", "event_key"], new_only=True)
        self.insert_counts = RawInsert(
            dialect, counts, ["term", "store_no", "kind", "name", "total", "recency"]
        )
        self.update_counts = self._raw(
            update(counts)
            .where(counts.c.term == bindparam("key"))
            .values(total=bindparam("new"), recency=bindparam("at"))
        )
        self.mark_invalid = self._raw(
            update(objects)
            .where(objects.c.event_key == bindparam("key"))
            .values(invalid=bindparam("reason"))
        )
        self.select_object = self._raw(
            select(terms.c.event_key, events.c.body, objects.c.invalid)
            .join_from(terms, events, events.c.event_key == terms.c.event_key)
            .join(objects, objects.c.event_key == terms.c.event_key)
            .where(terms.c.term == bindparam("wanted"))
            .order_by(terms.c.event_key)
        )
        self.select_linked = self._raw(
            select(terms.c.event_key, events.c.body)
            .join_from(terms, events, events.c.event_key == terms.c.event_key)
            .where(terms.c.term == bindparam("wanted"))
            .order_by(terms.c.event_key)
        )
        self.select_term = self._raw(
            select(terms.c.event_key).where(
                terms.c.term == bindparam("wanted"), terms.c.event_key == bindparam("key")
            )
        )
        self.select_count = self._raw(
            select(counts.c.total).where(counts.c.term == bindparam("wanted"))
        )
        valid = select(
            literal(VALID).label("kind"),
            stores.c.name,
            (stores.c.objects - stores.c.invalid_objects).label("total"),
            stores.c.last_seq,
        ).where(stores.c.store_no == bindparam("store"))
        self.select_top = self._raw(union_all(valid, *map(self._top_query, (TYPES, TAGS))))
        self.select_unit = self._raw(
            select(events.c.unit).where(events.c.event_key == bindparam("key"))
        )
        self.select_events = self._raw(
            select(events.c.event_key, events.c.body)
            .where(events.c.event_key > bindparam("after"), events.c.event_key <= bindparam("last"))
            .order_by(events.c.event_key)
            .limit(bindparam("most"))
        )

    def _raw(self, statement: Any) -> RawStatement:
        return RawStatement(self.dialect, statement)

    def _row_query(self) -> Select[Any]:
        stores = self.schema.stores
        return select(*(stores.c[name] for name in _ROW)).where(stores.c.name == bindparam("store"))

    def _top_query(self, kind: int) -> Select[Any]:
        """The most frequent names of a kind."""
        counts = self.schema.counts
        top = (
            select(counts.c.kind, counts.c.name, counts.c.total, counts.c.recency)
            .where(
                counts.c.store_no == bindparam("store"), counts.c.kind == kind, counts.c.total > 0
            )
            .order_by(counts.c.total.desc(), counts.c.recency.desc())
            .limit(bindparam("most"))
        )
        return select(top.subquery(f"top{kind}"))

    def row(self, connection: Connection, name: str) -> StoreRow | None:
        """The row of a store, or None if nothing was ever written to it."""
        rows = self._select_row.fetch(connection, store=name)
        return StoreRow(*rows[0]) if rows else None

    def locked_row(self, connection: Connection, name: str) -> StoreRow:
        """The row of a store, made if needed. Other writers of the store wait for the commit."""
        rows = self._lock_row.fetch(connection, store=name)
        if not rows:
            columns = [each.name for each in self.schema.stores.c if each.name != "store_no"]
            new = dict.fromkeys(columns) | dict.fromkeys(
                ["last_seq", "last_unit", "objects", "invalid_objects", "size"], 0
            )
            statement = insert_new(self.dialect.name, self.schema.stores, columns)
            connection.execute(statement, [{**new, "name": name, "created_at_utc": utc_now()}])
            rows = self._lock_row.fetch(connection, store=name)
        return StoreRow(*rows[0])

    def update_row(self, connection: Connection, row: StoreRow) -> None:
        """Write the totals of a store."""
        values = {
            "store": row.store_no,
            "last": row.last_seq,
            "unit": row.last_unit,
            "all": row.objects,
            "invalid": row.invalid_objects,
            "bytes": row.size,
        }
        self._update_row.run(connection, [values])

    def wake(self, connection: Connection, name: str) -> None:
        """Wake those who follow the store, where the database can."""
        if self.dialect.name == "postgresql":
            notify = "SELECT pg_notify(%(channel)s, %(store)s)"
            connection.exec_driver_sql(notify, {"channel": NOTIFY_CHANNEL, "store": name})

    def bind(self, connection: Connection, row: StoreRow, sha256: str) -> None:
        """Write the document of a store."""
        stores = self.schema.stores
        connection.execute(
            update(stores).where(stores.c.store_no == row.store_no).values(document_sha256=sha256)
        )


@lru_cache(8)
def tables_of(dialect: Any, schema: Schema) -> StoreTables:
    """The tables of stores in a database, made once."""
    return StoreTables(dialect, schema)
