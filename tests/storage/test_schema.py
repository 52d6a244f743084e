"""One schema for five kinds of databases."""

import re
from typing import Any

import pytest
import sqlglot
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Dialect, Executable, inspect, select
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.dialects.mssql import pyodbc
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.schema import CreateIndex, CreateTable

from rlm_integrations.storage.job_table import JobTable
from rlm_integrations.storage.schema import VERSION_TABLE, Names, Schema, schema_for
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.statements import RawInsert, RawStatement, insert_new, lock_free_rows
from rlm_integrations.storage.stores.queries import ObjectQuery
from rlm_integrations.storage.stores.state import StoreView
from rlm_integrations.storage.stores.tables import StoreTables
from rlm_integrations.store.query import parse_query

# Our dialect, and sqlglot's name of it
DIALECTS = [
    (sqlite.dialect(), "sqlite"),
    (psycopg.dialect(), "postgres"),
    (mysql.dialect(), "mysql"),
    (pyodbc.dialect(), "tsql"),
]
each_dialect = pytest.mark.parametrize(
    ("dialect", "reader"), DIALECTS, ids=["sqlite", "postgresql", "mysql", "mssql"]
)


def tables_for(dialect: Dialect) -> Schema:
    return schema_for(Names.of(dialect.name))


def parse(sql: str, reader: str) -> Any:
    """The statement, read by sqlglot; the drivers' placeholders become numbers."""
    sql = sql.replace("WITHOUT ROWID", "")  # which sqlglot does not know
    return sqlglot.parse_one(
        re.sub(r"%\(\w+\)s|%s|\?|__\[POSTCOMPILE_\w+\]", "1", sql), dialect=reader
    )


def test_the_migrations_make_what_the_tables_say(opened: SharedDatabase) -> None:
    """A migrated database has the tables, columns, types and indexes of `schema.py`, no more and no
    less.
    """
    names = opened.database.names

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": names.table(VERSION_TABLE),
                "version_table_schema": names.schema,
                "include_schemas": names.schema is not None,
                "include_name": lambda name, kind, _: kind != "schema" or name == names.schema,
                "compare_type": True,
            },
        )
        return compare_metadata(context, opened.database.schema.metadata)

    assert opened.database.read(differences) == []


def test_only_names_of_ours_are_created(opened: SharedDatabase) -> None:
    """On SQLite every table begins with `llm_`; on a server all are in schema `llm`."""

    def tables(connection: Any) -> tuple[list[str], list[str]]:
        found = inspect(connection)
        schema = opened.database.names.schema
        return found.get_table_names(), found.get_table_names(schema=schema) if schema else []

    outside, inside = opened.database.read(tables)
    if opened.database.names.schema is None:
        assert all(name.startswith("llm_") for name in outside)
        inside = [name.removeprefix("llm_") for name in outside]
    else:
        assert outside == []
    assert {"DeriveJobs", "DeriveManifests", "SchemaVersion"} < set(inside)


@each_dialect
def test_the_tables_compile_for_each_database(dialect: Dialect, reader: str) -> None:
    """Every table and index is valid SQL for each database, under our names only."""
    schema = tables_for(dialect)
    for table in schema.metadata.sorted_tables:
        created = parse(str(CreateTable(table).compile(dialect=dialect)), reader)
        named = created.find(sqlglot.exp.Table)
        assert named.db == ("llm" if schema.names.schema else "")
        assert named.name.startswith("" if schema.names.schema else "llm_")
        for index in table.indexes:
            assert len(str(index.name)) <= 63
            parse(str(CreateIndex(index).compile(dialect=dialect)), reader)


def column_types(dialect: Dialect, table: Any) -> dict[str, str]:
    return {column.name: column.type.compile(dialect=dialect) for column in table.columns}


def test_the_columns_of_the_original_design_have_their_types() -> None:
    """On SQL Server the columns that the original names have the types that it names."""
    schema = tables_for(mssql.dialect())
    jobs = column_types(mssql.dialect(), schema.jobs)
    wanted = {
        "job_id": "UNIQUEIDENTIFIER",
        "manifest_id": "UNIQUEIDENTIFIER",
        "status": "VARCHAR(50)",
        "priority": "INTEGER",
        "created_at_utc": "DATETIME2(6)",
    }
    assert jobs.items() >= wanted.items()
    manifests = column_types(mssql.dialect(), schema.manifests)
    wanted = {
        "manifest_id": "UNIQUEIDENTIFIER",
        "manifest_version": "VARCHAR(20)",
        "llm_provider": "VARCHAR(50)",
        "llm_model": "VARCHAR(100)",
        "status": "VARCHAR(50)",
        "artifact_path": "NVARCHAR(500)",
    }
    assert manifests.items() >= wanted.items()


@pytest.mark.parametrize(
    ("dialect", "large"),
    [
        (mysql.dialect(), "LONGBLOB"),
        (mssql.dialect(), "VARBINARY(max)"),
        (postgresql.dialect(), "BYTEA"),
        (sqlite.dialect(), "BLOB"),
    ],
)
def test_large_values_fit_on_each_database(dialect: Dialect, large: str) -> None:
    """Bytes have a type without MySQL's bound of 64 KiB and without SQL Server's of 8,000."""
    assert column_types(dialect, tables_for(dialect).blobs)["data"] == large


@each_dialect
def test_inserts_that_skip_known_rows_are_valid(dialect: Dialect, reader: str) -> None:
    """A row whose key is there is skipped with each database's own words, or looked up under a
    lock.
    """
    blobs = tables_for(dialect).blobs
    columns = ["sha256", "size", "data", "kept_at"]
    sql = RawInsert(dialect, blobs, columns, new_only=True).sql
    assert isinstance(parse(sql, reader), sqlglot.exp.Insert)
    words = {
        "sqlite": "ON CONFLICT DO NOTHING",
        "postgres": "ON CONFLICT DO NOTHING",
        "mysql": "ON DUPLICATE KEY UPDATE",
        "tsql": "WITH (UPDLOCK, HOLDLOCK)",
    }
    assert words[reader] in sql
    assert str(insert_new(dialect.name, blobs, columns).compile(dialect=dialect))


@each_dialect
def test_free_rows_are_locked_on_each_database(dialect: Dialect, reader: str) -> None:
    """Rows that another transaction has locked are skipped: SQLAlchemy drops that silently for SQL
    Server, where hints say it; SQLite locks everything.
    """
    jobs = tables_for(dialect).jobs
    query = lock_free_rows(select(jobs.c.job_id).order_by(jobs.c.priority).limit(5), jobs)
    sql = str(query.compile(dialect=dialect))
    parse(sql, reader)
    words = {
        "sqlite": "",
        "postgres": "SKIP LOCKED",
        "mysql": "FOR UPDATE SKIP LOCKED",
        "tsql": "WITH (UPDLOCK, READPAST, ROWLOCK)",
    }
    assert words[reader] in sql


@each_dialect
def test_the_statements_of_the_queue_are_valid(dialect: Dialect, reader: str) -> None:
    """Everything that takes, renews and gives back jobs is valid SQL for each database; where it can
    be, a job is taken by one statement.
    """
    table = JobTable(tables_for(dialect), dialect.name)
    statements = [each for each in vars(table).values() if isinstance(each, Executable)]
    for each in statements:
        assert parse(str(each.compile(dialect=dialect)), reader).find(sqlglot.exp.Table)
    assert len(statements) == (9 if reader in {"sqlite", "postgres"} else 8)


@each_dialect
def test_the_statements_of_stores_are_valid(dialect: Dialect, reader: str) -> None:
    """Everything that reads and writes stores is valid SQL for each database; a writer locks the
    row of its store.
    """
    tables = StoreTables(dialect, tables_for(dialect))
    statements = [each.sql for each in vars(tables).values() if isinstance(each, RawStatement)]
    for sql in statements:
        assert parse(sql, reader).find(sqlglot.exp.Table)
    words = {"sqlite": "", "postgres": "FOR UPDATE", "mysql": "FOR UPDATE", "tsql": "UPDLOCK"}
    assert any(words[reader] in sql for sql in statements)

    class Asked:
        """A connection that only compiles."""

        def __init__(self) -> None:
            self.sql: list[str] = []

        def execute(self, statement: Any, _: Any = None) -> Any:
            self.sql.append(str(statement.compile(dialect=dialect)))
            return self

        def scalar(self, statement: Any) -> int:
            self.execute(statement)
            return 7

        def all(self) -> list[Any]:
            return []

    connection = Asked()
    view = StoreView(connection, tables, "s", 1)  # type: ignore[arg-type]
    query = parse_query("type=a|b tag=c -tag=d desc~e|f -desc~g text~h invalid=no sort=oldest")
    assert ObjectQuery(view, query, 9, lambda _: None).cards(5) == []
    for sql in connection.sql:
        assert parse(sql, reader).find(sqlglot.exp.Table)
