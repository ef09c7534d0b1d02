"""The bare PostgreSQL script: COPY into a temporary table, one set-based upsert, compact lineage, one transaction.

Decodes the whole file at once and validates nothing but the types. The tables are inboxd's own, made beforehand.
copy_upsert.py FILE URL
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import psycopg


class Record(msgspec.Struct, gc=False):
    """One record."""

    key: str
    name: str
    value: float
    ts: str


STAGE = """
CREATE TEMP TABLE staging (key text COLLATE "C", name text, value double precision, ts timestamptz, record_no bigint)
"""
COPY = "COPY staging (key, name, value, ts, record_no) FROM STDIN"
RUN = (
    "INSERT INTO etl_runs (job_name, status, rows_in, rows_out, started_at, finished_at, file_name) "
    "VALUES ('events', 'success', %s, %s, now(), now(), %s) RETURNING id"
)
UPSERT = """
INSERT INTO target AS t (key, name, value, ts, run_id, updated_at)
SELECT DISTINCT ON (key) key, name, value, ts, %s, now() FROM staging ORDER BY key, ts DESC, record_no
    ON CONFLICT (key) DO UPDATE SET name = EXCLUDED.name, value = EXCLUDED.value, ts = EXCLUDED.ts,
       run_id = EXCLUDED.run_id, updated_at = EXCLUDED.updated_at
 WHERE EXCLUDED.ts > t.ts
"""
LINEAGE = (
    "INSERT INTO lineage_records (run_id, record_key, record_no, outcome) SELECT %s, key, record_no, 0 FROM staging"
)


def main(source: str, url: str) -> None:
    """Load one file into one database."""
    records = msgspec.json.decode(Path(source).read_bytes(), type=list[Record])
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(STAGE)
        with cursor.copy(COPY) as copy:
            for number, record in enumerate(records, 1):
                copy.write_row((record.key, record.name, record.value, record.ts, number))
        row = cursor.execute(RUN, (len(records), len(records), source)).fetchone()
        assert row is not None
        cursor.execute(UPSERT, row)
        cursor.execute(LINEAGE, row)


if __name__ == "__main__":
    main(*sys.argv[1:])
