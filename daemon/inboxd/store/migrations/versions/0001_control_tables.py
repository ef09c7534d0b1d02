"""The control tables.

Self-contained: a migration must do tomorrow what it does today, so it imports nothing of inboxd.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOT_COUNTED = "rows_rejected IS NULL"  # an imported run: only inboxd's own runs count what they leave out
STATUSES = "'success', 'failure', 'running'"
RUN_CHECKS = {
    "run_status": f"status IN ({STATUSES})",
    "run_accounts_for_every_record": f"{NOT_COUNTED} OR rows_in = rows_out + rows_rejected + rows_skipped + rows_stale",
    "run_counts_together": "(rows_rejected IS NULL) = (rows_skipped IS NULL) AND "
    "(rows_rejected IS NULL) = (rows_stale IS NULL)",
    "run_counts_not_negative": "rows_in >= 0 AND rows_out >= 0 AND duration_ms >= 0 "
    "AND COALESCE(rows_rejected, 0) >= 0 AND COALESCE(rows_skipped, 0) >= 0 AND COALESCE(rows_stale, 0) >= 0",
    "run_running_is_unfinished": "status <> 'running' OR finished_at IS NULL",
    "run_ended_is_finished": f"status = 'running' OR finished_at IS NOT NULL OR {NOT_COUNTED}",
    "run_failure_has_a_code": f"status <> 'failure' OR error_code IS NOT NULL OR {NOT_COUNTED}",
    "run_failure_loads_nothing": f"status <> 'failure' OR rows_in = 0 OR {NOT_COUNTED}",
    "run_success_has_no_code": "status = 'failure' OR error_code IS NULL",
    "run_duplicate_is_empty": "duplicate_of IS NULL OR (status = 'success' AND rows_in = 0 AND duplicate_of <> id)",
    "run_superseded_was_loaded": "superseded_by IS NULL OR (status = 'success' AND superseded_by <> id)",
    "run_hash_is_sha256": "content_sha256 IS NULL OR LENGTH(content_sha256) = 64",
    "run_of_a_claim_is_counted": f"claim IS NULL OR NOT ({NOT_COUNTED})",
}

LINEAGE_VIEW = """
CREATE VIEW lineage AS
SELECT l.run_id * 17179869184 + l.record_no * 2 AS id,
       l.record_key AS record_key,
       CASE l.outcome WHEN 2 THEN 'skip' WHEN 3 THEN 'reject' ELSE 'stage' END AS step,
       CASE l.outcome WHEN 2 THEN 'at or below the watermark' WHEN 3 THEN l.detail ELSE 'validated and staged' END
         AS detail,
       r.finished_at AS created,
       l.run_id AS run_id,
       l.record_no AS record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id
 UNION ALL
SELECT l.run_id * 17179869184 + l.record_no * 2 + 1,
       l.record_key,
       CASE l.outcome WHEN 0 THEN 'load' ELSE 'stale' END,
       CASE l.outcome WHEN 0 THEN 'upserted to target' ELSE 'not newer than the row it met' END,
       r.finished_at,
       l.run_id,
       l.record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id AND l.outcome IN (0, 1)
"""
# 17179869184 is 2**34: room for 8.5 thousand million records in each of 500 million runs.
# With CROSS JOIN SQLite keeps the order of the tables: a question about one key is then one seek a run, not a scan.

RUN_LOG_VIEW = """
CREATE VIEW run_log AS
SELECT id, status, rows_out + COALESCE(rows_stale, 0) AS staged, rows_out AS loaded,
       COALESCE(rows_rejected, 0) AS rejected, duration_ms, COALESCE(finished_at, started_at) AS created
  FROM etl_runs
"""


def upgrade() -> None:
    """Create everything."""
    postgres = op.get_bind().dialect.name == "postgresql"
    stamp: sa.TIMESTAMP | sa.Text = sa.TIMESTAMP(timezone=True) if postgres else sa.Text()
    identity = sa.BigInteger() if postgres else sa.Integer()  # only INTEGER PRIMARY KEY may be AUTOINCREMENT
    key_text = sa.Text(collation="C") if postgres else sa.Text()  # code point order, as on SQLite
    _etl_runs(identity, stamp)
    _dead_letters(identity, stamp, key_text)
    op.create_table(
        "lineage_records",
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("record_key", key_text, nullable=False),
        sa.Column("record_no", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.SmallInteger, nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("run_id", "record_key", "record_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "watermarks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("run_id", sa.BigInteger),
        sa.Column("updated_at", stamp, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "before_images",
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("record_key", key_text, nullable=False),
        sa.Column("image", sa.Text),
        sa.PrimaryKeyConstraint("run_id", "table_name", "record_key"),
        sqlite_with_rowid=False,
    )
    op.execute(LINEAGE_VIEW)
    op.execute(RUN_LOG_VIEW)


def _etl_runs(identity: sa.Integer, stamp: sa.TIMESTAMP | sa.Text) -> None:
    op.create_table(
        "etl_runs",
        sa.Column("id", identity, sa.Identity(always=False), primary_key=True),
        sa.Column("job_name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("rows_in", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("rows_out", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("rows_rejected", sa.BigInteger, server_default="0"),
        sa.Column("rows_skipped", sa.BigInteger, server_default="0"),
        sa.Column("rows_stale", sa.BigInteger, server_default="0"),
        sa.Column("duration_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("started_at", stamp, nullable=False),
        sa.Column("finished_at", stamp),
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
        *(sa.CheckConstraint(check, name=name) for name, check in RUN_CHECKS.items()),
        sqlite_autoincrement=True,
    )
    loaded = "status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL AND content_sha256 IS NOT NULL"
    _index("etl_runs_loaded_once", "etl_runs", ["job_name", "content_sha256"], unique=True, where=loaded)
    _index("etl_runs_running_claim", "etl_runs", ["claim"], unique=True, where="status = 'running'")
    _index("etl_runs_claim", "etl_runs", ["claim"], where="claim IS NOT NULL")
    _index("etl_runs_started", "etl_runs", ["started_at"])


def _dead_letters(identity: sa.Integer, stamp: sa.TIMESTAMP | sa.Text, key_text: sa.Text) -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", identity, sa.Identity(always=False), primary_key=True),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created", stamp, nullable=False),
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("record_no", sa.BigInteger, nullable=False),
        sa.Column("record_key", key_text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("resolved_by", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    _index("dead_letters_run", "dead_letters", ["run_id"])
    _index("dead_letters_key", "dead_letters", ["record_key"])
    _index("dead_letters_open", "dead_letters", ["feed", "error"], where="resolved_by IS NULL")


def _index(name: str, table: str, columns: list[str], *, unique: bool = False, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
