"""The disk held against the ledger, both ways: files that no run knows of, and runs whose file is nowhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inboxd.clock import moment
from inboxd.config import ArchiveSettings, InboxSettings
from inboxd.inbox.claim import CLAIMED
from inboxd.model import RunStatus, printable
from inboxd.operate.archived import Archived, files_below, name_in_inbox
from inboxd.store.base import Store
from inboxd.store.tables import etl_runs

LISTED: Final = 20
"""Names told of each kind; the counts are exact."""
_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class Names:
    """Some names of a kind, and how many there are. Owned by the thread that looks."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a name, and keep it if it is one of the first."""
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(name)


@dataclass(slots=True)
class Comparison:
    """Where disk and ledger disagree."""

    processed_unknown: Names = field(default_factory=Names)
    """In ``processed/``, but no run says that it was loaded: the database is older than the folder."""
    failed_unknown: Names = field(default_factory=Names)
    """In ``failed/``, but no run says that it failed."""
    missing: Names = field(default_factory=Names)
    """Ended, says a run, but the file is in none of the folders."""


@dataclass(frozen=True, slots=True)
class _File:
    """An archived file, its name in its folder, and the name that its run knows it by."""

    path: Path
    name: str
    known: str


@dataclass(slots=True)
class _Ledger:
    """What the runs of claimed files say, by file name. A million of them take some 300 MB."""

    loaded: set[tuple[str, int | None]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    """When the last run of a file name ended."""
    by_run: dict[int, str] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)

    def knows_loaded(self, file: _File, *, deep: bool) -> bool:
        """Tell whether a run says that it took this file, told by its hash or by name and size."""
        return _hash(file.path) in self.hashes if deep else (file.known, _size(file.path)) in self.loaded


def compare(
    store: Store, inbox: InboxSettings, archive: ArchiveSettings, *, now: datetime, deep: bool = False
) -> Comparison:
    """Hold the folders against the runs. ``deep``: what is processed is told by its hash, not by name and size."""
    ledger = _read(store)
    seen = set(_in_the_inbox(inbox))
    processed = [file for file in _files(archive.processed, ledger, seen) if not ledger.knows_loaded(file, deep=deep)]
    failed = [file for file in _files(archive.failed, ledger, seen) if file.known not in ledger.failed]
    found = Comparison()
    later = _read(store) if processed or failed else ledger  # a daemon at work may have ended some meanwhile
    for file in processed:
        if file.path.exists() and not later.knows_loaded(file, deep=deep):
            found.processed_unknown.add(file.name)
    for file in failed:
        if file.path.exists() and file.known not in later.failed:
            found.failed_unknown.add(file.name)
    for known, ended in sorted(ledger.ended.items()):
        kept = archive.keep is None or (now - moment(ended)).total_seconds() < archive.keep
        if kept and known not in seen:
            found.missing.add(known)
    return found


def unknown_processed(store: Store, archive: ArchiveSettings) -> list[Archived]:
    """Return the files of ``processed/`` that no run loaded, told by their hash."""
    ledger = _read(store)
    files = _files(archive.processed, ledger, set())
    paths = [file.path for file in files if not ledger.knows_loaded(file, deep=True)]
    return [Archived(path, archive.processed, os.fspath(path.relative_to(archive.processed))) for path in paths]


def _read(store: Store) -> _Ledger:
    """Read the runs of all claimed files, oldest first, as a stream."""
    runs = etl_runs.c
    query = (
        sa.select(runs.id, runs.status, runs.file_name, runs.file_size, runs.content_sha256, runs.finished_at)
        .where(runs.claim.is_not(None), runs.file_name.is_not(None), runs.status != RunStatus.RUNNING.value)
        .order_by(runs.id)
    )
    ledger = _Ledger()
    with store.reading() as connection:
        for run_id, status, name, size, sha256, ended in connection.execution_options(yield_per=10_000).execute(query):
            ledger.by_run[run_id] = name
            ledger.ended[name] = ended
            if status == RunStatus.SUCCESS.value:
                ledger.loaded.add((name, size))
                ledger.hashes.add(sha256)
            else:
                ledger.failed.add(name)
    return ledger


def _files(folder: Path, ledger: _Ledger, seen: set[str]) -> Iterator[_File]:
    """Yield each file of a folder, and note that it was seen."""
    for path in files_below(folder):
        name = os.fspath(path.relative_to(folder))
        known = printable(name_in_inbox(ledger.by_run.get, name))
        seen.add(known)
        yield _File(path, printable(name), known)


def _in_the_inbox(inbox: InboxSettings) -> Iterator[str]:
    """Yield the names of what is, or is again, in the inbox, and of what is claimed."""
    root = os.fspath(inbox.path)
    for place, _, names in os.walk(root):
        below = place[len(root) + 1 :]
        parts = below.split("/") if below else []
        inside = parts[2:] if parts[:1] == [CLAIMED] else parts
        yield from (printable("/".join((*inside, name))) for name in names)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _hash(path: Path) -> str | None:
    """Return the hash of the bytes as dropped; ``None`` if they cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return None
    return found.hexdigest()
