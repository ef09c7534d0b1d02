"""The program inboxd grew from, by itself: one JSON file into SQLite, statement by statement, as a learner writes it.

Kept faithful in what it does and in its order: read everything, one INSERT per record and per lineage entry, an
upsert per staged row, two commits. Only its output file is left out.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = """\
CREATE TABLE IF NOT EXISTS staging (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, ts TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS target (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, value REAL NOT NULL, ts TEXT NOT NULL,
    updated_at TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, raw TEXT NOT NULL, error TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE TABLE IF NOT EXISTS lineage (
    id INTEGER PRIMARY KEY AUTOINCREMENT, record_key TEXT NOT NULL, step TEXT NOT NULL, detail TEXT,
    created TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE TABLE IF NOT EXISTS watermarks (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT NOT NULL, staged INTEGER DEFAULT 0, loaded INTEGER DEFAULT 0,
    rejected INTEGER DEFAULT 0, duration_ms INTEGER DEFAULT 0, created TEXT NOT NULL DEFAULT (datetime('now'))
);
"""

Record = dict[str, object]


@dataclass
class Staged:
    """What became of a file's records."""

    staged: int = 0
    rejected: int = 0
    errors: list[str] = field(default_factory=list)


def error_of(record: Record) -> str | None:
    """Return what is wrong with a record."""
    if not str(record.get("key", "")).strip():
        return "missing_key"
    if not str(record.get("name", "")).strip():
        return "missing_name"
    try:
        float(record["value"])  # type: ignore[arg-type]  # what is no number is what the except is for
    except (KeyError, ValueError, TypeError):
        return "invalid_value"
    if not str(record.get("ts", "")).strip():
        return "missing_timestamp"
    return None


def stage(connection: sqlite3.Connection, records: list[Record], watermark: str | None) -> Staged:
    """Leave out what is old, refuse what is bad, stage the rest."""
    result = Staged()
    for record in records:
        ts = str(record.get("ts", ""))
        if watermark and ts <= watermark:
            continue
        error = error_of(record)
        if error:
            connection.execute("INSERT INTO dead_letters (raw, error) VALUES (?, ?)", (json.dumps(record), error))
            connection.execute(
                "INSERT INTO lineage (record_key, step, detail) VALUES (?, 'reject', ?)",
                (record.get("key", "?"), error),
            )
            result.rejected += 1
            result.errors.append(f"{record.get('key', '?')}: {error}")
            continue
        connection.execute(
            "INSERT INTO staging (key, name, value, ts) VALUES (?, ?, ?, ?)",
            (record["key"], record["name"], float(record["value"]), ts),  # type: ignore[arg-type]  # checked above
        )
        connection.execute(
            "INSERT INTO lineage (record_key, step, detail) VALUES (?, 'stage', 'validated and staged')",
            (record["key"],),
        )
        result.staged += 1
    connection.commit()
    return result


def load(connection: sqlite3.Connection) -> int:
    """Upsert what was staged, a row at a time."""
    rows = connection.execute("SELECT key, name, value, ts FROM staging").fetchall()
    loaded = 0
    for row in rows:
        connection.execute(
            "INSERT INTO target (key, name, value, ts) VALUES (?, ?, ?, ?) "
            "ON CONFLICT(key) DO UPDATE SET "
            "name = excluded.name, value = excluded.value, ts = excluded.ts, updated_at = datetime('now')",
            (row[0], row[1], row[2], row[3]),
        )
        connection.execute(
            "INSERT INTO lineage (record_key, step, detail) VALUES (?, 'load', 'upserted to target')",
            (row[0],),
        )
        loaded += 1
    connection.execute("DELETE FROM staging")
    connection.commit()
    return loaded


def run(source: Path, database: str) -> dict[str, object]:
    """Take one file all the way."""
    records = json.loads(source.read_text(encoding="utf-8"))
    connection = sqlite3.connect(database)
    try:
        connection.executescript(SCHEMA)
        connection.commit()
        started = time.perf_counter()
        row = connection.execute("SELECT value FROM watermarks WHERE name = ?", ("events_ts",)).fetchone()
        staged = stage(connection, records, row[0] if row else None)
        loaded = load(connection)
        newest = connection.execute("SELECT MAX(ts) FROM target").fetchone()[0]
        if newest:
            connection.execute(
                "INSERT INTO watermarks (name, value) VALUES (?, ?) "
                "ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                ("events_ts", newest),
            )
        elapsed = int((time.perf_counter() - started) * 1000)
        connection.execute(
            "INSERT INTO run_log (status, staged, loaded, rejected, duration_ms) VALUES (?, ?, ?, ?, ?)",
            ("success", staged.staged, loaded, staged.rejected, elapsed),
        )
        connection.commit()
        counts = {
            table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("target", "dead_letters", "lineage")
        }
    finally:
        connection.close()
    return {
        "input_records": len(records),
        "staged": staged.staged,
        "loaded": loaded,
        "rejected": staged.rejected,
        "errors": staged.errors,
        **counts,
        "watermark": newest,
        "duration_ms": elapsed,
    }


def main() -> None:
    """Load a file, or the files of a folder one after another, into one database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("database")
    arguments = parser.parse_args()
    source: Path = arguments.source
    for file in sorted(source.iterdir()) if source.is_dir() else [source]:
        print(json.dumps(run(file, arguments.database), indent=2))


if __name__ == "__main__":
    main()
