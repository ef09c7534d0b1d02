"""The page's numbers are those of ``inboxd health``, whatever the runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import stamp
from inboxd.operate.health import health
from inboxd.operate.series import series
from inboxd.operate.trend import nearest_rank, trend
from inboxd.store import open_store
from inboxd.store.base import Store

NOW: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)
RUN: Final = st.tuples(
    st.sampled_from(["events", "orders"]),
    st.sampled_from(["success", "failure", "running"]),
    st.integers(0, 50),
    st.integers(0, 5_000),
    st.integers(0, 200 * 60),
)
INSERT: Final = sa.text(
    "INSERT INTO etl_runs (job_name, status, rows_in, rows_out, duration_ms, started_at, finished_at, error_code)"
    " VALUES (:job, :status, :rows, :rows, :ms, :at, :end, :code)"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return a database that each example fills anew."""
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('trend')}/inboxd.db") as store:
        store.upgrade()
        yield store


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(RUN, max_size=25), hours=st.sampled_from([1.0, 24.0, 168.0, None]), buckets=st.integers(1, 60))
def test_the_page_says_what_health_says(
    store: Store, runs: list[tuple[str, str, int, int, int]], hours: float | None, buckets: int
) -> None:
    """Counts, rates, averages, percentiles, per job and over time: the same numbers as the commands give."""
    with store.writing() as connection:
        connection.execute(sa.text("DELETE FROM etl_runs"))
        for job, status, rows, duration, minutes in runs:
            at = stamp(NOW - timedelta(minutes=minutes))
            ended = status != "running"
            values = {
                "job": job,
                "status": status,
                "rows": rows if status == "success" else 0,
                "ms": duration,
                "at": at,
                "end": at if ended else None,
                "code": "poison" if status == "failure" else None,
            }
            connection.execute(INSERT, values)
    found, said = trend(store, now=NOW, hours=hours, buckets=buckets), health(store, now=NOW, hours=hours)
    total = found.total
    assert {
        "total_runs": total.runs,
        "successes": total.successes,
        "failures": total.failures,
        "running": total.running,
        "success_rate": total.success_rate,
        "avg_duration_ms": total.average_ms,
        "p95_duration_ms": found.p95_ms,
        "total_rows_in": total.rows_in,
        "total_rows_out": total.rows_out,
    }.items() <= said.items()
    assert said["per_job"] == [
        {
            "job": name,
            "runs": job.runs,
            "successes": job.successes,
            "failures": job.failures,
            "success_rate": job.success_rate,
            "avg_duration_ms": job.average_ms,
            "rows_in": job.rows_in,
            "rows_out": job.rows_out,
        }
        for name, job in found.jobs.items()
    ]
    spans = series(store, now=NOW, hours=hours, buckets=buckets)
    numbers = [(b.files, b.failures, b.rows_in, b.rows_out, b.p50_ms, b.p95_ms) for b in found.buckets]
    if buckets == 1:
        assert numbers == [(b.files, b.failures, b.rows_in, b.rows_out, b.p50_ms, b.p95_ms) for b in spans]
    assert sum(files for files, *_ in numbers) == total.ended == sum(bucket.files for bucket in spans)


@given(values=st.lists(st.integers(0, 20), min_size=1), percent=st.sampled_from([50, 95]))
def test_the_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    """It is the smallest value that at least so many per cent of all values do not exceed."""
    counted = sorted((value, values.count(value)) for value in set(values))
    found = nearest_rank(counted, percent)
    enough = [value for value in values if 100 * sum(other <= value for other in values) >= percent * len(values)]
    assert found == min(enough)
