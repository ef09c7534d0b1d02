"""``inboxd status``: is a daemon running, what waits and why, how far the feeds are, what went wrong."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from inboxd.clock import stamp
from inboxd.config import ArchiveSettings, DatabaseSettings, InboxSettings, mtime_of
from inboxd.errors import InboxdError
from inboxd.locks import running_pid
from inboxd.model import Feed, Scalar
from inboxd.operate.arrivals import expected
from inboxd.operate.dead_letters import CodeCount, count_open
from inboxd.operate.health import totals
from inboxd.operate.hosts import HostActivity, hosts
from inboxd.operate.trend import Bucket, Trend, trend
from inboxd.operate.waiting import InboxContent, inbox_content, still_waiting
from inboxd.presence import DaemonState, ExpectedFeed, UnfinishedFile, Work, read_state
from inboxd.store.base import RunRow
from inboxd.store.cursors import lag_s, scope_of, watermarks_of
from inboxd.store.database import Store

LISTED: Final = 20
"""Names shown of each kind of file; the counts are exact."""
RECENT_RUNS: Final = 10
SPARK_HOURS: Final = 24.0
CONFIG_NEWER: Final = "config_newer"
RELOAD: Final = "reload it: systemctl reload inboxd, or kill -HUP with the daemon's pid"
NONE_HERE: Final = "none has run on this host with this config"
FORBIDDEN: Final = "cannot be told from here (permission)"
SPARK_BUCKETS: Final = 48


@dataclass(frozen=True, slots=True)
class Slices:
    """What of the config this question needs."""

    inbox: InboxSettings
    archive: ArchiveSettings
    database: DatabaseSettings
    feeds: Sequence[Feed]
    config: str | None = None


@dataclass(frozen=True, slots=True)
class DaemonPresence:
    """Whether a daemon runs on this host (``None``: it cannot be told), and what it last said of itself.

    ``config`` is the file that the daemon itself uses; ``None`` where that is none, or it is not known to run.
    """

    running: bool | None
    pid: int | None = None
    host: str | None = None
    version: str | None = None
    since: str | None = None
    updated: str | None = None
    config: str | None = None
    unknown: str | None = None
    """Why it cannot be told whether a daemon runs."""


@dataclass(frozen=True, slots=True)
class FeedMark:
    """A feed's watermark and how many seconds it is behind (``None`` where there is none, or it is a number).

    A snapshot feed has one for each scope: the values of its fields, which are none for the whole table.
    """

    feed: str
    cursor: str | None
    scope: dict[str, Scalar]
    value: str | None
    run_id: int | None
    updated_at: str | None
    lag_s: float | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a part of the status is missing."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at a glance. What could not be found out is ``None``, and ``problems`` says why."""

    at: str
    daemon: DaemonPresence
    config: str | None
    inbox: str
    database: str
    content: InboxContent | None
    work: Work | None
    """The file that the daemon is working on, if that takes a while."""
    deferred: list[UnfinishedFile]
    unsettled: list[UnfinishedFile]
    watermarks: list[FeedMark]
    totals: dict[str, object] | None
    hosts: list[HostActivity]
    last_runs: list[RunRow]
    throughput: list[Bucket]
    dead_letters: list[CodeCount]
    expected: list[ExpectedFeed]
    problems: list[Problem]


def status(store: Store | None, slices: Slices, *, now: datetime) -> Status:
    """Look at the daemon, the inbox and the ledger. ``store`` is ``None`` where the database could not be opened."""
    state = read_state(slices.archive.state_file)
    problems: list[Problem] = []
    content: InboxContent | None = None
    try:
        content = inbox_content(slices.inbox, slices.archive, slices.feeds, LISTED)
    except InboxdError as fault:
        problems.append(Problem(fault.code, fault.message, fault.hint))
    daemon = _presence(slices, state)
    another = state is not None and daemon.pid not in {None, state.pid}  # of another database, in the same archive
    alive = state if daemon.running is not False and not another else None
    waiting = still_waiting(slices.inbox, [*alive.deferred, *alive.unsettled]) if alive else set()
    lately = trend(store, now=now, hours=SPARK_HOURS, buckets=SPARK_BUCKETS) if store else None
    if daemon.running and alive is not None:
        problems.extend(_config_problems(alive, slices.config))
    return Status(
        at=stamp(now),
        daemon=daemon,
        config=slices.config,
        inbox=str(slices.inbox.path),
        database=slices.database.shown_url,
        content=content,
        work=alive.work if alive else None,
        deferred=[one for one in alive.deferred if one.file in waiting] if alive else [],
        unsettled=[one for one in alive.unsettled if one.file in waiting] if alive else [],
        watermarks=_marks(store, slices.feeds, now) if store else [],
        totals=_totals(lately) if lately else None,
        hosts=hosts(store, now=now) if store else [],
        last_runs=store.runs(limit=RECENT_RUNS) if store else [],
        throughput=lately.buckets if lately else [],
        dead_letters=count_open(store) if store else [],
        expected=[one.shown for one in expected(store, slices.feeds, now)] if store else [],
        problems=problems,
    )


def _presence(slices: Slices, state: DaemonState | None) -> DaemonPresence:
    """Tell from the lock whether a daemon runs; PostgreSQL has no lock on this host, only what the daemon wrote."""
    if slices.database.is_postgres:
        here = state is not None and state.host == os.uname().nodename  # a shared archive may tell of another's
        running, pid = (_alive(state.pid), state.pid) if state and here else (None, None)
        unknown = None if here else NONE_HERE
    else:
        try:
            holder = running_pid(slices.database.sqlite_path)
        except PermissionError:
            return DaemonPresence(None, unknown=FORBIDDEN)
        running, pid, unknown = holder is not None, holder or None, None
    if state is None or not running or pid not in {None, state.pid}:
        return DaemonPresence(running, pid, unknown=unknown)
    return DaemonPresence(
        running=running,
        pid=pid or state.pid,
        host=state.host,
        version=state.version,
        since=state.since,
        updated=state.updated,
        config=state.config,
    )


def _config_problems(state: DaemonState, found: str | None) -> Iterator[Problem]:
    """Tell what of the config on disk is not in force: the daemon reads it at its start and when it is told to reload.

    ``found`` is the file that this command found itself, perhaps from another folder or environment.
    """
    if (refused := state.config_refused) is not None:
        message = f"the config on disk is not in force, the daemon refused it at {refused.at}: {refused.message}"
        yield Problem(refused.code, message, refused.hint)
    elif state.config is None and found is not None:
        message = f"the daemon uses the defaults, not {found}"
        yield Problem(CONFIG_NEWER, message, f"if that file was made after the daemon's start: {RELOAD}")
    elif state.config is not None and mtime_of(Path(state.config)) not in {None, state.config_mtime_ns}:
        message = f"the file on disk is newer than the config that the daemon uses: {state.config}"
        yield Problem(CONFIG_NEWER, message, RELOAD)
    if state.config is not None and found not in {None, state.config}:
        message = f"this command uses another config than the daemon: {found}"
        yield Problem("config_differs", message, f"name the daemon's: --config {shlex.quote(state.config)}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _marks(store: Store, feeds: Sequence[Feed], now: datetime) -> list[FeedMark]:
    rows = store.watermarks()
    marks: list[FeedMark] = []
    for feed in feeds:
        cursor = None if feed.mark_field is None else feed.mark_field.name
        marks += [
            FeedMark(
                feed=feed.name,
                cursor=cursor,
                scope=scope_of(feed, row),
                value=row.value,
                run_id=row.run_id,
                updated_at=row.updated_at,
                lag_s=lag_s(feed, row.value, now),
            )
            for row in watermarks_of(feed, rows)
        ] or [FeedMark(feed.name, cursor, {}, None, None, None, None)]
    return marks


def _totals(found: Trend) -> dict[str, object]:
    total = found.total
    beside = {"total_rows_filtered": total.filtered, "total_rows_deleted": total.deleted}
    return {**totals(found, SPARK_HOURS), **beside, "all_rejected": total.all_rejected}


def as_json(found: Status) -> dict[str, object]:
    """Return the status as JSON has it."""
    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain
