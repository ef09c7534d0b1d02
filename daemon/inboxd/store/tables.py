"""The control tables as SQLAlchemy sees them, for questions. ``migrations/`` creates them, with their constraints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from inboxd.store.ledger import canonical

# `lineage_records.outcome`; the view `lineage` spells them out.
LOADED: Final = 0
STALE: Final = 1
SKIPPED: Final = 2
REJECTED: Final = 3
DELETED: Final = 4
"""By a record that is a deletion."""
ABSENT: Final = 5
"""Deleted because a snapshot does not have it: no record says so, and none was staged."""


class Stamp(TypeDecorator[str]):
    """A moment: canonical text in Python and on SQLite, ``timestamptz`` on PostgreSQL."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the column type of the database."""
        kind: sa.types.TypeEngine[Any] = sa.Text()
        if dialect.name == "postgresql":
            kind = sa.TIMESTAMP(timezone=True)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> object:
        """Hand PostgreSQL a moment instead of its text."""
        if value is None or dialect.name != "postgresql":
            return value
        return datetime.fromisoformat(value)

    def process_result_value(self, value: object, dialect: sa.Dialect) -> str | None:
        """Return canonical text."""
        del dialect
        return canonical(value)


COMMITS: Final = "etl_runs_commit_no_seq"
"""PostgreSQL's sequence of commits, drawn from after the locks: of two runs that meet the later has the higher."""

metadata = sa.MetaData()

etl_runs = sa.Table(
    "etl_runs",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("job_name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("rows_in", sa.BigInteger, nullable=False),
    sa.Column("rows_out", sa.BigInteger, nullable=False),
    sa.Column("rows_rejected", sa.BigInteger),
    sa.Column("rows_skipped", sa.BigInteger),
    sa.Column("rows_stale", sa.BigInteger),
    sa.Column("duration_ms", sa.BigInteger, nullable=False),
    sa.Column("started_at", Stamp, nullable=False),
    sa.Column("finished_at", Stamp),
    sa.Column("file_name", sa.Text),
    sa.Column("file_size", sa.BigInteger),
    sa.Column("content_sha256", sa.Text),
    sa.Column("watermark", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("duplicate_of", sa.BigInteger),
    sa.Column("superseded_by", sa.BigInteger),
    sa.Column("undo_of", sa.BigInteger),
    sa.Column("claim", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("rows_filtered", sa.BigInteger),
    sa.Column("rows_deleted", sa.BigInteger),
    sa.Column("commit_no", sa.BigInteger),
    sa.Column("file_mtime", Stamp),
    sa.Column("variant", sa.Text, nullable=False, server_default=""),
    sa.Column("report", sa.Text),
    sa.Column("file_removed", Stamp),
    sa.Column("table_name", sa.Text),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created", Stamp, nullable=False),
    sa.Column("run_id", sa.BigInteger, nullable=False),
    sa.Column("feed", sa.Text, nullable=False),
    sa.Column("record_no", sa.BigInteger, nullable=False),
    sa.Column("record_key", sa.Text, nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("resolved_by", sa.BigInteger),
    sa.Column("context", sa.Text),
)

lineage_records = sa.Table(
    "lineage_records",
    metadata,
    sa.Column("run_id", sa.BigInteger, primary_key=True),
    sa.Column("record_key", sa.Text, primary_key=True),
    sa.Column("record_no", sa.BigInteger, primary_key=True),
    sa.Column("outcome", sa.SmallInteger, nullable=False),
    sa.Column("detail", sa.Text),
)

lineage = sa.Table(
    "lineage",
    metadata,
    sa.Column("id", sa.BigInteger),
    sa.Column("record_key", sa.Text),
    sa.Column("step", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("created", Stamp),
    sa.Column("run_id", sa.BigInteger),
    sa.Column("record_no", sa.BigInteger),
)
"""The view."""

watermarks = sa.Table(
    "watermarks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("run_id", sa.BigInteger),
    sa.Column("updated_at", Stamp, nullable=False),
)

before_images = sa.Table(
    "before_images",
    metadata,
    sa.Column("run_id", sa.BigInteger, primary_key=True),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("record_key", sa.Text, primary_key=True),
    sa.Column("image", sa.Text),
)
"""``image`` is the row as a JSON object of its columns, ``NULL`` where there was no row."""

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("record_key", sa.Text, primary_key=True),
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("run_id", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", Stamp, nullable=False),
)
"""The highest cursor of a deletion of each key, as text."""

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("created", Stamp, nullable=False),
    sa.Column("run_id", sa.BigInteger),
    sa.Column("feed", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("delivered_at", Stamp),
    sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("dropped_at", Stamp),
)
"""A row for each receiver (``target``) of a notice, in the order of ``number``; ``id`` is that of the event."""

feed_columns = sa.Table(
    "feed_columns",
    metadata,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("column_name", sa.Text, primary_key=True),
)
"""The columns of feeds' tables that inboxd has made; others are somebody's own."""

expectations = sa.Table(
    "expectations",
    metadata,
    sa.Column("feed", sa.Text, primary_key=True),
    sa.Column("setting", sa.Text, primary_key=True),
    sa.Column("since", Stamp, nullable=False),
    sa.Column("late_at", Stamp),
)


def next_commit(connection: sa.Connection) -> sa.ColumnElement[int]:
    """Return what numbers the commit of a transaction; it has its locks by then, and writes one run."""
    if connection.dialect.name == "postgresql":
        return sa.func.nextval(COMMITS, type_=sa.BigInteger)
    return sa.select(sa.func.coalesce(sa.func.max(etl_runs.c.commit_no), 0) + 1).scalar_subquery()
