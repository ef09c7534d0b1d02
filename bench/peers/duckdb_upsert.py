"""DuckDB doing the same: stage, upsert if newer, two lineage rows a record, one transaction; with all its threads."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

SCHEMA = """
CREATE TABLE IF NOT EXISTS target (
    key VARCHAR PRIMARY KEY, name VARCHAR, value DOUBLE, ts TIMESTAMP, run_id BIGINT, updated_at TIMESTAMP
);
CREATE TABLE IF NOT EXISTS lineage (
    record_key VARCHAR, step VARCHAR, detail VARCHAR, created TIMESTAMP, run_id BIGINT, record_no BIGINT
);
"""
STAGE = """
CREATE OR REPLACE TEMP TABLE staging AS
SELECT row_number() OVER () AS record_no, *
  FROM read_json(?, format = 'array',
                 columns = {key: 'VARCHAR', name: 'VARCHAR', value: 'DOUBLE', ts: 'TIMESTAMP'})
"""
UPSERT = """
INSERT INTO target
SELECT key, name, value, ts, 1, now()::TIMESTAMP
  FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY ts DESC, record_no) AS place FROM staging)
 WHERE place = 1
    ON CONFLICT (key) DO UPDATE
   SET name = excluded.name, value = excluded.value, ts = excluded.ts,
       run_id = excluded.run_id, updated_at = excluded.updated_at
 WHERE excluded.ts > target.ts
"""
LINEAGE = """
INSERT INTO lineage
SELECT key, 'stage', 'validated and staged', now()::TIMESTAMP, 1, record_no FROM staging
 UNION ALL
SELECT key, 'load', 'upserted to target', now()::TIMESTAMP, 1, record_no FROM staging
"""


def main(source: str, database: str) -> None:
    """Load a file, or each of a folder in its own transaction, into one database."""
    with duckdb.connect(database) as connection:
        connection.execute(SCHEMA)
        for file in sorted(Path(source).iterdir()) if Path(source).is_dir() else [source]:
            connection.execute("BEGIN")
            connection.execute(STAGE, [str(file)])
            connection.execute(UPSERT)
            connection.execute(LINEAGE)
            connection.execute("COMMIT")


if __name__ == "__main__":
    main(*sys.argv[1:])
