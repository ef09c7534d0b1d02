"""The rows about the daemon, run as its users run it: small files, latency, start and idleness."""

from __future__ import annotations

import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from bench import floor, machine, process
from bench.corpus import Many
from bench.process import Broken, Started, Usage
from bench.results import Line, Skipped
from bench.runner import Bench, agreed, say
from bench.subjects import INBOXD, PEERS, WORK, fingerprint

PER_FILE = 10
FILES_A_SECOND = 20
READY_S = 30.0
READABLE_S = 10.0
LOOK_EVERY_S = 0.0001
SLOW_SYNC_MS = 2
LATE_FILES = 100
READABLE = "SELECT 1 FROM etl_runs WHERE id > ? AND file_name = ? AND status = 'success'"


def small(bench: Bench) -> Iterator[Line | Skipped]:
    """Drain a full inbox of small files, against a bare loop of the same statements, commits, fsyncs and renames."""
    source = bench.many(Many(bench.scale.small_files, PER_FILE))
    took: dict[str, list[Usage]] = {"inboxd": [], "bare": []}
    left: dict[str, dict[str, list[int]]] = {}
    for turn in range(bench.scale.repeats):
        for name, usages in took.items():
            with bench.folder() as folder:
                inbox = shutil.copytree(source, folder / "inbox")
                database = folder / "data" / "inboxd.db"
                bare = [sys.executable, str(PEERS / "small_files.py"), str(inbox), str(database)]
                usages.append(process.run([*INBOXD, "run", "--once"] if name == "inboxd" else bare, folder=folder))
                say(f"  {name}, {turn + 1}: {bench.scale.small_files / usages[-1].seconds:.0f} files/s, {usages[-1]}")
                if turn == 0:
                    left[name] = fingerprint(f"sqlite://{database}")
    agreed(left)
    ours, bare_usage = process.median(took["inboxd"]), process.median(took["bare"])
    rates = [bench.scale.small_files / usage.seconds for usage in (ours, bare_usage)]
    yield Line(
        "small",
        f"{bench.scale.small_files:,} files of {PER_FILE} records: rate against a bare loop of the same statements, "
        "commits, fsyncs, renames, hash and log line",
        f"{rates[0]:,.0f} files/s / {rates[1]:,.0f} files/s",
        rates[0] / rates[1],
        goal=0.8,
        at_most=False,
    )


def slow(bench: Bench) -> Iterator[Line | Skipped]:
    """Drain small files where a sync takes 2 ms, against what one sync a file and the CPU would allow."""
    what = f"{bench.scale.slow_files:,} files of {PER_FILE} records where a sync takes {SLOW_SYNC_MS} ms"
    try:
        disk = str(floor.slow_sync(WORK / "floor"))
    except floor.NotBuilt as reason:
        yield Skipped(what, str(reason))
        return
    source = bench.many(Many(bench.scale.slow_files, PER_FILE))
    took: dict[int, list[Usage]] = {0: [], SLOW_SYNC_MS * 1000: []}
    for turn in range(bench.scale.repeats):
        for sync_us, usages in took.items():
            with bench.folder() as folder:
                shutil.copytree(source, folder / "inbox")
                env = {"LD_PRELOAD": disk, "SYNC_US": str(sync_us)}
                usages.append(process.run([*INBOXD, "run", "--once"], folder=folder, env=env))
            say(f"  a sync takes {sync_us} µs, {turn + 1}: {bench.scale.slow_files / usages[-1].seconds:.0f} files/s")
    free, slowed = (process.median(usages) for usages in took.values())
    allowed = bench.scale.slow_files * SLOW_SYNC_MS / 1000 + free.cpu_s
    told = " / ".join(f"{bench.scale.slow_files / seconds:,.0f} files/s" for seconds in (slowed.seconds, allowed))
    told = f"{told}; {bench.scale.slow_files / free.seconds:,.0f} where a sync is free"
    title = f"{what}: rate against one file for each (one sync + its CPU time)"
    yield Line("slow", title, told, allowed / slowed.seconds, goal=0.8, at_most=False)
    with bench.folder() as folder:
        files = sorted(shutil.copytree(bench.many(Many(LATE_FILES, PER_FILE)), folder / "waiting").iterdir())
        (folder / "inbox").mkdir()
        with daemon(folder, {"LD_PRELOAD": disk, "SYNC_US": str(SLOW_SYNC_MS * 1000)}):
            p50, p99 = percentiles_ms(list(dropped(files, folder)))
    what = f"renamed in → readable where a sync takes {SLOW_SYNC_MS} ms: p50"
    yield Line("slow.p50", what, f"{LATE_FILES} files of {PER_FILE} records, p99 {p99:.1f} ms", p50, "ms")


def latency(bench: Bench) -> Iterator[Line | Skipped]:
    """Rename files into an idle daemon's inbox at a steady pace; look from another connection until each is there."""
    source = bench.many(Many(bench.scale.latency_files, PER_FILE))
    with bench.folder() as folder:
        waiting = shutil.copytree(source, folder / "waiting")
        (folder / "inbox").mkdir()
        with daemon(folder):
            took = sorted(dropped(sorted(waiting.iterdir()), folder))
    p50, p99 = percentiles_ms(took)
    what = f"renamed in → readable on another connection, {FILES_A_SECOND} files a second"
    fsync = machine.fsync_p50_us(bench.scratch)
    seen = f"{len(took)} files of {PER_FILE} records, longest {took[-1] * 1000:.1f} ms; an fsync took {fsync:.0f} µs"
    yield Line("latency.p50", f"{what}: p50", seen, p50, "ms", 2.0)
    yield Line("latency.p99", f"{what}: p99", seen, p99, "ms", 10.0)


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile (nearest rank), in milliseconds."""
    ranked = sorted(seconds)
    return statistics.median(ranked) * 1000, ranked[int(len(ranked) * 0.99)] * 1000


def dropped(files: Sequence[Path], folder: Path) -> Iterator[float]:
    """Yield for each file how long after its rename its run could be read, in seconds."""
    reader = sqlite3.connect(f"file:{folder}/data/inboxd.db?mode=ro", uri=True, isolation_level=None)
    newest = reader.execute("SELECT COALESCE(MAX(id), 0) FROM etl_runs").fetchone()[0]
    start = time.perf_counter()
    for number, file in enumerate(files):
        time.sleep(max(0.0, start + number / FILES_A_SECOND - time.perf_counter()))
        began = time.perf_counter()
        file.rename(folder / "inbox" / file.name)
        while reader.execute(READABLE, (newest, file.name)).fetchone() is None:
            if time.perf_counter() - began > READABLE_S:
                message = f"{file.name} was not readable after {READABLE_S} s"
                raise Broken(message)
            time.sleep(LOOK_EVERY_S)
        yield time.perf_counter() - began
    reader.close()


def start(bench: Bench) -> Iterator[Line | Skipped]:
    """Start on an empty inbox with a current schema, wait for READY; then watch it do nothing."""
    took: list[float] = []
    with bench.folder() as folder:
        with daemon(folder):
            pass  # the first start makes the tables
        for _ in range(bench.scale.repeats):
            with daemon(folder) as (_started, seconds):
                took.append(seconds)
                say(f"  ready after {seconds:.3f} s")
        with daemon(folder) as (started, _seconds):
            share, resident = _idle(started.process.pid, bench.scale.idle_s)
    yield Line(
        "start.ready",
        "start to READY (warm cache, empty inbox, schema current)",
        f"{min(took):.3f} to {max(took):.3f} s",
        statistics.median(took),
        "s",
        0.5,
    )
    watched = f"watched for {bench.scale.idle_s:.0f} s, rescans included"
    yield Line("start.idle_cpu", "idle: share of a core", watched, share * 100, "%", 0.1)
    yield Line("start.idle_memory", "idle: resident memory", watched, resident, "MiB", 80)


def _idle(pid: int, seconds: float) -> tuple[float, float]:
    """Return the share of a core that a process takes, and its resident MiB."""
    time.sleep(2.0)  # what it does right after READY is its start
    before = _cpu_s(pid)
    time.sleep(seconds)
    share = (_cpu_s(pid) - before) / seconds
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return share, int(resident.split()[1]) / 1024


def _cpu_s(pid: int) -> float:
    """Return the time a process has been on a core, by the scheduler's own account, which counts nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


@contextmanager
def daemon(folder: Path, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[Started, float]]:
    """Run the daemon in ``folder``; yields once it has said READY, with how long that took."""
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(READY_S)
        Path(address).unlink(missing_ok=True)
        manager.bind(address)
        started = process.start([*INBOXD, "run"], folder=folder, env={"NOTIFY_SOCKET": address, **env})
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            seconds = time.perf_counter() - started.began
            manager.settimeout(None)
            listening = threading.Thread(target=_listen, args=(manager,))
            listening.start()
            try:
                yield started, seconds
            finally:
                manager.shutdown(socket.SHUT_RDWR)
                listening.join()
        finally:
            _stop(started)


def _listen(manager: socket.socket) -> None:
    """Hear what the daemon says, as a service manager does: one that does not listen is another measurement."""
    while manager.recv(4096):
        pass


def _stop(started: Started) -> None:
    started.process.send_signal(signal.SIGTERM)
    try:
        started.process.wait(15)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
        message = "the daemon did not stop within 15 s"
        raise Broken(message) from None
