"""``inboxd health``: how the runs went, all together and job by job. The database does the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from inboxd.model import RunStatus
from inboxd.operate.periods import ALL_REJECTED, ENDED, conditions
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs

Where = Sequence[sa.ColumnElement[bool]]
SUMS: Final = ("runs", "successes", "failures", "running", "duration_ms", "rows_in", "rows_out")


def health(
    store: Store, *, now: datetime, hours: float | None = None, job: str | None = None, limit: int = 10
) -> dict[str, object]:
    """Return the health object: of the runs that began in the last ``hours``, or of all.

    Runs still ``running`` are counted, but enter no average, rate or sum. An empty database gives zeros.
    """
    where = conditions(now=now, hours=hours, job=job)
    with store.reading() as connection:
        jobs = _jobs(connection, where)
        total = {name: sum(line[name] for line in jobs.values()) for name in SUMS}
        ended = total["successes"] + total["failures"]
        return {
            "total_runs": total["runs"],
            "successes": total["successes"],
            "failures": total["failures"],
            "running": total["running"],
            "success_rate": _rate(total["successes"], ended),
            "avg_duration_ms": _average(total["duration_ms"], ended),
            "p95_duration_ms": _nearest_rank(connection, where, ended, 95),
            "total_rows_in": total["rows_in"],
            "total_rows_out": total["rows_out"],
            "window_hours": hours,
            "per_job": [_line(name, sums) for name, sums in jobs.items()],
            "recent_runs": _recent(connection, where, limit),
        }


def all_rejected(store: Store, *, now: datetime, hours: float | None = None, job: str | None = None) -> int:
    """Return how many of the runs that count as successes loaded nothing, as every record was rejected."""
    query = sa.select(sa.func.count()).where(ALL_REJECTED, *conditions(now=now, hours=hours, job=job))
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def _sums() -> list[sa.Label[int]]:
    """Return the aggregates that every line of the health object is made of, named as in ``SUMS``."""

    def with_status(status: RunStatus) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((etl_runs.c.status == status.value, 1), else_=0)), 0)

    def of_ended(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((ENDED, column), else_=0)), 0)

    return [
        sa.func.count().label("runs"),
        with_status(RunStatus.SUCCESS).label("successes"),
        with_status(RunStatus.FAILURE).label("failures"),
        with_status(RunStatus.RUNNING).label("running"),
        of_ended(etl_runs.c.duration_ms).label("duration_ms"),
        of_ended(etl_runs.c.rows_in).label("rows_in"),
        of_ended(etl_runs.c.rows_out).label("rows_out"),
    ]


def _rate(successes: int, ended: int) -> float:
    return round(100 * successes / ended, 1) if ended else 0.0


def _average(total: int, count: int) -> float:
    return round(total / count, 1) if count else 0.0


def _nearest_rank(connection: sa.Connection, where: Where, ended: int, percent: int) -> int:
    """Return the smallest duration that at least ``percent`` of the ended runs do not exceed."""
    if not ended:
        return 0
    rank = -(-percent * ended // 100)
    duration = etl_runs.c.duration_ms
    query = sa.select(duration).where(ENDED, *where).order_by(duration).limit(1).offset(rank - 1)
    return int(connection.execute(query).scalar_one())


def _jobs(connection: sa.Connection, where: Where) -> dict[str, dict[str, int]]:
    """Return each job's sums, the busiest first: all the runs' sums are theirs added up, so they are read once."""
    job = etl_runs.c.job_name
    query = sa.select(job, *_sums()).where(*where).group_by(job).order_by(sa.func.count().desc(), job)
    rows = connection.execute(query).mappings()
    return {str(row["job_name"]): {name: int(row[name]) for name in SUMS} for row in rows}


def _line(job: str, sums: Mapping[str, int]) -> dict[str, object]:
    ended = sums["successes"] + sums["failures"]
    return {
        "job": job,
        "runs": sums["runs"],
        "successes": sums["successes"],
        "failures": sums["failures"],
        "success_rate": _rate(sums["successes"], ended),
        "avg_duration_ms": _average(sums["duration_ms"], ended),
        "rows_in": sums["rows_in"],
        "rows_out": sums["rows_out"],
    }


def _recent(connection: sa.Connection, where: Where, limit: int) -> list[dict[str, object]]:
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


def no_runs(hours: float | None) -> dict[str, object]:
    """Return the health object of a database that is not there yet."""
    counts = ("total_runs", "successes", "failures", "running")
    rates = {"success_rate": 0.0, "avg_duration_ms": 0.0, "p95_duration_ms": 0, "total_rows_in": 0, "total_rows_out": 0}
    return {**dict.fromkeys(counts, 0), **rates, "window_hours": hours, "per_job": [], "recent_runs": []}


def feed(found: dict[str, object]) -> dict[str, object]:
    """Return the health object as dashboards are fed with it: with the number of runs recorded in front."""
    return {"runs_recorded": found["total_runs"], **found}
