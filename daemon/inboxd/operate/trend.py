"""How runs went over time, for charts and the terminal's sparkline: all, each job, each span, by two reads of the runs.

Asked one by one, as ``health`` asks, these take several times as many; with 100,000 runs that is the difference between
a page that is there and one that is waited for. A test holds the two against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from inboxd.clock import moment, stamp
from inboxd.model import RunStatus
from inboxd.operate.periods import ENDED, hours_before
from inboxd.store.base import Store
from inboxd.store.tables import Stamp, etl_runs

SHORTEST: Final = timedelta(seconds=1)
"""All buckets together span at least this long, so that a single run has a width."""
LAST_MOMENT: Final = "9999-12-31T23:59:59.999999Z"
"""The last bucket is open: a run of a clock ahead of ours began in it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The runs that began in ``[start, end)`` and have ended; durations in milliseconds, by nearest rank.

    The last bucket of all holds those that began after its end, too.
    """

    start: str
    end: str
    files: int
    failures: int
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
    duration_ms: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    skipped: int = 0
    stale: int = 0

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

    def add(self, row: sa.Row[tuple[object, ...]]) -> None:
        """Add one line of the query's answer."""
        if row.status == RunStatus.RUNNING.value:
            self.running += row.runs
            return
        self.successes += row.runs if row.status == RunStatus.SUCCESS.value else 0
        self.failures += row.runs if row.status == RunStatus.FAILURE.value else 0
        for name in ("duplicates", "duration_ms", "rows_in", "rows_out", "rejected", "skipped", "stale"):
            setattr(self, name, getattr(self, name) + int(getattr(row, name)))


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
    found = Trend()
    jobs: defaultdict[str, Sums] = defaultdict(Sums)
    by_bucket: defaultdict[int, Sums] = defaultdict(Sums)
    durations: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    with store.reading() as connection:
        start = _first(connection) if hours is None else hours_before(now, hours)
        if start is None:
            return found
        bounds = _bounds(start, now, buckets)
        spans = _spans(bounds)
        for row in connection.execute(_sums(spans)):
            for sums in (found.total, jobs[row.job_name], by_bucket[row.bucket]):
                sums.add(row)
        for row in connection.execute(_durations(spans)):
            durations[row.bucket].append((row.duration_ms, row.runs))
    found.jobs = dict(sorted(jobs.items(), key=lambda item: (-item[1].runs, item[0])))
    found.buckets = [_bucket(low, high, by_bucket[n], durations[n]) for n, (low, high) in enumerate(bounds)]
    every = sorted(pair for pairs in durations.values() for pair in pairs)
    found.p50_ms, found.p95_ms = nearest_rank(every, 50), nearest_rank(every, 95)
    return found


def nearest_rank(pairs: Sequence[tuple[int, int]], percent: int) -> int:
    """Return the percentile of values, given sorted with how often each was seen; zero where there are none."""
    left = -(-percent * sum(count for _, count in pairs) // 100)
    for value, count in pairs:
        left -= count
        if left <= 0:
            return value
    return 0


def _first(connection: sa.Connection) -> datetime | None:
    text = connection.execute(sa.select(etl_runs.c.started_at).order_by(etl_runs.c.started_at).limit(1)).scalar()
    return None if text is None else moment(text)


def _bounds(start: datetime, now: datetime, buckets: int) -> list[tuple[str, str]]:
    end = max(now, start + SHORTEST)
    edges = [stamp(start + (end - start) * number / buckets) for number in range(buckets)]
    return list(zip(edges, [*edges[1:], stamp(end + timedelta(microseconds=1))], strict=True))


def _spans(bounds: Sequence[tuple[str, str]]) -> sa.CTE:
    """Return the spans as rows, so that one query, walking the index on ``started_at``, answers for all of them."""
    columns = sa.column("bucket", sa.Integer), sa.column("low", Stamp), sa.column("high", Stamp)
    highs = [*(high for _, high in bounds[:-1]), LAST_MOMENT]
    rows = [(number, low, high) for number, ((low, _), high) in enumerate(zip(bounds, highs, strict=True))]
    return sa.values(*columns, name="span_values").data(rows).cte("spans")


def _within(spans: sa.CTE, *also: sa.ColumnElement[bool]) -> sa.FromClause:
    began = etl_runs.c.started_at
    return spans.join(etl_runs, sa.and_(began >= spans.c.low, began < spans.c.high, *also))


def _sums(spans: sa.CTE) -> sa.Select[tuple[object, ...]]:
    runs = etl_runs.c
    summed = {
        "duration_ms": runs.duration_ms,
        "rows_in": runs.rows_in,
        "rows_out": runs.rows_out,
        "rejected": runs.rows_rejected,
        "skipped": runs.rows_skipped,
        "stale": runs.rows_stale,
    }
    columns: Iterable[sa.Label[int]] = (sa.func.coalesce(sa.func.sum(c), 0).label(name) for name, c in summed.items())
    counted = (sa.func.count().label("runs"), sa.func.count(runs.duplicate_of).label("duplicates"))
    groups = (spans.c.bucket, runs.job_name, runs.status)
    return sa.select(*groups, *counted, *columns).select_from(_within(spans)).group_by(*groups)


def _durations(spans: sa.CTE) -> sa.Select[tuple[object, ...]]:
    """Count how often each duration was seen: as many rows as there are different ones, however many runs."""
    groups = (spans.c.bucket, etl_runs.c.duration_ms)
    counted = sa.select(*groups, sa.func.count().label("runs")).select_from(_within(spans, ENDED))
    return counted.group_by(*groups).order_by(*groups)


def _bucket(low: str, high: str, sums: Sums, durations: Sequence[tuple[int, int]]) -> Bucket:
    return Bucket(
        start=low,
        end=high,
        files=sums.ended,
        failures=sums.failures,
        rows_in=sums.rows_in,
        rows_out=sums.rows_out,
        rows_rejected=sums.rejected,
        p50_ms=nearest_rank(durations, 50),
        p95_ms=nearest_rank(durations, 95),
    )
