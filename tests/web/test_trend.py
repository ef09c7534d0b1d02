"""The numbers of the page, and of the terminal's sparkline, are those of ``inboxd health``, whatever the runs."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import stamp
from inboxd.operate.browse import failures, last_successes
from inboxd.operate.health import all_rejected, health
from inboxd.operate.trend import Bucket, nearest_rank, trend
from stores import OpenEmpty, examples

pytestmark = pytest.mark.on_citus

Run = tuple[str, str, int, int, int]
NOW: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)
RUN: Final[st.SearchStrategy[Run]] = st.tuples(
    st.sampled_from(["events", "orders"]),
    st.sampled_from(["success", "failure", "running"]),
    st.integers(0, 50),
    st.integers(0, 5_000),
    st.integers(-120, 200 * 60),
)
"""Job, status, rows, duration (ms), and how many minutes ago it began: below zero by a clock that is ahead."""
INSERT: Final = sa.text(
    "INSERT INTO etl_runs (job_name, status, rows_in, rows_out, duration_ms, started_at, finished_at, error_code)"
    " VALUES (:job, :status, :rows, :rows, :ms, :at, :end, :code)"
)


def by_hand(runs: list[Run], start: str, end: str, *, is_last: bool) -> Bucket:
    """Return what a span has to say, from one run after the other; the last one is open."""
    chosen = [
        (status, rows, duration)
        for _, status, rows, duration, minutes in runs
        if status != "running" and start <= began(minutes) and (is_last or began(minutes) < end)
    ]
    rows_of_all = sum(rows for status, rows, _ in chosen if status == "success")
    durations = sorted(duration for _, _, duration in chosen)
    p50, p95 = (durations[math.ceil(len(durations) * share) - 1] if durations else 0 for share in (0.5, 0.95))
    failures = sum(status == "failure" for status, _, _ in chosen)
    return Bucket(start, end, len(chosen), failures, 0, rows_of_all, rows_of_all, 0, p50, p95)


def began(minutes: int) -> str:
    """Return when a run began that is so many minutes old."""
    return stamp(NOW - timedelta(minutes=minutes))


def test_a_duration_that_another_program_wrote_is_no_obstacle(open_empty: OpenEmpty) -> None:
    """SQLite keeps 12.5 in a column of whole numbers, and the page and ``status`` go on with it."""
    store = open_empty()
    with store.writing() as connection:
        row = {"job": "events", "status": "success", "rows": 1, "at": began(5), "end": began(5), "code": None}
        connection.execute(INSERT, [{**row, "ms": ms} for ms in (10, 12.5, 30)])
    assert trend(store, now=NOW, hours=1, buckets=1).total.duration_ms in {52, 53}  # PostgreSQL rounds as it is stored


def test_a_file_needs_attention_until_it_is_loaded(open_empty: OpenEmpty) -> None:
    """Tried again it counts once, of each code; loaded since, by its feed and under its name, no more."""
    store = open_empty()
    runs = (  # in this order
        *(("events", "a.json", "failure", "invalid_json"), ("events", "a.json", "failure", "invalid_json")),
        *(("events", "b.json", "failure", "invalid_json"), ("events", "b.json", "success", None)),
        *(("orders", "b.json", "failure", "invalid_json"), ("orders", "c.json", "success", None)),
        *(("orders", "c.json", "failure", "empty_file"), ("orders", "d.json", "failure", "interrupted")),
    )
    with store.writing() as connection:
        insert = sa.text(INSERT.text.replace("(job_name", "(file_name, job_name").replace("(:job", "(:file, :job"))
        for job, file, status, code in runs:
            row = {"rows": 0, "ms": 1, "at": began(5), "end": began(5)}
            connection.execute(insert, {**row, "job": job, "file": file, "status": status, "code": code})
    assert [(one.code, one.feed, one.count, one.newest) for one in failures(store, now=NOW, hours=1, limit=9)] == [
        ("empty_file", "orders", 1, 7),
        ("invalid_json", "orders", 1, 5),
        ("invalid_json", "events", 1, 2),
    ]


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(RUN, max_size=25), hours=st.sampled_from([1.0, 24.0, 168.0, None]), buckets=st.integers(1, 60))
def test_the_page_says_what_health_says(
    open_empty: OpenEmpty, runs: list[Run], hours: float | None, buckets: int
) -> None:
    """Counts, rates, averages, percentiles and jobs as the commands give them; each span of time as counted by hand."""
    store = open_empty()
    with store.writing() as connection:
        connection.execute(sa.text("DELETE FROM etl_runs"))
        for job, status, rows, duration, minutes in runs:
            at = began(minutes)
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
    assert all(one.end == other.start for one, other in pairwise(found.buckets))
    assert len(found.buckets) == (0 if hours is None and not runs else buckets)
    last = len(found.buckets) - 1
    assert found.buckets == [
        by_hand(runs, bucket.start, bucket.end, is_last=number == last) for number, bucket in enumerate(found.buckets)
    ]
    assert sum(bucket.files for bucket in found.buckets) == total.ended
    store.close()


@given(values=st.lists(st.integers(0, 20), min_size=1), percent=st.sampled_from([50, 95]))
def test_the_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    """It is the smallest value that at least so many per cent of all values do not exceed."""
    found = nearest_rank(sorted(values), percent)
    enough = [value for value in values if 100 * sum(other <= value for other in values) >= percent * len(values)]
    assert found == min(enough)


def test_a_run_that_loaded_nothing_of_what_it_had_is_no_news(open_empty: OpenEmpty) -> None:
    """A file of which every record was rejected is counted apart, and is nobody's last success."""
    store = open_empty()
    insert = sa.text(
        "INSERT INTO etl_runs (job_name, status, rows_in, rows_out, rows_rejected, rows_skipped, rows_stale,"
        " duration_ms, started_at, finished_at)"
        " VALUES ('events', 'success', :out + :rejected, :out, :rejected, 0, 0, 1, :at, :at)"
    )
    with store.writing() as connection:
        connection.execute(
            insert, [{"out": 2, "rejected": 1, "at": began(9)}, {"out": 0, "rejected": 3, "at": began(5)}]
        )
    found = trend(store, now=NOW, hours=1, buckets=1)
    assert (found.total.successes, found.total.all_rejected) == (2, 1)
    assert found.buckets[0].all_rejected == 1
    assert last_successes(store, ["events", "imported"]) == {"events": began(9)}
    assert all_rejected(store, now=NOW, hours=1, job="events") == 1
