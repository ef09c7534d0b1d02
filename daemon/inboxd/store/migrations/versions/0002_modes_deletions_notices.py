"""What runs, dead letters and lineage say of filtered and deleted records; the order of commits; tombstones; notices.

Self-contained: a migration must do tomorrow what it does today, so it imports nothing of inboxd.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "rows_filtered": "BIGINT DEFAULT 0",
    "rows_deleted": "BIGINT DEFAULT 0",
    "commit_no": "BIGINT",
    "file_mtime": "{stamp}",
    "variant": "TEXT DEFAULT '' NOT NULL",
    "report": "TEXT",
    "file_removed": "{stamp}",
    "table_name": "TEXT",
}
OLD_SUM = "rows_in = rows_out + rows_rejected + rows_skipped + rows_stale"
OLD_TOGETHER = "(rows_rejected IS NULL) = (rows_skipped IS NULL) AND (rows_rejected IS NULL) = (rows_stale IS NULL)"
OLD_SIGNS = (
    "rows_in >= 0 AND rows_out >= 0 AND duration_ms >= 0 "
    "AND COALESCE(rows_rejected, 0) >= 0 AND COALESCE(rows_skipped, 0) >= 0 AND COALESCE(rows_stale, 0) >= 0"
)
CHECKS = {  # name: what it said, what is added to it
    "run_accounts_for_every_record": (f"rows_rejected IS NULL OR {OLD_SUM}", " + rows_filtered"),
    "run_counts_together": (
        OLD_TOGETHER,
        " AND (rows_rejected IS NULL OR rows_filtered IS NOT NULL AND rows_deleted IS NOT NULL)",
    ),
    "run_counts_not_negative": (
        OLD_SIGNS,
        " AND COALESCE(rows_filtered, 0) >= 0 AND COALESCE(rows_deleted, 0) >= 0",
    ),
}
NUMBER_COMMITS = """
UPDATE etl_runs SET commit_no = ordered.place
  FROM (SELECT id AS run, ROW_NUMBER() OVER (ORDER BY finished_at, id) AS place
          FROM etl_runs WHERE finished_at IS NOT NULL AND rows_rejected IS NOT NULL) AS ordered
 WHERE etl_runs.id = ordered.run
"""
# Runs that came to no end have no place in the order, nor have imported ones, which touched nothing.

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
 WHERE l.run_id = r.id AND l.outcome <> 5
 UNION ALL
SELECT l.run_id * 17179869184 + l.record_no * 2 + 1,
       l.record_key,
       CASE l.outcome WHEN 0 THEN 'load' WHEN 1 THEN 'stale' ELSE 'delete' END,
       CASE l.outcome WHEN 0 THEN 'upserted to target' WHEN 1 THEN 'not newer than the row it met'
                      WHEN 4 THEN 'deleted by this record' ELSE 'absent from the snapshot' END,
       r.finished_at,
       l.run_id,
       l.record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id AND l.outcome IN (0, 1, 4, 5)
"""
# 17179869184 is 2**34: room for 8.5 thousand million records in each of 500 million runs.
# With CROSS JOIN SQLite keeps the order of the tables: a question about one key is then one seek a run, not a scan.

LOADED_ONCE = (
    "CREATE UNIQUE INDEX etl_runs_loaded_once ON etl_runs (job_name, content_sha256, variant) WHERE status = 'success' "
    "AND duplicate_of IS NULL AND superseded_by IS NULL AND content_sha256 IS NOT NULL"
)


def upgrade() -> None:
    """Add everything, and number the commits that there were."""
    _refuse_tables_of_ours()
    postgres = op.get_bind().dialect.name == "postgresql"
    stamp = "TIMESTAMP WITH TIME ZONE" if postgres else "TEXT"
    op.execute("DROP INDEX etl_runs_loaded_once")
    for name, kind in COLUMNS.items():
        op.execute(f"ALTER TABLE etl_runs ADD COLUMN {name} {kind.format(stamp=stamp)}")
    op.execute("UPDATE etl_runs SET rows_filtered = NULL, rows_deleted = NULL WHERE rows_rejected IS NULL")
    op.execute(NUMBER_COMMITS)
    if postgres:
        _change_checks()
        _make_sequence()
    else:
        _rebuild_runs()
    op.execute(LOADED_ONCE)
    op.execute("CREATE UNIQUE INDEX etl_runs_commit ON etl_runs (commit_no)")
    op.execute("ALTER TABLE dead_letters ADD COLUMN context TEXT")
    op.execute("DROP VIEW lineage")
    op.execute(LINEAGE_VIEW)
    _new_tables(postgres=postgres)


def _refuse_tables_of_ours() -> None:
    there = set(sa.inspect(op.get_bind()).get_table_names())
    taken = sorted(there & {"tombstones", "notices", "expectations", "feed_columns"})
    if taken:
        message = f"inboxd has tables of its own called {', '.join(taken)} now, and there are others of these names"
        raise ValueError(message)


def _change_checks() -> None:
    for name, (old, more) in CHECKS.items():
        op.execute(f"ALTER TABLE etl_runs DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({old}{more})")


def _make_sequence() -> None:
    op.execute("CREATE SEQUENCE etl_runs_commit_no_seq OWNED BY etl_runs.commit_no")
    last = "SELECT COALESCE(MAX(commit_no), 0) + 1 FROM etl_runs"
    op.execute(f"SELECT setval('etl_runs_commit_no_seq', ({last}), FALSE)")


def _rebuild_runs() -> None:
    """Change the checks in the one way SQLite has: a new table takes the rows, the number of ids given, and the name.

    The table's own text is changed, so that columns which somebody added by hand stay; so do indexes and triggers.
    """
    connection = op.get_bind()
    objects = connection.execute(
        sa.text("SELECT type, sql FROM sqlite_schema WHERE tbl_name = 'etl_runs' AND sql IS NOT NULL ORDER BY rowid")
    ).all()
    (text,) = (sql for kind, sql in objects if kind == "table")
    for old, more in CHECKS.values():
        if f"({old})" not in text:
            message = f"etl_runs was changed by hand: it has no CHECK ({old})"
            raise ValueError(message)
        text = text.replace(f"({old})", f"({old}{more})")
    next_text = "CREATE TABLE etl_runs_next " + text[text.index("(") :]
    for statement in (
        "PRAGMA legacy_alter_table = ON",  # views and triggers name the table, which is gone for a moment
        next_text,
        "INSERT INTO etl_runs_next SELECT * FROM etl_runs",
        "DELETE FROM sqlite_sequence WHERE name = 'etl_runs_next'",
        "UPDATE sqlite_sequence SET name = 'etl_runs_next' WHERE name = 'etl_runs'",
        "DROP TABLE etl_runs",
        "ALTER TABLE etl_runs_next RENAME TO etl_runs",
        "PRAGMA legacy_alter_table = OFF",
        *(sql for kind, sql in objects if kind != "table"),
    ):
        connection.exec_driver_sql(statement)


def _new_tables(*, postgres: bool) -> None:
    stamp: sa.TIMESTAMP | sa.Text = sa.TIMESTAMP(timezone=True) if postgres else sa.Text()
    identity = sa.BigInteger() if postgres else sa.Integer()  # only INTEGER PRIMARY KEY may be AUTOINCREMENT
    key_text = sa.Text(collation="C") if postgres else sa.Text()  # code point order, as on SQLite
    op.create_table(
        "tombstones",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("record_key", key_text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", stamp, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "record_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "notices",
        sa.Column("number", identity, sa.Identity(always=False), primary_key=True),
        sa.Column("id", sa.Text, nullable=False),  # the event's: each receiver has a row of its own
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("created", stamp, nullable=False),
        sa.Column("run_id", sa.BigInteger),
        sa.Column("feed", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("delivered_at", stamp),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("dropped_at", stamp),
        sa.UniqueConstraint("id", "target", name="notice_once"),
        sqlite_autoincrement=True,
    )
    waiting = sa.text("delivered_at IS NULL AND dropped_at IS NULL")
    in_order = ["target", "number"]
    op.create_index("notices_open", "notices", in_order, sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "feed_columns",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("column_name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("table_name", "column_name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "expectations",
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("setting", sa.Text, nullable=False),
        sa.Column("since", stamp, nullable=False),
        sa.Column("late_at", stamp),
        sa.PrimaryKeyConstraint("feed", "setting"),
        sqlite_with_rowid=False,
    )
