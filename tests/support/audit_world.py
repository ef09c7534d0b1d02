"""A world to be audited: feeds of every kind, files made by chance, and people who undo, retry, replay and dismiss."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from audits import command
from inboxd.store import open_store
from inboxd.store.tables import etl_runs

FIELDS = """\
key = { type = "text" }
name = { type = "text" }
value = { type = "real" }
"""
TS = 'ts = { type = "timestamp" }\n'
NOTE = (
    'note = { type = "text", required = false, coalesce = ["first.note", "second.note"], '
    'max_length = 6, pattern = "^[a-z.]*$" }'
)
FEEDS = {
    "skip": f"""
cursor = "ts"
late = "skip"
undo = true
null = ["N/A"]
[feeds.skip.fields]
{FIELDS}{TS}
count = {{ type = "integer", required = false, min = -5, max = 50, coerce = true }}
flag = {{ type = "boolean", required = false, default = true, coerce = true }}
day = {{ type = "date", required = false, format = ["%d.%m.%Y", "%Y/%m/%d"] }}
at = {{ type = "timestamp", required = false, unit = "ms" }}
local = {{ type = "timestamp", required = false, timezone = "Europe/Berlin" }}
price = {{ type = "decimal", required = false, max = "1000.5" }}
{NOTE}
data = {{ type = "json", required = false }}
kind = {{ type = "text", required = false, choices = ["a", "b"], coerce = true }}
""",
    "merge": f"""
cursor = "ts"
late = "merge"
undo = true
extra = "keep"
[feeds.merge.fields]
{FIELDS}{TS}""",
    "strict": f"""
cursor = "no"
late = "merge"
extra = "reject"
where = {{ from = "name", not_in = ["skip me"] }}
[feeds.strict.fields]
{FIELDS}
no = {{ type = "integer" }}
""",
    "last": f"""
undo = true
[feeds.last.fields]
{FIELDS}
data = {{ type = "json", required = false }}
number = {{ type = "integer", from = "$record.no" }}
""",
    "facts": f"""
mode = "append"
[feeds.facts.fields]
{FIELDS}""",
    "whole": f"""
mode = "snapshot"
as_of = {{ from = "$.taken", type = "date" }}
absent = "mark"
max_deleted = "100%"
records = "rows"
undo = true
[feeds.whole.fields]
{FIELDS}""",
    "scoped": f"""
match = ["scoped/{{region}}/*.json"]
mode = "snapshot"
absent = "remove"
scope = ["region"]
max_deleted = "100%"
allow_empty = true
undo = true
[feeds.scoped.fields]
{FIELDS}
region = {{ type = "text", from = "$path.region" }}
""",
    "removes": f"""
cursor = "ts"
late = "merge"
undo = true
deletes = {{ from = "op", in = ["d"], then = "remove" }}
[feeds.removes.fields]
{FIELDS}{TS}""",
    "marks": f"""
cursor = "ts"
late = "merge"
undo = true
deletes = {{ from = "op", in = ["d"], then = "mark" }}
[feeds.marks.fields]
{FIELDS}{TS}""",
    "lastmarks": f"""
undo = true
deletes = {{ from = "op", in = ["d"], then = "mark" }}
[feeds.lastmarks.fields]
{FIELDS}""",
    "items": """
cursor = "ts"
late = "merge"
explode = "items"
[feeds.items.fields]
key = { type = "text" }
name = { type = "text", from = "^.name" }
value = { type = "real" }
ts = { type = "timestamp", from = "^.ts" }
""",
    "named": """
cursor = "mtime"
late = "merge"
records = "inner.rows"
shape = "members"
[feeds.named.fields]
key = { type = "text", from = "$record.name" }
name = { type = "text" }
value = { type = "real" }
mtime = { type = "timestamp", from = "$file.mtime" }
origin = { type = "text", from = "$.origin" }
""",
    "arrays": """
mode = "append"
key = []
shape = "values"
[feeds.arrays.fields]
first = { type = "text", from = "0" }
second = { type = "integer", from = "1", required = false }
""",
}
"""What stands in a feed's table of the config, but for its key."""


def config(url: str) -> str:
    """Return a config with all feeds."""
    text = f'[inbox]\nsettle = "0s"\nsettle_unproven = "0s"\n[log]\nlevel = "error"\n[database]\nurl = "{url}"\n'
    for name, body in FEEDS.items():
        match = "" if "match =" in body else f'match = ["{name}/**"]\n'
        key = "" if "key = [" in body else 'key = ["key"]\n'
        text += f"[feeds.{name}]\n{match}{key}{body}\n"
    shared = FEEDS["merge"].replace("feeds.merge", "feeds.other")
    return text + f'[feeds.other]\nmatch = ["other/**"]\ntable = "merge"\nkey = ["key"]\n{shared}'


@dataclass
class World:
    """A folder with a config, and what happens in it."""

    path: Path
    url: str
    seed: int
    count: int = 0
    day: int = 1
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay it out."""
        self.chance = random.Random(self.seed)
        (self.path / "inbox").mkdir(parents=True)
        (self.path / "inboxd.toml").write_text(config(self.url), encoding="utf-8")

    def call(self, *arguments: str) -> tuple[int, str]:
        """Run one command in this process; return its exit code and what it printed."""
        code, printed, said = command(self.path, *arguments)
        self.done.append(f"{' '.join(arguments)} → {code} {said.strip()}")
        return code, printed

    def audit(self, *arguments: str) -> dict[str, Any]:
        """Audit it."""
        _, printed = self.call("audit", "--json", *arguments)
        found: dict[str, Any] = json.loads(printed)
        return found

    def differences(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what an audit finds."""
        return [
            {"table": table["table"], **one}
            for table in self.audit(*arguments)["tables"]
            for one in table["differences"]
        ]

    def drop(self, name: str, content: bytes) -> None:
        """Put a file into the inbox."""
        target = self.path / "inbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        os.utime(target, (1_760_000_000 + self.count, 1_760_000_000 + self.count))
        self.count += 1

    def live(self, turns: int) -> None:
        """Let so many things happen, by chance."""
        for _ in range(turns):
            for _ in range(self.chance.randint(1, 6)):
                self.drop(*self.file())
            self.call("run", "--once")
            for act in self.chance.sample(list(self.acts()), 2):
                act()

    def acts(self) -> Iterator[Callable[[], object]]:
        """Yield what people do."""
        yield self.undo
        yield self.undo
        yield self.retry
        yield lambda: self.call("dead-letters", "replay")
        yield lambda: self.call("dead-letters", "dismiss", "--feed", self.chance.choice(list(FEEDS)))
        yield self.force
        yield lambda: None

    def undo(self) -> None:
        """Undo a run, if it can be."""
        runs = json.loads(self.call("runs", "list", "--json", "--limit", "12")[1])["runs"]
        chosen = [run for run in runs if run["status"] == "success" and run["undo_of"] is None]
        if chosen:
            self.call("undo", str(self.chance.choice(chosen)["id"]))

    def retry(self) -> None:
        """Retry a processed file."""
        files = sorted(path for path in (self.path / "data" / "processed").rglob("*") if path.is_file())
        if files:
            self.call("retry", str(self.chance.choice(files)), "--yes")

    def force(self) -> None:
        """Load a file by force, one that is known or a new one."""
        files = sorted(path for path in (self.path / "data" / "processed").rglob("*") if path.is_file())
        if not files:
            return
        chosen = self.chance.choice(files)
        feed = chosen.relative_to(self.path / "data" / "processed").parts[0]
        if self.chance.random() < 0.3 and feed in {"merge", "removes", "last"}:
            chosen = self.path / f"by-hand-{self.count}.json"
            chosen.write_bytes(self.content(feed))
        inside = chosen.relative_to(self.path / "data" / "processed") if "by-hand" not in chosen.name else None
        said = ["--as", str(inside)] if inside is not None and feed == "scoped" else ["--feed", feed]
        self.call("load", str(chosen), *said, "--force", "--yes")

    def thin_out(self, first: int) -> None:
        """Remove every second archived file, and let the ledger know, as retention does."""
        processed = self.path / "data" / "processed"
        with open_store(self.url) as store:
            for file in sorted(processed.rglob("*.json"))[first::2]:
                file.unlink()
                with store.writing() as connection:
                    names = (etl_runs.c.file_name == str(file.relative_to(processed)), etl_runs.c.claim.is_not(None))
                    connection.execute(sa.update(etl_runs).where(*names).values(file_removed=etl_runs.c.started_at))

    # Files

    def file(self) -> tuple[str, bytes]:
        """Make a file of some feed."""
        feed = self.chance.choice([*FEEDS, "other"])
        middle = f"{self.chance.choice(['EU', 'US'])}/" if feed == "scoped" else ""
        return f"{feed}/{middle}{self.count}.json", self.content(feed)

    def content(self, feed: str) -> bytes:
        """Make the content of a file of this feed."""
        records = [self.record(feed) for _ in range(self.chance.randint(0 if feed == "scoped" else 1, 12))]
        made: dict[str, Callable[[list[dict[str, object]]], bytes]] = {
            "whole": self.dated,
            "scoped": lambda found: json.dumps([self.sound() for _ in found]).encode(),
            "items": self.exploded,
            "named": self.named,
            "arrays": self.positions,
        }
        if feed in made:
            return made[feed](records)
        if self.chance.random() < 0.5:
            return b"".join(json.dumps(one).encode() + b"\n" for one in records)
        return json.dumps(records).encode()

    def dated(self, records: list[dict[str, object]]) -> bytes:
        """Make a snapshot that is of a day."""
        self.day += self.chance.choice([-1, 1, 1, 2])
        taken = f"2026-01-{max(1, self.day % 28):02d}"
        return json.dumps({"rows": [self.sound() for _ in records], "taken": taken}).encode()

    def exploded(self, records: list[dict[str, object]]) -> bytes:
        """Make elements that have some of the records each."""
        return b"\n".join(
            json.dumps({"name": self.name(), "ts": self.ts(), "items": records[at : at + 3]}).encode()
            for at in range(0, len(records), 3)
        )

    def named(self, records: list[dict[str, object]]) -> bytes:
        """Make a document whose records are members of an object."""
        rows = {str(one.get("key")): one for one in records}
        return json.dumps({"inner": {"other": [1, {"a": 2}], "rows": rows}, "origin": "here"}).encode()

    def positions(self, records: list[dict[str, object]]) -> bytes:
        """Make records that are arrays."""
        return b"\n".join(json.dumps([one["name"], self.chance.choice([1, "x", None])]).encode() for one in records)

    def name(self) -> object:
        """Return a name, a good one mostly."""
        return self.chance.choice(["Ada", "größe", "x" * 40, "\ud83d\ude00", " ", "skip me", "Ada", "N/A", None, 7])

    def ts(self) -> str:
        """Return a time of one hour."""
        return f"2026-01-15T10:{self.chance.randrange(60):02d}:00{self.chance.choice(['Z', '+00:00', '.5Z', ''])}"

    def sound(self) -> dict[str, object]:
        """Return a record that nothing refuses."""
        return {
            "key": f"k{self.chance.randrange(12)}",
            "name": self.chance.choice(["Ada", "Bob"]),
            "value": self.chance.choice([1, 2.5]),
        }

    def record(self, feed: str) -> dict[str, object]:
        """Return a record, with a fault now and then."""
        chance = self.chance
        found: dict[str, object] = self.sound() | {"ts": self.ts(), "no": chance.randrange(30)}
        if chance.random() < 0.3:
            found["name"] = self.name()
        if chance.random() < 0.15:
            found["value"] = chance.choice(["1.5", " -2e1 ", "none", None, 10**400, True])
        if chance.random() < 0.05:
            del found["key"]
        if feed in {"removes", "marks", "lastmarks"}:
            found["op"] = chance.choice(["d", "u", "u"])
        if chance.random() < 0.05:
            found["ts"] = chance.choice(["2099-01-01", "soon", None, "2026-02-30"])
        if feed == "merge" and chance.random() < 0.5:
            found["more"] = chance.choice([1.50, {"b": [1, 2], "a": None}, "\u0000"])
        if feed == "skip":
            found |= self.odd()
        if feed == "last" and chance.random() < 0.5:
            found["data"] = chance.choice([[1, 2.0], {"a": 1, "b": 1e2}, "text"])
        if feed == "strict" and chance.random() < 0.9:
            del found["ts"]
        return found

    def odd(self) -> dict[str, object]:
        """Return values of all types, good and bad."""
        choices: dict[str, list[object]] = {
            "count": [1, "17", 17.0, 99, "x", None, 2**70, 1.5],
            "flag": [True, 0, "true", "yes", None],
            "day": ["15.01.2026", "2026/01/15", "2026-01-15", "31.02.2026"],
            "at": [1_768_000_000_000, 1_768_000_000_000.25, "1768000000000.9", -1, 1e300, ""],
            "local": ["2026-03-29T02:30:00", "2026-10-25T02:30:00", "2026-07-01 12:00", "2026-07-01T12:00:00Z"],
            "price": ["12.50", 12.5, "1.5e3", "-0.00", "1e5000", "x", 1000.5, 0],
            "first": [{"note": "abc"}, {"note": None}, {}, {"note": "N/A"}],
            "second": [{"note": "def.1"}, {"note": "UPPER"}, {"note": "toolong"}],
            "data": [{"a": [1.0, 1]}, "", [], None, "\ud800"],
            "kind": ["a", "c", 1, "N/A"],
        }
        chosen = self.chance.sample(sorted(choices), self.chance.randint(0, 4))
        return {name: self.chance.choice(choices[name]) for name in chosen}
