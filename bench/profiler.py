"""``make profile``: where the time of a large file and of many small ones goes, and that of a start."""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import process
from bench.corpus import Many
from bench.runner import SCALES, Bench
from bench.subjects import INBOXD
from inboxd.clock import SystemClock
from inboxd.config import load_settings
from inboxd.inbox.source import Source
from inboxd.model import Feed
from inboxd.outcomes import Batch, Edge, Outcome, Step
from inboxd.pipeline import Job, Pipeline
from inboxd.records.decode import Reading
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.store.sqlite_sql import Part
from inboxd.store.sqlite_staging import Staging

LARGEST_FILE = 1 << 40
TOP = 25
ANY_PART = Part(1, 1)


class Stopwatch:
    """Adds up the time between named starts and ends."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._began: dict[Step, float] = {}

    def hook(self, step: Step, edge: Edge) -> None:
        """Time the pipeline's steps: it calls this at each boundary."""
        if edge is Edge.BEFORE:
            self._began[step] = time.perf_counter()
        else:
            self.seconds[step.value] += time.perf_counter() - self._began[step]

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def wrapped(self, work: Callable[..., object], name: Callable[..., str]) -> Callable[..., object]:
        """Return a function that does the same and is timed, under a name made from its arguments."""

        def timed(*arguments: object, **options: object) -> object:
            with self.timing(name(*arguments)):
                return work(*arguments, **options)

        return timed


@contextmanager
def inside(watch: Stopwatch) -> Iterator[None]:
    """Time what lies within the steps: decoding apart from staging, and each statement of the upsert."""
    batches = Reading.batches

    def decoded(reading: Reading) -> Iterator[Batch]:
        batch_by_batch = batches(reading)
        while True:
            with watch.timing("  stage: decode and validate"):
                batch = next(batch_by_batch, None)
            if batch is None:
                return
            yield batch

    timed = {
        "take": lambda *_: "  stage: collect, sort, insert into scratch",
        "_insert": lambda *_: "    of that: put into key's order, insert",
        "change": lambda _self, statement: f"  upsert: {' '.join(statement.split()[:3])} …",
        "change_slices": lambda _self, statement: f"  upsert: {' '.join(statement(ANY_PART).split()[:3])} …",
    }
    before = {name: getattr(Staging, name) for name in timed}
    Reading.batches = decoded  # type: ignore[method-assign]  # the same, timed
    for name, label in timed.items():
        setattr(Staging, name, watch.wrapped(before[name], label))
    try:
        yield
    finally:
        Reading.batches = batches  # type: ignore[method-assign]  # as it was
        for name, method in before.items():
            setattr(Staging, name, method)


def load(files: list[Path], store: Store, feed: Feed, watch: Stopwatch) -> None:
    """Take files through the pipeline, in this process."""
    pipeline = Pipeline(store, SystemClock(), os.uname().nodename, LARGEST_FILE, hook=watch.hook)
    for file in files:
        size = file.stat().st_size

        def opened(path: str = str(file)) -> Source:
            return Source(path, max_size=LARGEST_FILE)

        verdict = pipeline.process(Job(feed, file.name, size, opened))
        assert verdict.outcome is Outcome.LOADED, verdict


def profiled(bench: Bench, files: list[Path]) -> None:
    """Print the steps' times, then those of the functions: the profiler slows Python down, so they differ."""
    feed = load_settings(None, {}, bench.scratch).feeds[0]
    for turn in ("steps", "functions"):
        with bench.folder() as folder, open_store(f"sqlite:///{folder}/profiled.db") as store:
            store.upgrade()
            store.prepare([feed])
            watch = Stopwatch()
            if turn == "steps":
                with watch.timing("everything"), inside(watch):
                    load(files, store, feed, watch)
                for name, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
                    print(f"{seconds:9.3f} s  {name}")
            else:
                profiler = cProfile.Profile()
                profiler.runcall(load, files, store, feed, watch)
                pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(TOP)


def start_up(bench: Bench) -> None:
    """Print what a process costs before it does anything."""
    commands = {
        "python, doing nothing": [sys.executable, "-c", "pass"],
        "inboxd --version": [*INBOXD, "--version"],
        "inboxd load of an empty array, schema current": [*INBOXD, "load", "empty.json", "--force"],
        "inboxd run --once on an empty inbox": [*INBOXD, "run", "--once"],
    }
    with bench.folder() as folder:
        (folder / "empty.json").write_text("[]", encoding="utf-8")
        first = process.run(commands["inboxd load of an empty array, schema current"], folder=folder)
        print(f"{first.seconds:9.3f} s  inboxd load of an empty array, new database")
        for name, command in commands.items():
            times = [process.run(command, folder=folder).seconds for _ in range(bench.scale.repeats)]
            print(f"{statistics.median(times):9.3f} s  {name}")


def main() -> None:
    """Profile everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiler", description=__doc__)
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    bench = Bench(SCALES[parser.parse_args().scale])
    many = Many(bench.scale.small_files, 10)
    print("\n## Start-up\n")
    start_up(bench)
    print(f"\n## One file of {bench.scale.records:,} records\n")
    profiled(bench, [bench.bulk()])
    print(f"\n## {many.files:,} files of {many.records} records, without the scan, the claim and the archive\n")
    profiled(bench, sorted(bench.many(many).iterdir()))


if __name__ == "__main__":
    main()
