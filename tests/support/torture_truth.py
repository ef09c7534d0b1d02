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
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
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
        "orders/large.ndjson": _lines(chance, 150),
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

    def __len__(self) -> int:
        return len(self.lost) + len(self.twice)


def damage(
    home: Home,
    files: dict[str, bytes],
    *,
    cut: bool = False,
    thinned: bool = False,
    left: Mapping[str, bytes] = {},
    refused: AbstractSet[str] = frozenset(),
    retried: AbstractSet[str] = frozenset(),
    judge: Callable[[Path, Mapping[str, str]], list[dict[str, Any]]] = audited,
) -> Damage:
    """Compare folders and log with the files, and let an audit judge the database.

    After a power ``cut`` nothing is asked of the log, whose lines are not synced, and a file may have arrived again:
    where its way out of the inbox was lost it lies there as before, and its content is a duplicate, or fails, again.
    What it ``left`` of a content that was not durable is a file's content, too; an audit knows which was loaded.
    ``thinned``: retention was at work, so files that a run had may be gone from ``processed``. Good files may have
    been ``refused`` by a setting of then; the ledger says whether. Of those ``retried`` the command has ended.
    """
    lost: list[str] = []
    twice: list[str] = []
    compared = (*_compared(home, files, left, refused | left.keys()), *([] if cut else [_verdicts(home, files)]))
    for what, expected, found in compared:
        if cut and what in ARRIVALS:
            found = _as_if_once(found, expected)  # noqa: PLW2901 - what is left to be compared
        gone = expected - found if not (thinned and what == "processed") else Counter()
        lost += [f"{what}: {line} (missing {count} times)" for line, count in gone.items()]
        twice += [f"{what}: {line} (too often {count} times)" for line, count in (found - expected).items()]
    twice += _multiplied(home, retried) if cut else []
    for one in judge(home.path, {**home.env, **(THINNING if thinned else {})}):
        said = f"{one['table']}: {one['kind']}: {one['detail']} (key {one['key']}, run {one['run_id']}, {one['file']})"
        (twice if one["kind"].endswith("_unexpected") else lost).append(said)
    return Damage(lost, twice)


ARRIVALS = {"ends", "processed", "failed", "reports"}
ENDED = "claim IS NOT NULL AND status <> 'running' AND (error_code IS NULL OR error_code <> 'interrupted')"


def _as_if_once(found: Lines, expected: Lines) -> Lines:
    """Return what was found, without what is there again for a file that came again: ``a.run-7.json`` is ``a.json``."""
    first: Lines = Counter()
    for (name, *rest), count in found.items():
        original = (_original(str(name)), *rest)
        first[original] = min(first[original] + count, max(1, expected[original]))
    return first


def _original(name: str) -> str:
    return re.sub(r"\.run-\d+", "", name)


def _multiplied(home: Home, retried: AbstractSet[str]) -> Iterator[str]:
    """Name the files of which the archive has more than came: each that is claimed ends in one place.

    ``retry`` claims a file, too; once it has ended that file is nowhere else.
    """
    claims = home.query(f"SELECT DISTINCT file_name, claim FROM etl_runs WHERE {ENDED}")
    came = Counter(name for name, claim in claims if not (name in retried and claim.endswith("-retry")))
    found = (name for folder in (home.processed, home.failed) for name, _ in _tree(folder, reports=False))
    for name, copies in Counter(_original(str(name)) for name in found if "/." not in f"/{name}").items():
        if copies > came[name]:
            yield f"archive: {name} is there {copies} times, and came {came[name]} times"


def _compared(
    home: Home, files: dict[str, bytes], left: Mapping[str, bytes], refused: AbstractSet[str]
) -> Iterator[tuple[str, Lines, Lines]]:
    """Compare where the files are, and what the ledger calls their end."""
    yield "integrity", Counter([("ok",)]), Counter(home.query("PRAGMA integrity_check"))
    ends = Counter(home.query(f"SELECT file_name, status FROM etl_runs WHERE file_name IS NOT NULL AND {ENDED}"))
    broken = {name for name, content in files.items() if _is_broken(content)}
    failed = broken | {name for name in refused if (name, "failure") in ends}
    good = (files.keys() - failed) | {name for name in refused if (name, "success") in ends}
    expected: Lines = Counter([(name, "success") for name in good] + [(name, "failure") for name in failed])
    yield "ends", expected, ends
    found = _tree(home.failed, reports=False)
    read = set(home.query("SELECT file_name, content_sha256 FROM etl_runs"))
    there = {(_original(str(name)), content) for name, content in found + _tree(home.processed)}
    whole: dict[tuple[object, ...], object] = {
        (name, _hash(content)): _hash(files[name])
        for name, content in left.items()
        if (name, _hash(files[name])) not in read - there
    }
    yield "processed", _contents(files, good), _as_whole(_tree(home.processed), whole)
    in_failed = {str(name) for name, _ in found}
    kept = failed - (good - in_failed)  # of what came twice one may have failed, before the other was loaded
    yield "failed", _contents(files, kept), _as_whole(found, whole)
    reports = [(name, _about(home.failed / str(name))) for name, _ in _tree(home.failed) - found]
    told: Lines = Counter(report for report in reports if report[1] not in refused - in_failed)
    due = kept - (good - {about for _, about in told})  # beside what was loaded a report may be left, or be gone
    yield "reports", Counter((f"{name}.error.json", name) for name in due), told
    yield "inbox", Counter(), _tree(home.inbox)


def _about(report: Path) -> object:
    """Return the file that a report tells of; nothing if it is not whole."""
    try:
        return json.loads(report.read_bytes())["file"]
    except ValueError:
        return None


def _verdicts(home: Home, files: dict[str, bytes]) -> tuple[str, Lines, Lines]:
    return "verdicts", Counter((name,) for name in files), Counter((line["file"],) for line in home.verdicts())


def _contents(files: dict[str, bytes], names: set[str]) -> Lines:
    return Counter[tuple[object, ...]]((name, _hash(files[name])) for name in names)


def _as_whole(found: Lines, whole: Mapping[tuple[object, ...], object]) -> Lines:
    """Return what was found, with what a cut left of a content taken for all of it."""
    return Counter((name, whole.get((_original(str(name)), content), content)) for name, content in found.elements())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tree(folder: Path, *, reports: bool = True) -> Lines:
    return Counter[tuple[object, ...]](
        (os.fspath(path.relative_to(folder)), _hash(path.read_bytes()))
        for path in folder.rglob("*")
        if path.is_file() and (reports or not path.name.endswith(".error.json"))
    )
