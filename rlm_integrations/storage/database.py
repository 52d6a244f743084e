"""One database: how it is opened, read and written, whatever its dialect."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rlm_integrations.errors import InputError, MissingExtraError, StorageError
from rlm_integrations.storage.database_errors import Target, kind_of, storage_error
from rlm_integrations.storage.folder import prepare_file
from rlm_integrations.storage.migrations.upgrade import is_current, read_version, upgrade_schema
from rlm_integrations.storage.schema import DEFAULT_SCHEMA, Names, Schema, schema_for

T = TypeVar("T")

DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb", "mssql")
_EXAMPLE = "write a folder, or a URL like postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
# The package of each dialect's driver that is named first
_DRIVERS = {"mysql": "pymysql", "mariadb": "pymysql", "mssql": "pyodbc"}
PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_BUSY_SECONDS = 30.0
_PARENTS: list[Any] = []  # in a forked process, the connections of its parent


def parse_url(text: str) -> URL:
    """The URL of a database that can be opened.

    Raises:
        InputError: It is malformed, or of an unknown database. The message shows no password.
        MissingExtraError: The packages for PostgreSQL are not installed.
    """
    try:
        url = make_url(text)
        dialect = url.get_dialect()
    except (ArgumentError, ValueError) as error:  # a port that is no number, for one
        if not isinstance(error, NoSuchModuleError):
            raise InputError(f"the database's URL is malformed; {_EXAMPLE}") from None
        name = text.partition("://")[0]
        close = get_close_matches(name.partition("+")[0], DIALECTS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"unknown database {name[:40]!r}; {hint}{', '.join(DIALECTS)} are known; {_EXAMPLE}"
        ) from None
    if dialect.name not in DIALECTS:
        raise InputError(f"database {dialect.name!r} is not supported; {_EXAMPLE}")
    if dialect.is_async:
        raise InputError(
            f"{url.drivername!r} is an asynchronous driver, and storage needs a synchronous one; "
            f"{_EXAMPLE}"
        )
    if dialect.name == "sqlite" and url.database in {None, "", ":memory:"}:
        raise InputError("storage in memory would end with the process; name a folder or a file")
    try:
        dialect.import_dbapi()
    except ImportError:
        if dialect.name == "postgresql":
            raise MissingExtraError("storage on PostgreSQL", "postgres") from None
        if url.drivername.endswith("+pymysql"):
            raise MissingExtraError("storage on MariaDB and MySQL", "mariadb") from None
        package = _DRIVERS.get(dialect.name, url.get_driver_name())
        raise InputError(
            f"the driver of {url.drivername!r} is not installed: pip install {package}, and name "
            f"it in the URL as {dialect.name}+{package}://…"
        ) from None
    return url


class Database:
    """A database with the tables of storage, shared by all threads of the process.

    Use `open_database` of `shared_database.py`, which shares one object per URL.

    Args:
        target: The URL, and how messages name it.
        schema: The name of the schema, or of the prefix, of its tables.
        patience: For how many seconds reads and writes wait for a database that cannot be reached.
        may_create: Whether a database without tables of ours gets them, or is an error.

    Raises:
        StorageError: It cannot be opened, or its data is of an unknown or a later version.
    """

    def __init__(
        self,
        target: Target,
        *,
        schema: str = DEFAULT_SCHEMA,
        patience: float = PATIENCE_SECONDS,
        may_create: bool = True,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,29}", schema):
            raise InputError(
                f"schema must be at most 30 letters, digits and underscores, not {schema[:40]!r}"
            )
        self.target = target
        self.patience = patience
        self.names = Names.of(target.url.get_dialect().name, schema)
        self._pid = os.getpid()
        self._stop = threading.Event()
        if target.url.get_dialect().name == "sqlite":
            _prepare_file(target)
        self._engine = _make_engine(target.url)
        self._writing = self._engine.execution_options(rlm_begin="BEGIN IMMEDIATE")
        self._writing_once = self._engine.execution_options(rlm_begin="")
        try:
            self._prepare(may_create=may_create)
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def schema(self) -> Schema:
        """The tables."""
        return schema_for(self.names)

    @property
    def dialect(self) -> Any:
        """SQLAlchemy's dialect of the database."""
        return self._engine.dialect

    @property
    def driver_error(self) -> type[Exception]:
        """The base class of the driver's errors."""
        error: type[Exception] = self.dialect.loaded_dbapi.Error
        return error

    def driver_connection(self) -> Any:
        """A connection of the driver's own, which the caller closes."""
        arguments, options = self.dialect.create_connect_args(self.target.url)
        return self.dialect.connect(*arguments, **options)

    @cached_property
    def max_value_bytes(self) -> int | None:
        """How long one value may be; None without a limit that matters."""
        if self.dialect.name not in {"mysql", "mariadb"}:
            return None
        packet: int = self.read(
            lambda connection: connection.exec_driver_sql(
                "SELECT @@SESSION.max_allowed_packet"
            ).scalar_one()
        )
        return packet // 2 - 1_024  # drivers write two characters for a byte

    def _prepare(self, *, may_create: bool) -> None:
        def attempt() -> None:
            with self._engine.connect() as connection:
                version = read_version(connection, self.names)
            if version is None and not may_create:
                raise StorageError(f"{self.target} has no tables of rlm-integrations")
            if not is_current(version):
                with self.write() as connection:
                    upgrade_schema(connection, self.names)

        if self.dialect.name == "sqlite":  # another process may be creating the same file
            self.persist(attempt)
            return
        try:
            attempt()
        except SQLAlchemyError as error:
            raise storage_error(error, self.target) from None

    @contextmanager
    def write(self, *, durable: bool = True, is_single: bool = False) -> Iterator[Connection]:
        """A transaction that may write: committed at the end, or rolled back.

        Only the writer thread uses it, once the database is open.

        Args:
            durable: Whether the commit survives a power failure. A killed process never loses it.
            is_single: Whether it is a single statement. SQLite needs no more for a transaction,
                and each further one, BEGIN and COMMIT too, has to wait until a busy thread lets
                this one go on.
        """
        self.check_usable()
        engine = self._writing_once if is_single else self._writing
        with engine.connect() as connection:
            if self.dialect.name == "sqlite" and connection.info.get("durable") is not durable:
                cursor = connection.connection.cursor()
                cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                cursor.close()
                connection.info["durable"] = durable
            with connection.begin():
                if self.dialect.name == "postgresql" and not durable:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
                yield connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads in one transaction. It is called again if the connection is lost.

        Raises:
            StorageUnavailableError: The database could not be reached for `patience` seconds.
            StorageError: Another error of the database.
        """

        def attempt() -> T:
            self.check_usable()
            with self._engine.connect() as connection, connection.begin():
                return work(connection)

        return self.persist(attempt)

    def persist(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, repeated while the database cannot be reached, for `patience`
        seconds.
        """
        until = time.monotonic() + self.patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return attempt()
            except SQLAlchemyError as error:
                if (
                    kind_of(error) != "passing"
                    or time.monotonic() + pause > until
                    or self._stop.is_set()
                ):
                    raise storage_error(error, self.target) from None
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def check_usable(self) -> None:
        """Raise if the database is closed, or was opened before this process was forked.

        Raises:
            StorageError: It is.
        """
        if self._pid != os.getpid():
            raise StorageError(
                f"storage in {self.target} was opened before this process was forked; open it "
                "again in the new process"
            )
        if self._stop.is_set():
            raise StorageError(f"storage in {self.target} is closed; open it again")

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._stop.is_set()

    def close(self) -> None:
        """Close all connections. Reads and writes that wait for the database end with its error."""
        self._stop.set()
        self._engine.dispose()

    def abandon(self) -> None:
        """Leave the parent's connections alone in a forked process."""
        _PARENTS.append(self._engine.pool)  # psycopg warns of each that is collected
        self._engine.dispose(close=False)


def _prepare_file(target: Target) -> None:
    try:
        prepare_file(Path(target.url.database or ""))
    except OSError as error:
        raise StorageError(
            f"storage in {target} cannot be created: {error.strerror}; check the path and its "
            "permissions"
        ) from error


def _make_engine(url: URL) -> Engine:
    dialect = url.get_dialect().name
    if dialect in {"mysql", "mariadb"}:
        return _make_mysql_engine(url)
    if dialect != "sqlite":
        return create_engine(url, hide_parameters=True, pool_size=4, max_overflow=28)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # The driver's own transactions begin too late to be immediate
        connection.isolation_level = None
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("rlm_begin", "BEGIN")
        if statement:
            connection.exec_driver_sql(statement)

    return engine


def _make_mysql_engine(url: URL) -> Engine:
    # Its default, REPEATABLE READ, shows old rows to a transaction, and locks gaps between rows
    engine = create_engine(
        url, hide_parameters=True, pool_size=4, max_overflow=28, isolation_level="READ COMMITTED"
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        # Some servers cut long values, with a warning only
        cursor.execute(
            "SET SESSION sql_mode = "
            "CONCAT_WS(',', NULLIF(@@SESSION.sql_mode, ''), 'STRICT_ALL_TABLES')"
        )
        cursor.close()

    return engine
