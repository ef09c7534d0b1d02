"""``inboxd health``: how the runs went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from inboxd.cli.arguments import Hours, Number, OneFile, Text
from inboxd.cli.context import print_json, settings_of, write_json
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import Column, all_rejected_line, heading, print_pairs, print_table, short_time
from inboxd.clock import SystemClock


@click.command()
@click.option("--hours", type=Hours(), help="Only runs that began in the last so many hours.")
@click.option("--job", type=Text(), help="Only runs of this job: a feed, or a job whose runs were imported.")
@click.option("--limit", type=Number(), default=10, show_default=True, help="How many recent runs to list.")
@click.option("--output", type=OneFile(), help="Write the feed for a dashboard to this file as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def health(
    context: click.Context, hours: float | None, job: str | None, limit: int, output: Path | None, *, as_json: bool
) -> None:
    """Show success rate, durations and rows: over all runs and by job, then the recent ones.

    Runs that are still running are counted, but enter no rate, average or sum.

    \b
    Example:  inboxd health --hours 24
              inboxd health --job orders --json
              inboxd health --output /var/www/health.json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from inboxd.operate import health as questions  # noqa: PLC0415 - `--help` needs no database

    window = None if hours is None else int(hours) if hours.is_integer() else hours
    now = SystemClock().now()
    rejected = 0
    with store_if_there(settings_of(context)) as store:
        if store is None:
            found = questions.no_runs(window)
        else:
            found = questions.health(store, now=now, hours=window, job=job, limit=limit)
            rejected = questions.all_rejected(store, now=now, hours=window, job=job)
    if output is not None:
        write_json(output, questions.feed(found))
    if as_json:
        print_json(found)
    else:
        _print(found, rejected)


def _print(found: Mapping[str, object], rejected: int) -> None:
    window = found["window_hours"]
    when = "all runs" if window is None else f"runs of the last {window} h"
    click.secho(when, bold=True)
    print_pairs(
        (
            ("runs", f"{found['total_runs']} ({found['running']} running)"),
            ("succeeded", found["successes"]),
            ("failed", found["failures"]),
            ("success rate", f"{found['success_rate']} %"),
            ("duration", f"{found['avg_duration_ms']} ms on average, 95 % within {found['p95_duration_ms']} ms"),
            ("rows", f"{found['total_rows_in']:,} in, {found['total_rows_out']:,} out"),
        )
    )
    if rejected:
        click.secho(all_rejected_line(rejected), fg="yellow")
    jobs = _lines(found, "per_job")
    if jobs:
        heading("by job")
        names = ["runs", "successes", "failures", "success_rate", "avg_duration_ms", "rows_in", "rows_out"]
        columns = [Column("job"), *(Column(name.replace("_", " "), number=True) for name in names)]
        print_table(columns, [(job["job"], *(job[name] for name in names)) for job in jobs])
    recent = _lines(found, "recent_runs")
    if recent:
        heading("recent runs")
        names = ["rows_in", "rows_out", "duration_ms"]
        columns = [Column("run", number=True), Column("job"), Column("status")]
        columns += [*(Column(name.replace("_", " "), number=True) for name in names), Column("started")]
        print_table(
            columns,
            [
                (
                    run["id"],
                    run["job"],
                    run["status"],
                    *(run[name] for name in names),
                    short_time(str(run["started_at"])),
                )
                for run in recent
            ],
        )


def _lines(found: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    lines = found[name]
    return lines if isinstance(lines, list) else []
