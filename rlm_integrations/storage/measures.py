"""How much a storage holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, func, select, text

from rlm_integrations.storage.artifacts import ArtifactStore
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.schema import Names
from rlm_integrations.storage.shared_database import SharedDatabase

_SIZE_IN_MARIADB = (
    "SELECT sum(data_length + index_length) FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND LEFT(table_name, CHAR_LENGTH(:prefix)) = :prefix"
)
_SIZE = {
    "mariadb": _SIZE_IN_MARIADB,
    "mysql": _SIZE_IN_MARIADB,
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": (
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema "
        "AND c.relkind = 'r'"
    ),
}


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of things, and their size.

    Attributes:
        count: How many there are.
        size: Their bytes, as they are kept: compressed.
    """

    count: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStats:
    """What a storage holds.

    Attributes:
        runs: How many runs have each status.
        jobs: How many jobs have each status.
        kinds: What takes the space: "records" of journals, "events" of stores, "blobs" in the
            database, "files" of large blobs, "replies" of the cache, "artifacts".
        database_size: The bytes of the database with its indexes; None if it does not tell.
    """

    runs: Mapping[str, int]
    jobs: Mapping[str, int]
    kinds: Mapping[str, Amount]
    database_size: int | None


def measure_storage(
    shared: SharedDatabase, lake: Lake, artifacts: ArtifactStore | None
) -> StorageStats:
    """Count all rows and files.

    Raises:
        StorageError: The storage cannot be read.
    """
    database = shared.database
    schema = database.schema
    length = func.datalength if database.dialect.name == "mssql" else func.length

    def amount(connection: Connection, column: Column[Any]) -> Amount:
        query = select(func.count(), func.coalesce(func.sum(length(column)), 0))
        count, size = connection.execute(query.select_from(column.table)).one()
        return Amount(count, int(size))

    def by_status(connection: Connection, status: Column[Any]) -> dict[str, int]:
        rows = connection.execute(select(status, func.count()).group_by(status).order_by(status))
        return {str(row[0]): int(row[1]) for row in rows}

    def read(connection: Connection) -> StorageStats:
        blobs = schema.blobs.c
        rows = {
            "records": schema.records.c.body,
            "events": schema.events.c.body,
            "blobs": blobs.data,
            "replies": schema.replies.c.body,
        }
        kinds = {kind: amount(connection, column) for kind, column in rows.items()}
        of_files = connection.scalar(select(func.count()).where(blobs.data.is_(None))) or 0
        small = kinds["blobs"]
        kinds["blobs"] = Amount(small.count - of_files, small.size)
        return StorageStats(
            runs=by_status(connection, schema.runs.c.status),
            jobs=by_status(connection, schema.jobs.c.status),
            kinds=kinds,
            database_size=_database_size(connection, database.names),
        )

    found = database.read(read)
    files = {"files": lake.files(), "artifacts": {} if artifacts is None else artifacts.sizes()}
    of_files = {kind: Amount(len(sizes), sum(sizes.values())) for kind, sizes in files.items()}
    return StorageStats(
        runs=found.runs,
        jobs=found.jobs,
        kinds={**found.kinds, **of_files},
        database_size=found.database_size,
    )


def _database_size(connection: Connection, names: Names) -> int | None:
    size = _SIZE.get(connection.dialect.name)
    if size is None:
        return None
    query = text(size)
    given = {"schema": names.schema, "prefix": names.prefix}
    wanted = {name: given[name] for name in query.compile().params}
    return int(connection.scalar(query, wanted) or 0)
