"""``make soak``: a long life at quick motion, and the proof that nothing in it grows without bound.

One daemon with two dozen feeds and its page is given files of all kinds and sizes; meanwhile its config is changed and
loaded anew, its log rotated, its database locked and read by others, its page visited and flooded. What the process
holds is measured all the while. At the end every file must have had its one verdict, and no measure may have kept
growing after the first third, in which caches fill.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click
import psutil

from daemons import VERDICTS, Home, eventually
from inboxd.daemon import AHEAD

FEEDS = 24
KEYS = 5_000
"""Of each feed: the tables stop growing once all are met."""
SMALL_EVERY_S = 0.05
MOST_WAITING = 200
LARGE_EVERY_S = 15.0
LARGE_RECORDS = 60_000
SAMPLES = 60
DRAIN_S = 120.0
MIB = 1 << 20


@dataclass(frozen=True)
class Measure:
    """What one figure may do: ``slack`` above its middle third's level in the last third, and never above ``most``."""

    slack: float
    most: float


MEASURES = {
    "rss_mib": Measure(slack=32, most=224),  # a step: what a large file of rejects takes, the allocator keeps
    "descriptors": Measure(slack=12 + AHEAD, most=200),  # so many claims are open at once while many files wait
    "beside_claims": Measure(slack=12, most=200),
    "threads": Measure(slack=2, most=24),
    "wal_mib": Measure(slack=64, most=192),
    "hidden": Measure(slack=20, most=100),
}


@dataclass(frozen=True)
class Sample:
    """What the daemon held at one moment."""

    minute: float
    rss_mib: float
    descriptors: int
    threads: int
    wal_mib: float
    hidden: int
    loaded: int
    waiting: int
    beside_claims: int = 0
    """Descriptors that are not of a claim."""


def config(variant: int) -> str:
    """Return a config with all feeds; each variant changes one of them and how much is kept."""
    kept = '[archive]\nkeep = "1m"\n[retention]\nlineage = "1m"\nresolved = "1m"\n'
    text = [f'[inbox]\nsettle = "50ms"\nrescan = "2s"\n{kept}']
    for number in range(FEEDS):
        late = ("merge", "skip")[number % 2]
        longest = 1_000 + (variant if number == variant % FEEDS else 0)
        text.append(
            f'[feeds.f{number}]\nmatch = ["f{number}/**"]\nkey = ["key"]\ncursor = "ts"\nlate = "{late}"\n'
            f'[feeds.f{number}.fields]\nkey = {{ type = "text" }}\nname = {{ type = "text", max_length = {longest} }}\n'
            f'value = {{ type = "real" }}\nts = {{ type = "timestamp" }}\n'
        )
    return "\n".join(text)


@dataclass
class Soak:
    """One soak: its daemon, those who disturb it, and what was measured."""

    home: Home
    minutes: float
    chance: random.Random
    dropped: int = 0
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: tuple[str, int] = ("", 0)
    lines: list[str] = field(default_factory=list)
    """Verdicts of logs that were rotated away."""
    reloaded: int = 0
    """Reloads that such logs told of."""

    def run(self) -> None:
        """Do it all; ``samples`` and ``faults`` hold the result."""
        self.home.start("--http", "127.0.0.1:0")
        started = self.home.lines("http_started")[0]["address"]
        self.url = (started.split("/")[2].rpartition(":")[0], int(started.rstrip("/").rpartition(":")[2]))
        actors = [self.feed, self.reload, self.rotate, self.lock, self.read, self.visit, self.probe, self.flood]
        threads = [threading.Thread(target=self._acting, args=(actor,), name=actor.__name__) for actor in actors]
        for thread in threads:
            thread.start()
        try:
            self.measure()
        finally:
            self.over.set()
            for thread in threads:
                thread.join()
        self.end()

    def _acting(self, actor: Callable[[], None]) -> None:
        try:
            actor()
        except Exception as error:  # noqa: BLE001 - whatever ends an actor is a result of the soak
            self.faults.append(f"{actor.__name__}: {type(error).__name__}: {error}")
            self.over.set()

    def every(self, seconds: float) -> Iterator[int]:
        """Count the turns until the end, with a pause before each."""
        turn = 0
        while not self.over.wait(seconds * self.chance.uniform(0.5, 1.5)):
            yield turn
            turn += 1

    # Those who work with it, and those who disturb it

    def feed(self) -> None:
        """Drop files: small ones all the time, large ones now and then, broken and doubtful ones between them."""
        next_large = time.monotonic() + LARGE_EVERY_S / 4
        for turn in self.every(SMALL_EVERY_S):
            if turn % 20 == 0 and self._waiting() > MOST_WAITING:  # on a slow machine the daemon is not to be buried
                self.over.wait(1)
            large = time.monotonic() > next_large
            if large:
                next_large += LARGE_EVERY_S
            content = self._content(turn, LARGE_RECORDS if large else self.chance.choice([1, 1, 1, 10, 200]))
            self.home.drop(f"f{self.chance.randrange(FEEDS)}/{turn}.json", content)
            self.dropped += 1

    def _content(self, turn: int, records: int) -> bytes:
        kind = turn % 20
        if kind == 7:
            return b'[{"key": "broken",]'
        lines = []
        for _ in range(records):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - self.chance.random() * 60))
            value = '"none"' if kind == 11 and self.chance.random() < 0.5 else f"{self.chance.random()}"
            key, name = self.chance.randrange(KEYS), "n" * self.chance.randrange(60)
            lines.append(f'{{"key": "k{key}", "name": "{name}", "value": {value}, "ts": "{moment}Z"}}\n')
        text = "".join(lines).encode()
        return zlib.compress(text, wbits=31) if kind == 13 else text

    def reload(self) -> None:
        """Change the config and have it loaded anew; each fourth one is bad."""
        for turn in self.every(6):
            text = "[inbox]\nsettle = 'soon'\n" if turn % 4 == 3 else config(turn)
            (self.home.path / "inboxd.toml").write_text(text)
            assert self.home.process is not None
            self.home.process.send_signal(signal.SIGHUP)

    def rotate(self) -> None:
        """Rotate the log, as logrotate does, and keep its verdicts."""
        log = self.home.path / "data" / "inboxd.log"
        for _ in self.every(15):
            old = log.with_suffix(".1")
            log.rename(old)
            eventually(log.exists, "a line after the rotation")
            self._keep([json.loads(line) for line in old.read_text().splitlines()])
            old.unlink()

    def _keep(self, lines: Sequence[dict[str, Any]]) -> None:
        self.lines += [line["file"] for line in lines if line["event"] in VERDICTS]
        self.reloaded += sum(line["event"] == "config_reloaded" for line in lines)

    def lock(self) -> None:
        """Hold the database's write lock for longer than a file waits for it."""
        for _ in self.every(30):
            with contextlib.closing(sqlite3.connect(self.home.database, isolation_level=None, timeout=60)) as other:
                other.execute("BEGIN IMMEDIATE")
                self.over.wait(7)
                other.execute("ROLLBACK")

    def read(self) -> None:
        """Ask as people do: by commands, and by a connection that looks for a while."""
        for _ in self.every(10):
            for command in ("status", "health"):  # 78 while the config is bad
                done = self.home.call(command, "--json")
                assert done.returncode in {0, 1, 78}, done.stderr
            with contextlib.closing(sqlite3.connect(f"file:{self.home.database}?mode=ro", uri=True)) as other:
                other.execute("BEGIN")
                other.execute("SELECT COUNT(*) FROM f0").fetchone()
                self.over.wait(2)

    def visit(self) -> None:
        """Look at every page and follow the events for a moment: under a flood not each look has an answer."""
        pages = ("/", "/?window=7d", "/runs", "/dead-letters", "/records?feed=f1&key=k1", "/events", "/health")
        for turn in self.every(0.5):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._get(pages[turn % len(pages)])

    def probe(self) -> None:
        """Ask whether it lives and how it is: each time there must be an answer."""
        probes = ("/healthz", "/readyz", "/metrics")
        for turn in self.every(1):
            path = probes[turn % len(probes)]
            status = self._get(path)
            assert status == 200 or path == "/readyz", f"{path}: {status}"

    def _get(self, path: str) -> int:
        with contextlib.closing(http.client.HTTPConnection(*self.url, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read(16 if path == "/events" else None)
            return answer.status

    def flood(self) -> None:
        """Open many connections and say nothing, or half a word."""
        for _ in self.every(20):
            with contextlib.ExitStack() as stack:
                for number in range(300):
                    visitor = stack.enter_context(socket.socket())
                    visitor.setblocking(False)
                    visitor.connect_ex(self.url)
                    if number % 2:
                        with contextlib.suppress(OSError):
                            visitor.send(b"GET / HT")
                self.over.wait(1)

    # What is measured, and judged

    def measure(self) -> None:
        """Take samples until the time is over, or somebody failed."""
        assert self.home.process is not None
        process = psutil.Process(self.home.process.pid)
        began = time.monotonic()
        pause = self.minutes * 60 / SAMPLES
        while not self.over.wait(pause) and time.monotonic() < began + self.minutes * 60:
            self.samples.append(self._sample(process, (time.monotonic() - began) / 60))
            print(*([_head()] if len(self.samples) == 1 else []), _row(self.samples[-1]), sep="\n", flush=True)

    def _sample(self, process: psutil.Process, minute: float) -> Sample:
        wal = self.home.database.with_name("inboxd.db-wal")
        claimed = sum(1 for _ in (self.home.inbox / ".claimed").iterdir())
        hidden = sum(name.startswith(".") for _, _, names in os.walk(self.home.path / "data") for name in names)
        return Sample(
            minute=round(minute, 2),
            rss_mib=round(process.memory_info().rss / MIB, 1),
            descriptors=(descriptors := process.num_fds()),
            beside_claims=descriptors - claimed,
            threads=process.num_threads(),
            wal_mib=round(wal.stat().st_size / MIB, 1) if wal.exists() else 0.0,
            hidden=claimed + hidden,
            loaded=self.dropped - self._waiting(),
            waiting=self._waiting(),
        )

    def _waiting(self) -> int:
        return sum(name.endswith(".json") for _, _, names in os.walk(self.home.inbox) for name in names)

    def end(self) -> None:
        """Let the daemon finish, stop it, and compare what it said with what was dropped."""
        if self.faults:
            return
        deadline = time.monotonic() + DRAIN_S
        while self._waiting() and time.monotonic() < deadline:
            time.sleep(0.2)
        if code := self.home.stop():
            self.faults.append(f"the daemon ended with {code}")
        self._keep(self.home.lines())
        said = self.lines
        if len(said) != len(set(said)) or len(said) != self.dropped:
            self.faults.append(
                f"{self.dropped} files were dropped, {len(said)} verdicts said, of {len(set(said))} files"
            )
        if not self.reloaded:
            self.faults.append("no config was ever loaded anew")
        self.faults += grown(self.samples)


def grown(samples: Sequence[Sample]) -> list[str]:
    """Return what kept growing: the last third's level above the middle one's, or a figure above its bound."""
    third = len(samples) // 3
    if third < 1:
        return ["too few samples to tell whether anything grows: give it more time"]
    found = []
    for name, measure in MEASURES.items():
        values = [float(getattr(sample, name)) for sample in samples]
        middle, last = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        if last > middle + measure.slack:
            found.append(f"{name} grows: {middle:g} in the middle third, {last:g} in the last")
        if max(values) > measure.most:
            found.append(f"{name} was {max(values):g}; its bound is {measure.most:g}")
    return found


def _head() -> str:
    return "".join(f"{one.name:>14}" for one in fields(Sample))


def _row(sample: Sample) -> str:
    return "".join(f"{getattr(sample, one.name):>14}" for one in fields(Sample))


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak for so many minutes; return 1 where something was lost or grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--keep", action="store_true", help="keep the folder afterwards")
    chosen = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp() if chosen.keep else stack.enter_context(tempfile.TemporaryDirectory())
        home = stack.enter_context(Home(Path(folder), config(0)))
        print(f"seed {chosen.seed}, {chosen.minutes:g} minutes, in {folder}", flush=True)
        soak = Soak(home, chosen.minutes, random.Random(chosen.seed))
        soak.run()
    for fault in soak.faults:
        click.secho(fault, fg="red", err=True)
    if not soak.faults:
        print(f"{soak.dropped} files, each with its one verdict; nothing grows")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
