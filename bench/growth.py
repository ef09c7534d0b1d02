"""The rows about age: a database that has seen ten thousand files must answer like a young one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bench import process
from bench.corpus import Many
from bench.live import daemon, dropped, percentiles_ms
from bench.process import Usage
from bench.results import Line, Skipped
from bench.runner import Bench, say
from bench.subjects import INBOXD

RECORDS_A_RUN = 1_000
KEYS_A_RUN = 500
"""Target rows per run: so ten thousand runs leave 5M rows, and 20M entries in the lineage view."""
FILES_A_RUN = 10

RUNS = """
INSERT INTO etl_runs (id, job_name, status, rows_in, rows_out, rows_rejected, rows_skipped, rows_stale, duration_ms,
                      started_at, finished_at, file_name, file_size, content_sha256, watermark, claim, host)
WITH RECURSIVE run (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM run WHERE n < :runs + 1)
SELECT n, 'events', 'success', :records, :records, 0, 0, 0, 40,
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', :epoch + n * 60, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.040000Z', :epoch + n * 60, 'unixepoch'), printf('part-%06d.json', n), 87000,
       printf('%064x', n), '2026-01-14T00:00:00.000000Z', printf('bench-%d', n), 'bench'
  FROM run
"""
TARGET = """
INSERT INTO target (key, name, value, ts, run_id, updated_at)
WITH RECURSIVE k (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM k WHERE n < :keys - 1)
SELECT printf('user-%07d', n), 'Alice Smith', n / 4.0, '2026-01-14T00:00:00.000000Z', 2 + n % :runs,
       '2026-01-14T00:00:00.000000Z'
  FROM k
"""
LINEAGE = """
INSERT INTO lineage_records (run_id, record_key, record_no, outcome)
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < :records)
SELECT :run, printf('user-%07d', (n * (:keys / :records) + :run) % :keys), n, 0 FROM r
"""


def growth(bench: Bench) -> Iterator[Line | Skipped]:
    """Grow a database, then time what people and monitors ask of it, and a small load into it."""
    runs = bench.scale.grown_runs
    with bench.folder() as folder:
        database = folder / "data" / "inboxd.db"
        _grow(bench, folder, database, runs)
        key = "user-0000123"
        small = sorted(bench.many(Many(200, 10)).iterdir())
        age = f"{runs:,} runs, {runs * KEYS_A_RUN:,} target rows, {runs * RECORDS_A_RUN * 2:,} lineage entries"
        age = f"{age}, {runs * FILES_A_RUN:,} processed files"
        questions = {
            "status": ("status", "--json"),
            "health": ("health", "--json"),
            "explain": ("explain", key, "--json"),
        }
        for name, arguments in questions.items():
            usages = [process.run([*INBOXD, *arguments], folder=folder) for _ in range(bench.scale.repeats)]
            yield _line(name, f"`{name}` with {age}", usages)
        # `load` counts whole tables for its output, so the daemon's way is timed too.
        usages = [process.run([*INBOXD, "load", str(file)], folder=folder) for file in small[: bench.scale.repeats]]
        yield _line("load", f"`load` of 10 records into it, its table counts included ({age})", usages)
        usages = [_drained(folder, small[10 + turn]) for turn in range(bench.scale.repeats)]
        yield _line("once", f"`run --once` with one file of 10 records ({age})", usages)


def retention(bench: Bench) -> Iterator[Line | Skipped]:
    """Let everything old be removed from a grown database, files and lineage, while new files arrive."""
    runs = bench.scale.grown_runs // 10
    with bench.folder() as folder:
        _grow(bench, folder, folder / "data" / "inboxd.db", runs)
        (folder / "inboxd.toml").write_text('[archive]\nkeep = "5s"\n[retention]\nlineage = "1d"\n', encoding="utf-8")
        with daemon(folder):
            took = list(dropped(_fresh(bench, folder), folder))
        p50, p99 = percentiles_ms(took)
        left = len(list((folder / "data" / "processed").iterdir()))
        text = f"p50 {p50:.1f} ms, longest {max(took) * 1000:.0f} ms; {left:,} of {runs * FILES_A_RUN:,} files left"
    what = f"renamed in → readable, p99, while `archive.keep` and `[retention]` remove {runs:,} runs' files and lineage"
    yield Line("retention.p99", what, text, p99, "ms")


def log(bench: Bench) -> Iterator[Line | Skipped]:
    """Watch the write-ahead log under a steady load, with a reader that holds on to an old state, and after it."""
    with bench.folder() as folder, daemon(folder):
        database = folder / "data" / "inboxd.db"
        wal = database.with_name("inboxd.db-wal")
        files = _fresh(bench, folder)
        third = len(files) // 3
        sizes = []
        for number in range(3):
            reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
            if number == 1:
                reader.execute("BEGIN")
                reader.execute("SELECT COUNT(*) FROM target").fetchone()
            list(dropped(files[number * third : (number + 1) * third], folder))
            sizes.append(wal.stat().st_size / 2**20)
            reader.close()
    text = f"{sizes[1]:.1f} MiB while a reader held on, {sizes[2]:.1f} MiB after {third} more files; {third} files each"
    yield Line("log.steady", "write-ahead log under a steady load of small files", text, sizes[0], "MiB")


def _fresh(bench: Bench, folder: Path) -> list[Path]:
    """Return small files that wait beside the inbox, which is there."""
    (folder / "inbox").mkdir(exist_ok=True)
    waiting = shutil.copytree(bench.many(Many(bench.scale.latency_files, 10)), folder / "waiting")
    return sorted(waiting.iterdir())


def _line(name: str, what: str, usages: list[Usage]) -> Line:
    middle = process.median(usages)
    say(f"  {name}: {middle.seconds:.3f} s")
    # No peak of memory: growing the database has made the runner large, and the kernel counts that, see `process`.
    text = f"{min(usage.seconds for usage in usages):.2f} to {max(usage.seconds for usage in usages):.2f} s"
    return Line(f"growth.{name}", what, text, middle.seconds, "s")


def _drained(folder: Path, file: Path) -> Usage:
    (folder / "inbox").mkdir(exist_ok=True)
    shutil.copy(file, folder / "inbox" / f"daemon-{file.name}")
    return process.run([*INBOXD, "run", "--once"], folder=folder)


def _grow(bench: Bench, folder: Path, database: Path, runs: int) -> None:
    """Let inboxd make the tables, then write the rows that so many files would have left."""
    first = min(bench.many(Many(200, 10)).iterdir())
    process.run([*INBOXD, "load", str(first)], folder=folder)
    say("  growing the database")
    connection = sqlite3.connect(database, isolation_level=None)
    values = {"runs": runs, "records": RECORDS_A_RUN, "keys": runs * KEYS_A_RUN, "epoch": 1_768_000_000}
    for statement in ("PRAGMA cache_size = -262144", "PRAGMA synchronous = OFF", "BEGIN", "DELETE FROM target"):
        connection.execute(statement)
    connection.execute(RUNS, values)
    connection.execute(TARGET, values)
    for run in range(2, runs + 2):
        connection.execute(LINEAGE, {**values, "run": run})
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    processed = folder / "data" / "processed"
    processed.mkdir(parents=True, exist_ok=True)
    for number in range(runs * FILES_A_RUN):
        (processed / f"part-{number:06}.json").touch()
