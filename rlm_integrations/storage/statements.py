"""Statements that differ between databases, or are run so often that they are compiled once."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Select,
    Table,
    UniqueConstraint,
    bindparam,
    exists,
    insert,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

Row = Mapping[str, Any]
_MAX_ROWS = 256  # of one statement


class RawStatement:
    """A statement that is compiled once and run by the driver, at a third of the cost of Core.

    Types are the driver's own: no UUIDs and no times.

    Args:
        dialect: The database's.
        statement: The statement.
        columns: The names of the columns that an INSERT fills.
    """

    def __init__(
        self, dialect: Dialect, statement: Any, columns: Sequence[str] | None = None
    ) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self.sql = str(compiled)
        self._order = compiled.positiontup
        self._values = {name: each for name, each in compiled.params.items() if each is not None}

    def run(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Run it with the values of each row."""
        values = self._given(rows)
        if values:
            connection.exec_driver_sql(self.sql, values)

    def _given(self, rows: Iterable[Row]) -> list[Any]:
        """The values of each row as the driver takes them."""
        order = self._order
        if order is None:
            return list(rows)
        if len(order) == 1:
            return [(row[order[0]],) for row in rows]
        return list(map(itemgetter(*order), rows))

    def fetch(self, connection: Connection, **values: Any) -> Sequence[Any]:
        """The rows that a query finds."""
        order, values = self._order, {**self._values, **values}
        given: Any = values if order is None else tuple(values[name] for name in order)
        return connection.exec_driver_sql(self.sql, given).fetchall()


class RawInsert(RawStatement):
    """An INSERT that is compiled once.

    Args:
        dialect: The database's.
        table: Where rows go.
        columns: The names of the columns that rows have.
        new_only: Skip rows whose key is there already.
    """

    def __init__(
        self, dialect: Dialect, table: Table, columns: Sequence[str], *, new_only: bool = False
    ) -> None:
        statement = insert_new(dialect.name, table, columns) if new_only else insert(table).inline()
        super().__init__(dialect, statement, list(columns))
        self._width = len(columns) if dialect.name == "sqlite" else 0
        self._statements: dict[int, str] = {}

    def is_single(self, rows: Sequence[Row]) -> bool:
        """Whether `run` inserts these rows by one statement."""
        return len(rows) <= (_MAX_ROWS if self._width else 1)

    def run(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Insert the rows.

        SQLite's driver would run the statement once per row, and wait each time until the other
        threads let it go on. Statements for powers of two rows are few enough to stay compiled;
        their last rows may be empty, and are skipped.
        """
        if not self._width:
            super().run(connection, rows)
            return
        values = self._given(rows)
        for at in range(0, len(values), _MAX_ROWS):
            some = values[at : at + _MAX_ROWS]
            room = 1 << (len(some) - 1).bit_length()
            empty = [None] * (room - len(some)) * self._width
            given = (*chain.from_iterable(some), *empty, len(some))
            connection.exec_driver_sql(self._statement(room), given)

    def _statement(self, room: int) -> str:
        if room not in self._statements:
            places = ["?"] * self._width
            rows = (f"({', '.join([str(number), *places])})" for number in range(room))
            # SQLite names the columns of VALUES; the first one has the numbers of the rows
            columns = (f"column{number}" for number in range(2, self._width + 2))
            source = f"(VALUES {', '.join(rows)})"
            self._statements[room] = self.sql.replace(
                f"VALUES ({', '.join(places)})",
                " ".join(["SELECT", ", ".join(columns), "FROM", source, "WHERE column1 < ?"]),
            )
        return self._statements[room]


def insert_new(dialect: str, table: Table, columns: Sequence[str]) -> Any:
    """An INSERT that skips a row whose key is there already, also one that another process is
    writing.
    """
    if dialect == "postgresql":
        return postgresql.insert(table).inline().on_conflict_do_nothing()
    if dialect == "sqlite":
        return sqlite.insert(table).inline().on_conflict_do_nothing()
    if dialect in {"mysql", "mariadb"}:
        # Not IGNORE, which would also cut long values and replace missing ones
        first = next(iter(table.primary_key.columns))
        return mysql.insert(table).inline().on_duplicate_key_update({first.name: first})
    values = {name: bindparam(name, type_=table.c[name].type) for name in columns}
    keys = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    key = next(
        names
        for names in (list(each.columns.keys()) for each in [*keys, table.primary_key])
        if set(names) <= set(columns)
    )
    there = exists().where(*(table.c[name] == values[name] for name in key))
    there = there.select_from(table).with_hint(table, "WITH (UPDLOCK, HOLDLOCK)", "mssql")
    return insert(table).inline().from_select(list(columns), select(*values.values()).where(~there))


def lock_free_rows(query: Select[Any], table: Table) -> Select[Any]:
    """The query, which locks its rows for this transaction and skips those that another has locked.

    SQLite needs nothing: its transaction has locked the whole database.
    """
    return query.with_for_update(skip_locked=True, of=table).with_hint(
        table, "WITH (UPDLOCK, READPAST, ROWLOCK)", "mssql"
    )
