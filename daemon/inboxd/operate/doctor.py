"""``inboxd doctor``: what could be wrong with this installation, looked at for real, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.errors import DATABASE_MISSING, INTERRUPTED
from inboxd.operate import doctor_folders, doctor_schema
from inboxd.operate.findings import Examined, Finding, Health
from inboxd.outcomes import RunStatus
from inboxd.store.database import Store
from inboxd.store.ledger import canonical
from inboxd.store.sqlite_driver import OLDEST, driver
from inboxd.store.tables import etl_runs
from inboxd.words import counted

SMALL_DATABASE: Final = 256 << 20
"""Bytes; a larger database is looked through for damage only when asked: it would take minutes."""
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""So much may lie between the clocks of two hosts that share a database."""
FORGOTTEN_AFTER: Final = timedelta(hours=24)
"""A one-shot load that has been running for so long was killed."""


def examine(examined: Examined) -> Iterator[Finding]:
    """Make every check, the cheap ones first; a check that itself fails is a finding."""
    checks: Sequence[tuple[str, Callable[[Examined], Iterator[Finding]]]] = (
        ("daemon", _daemon),
        ("folders", doctor_folders.folders),
        ("rename", doctor_folders.renames),
        ("disk space", doctor_folders.space),
        ("claims", doctor_folders.claimed),
        ("schema", _schema),
        ("runs", _running_rows),
        ("clock", _clock),
        ("ledger", doctor_folders.ledger),
        ("integrity", _integrity),
    )
    for name, check in checks:
        try:
            yield from check(examined)
        except OSError as error:
            yield Finding(
                name, Health.WRONG, f"cannot be checked: {error}", "look at the path's permissions and the disk"
            )


def _daemon(examined: Examined) -> Iterator[Finding]:
    try:
        pid = examined.pid
    except PermissionError:
        message = "whether one runs cannot be told from here (permission)"
        yield Finding("daemon", Health.WARNING, message, "run doctor as the user who runs the daemon")
        return
    if examined.database.is_postgres:
        yield Finding("daemon", Health.OK, "any number may run on PostgreSQL; `inboxd status` tells of this host")
    elif pid is None:
        yield Finding("daemon", Health.OK, "not running")
    else:
        yield Finding("daemon", Health.OK, f"running{f', pid {pid}' if pid else ''}")


def _schema(examined: Examined) -> Iterator[Finding]:
    fault = examined.fault
    if fault is not None:
        yet = fault.code == DATABASE_MISSING
        yield Finding("database", Health.WARNING if yet else Health.WRONG, fault.message, fault.hint)
    if examined.store is None:
        return
    with examined.store.reading() as connection:
        version, where = connection.execute(_server_query(connection)).one()
    if not examined.database.is_postgres and driver.sqlite_version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        message = f"SQLite {version} can corrupt a database that two programs write; {oldest} or later is needed"
        yield Finding("database", Health.WRONG, message, "pip install pysqlite3")
    else:
        yield Finding("database", Health.OK, f"{connection.dialect.name} {version}")
    if examined.store.schema_current():
        yield from doctor_schema.compared(examined.store, examined.feeds)
    elif where is None:
        remedy = "create the schema, or set the search_path of inboxd's role: ALTER ROLE … SET search_path = public"
        yield Finding("schema", Health.WRONG, "the role's search_path names no schema that is there", remedy)
    else:
        yield Finding(
            "schema", Health.WRONG, "the tables are missing, or of an older version of inboxd", "inboxd db upgrade"
        )


def _server_query(connection: sa.Connection) -> sa.Select[str, str | None]:
    """Return the question for the server's version, and for the schema in which new tables are made."""
    if connection.dialect.name == "postgresql":
        return sa.select(sa.func.current_setting("server_version"), sa.func.current_schema())
    return sa.select(sa.func.sqlite_version(), sa.literal("main"))


def _running_rows(examined: Examined) -> Iterator[Finding]:
    """Look for runs that are running in the ledger alone."""
    if examined.store is None or not examined.store.schema_current():
        return
    runs = etl_runs.c
    query = sa.select(runs.id, runs.claim, runs.started_at).where(
        runs.status == RunStatus.RUNNING.value, runs.rows_rejected.is_not(None)
    )
    with examined.store.reading() as connection:
        rows = connection.execute(query).all()
    forgotten_before = stamp(examined.now - FORGOTTEN_AFTER)
    orphans = [row.id for row in rows if row.claim is not None]
    killed = [row.id for row in rows if row.claim is None and row.started_at < forgotten_before]
    if orphans and not examined.database.is_postgres and examined.pid is None:
        message = f"{counted(len(orphans), 'run')} marked as running, but no daemon is: {_listed(orphans)}"
        yield Finding("runs", Health.WRONG, message, "inboxd run (or run --once): the start puts them right")
    elif killed:
        message = f"{len(killed)} one-shot runs have been running for more than a day: {_listed(killed)}"
        yield Finding("runs", Health.WARNING, message, "inboxd doctor --mend ends them as interrupted")
    else:
        yield Finding("runs", Health.OK, f"{len(rows)} running" if rows else "none is left running")


def _clock(examined: Examined) -> Iterator[Finding]:
    """Look for runs that a wrong clock has dated ahead: every file waits until the clock has caught up."""
    if examined.store is None or not examined.store.schema_current():
        return
    with examined.store.reading() as connection:
        ahead = connection.execute(
            sa.select(etl_runs.c.id, etl_runs.c.finished_at).where(_ended_after(examined.now)).order_by(etl_runs.c.id)
        ).all()
    if ahead:
        runs = f"{counted(len(ahead), 'run')} ended later than now"
        message = f"{runs}, {stamp(examined.now)}: {_listed([row.id for row in ahead])}"
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


def _integrity(examined: Examined) -> Iterator[Finding]:
    """Let SQLite look through its file; PostgreSQL has checksums and tools of its own."""
    if examined.store is None or examined.database.is_postgres:
        return
    size = examined.database.sqlite_path.stat().st_size
    if size > SMALL_DATABASE and not examined.deep:
        yield Finding("integrity", Health.OK, f"not looked at: the database has {size >> 20} MiB (--deep does)")
        return
    with examined.store.reading() as connection:
        lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(10)")]
    if lines == ["ok"]:
        yield Finding("integrity", Health.OK, "SQLite finds its file sound")
    else:
        remedy = "stop inboxd, restore a backup, then `inboxd retry` what doctor finds not in the ledger"
        yield Finding("integrity", Health.WRONG, "; ".join(lines), remedy)
