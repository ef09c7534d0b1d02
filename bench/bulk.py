"""The rows about large files: a million records against each peer, ten million, the same again, bad records."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

from bench import process
from bench.process import Usage
from bench.results import Line, Skipped
from bench.runner import Bench, installed, say
from bench.subjects import DUCKDB, FLOOR, INBOXD_LOAD, PEER_SUBJECTS, POLARS, SEED, SORTING_FLOOR, SQLITE_UTILS, Subject

MEMORY_MIB = 200
RECORDS_OF_ANY_FILE = 10
HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
PEER_GOALS: dict[Subject, tuple[float | None, bool]] = {
    DUCKDB: (1.0, True),
    SEED: (4.5, False),
    POLARS: (1.5, False),
    SQLITE_UTILS: (8.0, False),
    FLOOR: (1.2, True),
    SORTING_FLOOR: (None, True),
}
"""The ratio, and whether it is inboxd's time over the peer's (at most) or the peer's over inboxd's (at least)."""


def bulk(bench: Bench) -> Iterator[Line | Skipped]:
    """Load a file into an empty database with full lineage, against every peer that is installed."""
    here, missing = installed(PEER_SUBJECTS)
    took = bench.against([INBOXD_LOAD, *here], bench.bulk())
    ours = took[INBOXD_LOAD.name]
    what = f"{bench.scale.records:,} records with full lineage, empty table"
    for subject in PEER_SUBJECTS:
        goal, at_most = PEER_GOALS[subject]
        if subject.name in missing:
            yield Skipped(f"{what}, against {subject.label}", missing[subject.name])
            continue
        theirs = took[subject.name]
        ratio = ours.seconds / theirs.seconds if at_most else theirs.seconds / ours.seconds
        title = f"{what}: time against {subject.label}" if at_most else f"{what}: faster than {subject.label}"
        yield Line(f"bulk.{subject.name}", title, f"{ours} / {theirs}", ratio, goal=goal, at_most=at_most)
    yield Line("bulk.memory", f"{what}: peak memory", str(ours), ours.peak_mib, "MiB", MEMORY_MIB)


def memory(bench: Bench) -> Iterator[Line | Skipped]:
    """Load ten times as many records: the peak must stay where it was."""
    sizes = (bench.scale.records, bench.scale.many)
    took: dict[int, list[Usage]] = {size: [] for size in sizes}
    for _ in range(bench.scale.repeats):
        for size in sizes:
            source = bench.bulk(size)
            with bench.folder() as folder:
                usage = process.run(INBOXD_LOAD.command(source, folder / "loaded.db"), folder=folder)
            say(f"  {size:,} records: {usage.seconds:.2f} s, {usage.peak_mib:.0f} MiB")
            took[size].append(usage)
    small, large = (process.median(took[size]) for size in sizes)
    what = f"peak memory of {sizes[1]:,} records (one array), against {sizes[0]:,}"
    yield Line("memory.growth", what, f"{large} / {small}", large.peak_mib / small.peak_mib, goal=1.2)
    what = f"time of {sizes[1]:,} records (one array), against {sizes[0]:,}"
    yield Line("memory.time", what, f"{large} / {small}", large.seconds / small.seconds, goal=10.8)


def duplicate(bench: Bench) -> Iterator[Line | Skipped]:
    """Load a large file again: what that costs is its hash, and what `load` costs with any file."""
    source, small = bench.bulk(), bench.bulk(RECORDS_OF_ANY_FILE)
    took: dict[str, list[Usage]] = {"again": [], "any": [], "hash": []}
    with bench.folder() as folder:
        database = folder / "loaded.db"
        process.run(INBOXD_LOAD.command(source, database), folder=folder)
        process.run(INBOXD_LOAD.command(small, database), folder=folder)
        commands = {
            "again": INBOXD_LOAD.command(source, database),
            "any": INBOXD_LOAD.command(small, database),
            "hash": [sys.executable, "-c", HASH, str(source)],
        }
        for _ in range(bench.scale.repeats):
            for name, command in commands.items():
                took[name].append(process.run(command, folder=folder))
                say(f"  {name}: {took[name][-1]}")
    again, any_file, hashed = (process.median(usages) for usages in took.values())
    what = f"{bench.scale.records:,} records again, a duplicate: CPU against the file's hash and a `load` of any file"
    told = f"{again.cpu_s:.2f} s / {hashed.cpu_s:.2f} s + {any_file.cpu_s:.2f} s"
    yield Line("duplicate", what, told, again.cpu_s / (hashed.cpu_s + any_file.cpu_s), goal=1.2)


def regrowth(bench: Bench) -> Iterator[Line | Skipped]:
    """Load the same keys five times, each time newer: the fifth must cost about what the second did."""
    sources = [bench.bulk(day=day) for day in range(5)]
    took: dict[int, list[Usage]] = {2: [], 5: []}
    for _ in range(bench.scale.repeats):
        with bench.folder() as folder:
            for number, source in enumerate(sources, 1):
                usage = process.run(INBOXD_LOAD.command(source, folder / "loaded.db"), folder=folder)
                say(f"  load {number} onto the same keys: {usage.seconds:.2f} s, cpu {usage.cpu_s:.2f} s")
                if number in took:
                    took[number].append(usage)
    second, fifth = (process.median(took[number]) for number in (2, 5))
    what = f"the fifth {bench.scale.records:,} records onto the same keys, against the second"
    yield Line("regrowth", what, f"{fifth} / {second}", fifth.seconds / second.seconds, goal=1.3)


def bad(bench: Bench) -> Iterator[Line | Skipped]:
    """Load a file of which every tenth record is invalid, against the clean one."""
    sources = {"clean": bench.bulk(), "bad": bench.bulk(bad_per_1000=100)}
    took: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(bench.scale.repeats):
        for name, source in sources.items():
            with bench.folder() as folder:
                usage = process.run(INBOXD_LOAD.command(source, folder / "loaded.db"), folder=folder)
            say(f"  {name}: {usage.seconds:.2f} s, cpu {usage.cpu_s:.2f} s")
            took[name].append(usage.seconds)
    clean, dirty = statistics.median(took["clean"]), statistics.median(took["bad"])
    what = f"bad records: rate with 10 % of {bench.scale.records:,} invalid, against the clean file's"
    yield Line("bad", what, f"{clean:.2f} s clean, {dirty:.2f} s", clean / dirty, goal=0.6, at_most=False)
