"""The input: records as senders write them, the same bytes on every machine.

One record is ``{"key":"user-0000123","name":"Alice Smith","value":12.5,"ts":"2026-01-15T10:30:00Z"}``, about 87 bytes.
A corpus is made once, by a process of its own (so that the runner stays small, see ``process``), and kept.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

FIRST: Final = ("Alice", "Bob", "Carla", "Dmitri", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas")
LAST: Final = ("Smith", "Okafor", "Nguyen", "Garcia", "Keller", "Haddad", "Ito", "Larsen", "Moreau", "Silva")
EPOCH: Final = datetime(2026, 1, 15, tzinfo=UTC)
DAY_S: Final = 86_400
BAD_KINDS: Final = (
    '{{"key":"{key}","name":"  ","value":{value},"ts":"{ts}"}}',
    '{{"key":"{key}","name":"{name}","value":"n/a","ts":"{ts}"}}',
    '{{"key":"{key}","name":"{name}","value":{value}}}',
    '{{"name":"{name}","value":{value},"ts":"{ts}"}}',
)
GOOD: Final = '{{"key":"{key}","name":"{name}","value":{value},"ts":"{ts}"}}'
CHUNK: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bulk:
    """One big array. ``day`` moves all timestamps: a later file is newer than an earlier one in every record."""

    records: int
    day: int = 0
    bad_per_1000: int = 0
    first: int = 0
    """The lowest key: files a million apart have no key in common."""
    changed_per_1000: int = 0
    """Records that differ from those of the same file without: nine of ten have another value, one is gone."""

    @property
    def name(self) -> str:
        """The file's name: all that it depends on."""
        first = f"-{self.first}" if self.first else ""
        changed = f"-changed-{self.changed_per_1000}" if self.changed_per_1000 else ""
        return f"bulk-{self.records}-{self.day}-{self.bad_per_1000}{first}{changed}.json"


@dataclass(frozen=True, slots=True)
class Many:
    """A folder of files, each newer than the one before it in name and in every record's timestamp."""

    files: int
    records: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"many-{self.files}-{self.records}"


def make(corpus: Bulk | Many, folder: Path) -> Path:
    """Return the path of the corpus in ``folder``, made now if it is not there."""
    path = folder / corpus.name
    if not path.exists():
        kind = type(corpus).__name__.lower()
        numbers = [str(value) for value in astuple(corpus)]
        subprocess.run([sys.executable, "-m", __name__, kind, str(path), *numbers], check=True, cwd=_root())
    return path


def as_lines(source: Path) -> Path:
    """Return a folder with the same records, one to a line, each with the operation that a change log names."""
    path = source.with_name(f"{source.stem}-lines")
    if not path.exists():
        subprocess.run([sys.executable, "-m", __name__, "lines", str(path), str(source)], check=True, cwd=_root())
    return path


def files_of(source: Path) -> list[Path]:
    """Return a file by itself, or the files of a folder in order."""
    return sorted(source.iterdir()) if source.is_dir() else [source]


def keys(count: int, seed: int) -> array[int]:
    """Return 0 … count-1, shuffled: every key once, in no order."""
    numbers = array("I", range(count))
    random.Random(seed).shuffle(numbers)
    return numbers


def records(bulk: Bulk) -> Iterator[str]:
    """Yield a file's records as JSON text, in file order."""
    rng = random.Random(bulk.day + 1)
    start = EPOCH + timedelta(days=bulk.day)
    seconds = [(start + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ") for second in range(DAY_S)]
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    chance, choice = rng.random, rng.choice
    changes = random.Random(bulk.day + 13).random
    for number in keys(bulk.records, seed=bulk.day + 7):
        shape = choice(BAD_KINDS) if bulk.bad_per_1000 and chance() * 1000 < bulk.bad_per_1000 else GOOD
        name, value, ts = names[int(chance() * len(names))], int(chance() * 100_000), seconds[int(chance() * DAY_S)]
        change = changes() * 1000 if bulk.changed_per_1000 else 1000
        if change < bulk.changed_per_1000 / 10:
            continue
        if change < bulk.changed_per_1000:
            value += 1
        yield shape.format(key=f"user-{bulk.first + number:07}", name=name, value=value / 100, ts=ts)


def _write_bulk(path: Path, bulk: Bulk) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        pending: list[str] = []
        separator = ""
        for record in records(bulk):
            pending.append(record)
            if len(pending) == CHUNK:
                file.write(separator + ",".join(pending))
                separator = ","
                pending.clear()
        file.write((separator if pending else "") + ",".join(pending) + "]\n")


def _write_many(path: Path, many: Many) -> None:
    path.mkdir()
    rng = random.Random(11)
    for number in range(many.files):
        ts = (EPOCH + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = [
            GOOD.format(
                key=f"user-{int(rng.random() * 10_000_000):07}",
                name=f"{rng.choice(FIRST)} {rng.choice(LAST)}",
                value=int(rng.random() * 100_000) / 100,
                ts=ts,
            )
            for _ in range(many.records)
        ]
        (path / f"part-{number:06}.json").write_text("[" + ",".join(lines) + "]\n", encoding="utf-8")


def _write_lines(path: Path, source: Path) -> None:
    path.mkdir()
    for file in files_of(source):
        records = json.loads(file.read_bytes())
        with (path / f"{file.stem}.ndjson").open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps({"op": "u", **record}, separators=(",", ":")) + "\n" for record in records)


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _main(kind: str, target: str, *numbers: str) -> None:
    """Write one corpus beside its place, then move it there: a run that was cut short leaves none half-made."""
    path = Path(target)
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if temporary.is_dir():
        shutil.rmtree(temporary)
    if kind == "bulk":
        _write_bulk(temporary, Bulk(*map(int, numbers)))
    elif kind == "lines":
        _write_lines(temporary, Path(numbers[0]))
    else:
        _write_many(temporary, Many(*map(int, numbers)))
    temporary.rename(path)


if __name__ == "__main__":
    _main(*sys.argv[1:])
