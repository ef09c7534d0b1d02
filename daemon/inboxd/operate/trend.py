"""How runs went over time, for charts, the terminal's sparkline and ``health``: all, each job, each span, by one walk.

The walk is made span by span, because a database groups few runs in the processor's cache, and sorts many: one
question for all spans took half as long again. Durations come as one text: as lines of an answer, 100,000 that differ
took 0.4 s, so they take 0.1 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from inboxd.clock import LAST_MOMENT, moment, stamp
from inboxd.operate.periods import ALL_REJECTED, hours_before
from inboxd.outcomes import RunStatus
from inboxd.store.database import Store
from inboxd.store.tables import Stamp, etl_runs

RUNNING: Final = RunStatus.RUNNING.value
SUCCESS: Final = RunStatus.SUCCESS.value
SHORTEST: Final = timedelta(seconds=1)
"""All buckets together span at least this long, so that a single run has a width."""

_RUNS: Final = etl_runs.c
_WHOLE_MS: Final = sa.cast(sa.cast(_RUNS.duration_ms, sa.BigInteger), sa.Text)
"""In SQLite's table a column is what another program inserts there, such as 12.5."""
_SUMMED: Final[dict[str, sa.ColumnElement[int]]] = {
    "all_rejected": sa.case((ALL_REJECTED, 1), else_=0),
    "rows_in": _RUNS.rows_in,
    "rows_out": _RUNS.rows_out,
    "rejected": _RUNS.rows_rejected,
    "skipped": _RUNS.rows_skipped,
    "stale": _RUNS.rows_stale,
    "filtered": _RUNS.rows_filtered,
    "deleted": _RUNS.rows_deleted,
}
"""What of ``Sums`` the columns add up to."""
RUNS_OF_A_SPAN: Final = (
    sa.select(_RUNS.job_name, _RUNS.status)
    .add_columns(sa.func.aggregate_strings(_WHOLE_MS, ",").label("durations"))
    .add_columns(sa.func.count(), sa.func.count(_RUNS.duplicate_of))
    .add_columns(*(sa.func.coalesce(sa.func.sum(column), 0) for column in _SUMMED.values()))
    .where(_RUNS.started_at >= sa.bindparam("low", type_=Stamp), _RUNS.started_at < sa.bindparam("high", type_=Stamp))
    .group_by(_RUNS.job_name, _RUNS.status)
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The runs that began in ``[start, end)`` and have ended; durations in milliseconds, by nearest rank.

    The last bucket of all holds those that began after its end, too.
    """

    start: str
    end: str
    files: int
    failures: int
    all_rejected: int
    rows_in: int
    rows_out: int
    rows_rejected: int
    p50_ms: int
    p95_ms: int


@dataclass(slots=True)
class Sums:
    """What runs add up to; those still ``running`` count in ``running`` alone."""

    running: int = 0
    successes: int = 0
    failures: int = 0
    duplicates: int = 0
    all_rejected: int = 0
    """Of the successes, those of which every record was rejected."""
    duration_ms: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    skipped: int = 0
    stale: int = 0
    filtered: int = 0
    deleted: int = 0
    """Rows, not records."""

    @property
    def runs(self) -> int:
        """All of them, running included."""
        return self.running + self.ended

    @property
    def ended(self) -> int:
        """Those that are over."""
        return self.successes + self.failures

    @property
    def success_rate(self) -> float:
        """Per cent of those that are over, with one decimal; zero where there are none."""
        return round(100 * self.successes / self.ended, 1) if self.ended else 0.0

    @property
    def average_ms(self) -> float:
        """Average duration of those that are over (ms)."""
        return round(self.duration_ms / self.ended, 1) if self.ended else 0.0

    def add(self, row: sa.Row[Any]) -> Sequence[int]:
        """Add one line of the answer, runs of one job and one status; return their durations if they are over."""
        _, status, text, runs, *sums = tuple(row)
        if status == RUNNING:
            self.running += runs
            return ()
        if status == SUCCESS:
            self.successes += runs
        else:
            self.failures += runs
        durations = list(map(int, text.split(",")))
        self.duration_ms += sum(durations)
        for name, value in zip(("duplicates", *_SUMMED), sums, strict=True):
            setattr(self, name, getattr(self, name) + int(value))
        return durations

    def merge(self, other: Sums) -> None:
        """Add other sums."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(slots=True)
class Trend:
    """The sums of all runs and of each job, the buckets from the oldest, and the percentiles of all durations (ms)."""

    total: Sums = field(default_factory=Sums)
    jobs: dict[str, Sums] = field(default_factory=dict)
    buckets: list[Bucket] = field(default_factory=list)
    p50_ms: int = 0
    p95_ms: int = 0


def trend(store: Store, *, now: datetime, hours: float | None, buckets: int) -> Trend:
    """Return the runs that began in the last ``hours``, or all, cut into equal spans.

    Without ``hours``, an empty database has no spans.
    """
    with store.reading() as connection:
        return trend_in(connection, now=now, hours=hours, buckets=buckets)


def trend_in(
    connection: sa.Connection, *, now: datetime, hours: float | None, buckets: int, job: str | None = None
) -> Trend:
    """Return the same, of one job or of all, in a view of the database that is at hand."""
    found = Trend()
    jobs: defaultdict[str, Sums] = defaultdict(Sums)
    every: list[int] = []
    start = _first(connection, job) if hours is None else hours_before(now, hours)
    if start is None:
        return found
    bounds = _bounds(start, now, buckets)
    of_span = RUNS_OF_A_SPAN if job is None else RUNS_OF_A_SPAN.where(_RUNS.job_name == job)
    for low, high in bounds:
        of_job: defaultdict[str, Sums] = defaultdict(Sums)
        durations: list[int] = []
        # The last bucket is open: a run of a clock ahead of ours began in it.
        until = LAST_MOMENT if high == bounds[-1][1] else high
        for row in connection.execute(of_span, {"low": low, "high": until}):
            durations += of_job[row.job_name].add(row)
        sums = Sums()
        for name, one in of_job.items():
            jobs[name].merge(one)
            sums.merge(one)
        found.total.merge(sums)
        found.buckets.append(_bucket(low, high, sums, sorted(durations)))
        every += durations
    found.jobs = dict(sorted(jobs.items(), key=lambda item: (-item[1].runs, item[0])))
    every.sort()
    found.p50_ms, found.p95_ms = nearest_rank(every, 50), nearest_rank(every, 95)
    return found


def nearest_rank(values: Sequence[int], percent: int) -> int:
    """Return the percentile of sorted values; zero where there are none."""
    return values[-(-percent * len(values) // 100) - 1] if values else 0


def _first(connection: sa.Connection, job: str | None) -> datetime | None:
    of_job = sa.true() if job is None else _RUNS.job_name == job
    text = connection.execute(sa.select(_RUNS.started_at).where(of_job).order_by(_RUNS.started_at).limit(1)).scalar()
    return None if text is None else moment(text)


def _bounds(start: datetime, now: datetime, buckets: int) -> list[tuple[str, str]]:
    end = max(now, start + SHORTEST)
    edges = [stamp(start + (end - start) * number / buckets) for number in range(buckets)]
    return list(zip(edges, [*edges[1:], stamp(end + timedelta(microseconds=1))], strict=True))


def _bucket(low: str, high: str, sums: Sums, durations: Sequence[int]) -> Bucket:
    return Bucket(
        start=low,
        end=high,
        files=sums.ended,
        failures=sums.failures,
        all_rejected=sums.all_rejected,
        rows_in=sums.rows_in,
        rows_out=sums.rows_out,
        rows_rejected=sums.rejected,
        p50_ms=nearest_rank(durations, 50),
        p95_ms=nearest_rank(durations, 95),
    )
