"""What must be in the tables and folders after any fault: files made by chance, and the truth about them.

The truth is worked out here, from the files alone and the order in which the ledger says they were committed, by code
that shares nothing with inboxd.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemons import Home

CONFIG = """\
[inbox]
settle = "0ms"
settle_unproven = "0ms"
[feeds.orders]
match = ["orders/**"]
key = ["key"]
cursor = "ts"
late = "merge"
[feeds.orders.fields]
key = { type = "text" }
name = { type = "text" }
value = { type = "real" }
ts = { type = "timestamp" }
[feeds.changes]
match = ["changes/**"]
key = ["key"]
cursor = "ts"
late = "merge"
deletes = { from = "op", in = ["d"], then = "remove" }
[feeds.changes.fields]
key = { type = "text" }
name = { type = "text" }
value = { type = "real" }
ts = { type = "timestamp" }
[feeds.dump]
match = ["dump/{day}.json"]
mode = "snapshot"
as_of = { from = "$path.day", type = "date" }
key = ["key"]
absent = "remove"
max_deleted = "100%"
[feeds.dump.fields]
key = { type = "text" }
name = { type = "text" }
value = { type = "real" }
ts = { type = "timestamp" }
[feeds.events]
late = "skip"
"""
TABLES = {"events": "target", "orders": "orders", "changes": "changes", "dump": "dump"}
SNAPSHOTS = "dump []"
"""What the watermark of a snapshot feed is called: the feed, and the values of its scope, here none."""

Document = dict[str, Any]  # Any: whatever a record holds
Lines = Counter[tuple[object, ...]]


def feed_of(name: str) -> str:
    """Return the feed that takes a file."""
    first, _, rest = name.partition("/")
    return first if rest and first in TABLES else "events"


def scenario(chance: random.Random) -> dict[str, bytes]:
    """Make a handful of files for all feeds, oldest first: good ones, with rejects, duplicates, malformed ones."""
    files = {
        "a.json": _array(chance, chance.randint(2, 6)),
        "sub/b.ndjson": _lines(chance, chance.randint(2, 6)),
        "orders/c.json": _array(chance, chance.randint(2, 6)),
        "orders/deep/er/d.jsonl.gz": gzip.compress(_lines(chance, chance.randint(2, 30)), mtime=0),
        "orders/empty.json": b"[]",
        "broken.json": b'[{"key": "a", "name": "n"},, ' + str(chance.random()).encode(),
        "orders/large.ndjson": _lines(chance, 1500),
        "changes/e.ndjson": _changes(chance, chance.randint(20, 60)),
        "changes/f.ndjson": _changes(chance, chance.randint(20, 60)),
        **{f"dump/2026-01-0{day}.json": content for day, content in enumerate(_dumps(chance, 3), 1)},
    }
    files["sub/again.json"] = files["a.json"]
    files["orders/again.json"] = files["orders/c.json"]
    names = list(files)
    chance.shuffle(names)
    return {name: files[name] for name in names}


def _record(chance: random.Random) -> Document:
    second = chance.randrange(60)
    record: Document = {
        "key": f"k{chance.randrange(40)}",
        "name": chance.choice(["Ada", "größe", "x" * 40]),
        "value": chance.randrange(1000) / 8,
        "ts": f"2026-01-15T10:{chance.randrange(60):02d}:{second:02d}.{chance.randrange(10**6):06d}Z",
    }
    fault = chance.random()
    if fault < 0.08:
        record["name"] = " "
    elif fault < 0.16:
        record["value"] = "no number"
    return record


def _array(chance: random.Random, count: int) -> bytes:
    return json.dumps([_record(chance) for _ in range(count)]).encode()


def _lines(chance: random.Random, count: int) -> bytes:
    return b"".join(json.dumps(_record(chance)).encode() + b"\n" for _ in range(count))


def _changes(chance: random.Random, count: int) -> bytes:
    """Make records of which a third are deletions, some with values that would be refused elsewhere."""
    made = [_record(chance) | ({"op": "d"} if chance.random() < 1 / 3 else {"op": "u"}) for _ in range(count)]
    return b"".join(json.dumps(one).encode() + b"\n" for one in made)


def _dumps(chance: random.Random, count: int) -> Iterator[bytes]:
    """Make snapshots of one table: rows come and go, some change, most stay; a key is there twice now and then."""
    rows = {key: _sound(chance, key) for key in (f"k{number}" for number in range(30))}
    for _ in range(count):
        rows |= {key: _sound(chance, key) for key in chance.sample(sorted(rows), 5)}
        there = chance.sample(sorted(rows), 20)
        yield json.dumps([rows[key] for key in there] + [_sound(chance, there[0])]).encode()


def _sound(chance: random.Random, key: str) -> Document:
    return _record(chance) | {"key": key, "name": "Ada", "value": chance.randrange(1000) / 8}


def _records(content: bytes) -> list[Document]:
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if text.startswith(b"["):
        found: list[Document] = json.loads(text)
        return found
    return [json.loads(line) for line in text.splitlines()]


def _is_broken(content: bytes) -> bool:
    try:
        _records(content)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error):
        return True
    return not content


def _fault(record: Document) -> str | None:
    if not record["name"].strip():
        return "missing_name"
    return None if isinstance(record["value"], float | int) else "invalid_value"


@dataclass
class Truth:
    """The tables as they must be: the files applied one after another."""

    rows: dict[str, dict[str, tuple[object, ...]]] = field(default_factory=lambda: {feed: {} for feed in TABLES})
    graves: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Cursor and run of the deletion of each key of ``changes`` that has the highest cursor."""
    watermarks: dict[str, str] = field(default_factory=dict)
    letters: Lines = field(default_factory=Counter)
    lineage: Lines = field(default_factory=Counter)
    runs: Lines = field(default_factory=Counter)
    loaded: dict[tuple[str, str], int] = field(default_factory=dict)

    def apply(self, run: int, name: str, content: bytes) -> None:
        """Apply one file, as the documents say it is to be applied."""
        feed, sha = feed_of(name), hashlib.sha256(content).hexdigest()
        day = name.removeprefix("dump/").removesuffix(".json") if feed == "dump" else ""
        if day > self.watermarks.get(SNAPSHOTS, ""):
            self.loaded[feed, sha] = run  # content that is new as of then, whoever had it before
        earlier = self.loaded.setdefault((feed, sha), run)
        if earlier != run:
            self.runs[name, feed, sha, earlier, 0, 0, 0, 0, 0, 0] += 1
        elif feed == "dump":
            self.runs[name, feed, sha, None, *self._snapshot(run, day, _records(content))] += 1
        elif feed == "changes":
            self.runs[name, feed, sha, None, *self._changes(run, _records(content))] += 1
        else:
            self.runs[name, feed, sha, None, *self._news(feed, run, _records(content))] += 1

    def _news(self, feed: str, run: int, records: list[Document]) -> tuple[int, ...]:
        """Apply records one by one; return the counts of the run."""
        floor = self.watermarks.get(feed) if feed == "events" else None
        skipped = rejected = staged = 0
        applied: dict[str, int] = {}
        for number, record in enumerate(records, 1):
            key, fault = record["key"], _fault(record)
            if floor is not None and record["ts"] <= floor:
                skipped += 1
                self.lineage[run, number, key, "skip"] += 1
            elif fault is not None:
                rejected += 1
                self.letters[run, number, key, fault] += 1
                self.lineage[run, number, key, "reject"] += 1
            else:
                staged += 1
                self.lineage[run, number, key, "stage"] += 1
                self._upsert(feed, run, number, record, applied)
        for key, number in applied.items():
            self.lineage[run, number, key, "stale"] -= 1
            self.lineage[run, number, key, "load"] += 1
            reached = str(self.rows[feed][key][3])
            self.watermarks[feed] = max(self.watermarks.get(feed, ""), reached)
        stale = staged - len(applied)
        total = staged + skipped + rejected
        return total, len(applied), rejected, skipped, stale, 0

    def _changes(self, run: int, records: list[Document]) -> tuple[int, ...]:
        """Apply of each key the record with the highest cursor, a deletion before an upsert."""
        best: dict[str, int] = {}
        rejected = 0
        for number, record in enumerate(records, 1):
            key, fault = record["key"], None if record["op"] == "d" else _fault(record)
            self.lineage[run, number, key, "reject" if fault else "stage"] += 1
            if fault:
                rejected += 1
                self.letters[run, number, key, fault] += 1
                continue
            self.lineage[run, number, key, "stale"] += 1
            if key not in best or _rank(record) > _rank(records[best[key] - 1]):
                best[key] = number
        out = deleted = 0
        rows = self.rows["changes"]
        for key, number in best.items():
            record, row = records[number - 1], rows.get(key)
            cursor, deletes = record["ts"], record["op"] == "d"
            below = row is None or (cursor >= str(row[3]) if deletes else cursor > str(row[3]))
            if not below or cursor <= self.graves.get(key, ("", 0))[0]:
                continue
            out += 1
            self.lineage[run, number, key, "stale"] -= 1
            self.lineage[run, number, key, "delete" if deletes else "load"] += 1
            self.watermarks["changes"] = max(self.watermarks.get("changes", ""), cursor)
            if deletes:
                deleted += rows.pop(key, None) is not None
                self.graves[key] = (cursor, run)
            else:
                rows[key] = (key, record["name"], float(record["value"]), cursor, run)
        return len(records), out, rejected, 0, len(records) - rejected - out, deleted

    def _snapshot(self, run: int, day: str, records: list[Document]) -> tuple[int, ...]:
        """Let the table be what the file says, unless it is older than what was applied."""
        if day <= self.watermarks.get(SNAPSHOTS, ""):
            for place, record in enumerate(records, 1):
                self.lineage[run, place, record["key"], "skip"] += 1
            return len(records), 0, 0, len(records), 0, 0
        self.watermarks[SNAPSHOTS] = day
        rows, last = self.rows["dump"], {record["key"]: place for place, record in enumerate(records, 1)}
        out = 0
        for place, record in enumerate(records, 1):
            key = record["key"]
            values = (key, record["name"], float(record["value"]), record["ts"])
            applies = last[key] == place and (key not in rows or rows[key][:4] != values)
            self.lineage[run, place, key, "stage"] += 1
            self.lineage[run, place, key, "load" if applies else "stale"] += 1
            if applies:
                out += 1
                rows[key] = (*values, run)
        gone = sorted(rows.keys() - last.keys())
        for place, key in enumerate(gone, len(records) + 1):
            self.lineage[run, place, key, "delete"] += 1
            del rows[key]
        return len(records), out, 0, 0, len(records) - out, len(gone)

    def _upsert(self, feed: str, run: int, number: int, record: Document, applied: dict[str, int]) -> None:
        key = record["key"]
        self.lineage[run, number, key, "stale"] += 1  # unless it is the last one of this file that was applied
        row = self.rows[feed].get(key)
        if row is None or record["ts"] > str(row[3]):
            self.rows[feed][key] = (key, record["name"], float(record["value"]), record["ts"], run)
            applied[key] = number


def _rank(record: Document) -> tuple[str, bool]:
    return record["ts"], record["op"] == "d"


@dataclass(frozen=True)
class Damage:
    """What is not as it must be."""

    lost: list[str]
    twice: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.twice)


def damage(home: Home, files: dict[str, bytes], *, cut: bool = False) -> Damage:
    """Hold tables, folders and log against the truth.

    After a power ``cut`` nothing is asked of the log, whose lines are not synced, and a file may have arrived again:
    where its way out of the inbox was lost it lies there as before, and its content is a duplicate, or fails, again.
    """
    lost: list[str] = []
    twice: list[str] = []
    compared = _compared(home, files) if cut else (*_compared(home, files), *_verdicts(home, files))
    for what, expected, found in compared:
        if cut and what in ARRIVALS:
            found = _as_if_once(found, expected)  # noqa: PLW2901 - what is left to be compared
        lost += [f"{what}: {line} (missing {count} times)" for line, count in (expected - found).items()]
        twice += [f"{what}: {line} (too often {count} times)" for line, count in (found - expected).items()]
    return Damage(lost, twice)


def _compared(home: Home, files: dict[str, bytes]) -> Iterator[tuple[str, Lines, Lines]]:
    yield "integrity", Counter([("ok",)]), Counter(home.query("PRAGMA integrity_check"))
    ends = home.query("SELECT id, file_name FROM etl_runs WHERE status = 'success' ORDER BY commit_no")
    truth = Truth()
    for run, name in ends:
        truth.apply(run, name, files[name])
    counts = "rows_in, rows_out, rows_rejected, rows_skipped, rows_stale, rows_deleted"
    columns = f"file_name, job_name, content_sha256, duplicate_of, {counts}"
    yield "runs", truth.runs, Counter(home.query(f"SELECT {columns} FROM etl_runs WHERE status = 'success'"))
    for feed, table in TABLES.items():
        yield (
            table,
            Counter(truth.rows[feed].values()),
            _table(home, table),
        )
    graves: Lines = Counter((key, *grave) for key, grave in truth.graves.items())
    yield "tombstones", graves, Counter(home.query("SELECT record_key, cursor, run_id FROM tombstones"))
    yield "watermarks", Counter(truth.watermarks.items()), Counter(home.query("SELECT name, value FROM watermarks"))
    yield (
        "dead letters",
        truth.letters,
        Counter(home.query("SELECT run_id, record_no, record_key, error FROM dead_letters")),
    )
    yield "lineage", +truth.lineage, Counter(home.query("SELECT run_id, record_no, record_key, step FROM lineage"))
    yield from _ends(home, files)


ARRIVALS = {"ends", "processed", "failed", "reports"}


def _as_if_once(found: Lines, expected: Lines) -> Lines:
    """Return what was found, without what is there again for a file that came again: ``a.run-7.json`` is ``a.json``."""
    first: Lines = Counter()
    for (name, *rest), count in found.items():
        original = (re.sub(r"\.run-\d+", "", str(name)), *rest)
        first[original] = min(first[original] + count, max(1, expected[original]))
    return first


def _table(home: Home, table: str) -> Lines:
    try:
        return Counter(home.query(f"SELECT key, name, value, ts, run_id FROM {table}"))
    except sqlite3.OperationalError:  # no such table
        return Counter()


def _ends(home: Home, files: dict[str, bytes]) -> Iterator[tuple[str, Lines, Lines]]:
    """Compare where the files are, what the ledger calls their end, and what was said of them."""
    broken = {name for name, content in files.items() if _is_broken(content)}
    good = files.keys() - broken
    ends: Lines = Counter({(name, "success"): 1 for name in good} | {(name, "failure"): 1 for name in broken})
    sql = "SELECT file_name, status FROM etl_runs WHERE error_code IS NULL OR error_code <> 'interrupted'"
    yield "ends", ends, Counter(home.query(sql))
    yield "processed", _contents(files, good), _tree(home.processed)
    yield "failed", _contents(files, broken), _tree(home.failed, reports=False)
    reports = Counter[tuple[object, ...]]((f"{name}.error.json",) for name in broken)
    found = _tree(home.failed) - _tree(home.failed, reports=False)
    yield "reports", reports, Counter[tuple[object, ...]]((name,) for name, _ in found)
    yield "inbox", Counter(), _tree(home.inbox)


def _verdicts(home: Home, files: dict[str, bytes]) -> Iterator[tuple[str, Lines, Lines]]:
    yield "verdicts", Counter((name,) for name in files), Counter((line["file"],) for line in home.verdicts())


def _contents(files: dict[str, bytes], names: set[str]) -> Lines:
    return Counter[tuple[object, ...]]((name, hashlib.sha256(files[name]).hexdigest()) for name in names)


def _tree(folder: Path, *, reports: bool = True) -> Lines:
    return Counter[tuple[object, ...]](
        (os.fspath(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file() and (reports or not path.name.endswith(".error.json"))
    )
