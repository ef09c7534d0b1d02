"""polars reads, ADBC stages in bulk into SQLite, SQL upserts and writes two lineage rows a record; one transaction."""

from __future__ import annotations

import sys
from pathlib import Path

import adbc_driver_sqlite.dbapi as sqlite
import polars as pl

TARGET = """
CREATE TABLE IF NOT EXISTS target (
    key TEXT PRIMARY KEY, name TEXT, value REAL, ts TEXT, run_id INTEGER, updated_at TEXT
) WITHOUT ROWID
"""
LINEAGE_TABLE = """
CREATE TABLE IF NOT EXISTS lineage (
    id INTEGER PRIMARY KEY, record_key TEXT, step TEXT, detail TEXT, created TEXT, run_id INTEGER, record_no INTEGER
)
"""
UPSERT = """
INSERT INTO target SELECT key, name, value, ts, 1, datetime('now') FROM staging WHERE true ORDER BY key
    ON CONFLICT (key) DO UPDATE
   SET name = excluded.name, value = excluded.value, ts = excluded.ts,
       run_id = excluded.run_id, updated_at = excluded.updated_at
 WHERE excluded.ts > target.ts
"""
LINEAGE = """
INSERT INTO lineage (record_key, step, detail, created, run_id, record_no)
SELECT key, {step}, datetime('now'), 1, record_no FROM staging
"""
FIELDS = {"key": pl.String, "name": pl.String, "value": pl.Float64, "ts": pl.String}


def main(source: str, database: str) -> None:
    """Load a file, or each of a folder in its own transaction, into one database."""
    with sqlite.connect(database, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in ("PRAGMA journal_mode = WAL", TARGET, LINEAGE_TABLE):
            cursor.execute(statement)
            cursor.fetchall()
    with sqlite.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("PRAGMA cache_size = -65536")
        for file in sorted(Path(source).iterdir()) if Path(source).is_dir() else [source]:
            frame = pl.read_json(file, schema=FIELDS).with_row_index("record_no", offset=1)
            cursor.adbc_ingest("staging", frame.to_arrow(), mode="create", temporary=True)
            cursor.execute(UPSERT)
            cursor.execute(LINEAGE.format(step="'stage', 'validated and staged'"))
            cursor.execute(LINEAGE.format(step="'load', 'upserted to target'"))
            cursor.execute("DROP TABLE staging")
            connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
