"""Runs programs against each other: interleaved, whole processes, the same work proven by what they leave behind."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import process
from bench.corpus import Bulk, Many, as_lines, make
from bench.process import Broken, Usage
from bench.subjects import TABLES, WORK, Missing, Subject


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Only ``full`` is worth writing down."""

    records: int
    many: int
    small_files: int
    latency_files: int
    idle_s: float
    repeats: int
    grown_runs: int
    peer_records: int
    filedge_records: int
    peer_files: int
    slow_files: int
    mixed_s: float


SCALES = {
    "full": Scale(
        records=1_000_000,
        many=10_000_000,
        small_files=10_000,
        latency_files=600,
        idle_s=60,
        repeats=5,
        grown_runs=10_000,
        peer_records=100_000,
        filedge_records=20_000,
        peer_files=1_000,
        slow_files=2_000,
        mixed_s=3_600,
    ),
    "quick": Scale(
        records=100_000,
        many=1_000_000,
        small_files=1_000,
        latency_files=100,
        idle_s=10,
        repeats=3,
        grown_runs=500,
        peer_records=10_000,
        filedge_records=2_000,
        peer_files=100,
        slow_files=400,
        mixed_s=60,
    ),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """What every row is given: how much, and where."""

    scale: Scale
    corpora: Path = WORK / "corpus"
    scratch: Path = WORK

    def bulk(
        self, records: int | None = None, *, day: int = 0, bad_per_1000: int = 0, changed_per_1000: int = 0
    ) -> Path:
        """Return a file of records, warm in the page cache."""
        corpus = Bulk(records or self.scale.records, day, bad_per_1000, changed_per_1000=changed_per_1000)
        path = make(corpus, self.corpora)
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
        return path

    def many(self, corpus: Many) -> Path:
        """Return a folder of files."""
        return make(corpus, self.corpora)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Lend an empty folder on the filesystem that is measured."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix="run-", dir=self.scratch))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def against(self, subjects: Sequence[Subject], source: Path, tables: Sequence[str] = TABLES) -> dict[str, Usage]:
        """Load a file or a folder with each subject in turn, and again; return the medians.

        All must leave the same in these tables. Subjects that read lines are given the same records so.
        """
        lines = as_lines(source) if any(subject.reads_lines for subject in subjects) else source
        took: dict[str, list[Usage]] = {subject.name: [] for subject in subjects}
        left: dict[str, dict[str, list[int]]] = {}
        for turn in range(self.scale.repeats):
            for subject in subjects:
                with self.folder() as folder:
                    database = folder / "loaded.db"
                    command = subject.command(lines if subject.reads_lines else source, database)
                    usage = process.run(command, folder=folder)
                    took[subject.name].append(usage)
                    say(f"  {subject.label}, {turn + 1}: {usage}")
                    if turn == 0:
                        left[subject.name] = subject.fingerprint(database, tables)
        agreed(left)
        return {name: process.median(usages) for name, usages in took.items()}


def agreed(left: dict[str, dict[str, list[int]]]) -> None:
    """Raise unless all subjects left the same rows."""
    (first, wanted), *others = left.items()
    for name, found in others:
        if found != wanted:
            message = f"{name} did not do the same work as {first}: {found} instead of {wanted}"
            raise Broken(message)


def installed(subjects: Sequence[Subject]) -> tuple[list[Subject], dict[str, str]]:
    """Return the subjects that can run here, and why the others cannot."""
    here: list[Subject] = []
    missing: dict[str, str] = {}
    for subject in subjects:
        try:
            subject.command(Path("source"), Path("database"))
        except Missing as reason:
            missing[subject.name] = str(reason)
        else:
            here.append(subject)
    return here, missing


def say(text: str) -> None:
    """Tell on standard error what is going on: the table goes to standard output."""
    print(text, file=sys.stderr, flush=True)
