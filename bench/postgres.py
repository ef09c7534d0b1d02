"""The rows about PostgreSQL: a million records against a bare script, and two daemons against one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import process
from bench.corpus import Bulk, make
from bench.process import Broken, Usage
from bench.results import Line, Skipped
from bench.runner import Bench, agreed, say
from bench.subjects import INBOXD, PEERS, Missing, fingerprint, peers_python

PARTS = 20
"""Files that the daemons share, so that neither waits long for the other's last."""


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server of the bench's own."""

    process: subprocess.Popen[str]
    version: str

    def new_database(self) -> str:
        """Return the URL of an empty database; the one before it is dropped."""
        assert self.process.stdin is not None
        self.process.stdin.write("new\n")
        self.process.stdin.flush()
        return _line(self.process)


def postgres(bench: Bench) -> Iterator[Line | Skipped]:
    """Load a file with ``inboxd load`` and with the bare script, then many files with one daemon and with two."""
    what = f"PostgreSQL, {bench.scale.records:,} records"
    try:
        python = peers_python()
    except Missing as reason:
        yield Skipped(what, str(reason))
        return
    with serving(python) as server:
        yield _against_the_script(bench, server, python, what)
        for shared in (False, True):
            yield _two_against_one(bench, server, what, shared=shared)


def _against_the_script(bench: Bench, server: Server, python: str, what: str) -> Line:
    source = bench.bulk()
    took: dict[str, list[Usage]] = {"inboxd": [], "script": []}
    left: dict[str, dict[str, list[int]]] = {}
    for turn in range(bench.scale.repeats):
        for name, usages in took.items():
            url = server.new_database()
            with bench.folder() as folder:
                _upgrade(url, folder)
                ours = [*INBOXD, "load", "--feed", "events", "--db", url, str(source)]
                script = [python, str(PEERS / "copy_upsert.py"), str(source), url]
                usage = process.run(ours if name == "inboxd" else script, folder=folder)
            say(f"  {name}, {turn + 1}: {usage}")
            usages.append(usage)
            if turn == 0:
                left[name] = fingerprint(url)
    agreed(left)
    ours_took, script_took = (process.median(took[name]) for name in took)
    rates = [bench.scale.records / usage.seconds for usage in (ours_took, script_took)]
    detail = f"{rates[0]:,.0f}/s, {ours_took.peak_mib:.0f} MiB / {rates[1]:,.0f}/s, {script_took.peak_mib:.0f} MiB"
    title = f"{what}: rate against a bare COPY and set-based script (server {server.version})"
    return Line("postgres.script", title, detail, rates[0] / rates[1], goal=0.9, at_most=False)


def _two_against_one(bench: Bench, server: Server, what: str, *, shared: bool) -> Line:
    """``shared``: each file has the same keys, so that one daemon has to wait for the other's row locks."""
    size = bench.scale.records // PARTS
    parts = [make(Bulk(size, day, first=0 if shared else day * size), bench.corpora) for day in range(PARTS)]
    took: dict[int, list[float]] = {1: [], 2: []}
    left: dict[str, dict[str, list[int]]] = {}
    for turn in range(bench.scale.repeats):
        for workers, seconds in took.items():
            url = server.new_database()
            with bench.folder() as folder:
                _upgrade(url, folder)
                seconds.append(_drained(folder, parts, url, workers))
            say(f"  {workers} daemon(s), {turn + 1}: {seconds[-1]:.2f} s")
            if turn == 0:
                left[str(workers)] = {"target": fingerprint(url)["target"]}
    agreed(left)
    one, two = (sorted(took[workers])[len(took[workers]) // 2] for workers in (1, 2))
    total = bench.scale.records // PARTS * PARTS
    detail = f"{total / two:,.0f}/s / {total / one:,.0f}/s, a `merge` feed, {PARTS} files, one shared inbox"
    title = f"{what}: two workers against one"
    if shared:
        return Line("postgres.two.shared", f"{title}, the same keys in every file", detail, one / two)
    return Line("postgres.two", title, detail, one / two, goal=1.4, at_most=False)


def _drained(folder: Path, parts: list[Path], url: str, workers: int) -> float:
    """Return how long so many daemons take together to empty an inbox, their start included."""
    (folder / "inbox").mkdir()
    for part in parts:
        (folder / "inbox" / part.name).write_bytes(part.read_bytes())
    (folder / "inboxd.toml").write_text(
        f'[database]\nurl = "{url}"\n[log]\nfile = ""\n[feeds.events]\nlate = "merge"\n', encoding="utf-8"
    )
    daemons = [process.start([*INBOXD, "run", "--once"], folder=folder) for _ in range(workers)]
    began = daemons[0].began
    for daemon in daemons:
        process.finish(daemon)
    seconds = time.perf_counter() - began
    left = [path for path in (folder / "inbox").iterdir() if path.is_file()]
    if left:
        message = f"the daemons left {len(left)} files in the inbox"
        raise Broken(message)
    return seconds


def _upgrade(url: str, folder: Path) -> None:
    process.run([*INBOXD, "db", "upgrade"], folder=folder, env={"INBOXD_DATABASE__URL": url})


@contextmanager
def serving(python: str) -> Iterator[Server]:
    """Run a PostgreSQL server for as long as the block lasts."""
    command = [python, str(PEERS / "postgres_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Server(server, _line(server))
        assert server.stdin is not None
        server.stdin.close()
        server.wait(60)


def _line(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline().strip()
    if not line:
        message = "the PostgreSQL server did not start; run bench/peers/postgres_server.py to see why"
        raise Broken(message)
    return line
