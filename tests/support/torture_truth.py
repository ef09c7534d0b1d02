"""What must be in database and folders after any fault: files made by chance, and where each of them must end.

What the database must hold is for an audit to say, which shares nothing with the loader.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audits import audited
from daemons import Home

RETAINED = ("LINEAGE", "RESOLVED", "IMAGES")
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
undo = true
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
THINNING = {f"INBOXD_{name}": "1s" for name in ("ARCHIVE__KEEP", *(f"RETENTION__{one}" for one in RETAINED))}
"""The settings that let what is old go."""

Document = dict[str, Any]  # Any: whatever a record holds
Lines = Counter[tuple[object, ...]]


def scenario(chance: random.Random) -> dict[str, bytes]:
    """Make a handful of files for all feeds, oldest first: good ones, with rejects, duplicates, malformed ones."""
    files = {
        "a.json": _array(chance, chance.randint(2, 6)),
        "sub/b.ndjson": _lines(chance, chance.randint(2, 6)),
        "orders/c.json": _array(chance, chance.randint(2, 6)),
        "orders/deep/er/d.jsonl.gz": gzip.compress(_lines(chance, chance.randint(2, 30)), mtime=0),
        "orders/empty.json": b"[]",
        "broken.json": b'[{"key": "a", "name": "n"},, ' + str(chance.random()).encode(),
        "orders/large.ndjson": _lines(chance, 400),
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


@dataclass(frozen=True)
class Damage:
    """What is not as it must be."""

    lost: list[str]
    twice: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.twice)


def damage(home: Home, files: dict[str, bytes], *, cut: bool = False, thinned: bool = False) -> Damage:
    """Compare folders and log with the files, and let an audit judge the database.

    After a power ``cut`` nothing is asked of the log, whose lines are not synced, and a file may have arrived again:
    where its way out of the inbox was lost it lies there as before, and its content is a duplicate, or fails, again.
    ``thinned``: retention was at work, so files that a run had may be gone from ``processed``.
    """
    lost: list[str] = []
    twice: list[str] = []
    compared = _compared(home, files) if cut else (*_compared(home, files), *_verdicts(home, files))
    for what, expected, found in compared:
        if cut and what in ARRIVALS:
            found = _as_if_once(found, expected)  # noqa: PLW2901 - what is left to be compared
        gone = expected - found if not (thinned and what == "processed") else Counter()
        lost += [f"{what}: {line} (missing {count} times)" for line, count in gone.items()]
        twice += [f"{what}: {line} (too often {count} times)" for line, count in (found - expected).items()]
    for one in audited(home.path, {**home.env, **(THINNING if thinned else {})}):
        said = f"{one['table']}: {one['kind']}: {one['detail']} (key {one['key']}, run {one['run_id']}, {one['file']})"
        (twice if one["kind"].endswith("_unexpected") else lost).append(said)
    return Damage(lost, twice)


def _compared(home: Home, files: dict[str, bytes]) -> Iterator[tuple[str, Lines, Lines]]:
    yield "integrity", Counter([("ok",)]), Counter(home.query("PRAGMA integrity_check"))
    yield from _ends(home, files)


ARRIVALS = {"ends", "processed", "failed", "reports"}


def _as_if_once(found: Lines, expected: Lines) -> Lines:
    """Return what was found, without what is there again for a file that came again: ``a.run-7.json`` is ``a.json``."""
    first: Lines = Counter()
    for (name, *rest), count in found.items():
        original = (re.sub(r"\.run-\d+", "", str(name)), *rest)
        first[original] = min(first[original] + count, max(1, expected[original]))
    return first


def _ends(home: Home, files: dict[str, bytes]) -> Iterator[tuple[str, Lines, Lines]]:
    """Compare where the files are, what the ledger calls their end, and what was said of them."""
    broken = {name for name, content in files.items() if _is_broken(content)}
    good = files.keys() - broken
    ends: Lines = Counter({(name, "success"): 1 for name in good} | {(name, "failure"): 1 for name in broken})
    sql = (
        "SELECT file_name, status FROM etl_runs "
        "WHERE file_name IS NOT NULL AND (error_code IS NULL OR error_code <> 'interrupted')"
    )
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
