"""The tables, in SQLAlchemy Core, for SQLite, PostgreSQL, MariaDB/MySQL and SQL Server.

A database on a server holds them in a schema of their own, `llm` by default. SQLite and MySQL have
no schemas inside a database: there the tables' names begin with `llm_`. Large values are not here
but in the lake; rows name them by their SHA-256.

A change of a table needs a migration in `migrations/versions`; a test compares the two.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    Unicode,
    UnicodeText,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects import mssql, mysql

DEFAULT_SCHEMA = "llm"
VERSION_TABLE = "SchemaVersion"
# Databases without schemas inside a database
PREFIXED_DIALECTS = frozenset({"sqlite", "mysql", "mariadb"})
# Tables of MySQL and MariaDB depend on no default of the server: all characters, compared exactly.
# MySQL has no collation of that name that counts spaces at the end
TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


class UtcTime(TypeDecorator[datetime]):
    """A time with microseconds, kept without a zone, in UTC; read with the zone."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """DATETIME2 and DATETIME(6), where DATETIME alone would round."""
        if dialect.name == "mssql":
            return dialect.type_descriptor(mssql.DATETIME2(6))  # type: ignore[no-untyped-call]
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The time in UTC, without its zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The time with its zone."""
        return None if value is None else value.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """The time, as `UtcTime` keeps it."""
    return datetime.now(UTC)


def row_number() -> BigInteger:
    """A number that the database gives to each row; SQLite counts only in INTEGER."""
    return BigInteger().with_variant(Integer, "sqlite")


def binary() -> LargeBinary:
    """Bytes of any length: BLOB of MySQL ends at 64 KiB, and IMAGE of SQL Server is outdated."""
    return (
        LargeBinary()
        .with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
        .with_variant(mssql.VARBINARY("max"), "mssql")  # type: ignore[no-untyped-call]
    )


def long_text() -> UnicodeText:
    """Text of any length: TEXT of MySQL ends at 64 KiB, and NTEXT of SQL Server is outdated."""
    return (
        UnicodeText()
        .with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
        .with_variant(mssql.NVARCHAR(None), "mssql")
    )


@dataclass(frozen=True, slots=True)
class Names:
    """What the tables are called in one database.

    Attributes:
        schema: The schema that holds them; None in databases without schemas.
        prefix: What each table's name begins with.
    """

    schema: str | None
    prefix: str

    @classmethod
    def of(cls, dialect: str, schema: str = DEFAULT_SCHEMA) -> "Names":
        """The names in a database of this dialect."""
        return cls(None, f"{schema}_") if dialect in PREFIXED_DIALECTS else cls(schema, "")

    def table(self, name: str) -> str:
        """The name of a table, without its schema."""
        return f"{self.prefix}{name}"


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables, by what they hold.

    Attributes:
        runs: One row per run: what was asked, how it ended, and who is running it.
        records: The journal: one row per answer of a run; of several with one `call_id`, the last
            counts.
        stores: One row per store: its totals, its document, and how far its text indexes are.
        events: The events of stores; a key is the number of the store and that of the event.
        objects: The metadata of the objects of stores, by the key of the event that created them.
        terms: Which objects have a type, a tag, a parent and so on; terms are hashes.
        counts: How many valid objects have a type or a tag, and the last number of each worker.
        blobs: All blobs: small ones, compressed, and the hashes of those that are files.
        blob_uses: Which run, or document that grows, uses which blob, so that it can be removed
            with its blobs.
        sources: The texts of documents that grow, which are blobs.
        replies: The cache of models' replies, which belong to no run.
        texts: The texts of files that were read, which are blobs.
        manifests: What jobs derive, `DeriveManifests` in the original design.
        jobs: The queue, `DeriveJobs` in the original design.
    """

    names: Names
    metadata: MetaData
    runs: Table
    records: Table
    stores: Table
    events: Table
    objects: Table
    terms: Table
    counts: Table
    blobs: Table
    blob_uses: Table
    sources: Table
    replies: Table
    texts: Table
    manifests: Table
    jobs: Table


@cache
def schema_for(names: Names) -> Schema:
    """The tables under these names."""
    metadata = MetaData(schema=names.schema)

    def table(name: str, *columns: Column[Any] | Index | UniqueConstraint, **options: Any) -> Table:
        return Table(names.table(name), metadata, *columns, **TABLE_OPTIONS, **options)

    def index(table: str, *columns: str) -> Index:
        return Index(f"ix_{names.table(table)}_{'_'.join(columns)}", *columns)

    return Schema(
        names,
        metadata,
        runs=table(
            "Runs",
            Column("run_id", String(64), primary_key=True),
            Column("status", String(20), nullable=False),
            Column("question", long_text(), nullable=False),
            Column("root_model", Unicode(200), nullable=False),
            Column("previous_run_id", String(64)),
            Column("setup_sha256", String(64)),
            Column("result_sha256", String(64)),
            Column("owner", Unicode(200)),
            Column("lease_until_utc", UtcTime()),
            Column("created_at_utc", UtcTime(), nullable=False),
            Column("updated_at_utc", UtcTime(), nullable=False),
            index("Runs", "created_at_utc"),
        ),
        records=table(
            "JournalRecords",
            Column("record_no", row_number(), Identity(), primary_key=True),
            Column("run_id", String(64), nullable=False),
            Column("call_id", long_text(), nullable=False),
            Column("body", binary()),
            Column("blob_sha256", String(64)),
            Column("kept_at", Double(), nullable=False),
            index("JournalRecords", "run_id"),
        ),
        stores=table(
            "Stores",
            Column("store_no", row_number(), Identity(), primary_key=True),
            Column("name", String(64), nullable=False),
            Column("document_sha256", String(64)),
            Column("last_seq", BigInteger(), nullable=False),
            Column("last_unit", BigInteger(), nullable=False),
            Column("objects", BigInteger(), nullable=False),
            Column("invalid_objects", BigInteger(), nullable=False),
            Column("size", BigInteger(), nullable=False),
            Column("desc_seq", BigInteger()),
            Column("text_seq", BigInteger()),
            Column("words_seq", BigInteger()),
            Column("created_at_utc", UtcTime(), nullable=False),
            UniqueConstraint("name", name=f"uq_{names.table('Stores')}"),
        ),
        events=table(
            "StoreEvents",
            Column("event_key", row_number(), primary_key=True, autoincrement=False),
            Column("unit", BigInteger(), nullable=False),
            Column("body", binary(), nullable=False),
        ),
        objects=table(
            "StoreObjects",
            Column("event_key", row_number(), primary_key=True, autoincrement=False),
            Column("card", long_text(), nullable=False),
            Column("folded", binary(), nullable=False),
            Column("invalid", long_text()),
        ),
        terms=table(
            "StoreTerms",
            Column("term", BigInteger(), primary_key=True, autoincrement=False),
            Column("event_key", BigInteger(), primary_key=True, autoincrement=False),
            sqlite_with_rowid=False,
        ),
        counts=table(
            "StoreCounts",
            Column("term", row_number(), primary_key=True, autoincrement=False),
            Column("store_no", BigInteger(), nullable=False),
            Column("kind", Integer(), nullable=False),
            Column("name", long_text(), nullable=False),
            Column("total", BigInteger(), nullable=False),
            Column("recency", BigInteger(), nullable=False),
            index("StoreCounts", "store_no", "kind", "total", "recency"),
        ),
        blobs=table(
            "Blobs",
            Column("blob_no", row_number(), Identity(), primary_key=True),
            Column("sha256", String(64), nullable=False),
            Column("size", BigInteger(), nullable=False),
            Column("data", binary()),
            Column("kept_at", Double(), nullable=False),
            UniqueConstraint("sha256", name=f"uq_{names.table('Blobs')}"),
        ),
        blob_uses=table(
            "BlobUses",
            Column("run_id", String(64), primary_key=True),
            Column("sha256", String(64), primary_key=True),
            index("BlobUses", "sha256"),
        ),
        sources=table(
            "AddedSources",
            Column("source_no", row_number(), Identity(), primary_key=True),
            Column("document_id", String(64), nullable=False),
            Column("identity", String(64), nullable=False),
            Column("label", String(40), nullable=False),
            Column("sha256", String(64), nullable=False),
            Column("characters", BigInteger(), nullable=False),
            Column("metadata", long_text(), nullable=False),
            Column("kept_at", Double(), nullable=False),
            UniqueConstraint("document_id", "identity", name=f"uq_{names.table('AddedSources')}"),
        ),
        replies=table(
            "CachedReplies",
            Column("reply_key", String(64), primary_key=True),
            Column("body", binary(), nullable=False),
            Column("kept_at", Double(), nullable=False),
            index("CachedReplies", "kept_at"),
        ),
        texts=table(
            "ExtractedTexts",
            Column("text_key", String(64), primary_key=True),
            Column("sha256", String(64), nullable=False),
            Column("kept_at", Double(), nullable=False),
        ),
        manifests=table(
            "DeriveManifests",
            Column("manifest_id", Uuid(), primary_key=True),
            Column("manifest_version", String(20), nullable=False),
            Column("task_type", Unicode(100), nullable=False),
            Column("llm_provider", String(50)),
            Column("llm_model", String(100)),
            Column("status", String(50), nullable=False),
            Column("artifact_path", Unicode(500)),
            Column("created_at_utc", UtcTime(), nullable=False),
            Column("manifest", long_text(), nullable=False),
        ),
        jobs=table(
            "DeriveJobs",
            Column("job_id", Uuid(), primary_key=True),
            Column("manifest_id", Uuid(), nullable=False),
            Column("status", String(50), nullable=False),
            Column("priority", Integer(), nullable=False, server_default=text("100")),
            Column("created_at_utc", UtcTime(), nullable=False),
            Column("started_at_utc", UtcTime()),
            Column("finished_at_utc", UtcTime()),
            Column("worker", Unicode(200)),
            Column("lease_until_utc", UtcTime()),
            Column("not_before_utc", UtcTime()),
            Column("attempts", Integer(), nullable=False),
            Column("max_attempts", Integer(), nullable=False),
            Column("run_id", String(64)),
            Column("error", long_text()),
            index("DeriveJobs", "status", "priority", "created_at_utc", "job_id"),
            index("DeriveJobs", "status", "lease_until_utc"),
            index("DeriveJobs", "manifest_id"),
        ),
    )
