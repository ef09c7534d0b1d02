"""Runs over time: the same numbers for each of some equal spans, for charts and the terminal's sparkline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import sqlalchemy as sa

from inboxd.clock import moment, stamp
from inboxd.model import RunStatus
from inboxd.operate.periods import ENDED, hours_before
from inboxd.store.base import Store
from inboxd.store.tables import Stamp, etl_runs

SHORTEST = timedelta(seconds=1)
"""All buckets together span at least this long, so that a single run has a width."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The runs that began in ``[start, end)`` and have ended. Durations are in milliseconds, by nearest rank."""

    start: str
    end: str
    files: int = 0
    failures: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    p50_ms: int = 0
    p95_ms: int = 0


def series(store: Store, *, now: datetime, hours: float | None, buckets: int, job: str | None = None) -> list[Bucket]:
    """Return ``buckets`` equal spans, oldest first, up to ``now``: the last ``hours``, or all since the first run.

    Without ``hours``, an empty database gives an empty list.
    """
    with store.reading() as connection:
        start = _first(connection, job) if hours is None else hours_before(now, hours)
        if start is None:
            return []
        bounds = _bounds(start, now, buckets)
        spans = _spans(bounds)
        found = {int(row.bucket): row for row in connection.execute(_totals(spans, job))}
        p50 = _ranks(connection, spans, job, 50)
        p95 = _ranks(connection, spans, job, 95)
    return [
        Bucket(
            start=low,
            end=high,
            files=int(found[number].files),
            failures=int(found[number].failures),
            rows_in=int(found[number].rows_in),
            rows_out=int(found[number].rows_out),
            rows_rejected=int(found[number].rows_rejected),
            p50_ms=p50[number],
            p95_ms=p95[number],
        )
        if number in found
        else Bucket(low, high)
        for number, (low, high) in enumerate(bounds)
    ]


def _first(connection: sa.Connection, job: str | None) -> datetime | None:
    query = sa.select(etl_runs.c.started_at).order_by(etl_runs.c.started_at).limit(1)
    if job is not None:
        query = query.where(etl_runs.c.job_name == job)
    text = connection.execute(query).scalar()
    return None if text is None else moment(text)


def _bounds(start: datetime, now: datetime, buckets: int) -> list[tuple[str, str]]:
    """Cut the time into spans; the last one ends just after ``now``, so that it holds what began at ``now``."""
    end = max(now + timedelta(microseconds=1), start + SHORTEST)
    edges = [stamp(start + (end - start) * number / buckets) for number in range(buckets + 1)]
    return list(pairwise(edges))


def _spans(bounds: list[tuple[str, str]]) -> sa.CTE:
    """Return the spans as rows, so that one query, walking the index on ``started_at``, answers for all of them."""
    columns = sa.column("bucket", sa.Integer), sa.column("low", Stamp), sa.column("high", Stamp)
    rows = [(number, low, high) for number, (low, high) in enumerate(bounds)]
    return sa.values(*columns, name="span_values").data(rows).cte("spans")


def _in_span(spans: sa.CTE, job: str | None) -> sa.ColumnElement[bool]:
    began = etl_runs.c.started_at
    condition = sa.and_(began >= spans.c.low, began < spans.c.high, ENDED)
    return condition if job is None else sa.and_(condition, etl_runs.c.job_name == job)


def _totals(spans: sa.CTE, job: str | None) -> sa.Select[tuple[int, ...]]:
    failed = sa.case((etl_runs.c.status == RunStatus.FAILURE.value, 1), else_=0)
    return (
        sa.select(
            spans.c.bucket,
            sa.func.count().label("files"),
            sa.func.sum(failed).label("failures"),
            sa.func.sum(etl_runs.c.rows_in).label("rows_in"),
            sa.func.sum(etl_runs.c.rows_out).label("rows_out"),
            sa.func.sum(sa.func.coalesce(etl_runs.c.rows_rejected, 0)).label("rows_rejected"),
        )
        .select_from(spans.join(etl_runs, _in_span(spans, job)))
        .group_by(spans.c.bucket)
    )


def _ranks(connection: sa.Connection, spans: sa.CTE, job: str | None, percent: int) -> dict[int, int]:
    """Return, for each bucket with runs, the nearest-rank percentile of their durations."""
    duration = etl_runs.c.duration_ms
    numbered = (
        sa.select(
            spans.c.bucket,
            duration,
            sa.func.row_number().over(partition_by=spans.c.bucket, order_by=duration).label("rank"),
            sa.func.count().over(partition_by=spans.c.bucket).label("runs"),
        )
        .select_from(spans.join(etl_runs, _in_span(spans, job)))
        .subquery()
    )
    nearest = (numbered.c.runs * percent + 99) // 100
    query = sa.select(numbered.c.bucket, numbered.c.duration_ms).where(numbered.c.rank == nearest)
    return {int(row.bucket): int(row.duration_ms) for row in connection.execute(query)}
