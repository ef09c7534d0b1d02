"""``inboxd doctor``: what could be wrong with this installation, looked at for real, and the command that mends it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.config import ArchiveSettings, DatabaseSettings, InboxSettings
from inboxd.errors import INTERRUPTED
from inboxd.inbox.claim import CLAIMED
from inboxd.model import RunStatus
from inboxd.operate.disk_ledger import Names, compare
from inboxd.presence import running_pid
from inboxd.store.base import Store
from inboxd.store.ledger import canonical
from inboxd.store.sqlite_driver import OLDEST, driver
from inboxd.store.tables import etl_runs

SMALL_DATABASE: Final = 256 << 20
"""Bytes; a larger database is looked through for damage only when asked: it would take minutes."""
LITTLE_SPACE: Final = 256 << 20
"""Bytes free on a filesystem, below which it is worth a word."""
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""So much may lie between the clocks of two hosts that share a database."""
FORGOTTEN_AFTER: Final = timedelta(hours=24)
"""A one-shot load that has been running for so long was killed."""


class Health(StrEnum):
    """How a check went. Only ``wrong`` makes the command exit with 1."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and the command or the change that mends it."""

    check: str
    status: Health
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. ``store`` is ``None`` where there is no database to look into."""

    inbox: InboxSettings
    archive: ArchiveSettings
    database: DatabaseSettings
    store: Store | None
    now: datetime
    deep: bool = False


def examine(patient: Patient) -> Iterator[Finding]:
    """Make every check, the cheap ones first; a check that itself fails is a finding."""
    checks: Sequence[tuple[str, Callable[[Patient], Iterator[Finding]]]] = (
        ("daemon", _daemon),
        ("folders", _folders),
        ("rename", _renames),
        ("disk space", _space),
        ("claims", _claims),
        ("schema", _schema),
        ("runs", _running_rows),
        ("clock", _clock),
        ("ledger", _ledger),
        ("integrity", _integrity),
    )
    for name, check in checks:
        try:
            yield from check(patient)
        except OSError as error:
            yield Finding(
                name, Health.WRONG, f"cannot be checked: {error}", "look at the path's permissions and the disk"
            )


def _daemon(patient: Patient) -> Iterator[Finding]:
    try:
        pid = _pid(patient)
    except PermissionError:
        message = "whether one runs cannot be told from here (permission)"
        yield Finding("daemon", Health.WARNING, message, "run doctor as the user who runs the daemon")
        return
    if patient.database.is_postgres:
        yield Finding("daemon", Health.OK, "any number may run on PostgreSQL; `inboxd status` tells of this host")
    elif pid is None:
        yield Finding("daemon", Health.OK, "not running")
    else:
        yield Finding("daemon", Health.OK, f"running{f', pid {pid}' if pid else ''}")


def _pid(patient: Patient) -> int | None:
    return None if patient.database.is_postgres else running_pid(patient.database.sqlite_path)


def _folders(patient: Patient) -> Iterator[Finding]:
    """Look at what this user may do with the folders. Run it as the daemon's user to hear of the daemon's rights."""
    folders = [
        ("inbox", patient.inbox.path),
        ("processed", patient.archive.processed),
        ("failed", patient.archive.failed),
    ]
    if not patient.database.is_postgres:
        folders.append(("database", patient.database.sqlite_path.parent))
    used = _has_claimed(patient)
    for name, folder in folders:
        yield _folder(name, folder, used=used)


def _has_claimed(patient: Patient) -> bool:
    """Tell whether a daemon was ever at work here: then its folders were made."""
    if patient.store is None or not patient.store.schema_current():
        return False
    with patient.store.reading() as connection:
        query = sa.select(etl_runs.c.id).where(etl_runs.c.claim.is_not(None)).limit(1)
        return connection.execute(query).first() is not None


def _folder(name: str, folder: Path, *, used: bool) -> Finding:
    if not folder.is_dir():
        if used:
            return Finding(name, Health.WRONG, f"{folder} is gone", f"mkdir -p {folder}, or mount it again")
        return Finding(name, Health.WARNING, f"{folder} is not there yet", "inboxd run makes it")
    found = folder.stat()
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run inboxd as its owner (uid {found.st_uid}), or give the user who runs it rwx on {folder}"
        return Finding(name, Health.WRONG, f"uid {os.geteuid()} may not read, write and search {folder}", remedy)
    sticky = found.st_mode & stat.S_ISVTX and os.geteuid() not in {0, found.st_uid}
    if name == "inbox" and sticky:
        remedy = f"chown it to the user who runs inboxd, or chmod -t {folder}"
        return Finding(name, Health.WRONG, f"{folder} is sticky and another's: files of others cannot be taken", remedy)
    return Finding(name, Health.OK, f"{folder} can be read and written")


def _renames(patient: Patient) -> Iterator[Finding]:
    """Rename a file for real, from ``.claimed`` to both archive folders: only the kernel knows where mounts end."""
    claimed = patient.inbox.path / CLAIMED
    if not patient.inbox.path.is_dir():
        return
    made = False
    with suppress(FileExistsError):
        claimed.mkdir(mode=0o700)
        made = True
    try:
        for folder in (patient.archive.processed, patient.archive.failed):
            if folder.is_dir():
                yield _rename(claimed, folder)
    finally:
        if made:
            with suppress(OSError):
                claimed.rmdir()


def _rename(source: Path, target: Path) -> Finding:
    name = f".doctor-{os.getpid()}"
    probe, moved = source / name, target / name
    try:
        probe.touch(mode=0o600, exist_ok=False)
        probe.rename(moved)
    except OSError as error:
        if error.errno == errno.EXDEV:
            remedy = "put both on one filesystem (and in systemd under one ReadWritePaths=): a rename is safer"
            message = f"{source} and {target} are different mounts: files are copied"
            return Finding("rename", Health.WARNING, message, remedy)
        remedy = f"give inboxd's user write permission on {source} and {target}"
        return Finding("rename", Health.WRONG, f"from {source} to {target}: {error.strerror}", remedy)
    finally:
        for path in (probe, moved):
            path.unlink(missing_ok=True)
    return Finding("rename", Health.OK, f"{source} → {target} works")


def _space(patient: Patient) -> Iterator[Finding]:
    places = [patient.inbox.path, patient.archive.processed, patient.archive.failed]
    if not patient.database.is_postgres:
        places.append(patient.database.sqlite_path.parent)
    devices = {place.stat().st_dev: place for place in places if place.is_dir()}
    for place in devices.values():
        free = shutil.disk_usage(place).free
        if free < LITTLE_SPACE:
            message = f"{free >> 20} MiB left on the filesystem of {place}"
            yield Finding("disk space", Health.WARNING, message, "make room: files wait while a disk is full")
        else:
            yield Finding("disk space", Health.OK, f"{free >> 20:,} MiB free at {place}")


def _claims(patient: Patient) -> Iterator[Finding]:
    """Look for files that were claimed by a daemon that is gone."""
    files = [name for _, _, names in os.walk(patient.inbox.path / CLAIMED) for name in names]
    if not files or patient.database.is_postgres or _pid(patient) is not None:
        yield Finding("claims", Health.OK, f"{len(files)} files claimed" if files else "nothing is claimed")
    else:
        message = f"{len(files)} files are still claimed by a daemon that is gone: {', '.join(sorted(files)[:5])}"
        yield Finding("claims", Health.WRONG, message, "inboxd run (or run --once): the start sees to them")


def _schema(patient: Patient) -> Iterator[Finding]:
    if patient.store is None:
        yield Finding("schema", Health.WARNING, "there is no database yet", "inboxd db upgrade")
        return
    with patient.store.reading() as connection:
        version = connection.execute(_version_query(connection)).scalar_one()
    if not patient.database.is_postgres and driver.sqlite_version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        message = f"SQLite {version} can corrupt a database that two programs write; {oldest} or later is needed"
        yield Finding("database", Health.WRONG, message, "pip install pysqlite3")
    else:
        yield Finding("database", Health.OK, f"{connection.dialect.name} {version}")
    if patient.store.schema_current():
        yield Finding("schema", Health.OK, "the tables are of this version of inboxd")
    else:
        yield Finding(
            "schema", Health.WRONG, "the tables are missing, or of an older version of inboxd", "inboxd db upgrade"
        )


def _version_query(connection: sa.Connection) -> sa.Select[tuple[str]]:
    if connection.dialect.name == "postgresql":
        return sa.select(sa.func.current_setting("server_version"))
    return sa.select(sa.func.sqlite_version())


def _running_rows(patient: Patient) -> Iterator[Finding]:
    """Look for runs that are running in the ledger alone."""
    if patient.store is None or not patient.store.schema_current():
        return
    runs = etl_runs.c
    query = sa.select(runs.id, runs.claim, runs.started_at).where(
        runs.status == RunStatus.RUNNING.value, runs.rows_rejected.is_not(None)
    )
    with patient.store.reading() as connection:
        rows = connection.execute(query).all()
    forgotten_before = stamp(patient.now - FORGOTTEN_AFTER)
    orphans = [row.id for row in rows if row.claim is not None]
    killed = [row.id for row in rows if row.claim is None and row.started_at < forgotten_before]
    if orphans and not patient.database.is_postgres and _pid(patient) is None:
        message = f"{len(orphans)} runs are marked as running, but no daemon is: {_listed(orphans)}"
        yield Finding("runs", Health.WRONG, message, "inboxd run (or run --once): the start sees to them")
    elif killed:
        message = f"{len(killed)} one-shot runs have been running for more than a day: {_listed(killed)}"
        yield Finding("runs", Health.WARNING, message, "inboxd doctor --mend ends them as interrupted")
    else:
        yield Finding("runs", Health.OK, f"{len(rows)} running" if rows else "none is left running")


def _clock(patient: Patient) -> Iterator[Finding]:
    """Look for runs that a wrong clock has dated ahead: every file waits until the clock has caught up."""
    if patient.store is None or not patient.store.schema_current():
        return
    with patient.store.reading() as connection:
        ahead = connection.execute(
            sa.select(etl_runs.c.id, etl_runs.c.finished_at).where(_ended_after(patient.now)).order_by(etl_runs.c.id)
        ).all()
    if ahead:
        message = f"{len(ahead)} runs ended later than now, {stamp(patient.now)}: {_listed([row.id for row in ahead])}"
        remedy = (
            f"set the clock if it is behind; if it was ahead then ({canonical(ahead[-1].finished_at)}), inboxd doctor "
            "--mend dates them to now, and inboxd watermark show tells what else came from the future"
        )
        yield Finding("clock", Health.WRONG, message, remedy)
    else:
        yield Finding("clock", Health.OK, "no run ended later than now")


def _ended_after(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(etl_runs.c.finished_at > stamp(now + CLOCKS_DIFFER), etl_runs.c.rows_rejected.is_not(None))


@dataclass(frozen=True, slots=True)
class Mended:
    """How many rows of the ledger were put right."""

    killed: int
    """Runs of one-shot commands that were killed: they ended as ``interrupted``."""
    ahead: int
    """Runs that a wrong clock had dated ahead: they ended now."""


def mend(store: Store, *, now: datetime) -> Mended:
    """Put right what the ledger says of runs that were killed, and of those that ended later than now."""
    runs = etl_runs.c
    killed = sa.update(etl_runs).where(
        runs.status == RunStatus.RUNNING.value,
        runs.claim.is_(None),
        runs.rows_rejected.is_not(None),
        runs.started_at < stamp(now - FORGOTTEN_AFTER),
    )
    values = {"status": RunStatus.FAILURE.value, "error_code": INTERRUPTED, "finished_at": stamp(now)}
    today = sa.literal(stamp(now), runs.started_at.type)
    started = sa.case((runs.started_at > today, today), else_=runs.started_at)
    ahead = sa.update(etl_runs).where(_ended_after(now)).values(started_at=started, finished_at=stamp(now))
    with store.writing() as connection:
        return Mended(
            killed=connection.execute(killed.values(**values, error="the command was killed")).rowcount,
            ahead=connection.execute(ahead).rowcount,
        )


def _listed(run_ids: Sequence[int]) -> str:
    return ", ".join(str(run_id) for run_id in run_ids[:5]) + (", …" if len(run_ids) > 5 else "")  # noqa: PLR2004 - a glance


def _ledger(patient: Patient) -> Iterator[Finding]:
    """Hold the folders against the runs."""
    if patient.store is None or not patient.store.schema_current():
        return
    found = compare(patient.store, patient.inbox, patient.archive, now=patient.now, deep=patient.deep)
    if found.processed_unknown.count:
        what = f"in {patient.archive.processed}, but not in the ledger (an older database was restored?)"
        yield _unknown(found.processed_unknown, what)
    if found.failed_unknown.count:
        yield _unknown(found.failed_unknown, f"in {patient.archive.failed}, but no run of theirs failed")
    if found.missing.count:
        message = f"{_names(found.missing)}: in the ledger, but in neither folder"
        remedy = "put them back from a backup; to have old files removed, set archive.keep"
        yield Finding("ledger", Health.WRONG, message, remedy)
    if not (found.processed_unknown.count or found.failed_unknown.count or found.missing.count):
        yield Finding("ledger", Health.OK, "every archived file has its run, and every run its file")


def _unknown(names: Names, what: str) -> Finding:
    first = names.first[0]
    return Finding(
        "ledger", Health.WRONG, f"{_names(names)}: {what}", f"inboxd retry {first}" + (" …" if names.count > 1 else "")
    )


def _names(names: Names) -> str:
    shown = ", ".join(names.first[:5])
    return f"{names.count} files: {shown}" + (", …" if names.count > 5 else "")  # noqa: PLR2004 - a glance


def _integrity(patient: Patient) -> Iterator[Finding]:
    """Let SQLite look through its file; PostgreSQL has checksums and tools of its own."""
    if patient.store is None or patient.database.is_postgres:
        return
    size = patient.database.sqlite_path.stat().st_size
    if size > SMALL_DATABASE and not patient.deep:
        yield Finding("integrity", Health.OK, f"not looked at: the database has {size >> 20:,} MiB (--deep does)")
        return
    with patient.store.reading() as connection:
        lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(10)")]
    if lines == ["ok"]:
        yield Finding("integrity", Health.OK, "SQLite finds its file sound")
    else:
        remedy = "stop inboxd, restore a backup, then `inboxd retry` what doctor finds not in the ledger"
        yield Finding("integrity", Health.WRONG, "; ".join(lines), remedy)
