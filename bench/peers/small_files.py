"""The bare loop for small files: inboxd's own SQL statements, commits, fsyncs, renames, a hash and a log line a file.

Nothing else of inboxd: no scan, no lease, no checks of the file, no validation, no errors, no signals. What it says to
SQLite it takes from inboxd itself: the first two files go through inboxd's pipeline, the statements of the second are
recorded, and for every other file they are said again with that file's values. So they are the same by construction.
small_files.py INBOX DATABASE
"""

# ruff: noqa: PTH103, PTH104, PTH106, PTH116 - the calls that inboxd itself makes

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from inboxd.clock import SystemClock
from inboxd.config import load_settings
from inboxd.inbox.claim import Source
from inboxd.model import Feed
from inboxd.outcomes import Outcome
from inboxd.pipeline import Job, Pipeline
from inboxd.store import open_store
from inboxd.store.sqlite_driver import driver

FIRST_RUN = 1_000_000
"""Run ids start here, so that none is taken for a record's number when the statements are recorded."""
LIMIT = 1 << 30


class Record(msgspec.Struct, gc=False):
    """One record."""

    key: str
    name: str
    value: float
    ts: str


DECODER = msgspec.json.Decoder(list[Record])


class Recording(driver.Connection):  # type: ignore[misc]  # the driver ships no types
    """inboxd's connection, which writes down what it is told."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.said: list[tuple[str, list[Any] | None]] = []
        """Statements with their values: one set, or for ``executemany`` a list of sets."""
        opened.append(self)

    def execute(self, statement: str, values: Any = ()) -> Any:
        """Note the statement and run it."""
        self.said.append((statement, values))
        return super().execute(statement, values)

    def executemany(self, statement: str, sets: Iterable[Any]) -> Any:
        """Note the statement with all its sets of values and run it."""
        noted = [tuple(values) for values in sets]
        self.said.append((statement, noted))
        return super().executemany(statement, noted)


opened: list[Recording] = []


class File:
    """What one small file puts into its statements: the values that are its own and no other's, the run's id last."""

    def __init__(self, path: str, name: str, claim: str) -> None:
        handle = os.open(path, os.O_RDONLY)
        data = os.read(handle, LIMIT)
        os.fsync(handle)
        os.close(handle)
        rows = sorted((r.key, r.name, r.value, f"{r.ts[:-1]}.000000Z") for r in DECODER.decode(data))
        digest = hashlib.sha256(data).hexdigest()
        self.values = [name, claim, len(data), digest, *(value for row in rows for value in row), 0]


class Script:
    """The statements of one file, with places where the next file's values go."""

    def __init__(self, connection: Recording, example: File) -> None:
        places: dict[Any, deque[int]] = {}
        for place, value in enumerate(example.values):
            places.setdefault(value, deque()).append(place)
        self._execute = super(Recording, connection).execute
        self._executemany = super(Recording, connection).executemany
        self._lines = [(statement, _template(values, places)) for statement, values in connection.said]

    def say(self, file: File) -> None:
        """Say it all again for another file; the first statement with an answer gives the run its id."""
        for statement, values in self._lines:
            if isinstance(values, list):
                self._executemany(statement, [_filled(one, file.values) for one in values])
                continue
            answer = self._execute(statement, _filled(values, file.values)).fetchall()
            if "RETURNING id" in statement:
                file.values[-1] = answer[0][0]


def _template(values: Any, places: Mapping[Any, deque[int]]) -> Any:
    """Return values as pairs of a place (or ``None``) and the value that is the same for every file."""
    if isinstance(values, list):
        return [_template(one, places) for one in values]
    if isinstance(values, dict):
        return {name: (_next(places.get(value)), value) for name, value in values.items()}
    return tuple((_next(places.get(value)), value) for value in values)


def _next(places: deque[int] | None) -> int | None:
    """Return a value's place. One that several rows have is met in their order, so its places take turns."""
    if places is None:
        return None
    places.rotate(-1)
    return places[-1]


def _filled(template: Any, values: list[Any]) -> Any:
    if isinstance(template, dict):
        return {name: same if place is None else values[place] for name, (place, same) in template.items()}
    return tuple([same if place is None else values[place] for place, same in template])


def main(inbox: Path, database: Path) -> None:
    """Load every file of a folder."""
    folder = inbox.parent
    processed = folder / "data" / "processed"
    processed.mkdir(parents=True, exist_ok=True)
    with os.scandir(inbox) as entries:
        names = sorted(entry.name for entry in entries)
    connect = driver.connect
    driver.connect = lambda *arguments, **options: connect(*arguments, factory=Recording, **options)
    script: Script | None = None
    with open_store(f"sqlite:///{database}") as store, (folder / "data" / "log").open("wb", buffering=0) as log:
        feed = load_settings(None, {}, folder).feeds[0]
        store.upgrade()
        store.prepare([feed])
        opened[0].execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('etl_runs', ?)", (FIRST_RUN,))
        pipeline = Pipeline(store, SystemClock(), "bench", LIMIT)
        for number, name in enumerate(names):
            claim = f"bench-{number}"
            claimed = f"{inbox}/.claimed/{claim}"
            os.makedirs(claimed)
            path = f"{claimed}/{name}"
            os.rename(f"{inbox}/{name}", path)
            if script is not None:
                script.say(File(path, name, claim))
            elif number == 0:
                _through_inboxd(pipeline, feed, path, name, claim)  # makes what is made once
            else:
                script = _recorded(pipeline, feed, path, name, claim)
            os.rename(path, processed / name)
            _sync(str(processed))
            _sync(claimed)
            log.write(json.dumps({"timestamp": _now(), "event": "file_loaded", "file": name}).encode() + b"\n")
            os.rmdir(claimed)


def _recorded(pipeline: Pipeline, feed: Feed, path: str, name: str, claim: str) -> Script:
    for connection in opened:
        connection.said.clear()
    run = _through_inboxd(pipeline, feed, path, name, claim)
    (connection,) = [one for one in opened if one.said]
    example = File(path, name, claim)
    example.values[-1] = run
    return Script(connection, example)


def _through_inboxd(pipeline: Pipeline, feed: Feed, path: str, name: str, claim: str) -> int:
    size = os.stat(path).st_size
    verdict = pipeline.process(Job(feed, name, size, lambda: Source(path, max_size=LIMIT), claim=claim))
    assert verdict.outcome is Outcome.LOADED, verdict
    return verdict.run_id


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(handle)
    os.close(handle)


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
