"""sqlite-utils doing the same with its own verbs, in one transaction: its upsert, and two lineage rows a record."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import sqlite_utils

BATCH = 1000
"""Rows a statement: ten times the library's default, within SQLite's limit of variables."""


def main(source: str, database: str) -> None:
    """Load a file, or each of a folder in its own transaction, into one database."""
    now = datetime.now(UTC).isoformat()
    db = sqlite_utils.Database(database)
    db.enable_wal()
    db.execute("PRAGMA cache_size = -65536")
    db["target"].create(
        {"key": str, "name": str, "value": float, "ts": str, "run_id": int, "updated_at": str}, pk="key"
    )
    db["lineage"].create(
        {"id": int, "record_key": str, "step": str, "detail": str, "created": str, "run_id": int, "record_no": int},
        pk="id",
    )
    for file in sorted(Path(source).iterdir()) if Path(source).is_dir() else [Path(source)]:
        records = json.loads(file.read_bytes())
        with db.atomic():
            db["target"].upsert_all(
                ({**record, "run_id": 1, "updated_at": now} for record in records), pk="key", batch_size=BATCH
            )
            db["lineage"].insert_all(_lineage(records, now), batch_size=BATCH)
    db.close()


def _lineage(records: list[dict[str, object]], now: str) -> Iterator[dict[str, object]]:
    for number, record in enumerate(records, 1):
        common = {"record_key": record["key"], "created": now, "run_id": 1, "record_no": number}
        yield {**common, "step": "stage", "detail": "validated and staged"}
        yield {**common, "step": "load", "detail": "upserted to target"}


if __name__ == "__main__":
    main(*sys.argv[1:])
