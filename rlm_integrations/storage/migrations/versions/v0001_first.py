"""The first schema: runs, their journal, stores, blobs, the cache, and the queue."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from rlm_integrations.storage.schema import (
    TABLE_OPTIONS,
    Names,
    UtcTime,
    binary,
    long_text,
    row_number,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    names: Names = op.get_context().config.attributes["names"]  # type: ignore[union-attr]
    # MySQL and MariaDB commit each statement: a process that was killed may have left some behind
    dialect = op.get_bind().dialect
    may_exist = dialect.name in {"mysql", "mariadb"} or None
    index_may_exist = getattr(dialect, "is_mariadb", False) or None

    def create(name: str, *columns: sa.Column[Any] | sa.UniqueConstraint, **options: Any) -> None:
        op.create_table(
            names.table(name),
            *columns,
            schema=names.schema,
            if_not_exists=may_exist,
            **TABLE_OPTIONS,
            **options,
        )

    def index(table: str, *columns: str) -> None:
        op.create_index(
            f"ix_{names.table(table)}_{'_'.join(columns)}",
            names.table(table),
            list(columns),
            schema=names.schema,
            if_not_exists=index_may_exist,
        )

    create(
        "Runs",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("question", long_text(), nullable=False),
        sa.Column("root_model", sa.Unicode(200), nullable=False),
        sa.Column("previous_run_id", sa.String(64)),
        sa.Column("setup_sha256", sa.String(64)),
        sa.Column("result_sha256", sa.String(64)),
        sa.Column("owner", sa.Unicode(200)),
        sa.Column("lease_until_utc", UtcTime()),
        sa.Column("created_at_utc", UtcTime(), nullable=False),
        sa.Column("updated_at_utc", UtcTime(), nullable=False),
    )
    index("Runs", "created_at_utc")
    create(
        "JournalRecords",
        sa.Column("record_no", row_number(), sa.Identity(), primary_key=True),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("call_id", long_text(), nullable=False),
        sa.Column("body", binary()),
        sa.Column("blob_sha256", sa.String(64)),
        sa.Column("kept_at", sa.Double(), nullable=False),
    )
    index("JournalRecords", "run_id")
    create(
        "Stores",
        sa.Column("store_no", row_number(), sa.Identity(), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("document_sha256", sa.String(64)),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_unit", sa.BigInteger(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("invalid_objects", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("desc_seq", sa.BigInteger()),
        sa.Column("text_seq", sa.BigInteger()),
        sa.Column("words_seq", sa.BigInteger()),
        sa.Column("created_at_utc", UtcTime(), nullable=False),
        sa.UniqueConstraint("name", name=f"uq_{names.table('Stores')}"),
    )
    create(
        "StoreEvents",
        sa.Column("event_key", row_number(), primary_key=True, autoincrement=False),
        sa.Column("unit", sa.BigInteger(), nullable=False),
        sa.Column("body", binary(), nullable=False),
    )
    create(
        "StoreObjects",
        sa.Column("event_key", row_number(), primary_key=True, autoincrement=False),
        sa.Column("card", long_text(), nullable=False),
        sa.Column("folded", binary(), nullable=False),
        sa.Column("invalid", long_text()),
    )
    create(
        "StoreTerms",
        sa.Column("term", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("event_key", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    create(
        "StoreCounts",
        sa.Column("term", row_number(), primary_key=True, autoincrement=False),
        sa.Column("store_no", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("name", long_text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("recency", sa.BigInteger(), nullable=False),
    )
    index("StoreCounts", "store_no", "kind", "total", "recency")
    create(
        "Blobs",
        sa.Column("blob_no", row_number(), sa.Identity(), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("data", binary()),
        sa.Column("kept_at", sa.Double(), nullable=False),
        sa.UniqueConstraint("sha256", name=f"uq_{names.table('Blobs')}"),
    )
    create(
        "BlobUses",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
    )
    index("BlobUses", "sha256")
    create(
        "AddedSources",
        sa.Column("source_no", row_number(), sa.Identity(), primary_key=True),
        sa.Column("document_id", sa.String(64), nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("label", sa.String(40), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("characters", sa.BigInteger(), nullable=False),
        sa.Column("metadata", long_text(), nullable=False),
        sa.Column("kept_at", sa.Double(), nullable=False),
        sa.UniqueConstraint("document_id", "identity", name=f"uq_{names.table('AddedSources')}"),
    )
    create(
        "CachedReplies",
        sa.Column("reply_key", sa.String(64), primary_key=True),
        sa.Column("body", binary(), nullable=False),
        sa.Column("kept_at", sa.Double(), nullable=False),
    )
    index("CachedReplies", "kept_at")
    create(
        "ExtractedTexts",
        sa.Column("text_key", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("kept_at", sa.Double(), nullable=False),
    )
    create(
        "DeriveManifests",
        sa.Column("manifest_id", sa.Uuid(), primary_key=True),
        sa.Column("manifest_version", sa.String(20), nullable=False),
        sa.Column("task_type", sa.Unicode(100), nullable=False),
        sa.Column("llm_provider", sa.String(50)),
        sa.Column("llm_model", sa.String(100)),
        sa.Column("status", sa.String(50), nullable=False),
        sa.Column("artifact_path", sa.Unicode(500)),
        sa.Column("created_at_utc", UtcTime(), nullable=False),
        sa.Column("manifest", long_text(), nullable=False),
    )
    create(
        "DeriveJobs",
        sa.Column("job_id", sa.Uuid(), primary_key=True),
        sa.Column("manifest_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(50), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("100")),
        sa.Column("created_at_utc", UtcTime(), nullable=False),
        sa.Column("started_at_utc", UtcTime()),
        sa.Column("finished_at_utc", UtcTime()),
        sa.Column("worker", sa.Unicode(200)),
        sa.Column("lease_until_utc", UtcTime()),
        sa.Column("not_before_utc", UtcTime()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("error", long_text()),
    )
    index("DeriveJobs", "status", "priority", "created_at_utc", "job_id")
    index("DeriveJobs", "status", "lease_until_utc")
    index("DeriveJobs", "manifest_id")
