"""Which hosts load into this database, as the ledger tells: with PostgreSQL there may be several."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.model import RunStatus
from inboxd.store.base import Store
from inboxd.store.tables import etl_runs

WINDOW_HOURS: Final = 24.0


@dataclass(frozen=True, slots=True)
class HostActivity:
    """What one host did in the last 24 hours. ``running`` are runs begun there and not ended: at work, or put off."""

    host: str
    running: int
    successes: int
    failures: int
    last_run_at: str


def hosts(store: Store, *, now: datetime) -> list[HostActivity]:
    """Return the hosts that began a run in the last 24 hours, by name."""

    def with_status(status: RunStatus) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((etl_runs.c.status == status.value, 1), else_=0))

    query = (
        sa.select(
            etl_runs.c.host,
            with_status(RunStatus.RUNNING).label("running"),
            with_status(RunStatus.SUCCESS).label("successes"),
            with_status(RunStatus.FAILURE).label("failures"),
            sa.func.max(etl_runs.c.started_at, type_=etl_runs.c.started_at.type).label("last_run_at"),
        )
        .where(etl_runs.c.host.is_not(None), etl_runs.c.started_at >= stamp(now - timedelta(hours=WINDOW_HOURS)))
        .group_by(etl_runs.c.host)
        .order_by(etl_runs.c.host)
    )
    with store.reading() as connection:
        return [
            HostActivity(row.host, int(row.running), int(row.successes), int(row.failures), row.last_run_at)
            for row in connection.execute(query)
        ]
