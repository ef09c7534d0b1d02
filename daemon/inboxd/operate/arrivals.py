"""Expected arrivals: which feeds are late, judged from the ledger and from when each expectation was first seen."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from inboxd.clock import FIRST_MOMENT, moment, stamp
from inboxd.model import Expect, Feed
from inboxd.operate.periods import NOT_ALL_REJECTED
from inboxd.outcomes import RunStatus
from inboxd.presence import ExpectedFeed
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs, expectations, insert, notices

LOOKED_BACK: Final = timedelta(days=400)
"""Deadlines before that are not looked at any more, nor arrivals before so many."""
ARRIVALS: Final = 800
A_WEEK: Final = timedelta(days=8)
"""From one deadline to the next it is at most a week, and an hour where the clocks change."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A run that counts as one: a file that was loaded, with enough records, of which not all were rejected."""

    at: datetime
    run_id: int
    file_name: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """How a feed stands. ``due`` is the moment from which it was, or else will be, late."""

    feed: str
    setting: str
    late: bool
    due: datetime | None
    last: Arrival | None
    said: str | None = None
    """The ``due`` of which it was told that nothing came in time; ``None`` while there is none."""

    @property
    def shown(self) -> ExpectedFeed:
        """The same for all who look."""
        due = None if self.due is None else stamp(self.due)
        return ExpectedFeed(self.feed, self.late, due, None if self.last is None else stamp(self.last.at))


def setting_of(expect: Expect) -> str:
    """Return an expectation as text: another text is another expectation."""
    said = {"every": expect.every, "by": None if expect.by is None else expect.by.isoformat("minutes")}
    if expect.by is not None:
        said |= {"timezone": expect.timezone, "days": ",".join(map(str, expect.days))}
    said |= {"grace": expect.grace, "min_records": expect.min_records}
    return json.dumps({name: value for name, value in said.items() if value is not None})


def expected(store: Store, feeds: Sequence[Feed], now: datetime) -> list[Expected]:
    """Return how the feeds stand that are expected to arrive, in the config's order.

    One whose expectation no daemon has seen yet is not judged: nobody knows since when it counts.
    """
    seen = seen_since(store) if any(feed.expect for feed in feeds) else {}
    found: list[Expected] = []
    for feed in feeds:
        row = seen.get((feed.name, setting_of(feed.expect))) if feed.expect else None
        if feed.expect and row:
            since, said = row
            arrivals = _arrivals(store, feed.name, feed.expect)
            known = arrivals[0].at if len(arrivals) == ARRIVALS else moment(since)
            late, due = judge(feed.expect, max(moment(since), known), [one.at for one in arrivals], now)
            found.append(
                Expected(feed.name, setting_of(feed.expect), late, due, arrivals[-1] if arrivals else None, said)
            )
    return found


def seen_since(store: Store) -> Mapping[tuple[str, str], tuple[str, str | None]]:
    """Return since when each expectation counts, and since when it is said that nothing came."""
    columns = expectations.c
    with store.reading() as connection:
        rows = connection.execute(sa.select(columns.feed, columns.setting, columns.since, columns.late_at))
        return {(row.feed, row.setting): (row.since, row.late_at) for row in rows}


def note(store: Store, feeds: Sequence[Feed], now: str) -> None:
    """Note since when each expectation counts. Where it is another one now, what was late by the old one is no more."""
    seen = seen_since(store)
    new = [(feed.name, setting_of(feed.expect)) for feed in feeds if feed.expect]
    new = [key for key in new if key not in seen]
    if not new:
        return
    with store.writing() as connection:
        for feed, setting in new:
            old = expectations.update().where(expectations.c.feed == feed, expectations.c.setting != setting)
            connection.execute(old.values(late_at=None))
            row = {"feed": feed, "setting": setting, "since": now}
            connection.execute(insert(connection, expectations).values(row).on_conflict_do_nothing())


def turn(store: Store, one: Expected, late_at: str | None, notice_rows: Sequence[Mapping[str, object]]) -> bool:
    """Note that a feed is late, or no more, together with the notices of it; tell whether nobody had done so."""
    columns = expectations.c
    unchanged = columns.late_at.is_(None) if late_at is not None else columns.late_at.is_not(None)
    change = expectations.update().where(columns.feed == one.feed, columns.setting == one.setting, unchanged)
    with store.writing() as connection:
        first = connection.execute(change.values(late_at=late_at)).rowcount == 1
        if first and notice_rows:
            connection.execute(notices.insert(), notice_rows)
    return first


def _arrivals(store: Store, feed: str, expect: Expect) -> list[Arrival]:
    """Return the last arrivals, the oldest first."""
    runs = etl_runs.c
    enough = runs.rows_in - sa.func.coalesce(runs.rows_filtered, 0) >= expect.min_records
    query = (
        sa.select(runs.finished_at, runs.id, runs.file_name)
        .where(runs.job_name == feed, runs.status == RunStatus.SUCCESS.value, runs.content_sha256.is_not(None))
        .where(runs.duplicate_of.is_(None), runs.rows_rejected.is_not(None), enough, NOT_ALL_REJECTED)
        .where(runs.started_at >= FIRST_MOMENT)  # true of all: without it SQLite sorts every run and walks no index
        .order_by(runs.started_at.desc())
        .limit(ARRIVALS if expect.by is not None else 1)
    )
    with store.reading() as connection:
        found = [Arrival(moment(at), int(run), name) for at, run, name in connection.execute(query)]
    return sorted(found, key=lambda one: one.at)


def judge(expect: Expect, since: datetime, arrivals: Sequence[datetime], now: datetime) -> tuple[bool, datetime | None]:
    """Tell whether a feed is late, and the moment from which it is, or will be.

    ``arrivals`` are in order of time. The moment is ``None`` where no deadline will ever come.
    """
    grace = timedelta(seconds=expect.grace)
    if expect.every is not None:
        due = max([since, *arrivals[-1:]]) + timedelta(seconds=expect.every) + grace
        return now > due, due
    first = max(since, now - LOOKED_BACK)
    deadlines = list(_deadlines(expect, first - A_WEEK, now + A_WEEK))
    judged = [(before, at) for before, at in pairwise(deadlines) if at > first]
    missed = _missed([pair for pair in judged if pair[1] + grace < now], arrivals)
    if missed is not None:
        return True, missed + grace
    coming = next((at for _, at in judged if at + grace >= now), None)
    return False, None if coming is None else coming + grace


def _missed(deadlines: Sequence[tuple[datetime, datetime]], arrivals: Sequence[datetime]) -> datetime | None:
    """Return the first deadline since which nothing has come that was due; each comes with the one before it.

    What arrives after a deadline for which nothing had arrived is for that deadline, and for none that follows.
    """
    spent: set[int] = set()
    for before, at in deadlines:
        first, after = bisect_right(arrivals, before), bisect_right(arrivals, at)
        if any(place not in spent for place in range(first, after)):
            continue
        if after == len(arrivals):
            return at
        spent.add(after)
    return None


def _deadlines(expect: Expect, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the deadlines from ``start`` to ``end``. One that a change of the clocks leaves out is an hour later."""
    assert expect.by is not None  # noqa: S101 - an expectation has either
    zone = ZoneInfo(expect.timezone)
    day, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    while day <= last:
        if day.weekday() in expect.days:
            yield datetime.combine(day, expect.by, zone).astimezone(UTC)
        day += timedelta(days=1)
