"""Pages of rows, newest first, for those who look around: runs, a run's records, dead letters.

Every question here walks an index and stops once its page is full, however many rows there are; only a status that
hardly any run has makes the walk over the runs a long one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from inboxd.clock import FIRST_MOMENT
from inboxd.errors import INTERRUPTED
from inboxd.operate.dead_letters import CodeCount, DeadLetter, dead_letter_query
from inboxd.operate.explain import STEPS
from inboxd.operate.periods import ALL_REJECTED, NOT_ALL_REJECTED, conditions
from inboxd.outcomes import LineageStep, RunStatus
from inboxd.store.base import RunRow
from inboxd.store.database import Store
from inboxd.store.ledger import run_row
from inboxd.store.tables import dead_letters, etl_runs, lineage_records

RAW_SHOWN = 2_000
"""Characters of a record's text that a page shows; a record may have 16 MiB."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a run and what became of it."""

    record_key: str
    record_no: int
    outcome: LineageStep
    detail: str | None


@dataclass(frozen=True, slots=True)
class AtWork:
    """A file that a host has begun and not ended: it is being loaded there, or was put off."""

    host: str
    run_id: int
    file_name: str
    since: str


def recent_runs(store: Store, *, now: datetime, hours: float | None, limit: int) -> list[RunRow]:
    """Return the runs that began last."""
    order = (etl_runs.c.started_at.desc(), etl_runs.c.id.desc())
    query = sa.select(etl_runs).where(*conditions(now=now, hours=hours)).order_by(*order).limit(limit)
    with store.reading() as connection:
        return [run_row(row) for row in connection.execute(query)]


def last_successes(store: Store, jobs: Iterable[str]) -> dict[str, str]:
    """Return, for each job that had one, when its last successful run began or (once it has) ended.

    One of which every record was rejected is none: whoever waits for news has got none by it.
    """
    runs = etl_runs.c
    ever = runs.started_at >= FIRST_MOMENT  # true of all: without it SQLite sorts every run and walks no index
    found: dict[str, str] = {}
    with store.reading() as connection:
        for job in jobs:
            query = (
                sa.select(sa.func.coalesce(runs.finished_at, runs.started_at, type_=runs.finished_at.type))
                .where(runs.job_name == job, runs.status == RunStatus.SUCCESS.value, ever, NOT_ALL_REJECTED)
                .order_by(runs.started_at.desc())
                .limit(1)
            )
            ended = connection.execute(query).scalar()
            if ended is not None:
                found[job] = ended
    return found


@dataclass(frozen=True, slots=True)
class Failures:
    """How many files of a feed failed with a code, and the newest run of them."""

    code: str
    feed: str
    count: int
    newest: int


def failures(store: Store, *, now: datetime, hours: float | None, limit: int) -> list[Failures]:
    """Return how many files failed in a window, by code and feed, the newest first.

    A file that was tried again counts once, and one that was loaded since, under its name, no more. What is tried
    again by itself is no failure.
    """
    runs, within = etl_runs.c, conditions(now=now, hours=hours)
    failed = (
        sa.select(runs.id, runs.job_name, runs.file_name, runs.error_code)
        .where(runs.status == RunStatus.FAILURE.value, runs.error_code.is_not(None), runs.error_code != INTERRUPTED)
        .where(*within)
        .cte("failed")
    )
    mended = (
        sa.select(runs.job_name, runs.file_name, sa.func.max(runs.id).label("id"))
        .where(runs.status == RunStatus.SUCCESS.value, runs.file_name.in_(sa.select(failed.c.file_name)), *within)
        .group_by(runs.job_name, runs.file_name)
        .cte("mended")
    )
    same = sa.and_(mended.c.job_name == failed.c.job_name, mended.c.file_name == failed.c.file_name)
    newest = sa.func.max(failed.c.id)
    query = (
        sa.select(failed.c.error_code, failed.c.job_name, sa.func.count(failed.c.file_name.distinct()), newest)
        .select_from(failed.outerjoin(mended, same))
        .where(sa.or_(mended.c.id.is_(None), mended.c.id < failed.c.id))
        .group_by(failed.c.error_code, failed.c.job_name)
        .order_by(newest.desc())
        .limit(limit)
    )
    with store.reading() as connection:
        return [
            Failures(str(code), str(feed), int(many), int(run)) for code, feed, many, run in connection.execute(query)
        ]


def all_rejected_runs(store: Store, *, now: datetime, hours: float | None, limit: int) -> list[RunRow]:
    """Return the newest runs that count as successes and loaded nothing, as every record was rejected."""
    query = sa.select(etl_runs).where(ALL_REJECTED, *conditions(now=now, hours=hours))
    query = query.order_by(etl_runs.c.id.desc()).limit(limit)
    with store.reading() as connection:
        return [run_row(row) for row in connection.execute(query)]


def records_of(store: Store, run_id: int, *, after: tuple[str, int] | None, limit: int) -> list[Record]:
    """Return a page of a run's records in the order of their keys, those after the given key and number."""
    columns = lineage_records.c
    query = sa.select(columns.record_key, columns.record_no, columns.outcome, columns.detail).where(
        columns.run_id == run_id
    )
    if after is not None:
        query = query.where(sa.tuple_(columns.record_key, columns.record_no) > sa.tuple_(*after))
    query = query.order_by(columns.record_key, columns.record_no).limit(limit)
    with store.reading() as connection:
        return [
            Record(str(key), int(number), STEPS[outcome][-1], detail)
            for key, number, outcome, detail in connection.execute(query)
        ]


def newest_dead_letters(
    store: Store,
    *,
    feed: str | None = None,
    code: str | None = None,
    run: int | None = None,
    before: int | None = None,
    limit: int,
) -> list[DeadLetter]:
    """Return unresolved dead letters (of one run: all), newest first, those with an id below ``before``.

    ``raw`` is cut to what a page shows.
    """
    columns = dead_letters.c
    where: list[sa.ColumnElement[bool]] = [columns.resolved_by.is_(None) if run is None else columns.run_id == run]
    if feed is not None:
        where.append(columns.feed == feed)
    if code is not None:
        where.append(columns.error == code)
    if before is not None:
        where.append(columns.id < before)
    shown = sa.func.substr(columns.raw, 1, RAW_SHOWN + 1)
    query = dead_letter_query(shown).where(*where).order_by(columns.id.desc()).limit(limit)
    with store.reading() as connection:
        return [DeadLetter(**row) for row in connection.execute(query).mappings()]


def samples(store: Store, counts: Iterable[CodeCount]) -> dict[tuple[str, str], DeadLetter]:
    """Return the newest unresolved dead letter of each feed and code."""
    found: dict[tuple[str, str], DeadLetter] = {}
    for count in counts:
        newest = newest_dead_letters(store, feed=count.feed, code=count.code, limit=1)
        if newest:
            found[count.feed, count.code] = newest[0]
    return found


def at_work(store: Store, limit: int) -> list[AtWork]:
    """Return the files that are worked on, or were put off, those begun last first."""
    runs = etl_runs.c
    query = (
        sa.select(runs.host, runs.id, runs.file_name, runs.started_at)
        .where(runs.status == RunStatus.RUNNING.value, runs.claim.is_not(None))
        .where(runs.host.is_not(None), runs.file_name.is_not(None))
        .order_by(runs.id.desc())
        .limit(limit)
    )
    with store.reading() as connection:
        return [AtWork(row.host, int(row.id), row.file_name, row.started_at) for row in connection.execute(query)]


def last_change(store: Store) -> tuple[object, ...]:
    """Return something that is another once a run began, ended or was superseded; cheap enough for every second."""
    runs = etl_runs.c
    columns = (runs.id, runs.status, runs.finished_at, runs.superseded_by)
    running = sa.select(sa.func.count()).where(runs.status == RunStatus.RUNNING.value, runs.claim.is_not(None))
    with store.reading() as connection:
        last = connection.execute(sa.select(*columns).order_by(runs.id.desc()).limit(1)).one_or_none()
        return (*(last or ()), connection.execute(running).scalar_one())
