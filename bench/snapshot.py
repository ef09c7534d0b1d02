"""The rows about snapshots: a file of which few records changed, against a file of news about all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bench import process
from bench.postgres import Server, serving
from bench.process import Broken, Usage
from bench.results import Line, Skipped
from bench.runner import Bench, say
from bench.subjects import INBOXD, Missing, peers_python

CONFIG = """\
[database]
url = "{url}"
[feeds.news]
table = "target"
key = ["key"]
{mode}
[feeds.news.fields]
key = {{ type = "text" }}
name = {{ type = "text" }}
value = {{ type = "real" }}
ts = {{ type = "timestamp" }}
"""
MODES = {"upsert": 'cursor = "ts"\nlate = "merge"', "snapshot": 'mode = "snapshot"\nabsent = "remove"'}
CHANGED_PER_1000 = 10
FEWER = 5
"""A snapshot's peak is held against that of one with so many times fewer records."""


def snapshot(bench: Bench) -> Iterator[Line | Skipped]:
    """Load a snapshot of which 1 % changed, and as many newer records, each onto the same table; on both databases."""
    yield from _against_an_upsert(bench, "SQLite", None)
    try:
        python = peers_python()
    except Missing as reason:
        yield Skipped("a snapshot on PostgreSQL", str(reason))
        return
    with serving(python) as server:
        yield from _against_an_upsert(bench, f"PostgreSQL {server.version}", server)


def _against_an_upsert(bench: Bench, where: str, server: Server | None) -> Iterator[Line]:
    took: dict[str, list[Usage]] = {"snapshot": [], "upsert": [], "smaller": []}
    records = bench.scale.records
    for turn in range(bench.scale.repeats):
        for name, usages in took.items():
            size = records // FEWER if name == "smaller" else records
            usages.append(_loaded(bench, size, "upsert" if name == "upsert" else "snapshot", server))
            say(f"  {where}, {name}, {turn + 1}: {usages[-1]}")
    ours, plain, smaller = (process.median(usages) for usages in took.values())
    key = "snapshot.postgres" if server else "snapshot.sqlite"
    what = f"{where}, a snapshot of {records:,} records of which 1 % changed"
    title = f"{what}: time against an upsert of as many newer ones"
    yield Line(f"{key}.time", title, f"{ours} / {plain}", ours.seconds / plain.seconds, goal=1.3)
    title = f"{what}: peak memory against a fifth of them"
    yield Line(f"{key}.memory", title, f"{ours} / {smaller}", ours.peak_mib / smaller.peak_mib, goal=1.2)


def _loaded(bench: Bench, records: int, mode: str, server: Server | None) -> Usage:
    """Fill a table, untimed, then load a file onto it."""
    file = bench.bulk(records, day=1) if mode == "upsert" else bench.bulk(records, changed_per_1000=CHANGED_PER_1000)
    with bench.folder() as folder:
        url = server.new_database() if server else f"sqlite:///{folder}/target.db"
        _load(folder, url, "upsert", bench.bulk(records))
        usage = _load(folder, url, mode, file)
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        if done["loaded"] == 0 or bool(done["deleted"]) != (mode == "snapshot"):
            message = f"{file.name} as {mode} changed {done['loaded']} and deleted {done['deleted']} rows"
            raise Broken(message)
    return usage


def _load(folder: Path, url: str, mode: str, file: Path) -> Usage:
    config = folder / f"{mode}.toml"
    config.write_text(CONFIG.format(url=url, mode=MODES[mode]), encoding="utf-8")
    command = [*INBOXD, "--config", str(config), "load", "--output", str(folder / "done.json"), "--feed", "news"]
    return process.run([*command, str(file)], folder=folder)
