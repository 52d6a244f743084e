"""Brings a database to the version of the schema that this version of the library needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text
from sqlalchemy.schema import CreateSchema

from rlm_integrations.errors import StorageError, StorageUnavailableError
from rlm_integrations.storage.schema import VERSION_TABLE, Names

# The newest migration, and all before it
VERSIONS = ("0001",)
CURRENT_VERSION = VERSIONS[-1]
_LOCK_SECONDS = 60


def read_version(connection: Connection, names: Names) -> str | None:
    """The version of the schema in the database; None if it has no tables of ours."""
    name = names.table(VERSION_TABLE)
    if not inspect(connection).has_table(name, schema=names.schema):
        return None
    # The version of Alembic's own table
    table = Table(name, MetaData(schema=names.schema), Column("version_num", String(32)))
    return connection.execute(select(table.c.version_num)).scalar()


def is_current(version: str | None) -> bool:
    """Whether a database of this version can be used as it is.

    Raises:
        StorageError: The version is of a later library, or of none.
    """
    if version is None or version in VERSIONS:
        return version == CURRENT_VERSION
    if version.isdigit() and int(version) > int(CURRENT_VERSION):
        raise StorageError(
            f"the data has version {version} of the schema, and this version of rlm-integrations "
            f"reads up to {CURRENT_VERSION}: upgrade with pip install -U rlm-integrations"
        )
    raise StorageError(
        f"the data has an unknown version of the schema, {version[:40]!r}: another program has "
        "changed the version table; restore it from a backup, or use another schema= or folder"
    )


def upgrade_schema(connection: Connection, names: Names) -> None:
    """Create the tables, or change them step by step, in the connection's transaction.

    Several processes can do this at once: one does, the others wait.
    """
    from alembic import command
    from alembic.config import Config

    with _sole_upgrade(connection, names):
        if is_current(read_version(connection, names)):
            return
        if names.schema is not None and not inspect(connection).has_schema(names.schema):
            connection.execute(CreateSchema(names.schema))
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        config.attributes.update(connection=connection, names=names)
        command.upgrade(config, "head")


@contextmanager
def _sole_upgrade(connection: Connection, names: Names) -> Iterator[None]:
    """Hold the database's own lock; SQLite's transaction has begun with one."""
    key = f"rlm-integrations {names.schema or names.prefix}"
    take: str | None = None
    release: str | None = None
    match connection.dialect.name:
        case "postgresql":
            take = "SELECT pg_advisory_xact_lock(hashtext(:key))"
        case "mysql" | "mariadb":
            take, release = "SELECT GET_LOCK(:key, :seconds)", "SELECT RELEASE_LOCK(:key)"
        case "mssql":
            take = "EXEC sp_getapplock @Resource = :key, @LockMode = 'Exclusive'"
    if take is not None:
        values = {"key": key, "seconds": _LOCK_SECONDS}
        is_taken = connection.execute(text(take), values).scalar()
        if release is not None and is_taken != 1:
            raise StorageUnavailableError(
                "another process is creating or upgrading the tables: call again once it has ended"
            )
    try:
        yield
    finally:
        if release is not None:
            # Before the next process looks: this lock does not end with the transaction
            connection.exec_driver_sql("COMMIT")
            connection.execute(text(release), {"key": key})
