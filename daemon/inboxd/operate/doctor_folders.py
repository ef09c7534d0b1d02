"""What ``inboxd doctor`` finds in the folders: rights, a real rename, room, claims, and the disk against the ledger."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inboxd.errors import TransientFault
from inboxd.inbox.archive import probe
from inboxd.inbox.left import claims
from inboxd.inbox.mounts import immutable
from inboxd.inbox.names import CLAIMED
from inboxd.model import printable
from inboxd.operate.disk_ledger import Names, compare
from inboxd.operate.findings import Examined, Finding, Health
from inboxd.store.tables import etl_runs
from inboxd.words import counted, retry_command

LITTLE_SPACE: Final = 256 << 20
"""Bytes free on a filesystem, below which it is worth a word."""


def folders(examined: Examined) -> Iterator[Finding]:
    """Look at what this user may do with the folders. Run it as the daemon's user to hear of the daemon's rights."""
    places = [
        ("inbox", examined.inbox.path),
        ("processed", examined.archive.processed),
        ("failed", examined.archive.failed),
    ]
    if not examined.database.is_postgres:
        places.append(("database", examined.database.sqlite_path.parent))
    used = _has_claimed(examined)
    for name, folder in places:
        yield _folder(name, folder, used=used)


def _has_claimed(examined: Examined) -> bool:
    """Tell whether a daemon was ever at work here: then its folders were made."""
    if examined.store is None or not examined.store.schema_current():
        return False
    with examined.store.reading() as connection:
        query = sa.select(etl_runs.c.id).where(etl_runs.c.claim.is_not(None)).limit(1)
        return connection.execute(query).first() is not None


def _folder(name: str, folder: Path, *, used: bool) -> Finding:
    if not folder.is_dir():
        return _no_folder(name, folder, used=used)
    if (found := _closed(name, folder)) is not None:
        message, remedy = found
        return Finding(name, Health.WRONG, message, remedy)
    return Finding(name, Health.OK, f"{folder} can be read and written")


def _no_folder(name: str, folder: Path, *, used: bool) -> Finding:
    make = f"mkdir -p {shlex.quote(str(folder))}"
    if os.path.lexists(folder):
        message = f"{folder} is no folder, but something else of that name"
        return Finding(name, Health.WRONG, message, f"move that away, then {make}")
    if used:
        return Finding(name, Health.WRONG, f"{folder} is gone", f"{make}, or mount it again")
    return Finding(name, Health.WARNING, f"{folder} is not there yet", "inboxd run makes it")


def _closed(name: str, folder: Path) -> tuple[str, str] | None:
    """Say why files cannot be moved into a folder or out of it, and what mends that: the first reason alone helps."""
    found = folder.stat()
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        remedy = f"mount the filesystem of {folder} for writing (ext4 turns read-only after an error)"
        return f"{folder} is on a filesystem that is mounted read-only", remedy
    if immutable(folder):
        return f"{folder} is immutable: it takes no changes", f"chattr -i -a {shlex.quote(str(folder))}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run inboxd as its owner (uid {found.st_uid}), or give the user who runs it rwx on {folder}"
        return f"uid {os.geteuid()} may not read, write and search {folder}", remedy
    if name == "inbox" and found.st_mode & stat.S_ISVTX and os.geteuid() not in {0, found.st_uid}:
        remedy = f"chown it to the user who runs inboxd, or chmod -t {shlex.quote(str(folder))}"
        return f"{folder} is sticky and belongs to another user: the files of others cannot be taken", remedy
    return None


def renames(examined: Examined) -> Iterator[Finding]:
    """Rename a file for real, from ``.claimed`` to both archive folders: only the kernel knows where mounts end."""
    if not examined.inbox.path.is_dir():
        return
    for folder in (examined.archive.processed, examined.archive.failed):
        if folder.is_dir():
            yield _rename(examined.inbox.path / CLAIMED, folder)


def _rename(source: Path, target: Path) -> Finding:
    try:
        if not probe(os.fspath(source.parent), target):
            return Finding("rename", Health.OK, f"{source} is not there yet: inboxd run makes it")
    except TransientFault as fault:
        return Finding("rename", Health.WRONG, fault.message, fault.hint)
    except OSError as error:
        if error.errno == errno.EXDEV:
            remedy = "put both on one filesystem (and in systemd under one ReadWritePaths=): a rename is safer"
            message = f"{source} and {target} are different mounts: files are copied"
            return Finding("rename", Health.WARNING, message, remedy)
        remedy = f"give inboxd's user write permission on {source} and {target}"
        return Finding("rename", Health.WRONG, f"from {source} to {target}: {error.strerror}", remedy)
    return Finding("rename", Health.OK, f"{source} → {target} works")


def space(examined: Examined) -> Iterator[Finding]:
    """Look how much room is left where files and rows go."""
    roots = [examined.inbox.path, examined.archive.processed, examined.archive.failed]
    if not examined.database.is_postgres:
        roots.append(examined.database.sqlite_path.parent)
    devices = {place.stat().st_dev: place for place in roots if place.is_dir()}
    for place in devices.values():
        free = shutil.disk_usage(place).free
        if free < LITTLE_SPACE:
            message = f"{free >> 20} MiB left on the filesystem of {place}"
            yield Finding("disk space", Health.WARNING, message, "make room: files wait while a disk is full")
        else:
            yield Finding("disk space", Health.OK, f"{free >> 20} MiB free at {place}")


def claimed(examined: Examined) -> Iterator[Finding]:
    """Look for files that were claimed by a daemon that is gone."""
    try:
        files = sorted(printable(claim.name) for claim in claims(os.fspath(examined.inbox.path)))
    except TransientFault as fault:
        yield Finding("claims", Health.WRONG, fault.message, fault.hint)
        return
    if not files or examined.database.is_postgres or examined.pid is not None:
        yield Finding("claims", Health.OK, f"{counted(len(files), 'file')} claimed" if files else "nothing is claimed")
    else:
        message = f"{counted(len(files), 'file')} still claimed by a daemon that is gone: {', '.join(files[:5])}"
        yield Finding("claims", Health.WRONG, message, "inboxd run (or run --once): the start puts them right")


def ledger(examined: Examined) -> Iterator[Finding]:
    """Compare the folders with the runs."""
    if examined.store is None or not examined.store.schema_current():
        return
    if any(os.path.lexists(one) and not one.is_dir() for one in (examined.archive.processed, examined.archive.failed)):
        return  # said where the folders are looked at
    found = compare(examined.store, examined.inbox, examined.archive, now=examined.now, deep=examined.deep)
    processed, failed = examined.archive.processed, examined.archive.failed
    if found.processed_unknown.count:
        what = f"in {processed}, but not in the ledger (an older database was restored?)"
        yield _unknown(found.processed_unknown, what)
    if found.failed_unknown.count:
        yield _unknown(found.failed_unknown, f"in {failed}, but no run of theirs failed")
    if found.missing.count:
        message = f"{_names(found.missing)}: in the ledger, but in neither folder"
        remedy = "put them back from a backup; if they were removed on purpose, inboxd doctor --mend takes note of it"
        yield Finding("ledger", Health.WRONG, message, remedy)
    if not (found.processed_unknown.count or found.failed_unknown.count or found.missing.count):
        yield Finding("ledger", Health.OK, "every archived file has its run, and every run its file")
    if found.strangers.count:
        what = f"in {processed}, where inboxd did not put them; it leaves them alone"
        yield Finding(
            "strangers", Health.WARNING, f"{_names(found.strangers)}: {what}", f"move them out of {processed}"
        )
    if found.reports.count:
        what = f"in {failed}, each the report of a file that is not there"
        remedy = f"rm them: {shlex.join(str(failed / name) for name in found.reports.first[:5])}"
        yield Finding("reports", Health.WARNING, f"{_names(found.reports)}: {what}", remedy)


def _unknown(names: Names, what: str) -> Finding:
    first = names.first[0]
    return Finding(
        "ledger", Health.WRONG, f"{_names(names)}: {what}", retry_command(first) + (" …" if names.count > 1 else "")
    )


def _names(names: Names) -> str:
    shown = ", ".join(names.first[:5])
    return f"{counted(names.count, 'file')}: {shown}" + (", …" if names.count > 5 else "")  # noqa: PLR2004 - a glance
