"""Which runs a question is about: those of one job, those that began within the last hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.store.tables import etl_runs

ALL_REJECTED: Final = sa.and_(etl_runs.c.rows_rejected > 0, etl_runs.c.rows_out == 0, etl_runs.c.rows_stale == 0)
"""Runs of which every record that was neither skipped nor filtered was rejected (``Counts.all_rejected``)."""

NOT_ALL_REJECTED: Final = sa.func.coalesce(ALL_REJECTED, sa.false()).is_(sa.false())
"""Of an imported run nobody knows how many records were rejected: it counts as it says itself."""


def conditions(*, now: datetime, hours: float | None, job: str | None = None) -> list[sa.ColumnElement[bool]]:
    """Return what ``etl_runs`` is to be filtered by; both are backed by an index."""
    found: list[sa.ColumnElement[bool]] = []
    if hours is not None:
        found.append(etl_runs.c.started_at >= stamp(hours_before(now, hours)))
    if job is not None:
        found.append(etl_runs.c.job_name == job)
    return found


def hours_before(now: datetime, hours: float) -> datetime:
    """Return the moment so many hours ago, or the earliest there is."""
    try:
        return now - timedelta(hours=hours)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
