"""``inboxd health``: how the runs went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from inboxd.cli.arguments import FEED, Hours, Moment, Number, OneFile
from inboxd.cli.context import print_json, settings_of, write_json
from inboxd.cli.names import known_job
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import Column, all_rejected_line, heading, late_lines, print_pairs, print_table, short_time
from inboxd.clock import SystemClock, moment
from inboxd.errors import EXIT_FAILED
from inboxd.operate import health as questions
from inboxd.operate.arrivals import expected
from inboxd.words import milliseconds

SHORT: Final = {
    "successes": "succeeded",
    "failures": "failed",
    "success_rate": "rate %",
    "avg_duration_ms": "avg ms",
    "duration_ms": "ms",
    "rows_in": "rows in",
    "rows_out": "rows out",
}
"""How the columns of numbers are called in a table."""
GOES: Final = {"duration_ms": 1, "avg_duration_ms": 1, "rows_in": 3}
"""Which of them are left out first where there is no room."""


@click.command()
@click.option("--since", type=Moment(), help="Only runs that began in the last 24h, 7d, …, or from this time on.")
@click.option("--hours", type=Hours(), help="The same in hours: --hours 24 is --since 24h.")
@click.option("--feed", "--job", "feed", type=FEED, help="Only runs of this feed, or of a job that was imported.")
@click.option("--limit", type=Number(), default=10, show_default=True, help="How many recent runs to list.")
@click.option("--output", type=OneFile(), help="Write the feed for a dashboard to this file as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def health(
    context: click.Context,
    since: str | None,
    hours: float | None,
    feed: str | None,
    limit: int,
    output: Path | None,
    *,
    as_json: bool,
) -> int:
    """Show success rate, durations and rows: over all runs and by job, then the recent ones.

    Runs that are still running are counted, but enter no rate, average or sum. Exit code 1 says that a feed is late.

    \b
    Example:  inboxd health --since 24h
              inboxd health --feed orders --json
              inboxd health --output /var/www/health.json
    """
    now = SystemClock().now()
    window = _window(since, hours, now)
    rejected, late = 0, []
    settings = settings_of(context)
    with store_if_there(settings) as store:
        known_job(settings, store, feed)
        if store is None:
            found = questions.no_runs(window)
        else:
            found = questions.health(store, now=now, hours=window, job=feed, limit=limit)
            rejected = questions.all_rejected(store, now=now, hours=window, job=feed)
            late = [one.shown for one in expected(store, settings.feeds, now) if feed in {None, one.feed}]
    if output is not None:
        write_json(output, questions.feed(found))
    if as_json:
        print_json(found)
    else:
        _print(found, rejected)
    for line in late_lines(late, now):  # the object is of runs: why the exit code is 1 is said beside it
        click.secho(line, fg="red", err=as_json)
    return EXIT_FAILED if any(one.late for one in late) else 0


def _window(since: str | None, hours: float | None, now: datetime) -> float | None:
    """Return how many hours back is looked, whole where they are; ``None`` for all."""
    if since is not None and hours is not None:
        raise click.UsageError("--since and --hours say the same: give one of them")
    if since is not None:
        hours = round((now - moment(since)).total_seconds() / 3600, 3)
        if hours <= 0:
            raise click.UsageError("--since is in the future")
    return None if hours is None else int(hours) if hours.is_integer() else hours


def _print(found: Mapping[str, object], rejected: int) -> None:
    window = found["window_hours"]
    when = "all runs" if window is None else f"runs of the last {window} h"
    ended = found["successes"] != 0 or found["failures"] != 0
    duration = f"{_ms(found['avg_duration_ms'])} on average, 95 % within {_ms(found['p95_duration_ms'])}"
    click.secho(when, bold=True)
    print_pairs(
        (
            ("runs", f"{found['total_runs']} ({found['running']} running)"),
            ("succeeded", found["successes"]),
            ("failed", found["failures"]),
            ("success rate", f"{found['success_rate']} %" if ended else "no run has ended"),
            ("duration", duration if ended else None),
            ("rows", f"{found['total_rows_in']} in, {found['total_rows_out']} out"),
        )
    )
    if rejected:
        click.secho(all_rejected_line(rejected), fg="yellow")
    jobs = _lines(found, "per_job")
    if jobs:
        heading("by job")
        names = ["runs", "successes", "failures", "success_rate", "avg_duration_ms", "rows_in", "rows_out"]
        columns = [Column("job", cut="middle"), *map(_measure, names)]
        print_table(columns, [(job["job"], *(job[name] for name in names)) for job in jobs])
    recent = _lines(found, "recent_runs")
    if recent:
        heading("recent runs")
        names = ["rows_in", "rows_out", "duration_ms"]
        columns = [Column("run", number=True), Column("job", cut="middle"), Column("status"), *map(_measure, names)]
        columns.append(Column("started", goes=2))
        shown = ("id", "job", "status", *names)
        print_table(columns, [(*(run[name] for name in shown), short_time(str(run["started_at"]))) for run in recent])


def _measure(name: str) -> Column:
    return Column(SHORT.get(name, name), number=True, goes=GOES.get(name, 0))


def _ms(value: object) -> str:
    return milliseconds(value) if isinstance(value, (int, float)) else ""


def _lines(found: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    lines = found[name]
    return lines if isinstance(lines, list) else []
