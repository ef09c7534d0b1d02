"""``inboxd health``: how the runs went, all together and job by job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from inboxd.operate.periods import conditions
from inboxd.operate.trend import Sums, Trend, trend_in
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs


def health(
    store: Store, *, now: datetime, hours: float | None = None, job: str | None = None, limit: int = 10
) -> dict[str, object]:
    """Return the health object: of the runs that began in the last ``hours``, or of all.

    Runs still ``running`` are counted, but enter no average, rate or sum. An empty database gives zeros.
    """
    with store.reading() as connection:
        found = trend_in(connection, now=now, hours=hours, buckets=1, job=job)
        return _object(found, hours, _recent(connection, conditions(now=now, hours=hours, job=job), limit))


def all_rejected(store: Store, *, now: datetime, hours: float | None = None, job: str | None = None) -> int:
    """Return how many of the runs that count as successes loaded nothing, as every record was rejected."""
    with store.reading() as connection:
        return trend_in(connection, now=now, hours=hours, buckets=1, job=job).total.all_rejected


def no_runs(hours: float | None) -> dict[str, object]:
    """Return the health object of a database that is not there yet."""
    return _object(Trend(), hours, [])


def _object(found: Trend, hours: float | None, recent: list[dict[str, object]]) -> dict[str, object]:
    jobs = [_line(name, sums) for name, sums in found.jobs.items()]
    return {**totals(found, hours), "per_job": jobs, "recent_runs": recent}


def totals(found: Trend, hours: float | None) -> dict[str, object]:
    """Return what the health object says of all runs together."""
    total = found.total
    return {
        "total_runs": total.runs,
        "successes": total.successes,
        "failures": total.failures,
        "running": total.running,
        "success_rate": total.success_rate,
        "avg_duration_ms": total.average_ms,
        "p95_duration_ms": found.p95_ms,
        "total_rows_in": total.rows_in,
        "total_rows_out": total.rows_out,
        "window_hours": hours,
    }


def _line(job: str, sums: Sums) -> dict[str, object]:
    return {
        "job": job,
        "runs": sums.runs,
        "successes": sums.successes,
        "failures": sums.failures,
        "success_rate": sums.success_rate,
        "avg_duration_ms": sums.average_ms,
        "rows_in": sums.rows_in,
        "rows_out": sums.rows_out,
    }


def _recent(connection: sa.Connection, where: Sequence[sa.ColumnElement[bool]], limit: int) -> list[dict[str, object]]:
    """Return the runs that were recorded last, as the feed that this one grew from does."""
    columns = etl_runs.c
    query = (
        sa.select(
            columns.id,
            columns.job_name.label("job"),
            columns.status,
            columns.rows_in,
            columns.rows_out,
            columns.duration_ms,
            columns.started_at,
        )
        .where(*where)
        .order_by(columns.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def feed(found: dict[str, object]) -> dict[str, object]:
    """Return the health object as dashboards are fed with it: with the number of runs recorded in front."""
    return {"runs_recorded": found["total_runs"], **found}
