"""The bare loop for small files: inboxd's own SQL statements, commits, fsyncs, renames, a hash and a log line a file.

Nothing else of it: no scan, no lease, no checks of the file, no validation, no errors, no signals. Runs under inboxd's
interpreter, because it uses the same driver and takes the statements from inboxd.   small_files.py INBOX DATABASE
"""

# ruff: noqa: PTH103, PTH104, PTH106, PTH116 - the calls that inboxd itself makes

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from inboxd.config import load_settings
from inboxd.store import open_store
from inboxd.store.sqlite import BEGIN_RUN, SqliteStore
from inboxd.store.sqlite_file import FIND_DUPLICATE, LAST_FINISHED, SUCCEED, WATERMARK
from inboxd.store.sqlite_scratch import Scratch
from inboxd.store.sqlite_sql import FeedSql

Execute = Callable[..., Any]  # the driver ships no types


class Record(msgspec.Struct, gc=False):
    """One record."""

    key: str
    name: str
    value: float
    ts: str


DECODER = msgspec.json.Decoder(list[Record])


def main(inbox: Path, database: Path) -> None:
    """Load every file of a folder."""
    feed = load_settings(None, {}, inbox.parent).feeds[0]
    store = open_store(f"sqlite:///{database}")
    assert isinstance(store, SqliteStore)
    store.upgrade()
    store.prepare([feed])
    connection = store._connection  # noqa: SLF001 - opened as inboxd opens it, then used without inboxd
    sql = Scratch(connection, database.parent).statements(feed)
    execute = connection.execute
    processed = inbox.parent / "data" / "processed"
    processed.mkdir(parents=True, exist_ok=True)
    log = (inbox.parent / "data" / "log").open("wb", buffering=0)
    with os.scandir(inbox) as entries:
        names = sorted(entry.name for entry in entries)
    for number, name in enumerate(names):
        claimed = f"{inbox}/.claimed/{number}"
        os.makedirs(claimed)
        path = f"{claimed}/{name}"
        os.rename(f"{inbox}/{name}", path)
        size, digest, counts = _load(execute, sql, path, name, str(number))
        os.rename(path, processed / name)
        _sync(str(processed))
        _sync(claimed)
        line = {
            "timestamp": _now(),
            "level": "info",
            "event": "file_loaded",
            "file": name,
            "size": size,
            "sha256": digest,
        }
        log.write(json.dumps({**line, "rows_in": counts, "rows_out": counts}).encode() + b"\n")
        os.rmdir(claimed)
    store.close()


def _load(execute: Execute, sql: FeedSql, path: str, name: str, claim: str) -> tuple[int, str, int]:
    began = time.monotonic()
    execute("PRAGMA main.synchronous = NORMAL")
    run = execute(BEGIN_RUN, ("events", _now(), name, os.stat(path).st_size, claim, "bench")).fetchall()[0][0]
    file = os.open(path, os.O_RDONLY)
    data = os.read(file, 1 << 20)
    os.fsync(file)
    os.close(file)
    digest = hashlib.sha256(data).hexdigest()
    rows = [(r.key, r.name, r.value, f"{r.ts[:-1]}.000000Z", place) for place, r in enumerate(DECODER.decode(data), 1)]
    execute("BEGIN")
    rows.sort()
    flat = tuple(chain.from_iterable(rows))
    execute(sql.stage(1, len(rows)), flat)
    execute("COMMIT")
    execute("PRAGMA main.synchronous = FULL")
    execute("BEGIN IMMEDIATE")
    execute(FIND_DUPLICATE, ("events", digest)).fetchone()
    execute(LAST_FINISHED).fetchone()
    execute(WATERMARK, ("events",)).fetchone()
    newest = max(row[3] for row in rows)
    values = {"run": run, "feed": "events", "table": "target", "watermark": None, "now": _now()}
    loaded = execute(sql.upsert((1, 1), False, False), values).rowcount
    execute(sql.lineage((1, 1), False), values)
    execute(sql.advance, {**values, "reached": newest})
    took = int((time.monotonic() - began) * 1000)
    execute(SUCCEED, (loaded, loaded, 0, 0, 0, took, _now(), len(data), digest, newest, None, run))
    execute(sql.empty_first_run)
    execute("COMMIT")
    return len(data), digest, loaded


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(handle)
    os.close(handle)


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
