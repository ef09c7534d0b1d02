"""The row about a long life: a daemon that has had a busy hour is as quick and as small as in its first minutes."""

from __future__ import annotations

import json
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.corpus import Bulk, make
from bench.live import FILES_A_SECOND, LOOK_EVERY_S, READABLE, READABLE_S, daemon
from bench.process import Broken
from bench.results import Line, Skipped
from bench.runner import Bench, say

WINDOW_S = 300.0
"""The first minutes, and the last: of a shorter life its first and last quarter."""
EVERY: dict[str, float] = {"large": 20.0, "again": 5.0, "broken": 7.0, "reader": 60.0}
"""Seconds between files of 10,000 records, duplicates, files that fail, and readers that hold on to what they see."""
LARGE = 10_000
TITLES = {
    "latency_ms": "p50 renamed in → readable",
    "memory_mib": "memory",
    "handles": "open files",
    "log_mib": "write-ahead log",
}


@dataclass(slots=True)
class Window:
    """What was seen in one stretch of time."""

    latency_ms: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    handles: list[float] = field(default_factory=list)
    log_mib: list[float] = field(default_factory=list)


def life(bench: Bench) -> Iterator[Line | Skipped]:
    """Give a daemon a mixed load for an hour, and hold its last five minutes against its first."""
    length, window = bench.scale.mixed_s, min(WINDOW_S, bench.scale.mixed_s / 4)
    first, last = Window(), Window()
    with bench.folder() as folder:
        (folder / "inbox").mkdir()
        with daemon(folder) as (started, _seconds):
            load = _Load(folder, make(Bulk(LARGE), bench.corpora).read_bytes())
            while (age := load.age) < length:
                seen = first if age < window else last if age >= length - window else Window()
                took = load.next()
                if took is not None:
                    seen.latency_ms.append(took * 1000)
                    _look(seen, started.process.pid, folder)
        say(f"  {load.files} files in {length:.0f} s")
    what = f"after {length:.0f} s of mixed load, the last {window:.0f} s against the first"
    names = {
        "latency_ms": "p50 renamed in → readable",
        "memory_mib": "memory",
        "handles": "open files",
        "log_mib": "WAL",
    }
    for name, title in names.items():
        end, start = (statistics.median(getattr(window, name)) for window in (last, first))
        yield Line(f"life.{name}", f"{title} {what}", f"{end:.1f} / {start:.1f}", end / start, goal=1.1)


class _Load:
    """Files of all kinds, dropped at a steady pace."""

    def __init__(self, folder: Path, large: bytes) -> None:
        self._folder = folder
        self._large = json.loads(large)
        self._reader = sqlite3.connect(f"file:{folder}/data/inboxd.db?mode=ro", uri=True, isolation_level=None)
        self._holding: sqlite3.Connection | None = None
        self._began = time.perf_counter()
        self._due = dict.fromkeys(EVERY, 0.0)
        self._small = b""
        self.files = 0

    @property
    def age(self) -> float:
        """How long it has been going on, in seconds."""
        return time.perf_counter() - self._began

    def next(self) -> float | None:
        """Drop one file; return how long a small one took to be readable, ``None`` for any other."""
        time.sleep(max(0.0, self.files / FILES_A_SECOND - self.age))
        kind = next((kind for kind, due in self._due.items() if self.age >= due), None)
        self.files += 1
        if kind is None:
            self._small = self._records([{"key": f"k{self.files * 10 + n:09}"} for n in range(10)])
            newest = self._reader.execute("SELECT COALESCE(MAX(id), 0) FROM etl_runs").fetchone()[0]
            return self._readable(newest, self._drop(self._small))
        self._due[kind] += EVERY[kind]
        if kind == "reader":
            self._hold()
        else:
            self._drop(self._other(kind))
        return None

    def _other(self, kind: str) -> bytes:
        if kind == "large":
            return self._records(self._large)
        return self._small if kind == "again" and self._small else b'[{"key": "a"},]'

    def _records(self, records: list[dict[str, object]]) -> bytes:
        ts = datetime.now(UTC).isoformat()
        return json.dumps([{**record, "name": "n", "value": self.files, "ts": ts} for record in records]).encode()

    def _drop(self, content: bytes) -> str:
        name = f"{self.files:07}.json"
        (self._folder / name).write_bytes(content)
        (self._folder / name).rename(self._folder / "inbox" / name)
        return name

    def _readable(self, newest: int, name: str) -> float:
        began = time.perf_counter()
        while self._reader.execute(READABLE, (newest, name)).fetchone() is None:
            if time.perf_counter() - began > READABLE_S:
                message = f"{name} was not readable after {READABLE_S} s"
                raise Broken(message)
            time.sleep(LOOK_EVERY_S)
        return time.perf_counter() - began

    def _hold(self) -> None:
        """Let the last reader go, and hold on with another: the write-ahead log cannot be reused meanwhile."""
        if self._holding is not None:
            self._holding.close()
            self._holding = None
            return
        self._holding = sqlite3.connect(f"file:{self._folder}/data/inboxd.db?mode=ro", uri=True, isolation_level=None)
        self._holding.execute("BEGIN")
        self._holding.execute("SELECT COUNT(*) FROM watermarks").fetchone()


def _look(seen: Window, pid: int, folder: Path) -> None:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    seen.memory_mib.append(int(resident.split()[1]) / 1024)
    seen.handles.append(float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())))
    seen.log_mib.append((folder / "data" / "inboxd.db-wal").stat().st_size / 2**20)
