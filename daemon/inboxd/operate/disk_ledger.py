"""The disk compared with the ledger, both ways: files that no run knows of, and runs whose file is nowhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inboxd.clock import moment, stamp
from inboxd.config import ArchiveSettings, InboxSettings
from inboxd.errors import TransientFault
from inboxd.inbox.archive import Place
from inboxd.inbox.left import claims
from inboxd.inbox.names import CLAIMED, is_taken, suffixes_of
from inboxd.inbox.reports import orphans
from inboxd.inbox.tree import Folder, walk
from inboxd.model import printable
from inboxd.operate.archived import files_below, name_in_inbox
from inboxd.outcomes import RunStatus
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs

NOTED_AT_ONCE: Final = 500
"""Names in one statement: SQLite takes 32,766 values."""
MOVED_AFTER: Final = timedelta(minutes=1)
"""After its run a file is moved within milliseconds; what is nowhere so long after is gone."""
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
    strangers: Names = field(default_factory=Names)
    """In ``processed/``, under names that inboxd would not have taken: somebody else put them there."""
    reports: Names = field(default_factory=Names)
    """Reports in ``failed/`` whose file is not there."""
    failed_unknown: Names = field(default_factory=Names)
    """In ``failed/``, but no run says that it failed."""
    missing: Names = field(default_factory=Names)
    """Ended, says a run, but the file is in none of the folders, and nobody took note that it was removed."""


@dataclass(frozen=True, slots=True)
class _File:
    """An archived file, its name in its folder, and the name that its run knows it by."""

    place: Place
    size: int
    name: str
    known: str


@dataclass(slots=True)
class _Ledger:
    """What the runs of claimed files say, by file name. A million of them take some 300 MB."""

    loaded: set[tuple[str, int | None]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    """When the last run of a file name ended."""
    removed: set[str] = field(default_factory=set)
    """Files of which it is known that they were removed since, on purpose."""
    by_run: dict[int, str] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)

    def knows_loaded(self, file: _File, *, deep: bool) -> bool:
        """Tell whether a run says that it took this file, told by its hash or by name and size."""
        return _hash(file.place) in self.hashes if deep else (file.known, file.size) in self.loaded


def compare(
    store: Store, inbox: InboxSettings, archive: ArchiveSettings, *, now: datetime, deep: bool = False
) -> Comparison:
    """Compare the folders with the runs. ``deep``: what is processed is told by its hash, not by name and size."""
    ledger = _read(store)
    seen = set(_in_the_inbox(inbox))
    endings = suffixes_of(inbox.suffixes)
    processed = [file for file in _files(archive.processed, ledger, seen) if not ledger.knows_loaded(file, deep=deep)]
    failed = [file for file in _files(archive.failed, ledger, seen, reports=True) if file.known not in ledger.failed]
    found = Comparison()
    later = _read(store) if processed or failed else ledger  # a daemon at work may have ended some meanwhile
    for file in processed:
        if not is_taken(file.known, endings):
            found.strangers.add(file.name)
        elif _is_there(file.place) and not later.knows_loaded(file, deep=deep):
            found.processed_unknown.add(file.name)
    for file in failed:
        if _is_there(file.place) and file.known not in later.failed:
            found.failed_unknown.add(file.name)
    for report in reports_alone(archive.failed):
        found.reports.add(printable(report))
    for known in _missing(ledger, archive, seen, now):
        found.missing.add(known)
    return found


def _missing(ledger: _Ledger, archive: ArchiveSettings, seen: set[str], now: datetime) -> Iterator[str]:
    for known, ended in sorted(ledger.ended.items()):
        kept = archive.keep is None or (now - moment(ended)).total_seconds() < archive.keep
        if kept and known not in seen and known not in ledger.removed:
            yield known


@dataclass(slots=True)
class Noted:
    """The files that are in none of the folders: of which note was taken, and those whose run ended just now."""

    removed: Names = field(default_factory=Names)
    too_new: Names = field(default_factory=Names)


def note_removed(store: Store, inbox: InboxSettings, archive: ArchiveSettings, *, now: datetime) -> Noted:
    """Take note, in the ledger, that the files that are in none of the folders were removed on purpose.

    Not of files whose run ended less than ``MOVED_AFTER`` ago: a daemon at work may just be moving them.
    """
    ledger = _read(store)
    seen = set(_in_the_inbox(inbox))
    for folder, reports in ((archive.processed, False), (archive.failed, True)):
        for _ in _files(folder, ledger, seen, reports=reports):
            pass
    noted, names = Noted(), list[str]()
    before = stamp(now - MOVED_AFTER)
    for name in _missing(ledger, archive, seen, now):
        if ledger.ended[name] < before:
            names.append(name)
            noted.removed.add(name)
        else:
            noted.too_new.add(name)
    runs = etl_runs.c
    settled = runs.finished_at < before
    these = (runs.claim.is_not(None), settled, runs.file_removed.is_(None))
    with store.writing() as connection:
        for start in range(0, len(names), NOTED_AT_ONCE):
            some = names[start : start + NOTED_AT_ONCE]
            note = sa.update(etl_runs).where(runs.file_name.in_(some), *these)
            connection.execute(note.values(file_removed=stamp(now)))
    return noted


def unknown_processed(store: Store, inbox: InboxSettings, archive: ArchiveSettings) -> list[Place]:
    """Return the files of ``processed/`` that no run loaded, told by their hash; strangers are none."""
    ledger = _read(store)
    endings = suffixes_of(inbox.suffixes)
    files = (file for file in _files(archive.processed, ledger, set()) if is_taken(file.known, endings))
    return [file.place for file in files if not ledger.knows_loaded(file, deep=True)]


def _read(store: Store) -> _Ledger:
    """Read the runs of all claimed files, oldest first, as a stream."""
    runs = etl_runs.c
    query = (
        sa.select(
            *(runs.id, runs.status, runs.file_name, runs.file_size, runs.content_sha256, runs.finished_at),
            *(runs.file_removed, runs.host),
        )
        .where(runs.claim.is_not(None), runs.file_name.is_not(None), runs.status != RunStatus.RUNNING.value)
        .order_by(runs.id)
    )
    ledger = _Ledger()
    with store.reading() as connection:
        rows = connection.execution_options(yield_per=10_000).execute(query)
        hosts = {None, os.uname().nodename} if connection.dialect.name == "postgresql" else None
        for run_id, status, name, size, sha256, ended, removed, host in rows:
            ledger.by_run[run_id] = name
            if hosts is None or host in hosts:  # another host may have folders of its own
                ledger.ended[name] = ended
            if removed is None:
                ledger.removed.discard(name)
            else:
                ledger.removed.add(name)
            if status == RunStatus.SUCCESS.value:
                ledger.loaded.add((name, size))
                ledger.hashes.add(sha256)
            else:
                ledger.failed.add(name)
    return ledger


def _files(folder: Path, ledger: _Ledger, seen: set[str], *, reports: bool = False) -> Iterator[_File]:
    """Yield each file of a folder, and note that it was seen."""
    for place, found in files_below(folder, reports=reports):
        known = printable(name_in_inbox(ledger.by_run.get, place.name))
        seen.add(known)
        yield _File(place, found.st_size, printable(place.name), known)


def _in_the_inbox(inbox: InboxSettings) -> Iterator[str]:
    """Yield the names of what is, or is again, in the inbox, and of what is claimed."""
    with suppress(FileNotFoundError), Folder.root(inbox.path) as top:
        for name, _ in walk(top, skip=lambda name: name == CLAIMED):
            yield printable(name)
    with suppress(TransientFault):  # where it is not ours, nothing of ours is in it: a check of its own says so
        for claim in claims(os.fspath(inbox.path)):
            yield printable(claim.name)


def reports_alone(failed: Path) -> Iterator[str]:
    """Yield the paths, relative to ``failed/``, of reports beside which the file that they tell of is not."""
    folders = [""]

    def enter(path: str, _folder: Folder) -> bool:
        folders.append(path)
        return True

    with suppress(FileNotFoundError), Folder.root(failed) as top:
        for _ in walk(top, enter=enter, skip=lambda name: name.startswith(".")):
            pass
        for below in folders:
            with suppress(OSError), top.reach(below) as folder:
                for name in orphans(folder):
                    yield f"{below}/{name}" if below else name


def _is_there(place: Place) -> bool:
    try:
        with place.opened() as folder:
            return folder.has(place.file)
    except OSError:
        return False


def _hash(place: Place) -> str | None:
    """Return the hash of the bytes as dropped; ``None`` if they cannot be read."""
    found = hashlib.sha256()
    try:
        with place.opened() as folder, os.fdopen(folder.open(place.file, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return None
    return found.hexdigest()
