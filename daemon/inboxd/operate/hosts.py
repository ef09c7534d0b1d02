"""Which hosts load into this database, as the ledger tells: with PostgreSQL there may be several."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.outcomes import RunStatus
from inboxd.store.base import ANNOUNCED_LENGTH
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs

WINDOW_HOURS: Final = 24.0


@dataclass(frozen=True, slots=True)
class HostActivity:
    """What one host did in the last 24 hours. ``running`` are runs begun there and not ended: at work, or put off.

    ``up`` tells whether a daemon of its has a session on the database; ``None`` where the database cannot tell.
    """

    host: str
    running: int
    successes: int
    failures: int
    last_run_at: str | None
    up: bool | None = None


def hosts(store: Store, *, now: datetime) -> list[HostActivity]:
    """Return the hosts that began a run in the last 24 hours, or whose daemons are up and idle, by name."""

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
    there = store.announced()
    with store.reading() as connection:
        found = [
            HostActivity(
                host=row.host,
                running=int(row.running),
                successes=int(row.successes),
                failures=int(row.failures),
                last_run_at=row.last_run_at,
                up=None if there is None else row.host[:ANNOUNCED_LENGTH] in there,
            )
            for row in connection.execute(query)
        ]
    idle = (there or frozenset()) - {one.host[:ANNOUNCED_LENGTH] for one in found}
    found += [HostActivity(host, 0, 0, 0, None, up=True) for host in idle]
    return sorted(found, key=lambda one: one.host)
