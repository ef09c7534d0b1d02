"""``inboxd status``: everything at a glance."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click

from inboxd.cli.context import print_json, settings_of
from inboxd.cli.ending import code_of
from inboxd.cli.opening import store_or_reason
from inboxd.cli.tables import (
    Column,
    all_rejected_line,
    heading,
    late_lines,
    print_pairs,
    print_table,
    print_text,
    shown,
    sparkline,
    up_to,
)
from inboxd.cli.tables import print_runs as print_run_table
from inboxd.clock import SystemClock, moment
from inboxd.errors import DATABASE_MISSING
from inboxd.model import printable
from inboxd.operate import status as questions
from inboxd.operate.hosts import HostActivity
from inboxd.operate.status import Status
from inboxd.presence import UnfinishedFile
from inboxd.words import counted, lag, scoped, size, span

SHOWN: Final = 5
"""Names listed of each kind; ``--json`` has more."""
MARGIN: Final = 14
"""Columns that stand beside the sparkline."""
SELDOM: Final = ("deleted", "filtered")
"""What is told of the last day only where there is any."""
UP: Final = {True: "up", False: "down", None: ""}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> int:
    """Show whether a daemon runs, what waits and why, watermarks, the last runs and open dead letters.

    Looks at the inbox and the database itself, so it tells the truth with the daemon stopped, too.

    \b
    Example:  inboxd status
              watch --color inboxd status
    """
    settings = settings_of(context)
    source = printable(str(settings.source)) if settings.source else None
    slices = questions.Slices(settings.inbox, settings.archive, settings.database, settings.feeds, source)
    with store_or_reason(settings) as (store, fault):
        found = questions.status(store, slices, now=SystemClock().now())
    if fault is not None:
        found.problems.append(questions.Problem(fault.code, fault.message, fault.hint))
    if as_json:
        print_json(questions.as_json(found))
    else:
        _print(found)
    if fault is not None and fault.code != DATABASE_MISSING:
        return code_of(fault)
    return 0


def _print(found: Status) -> None:
    now = moment(found.at)
    print_pairs(
        (
            ("daemon", _daemon(found, now)),
            ("config", (found.daemon if found.daemon.running else found).config or "the defaults"),
            ("database", found.database),
            ("inbox", found.inbox),
            ("waiting", _waiting(found)),
            ("claimed", found.content.claimed if found.content and found.content.claimed else None),
            ("ignored", _ignored(found)),
            *_last_day(found),
        )
    )
    if found.totals is not None and found.totals["all_rejected"]:
        click.secho(f"\n{all_rejected_line(found.totals['all_rejected'])}", fg="yellow")
    for line in late_lines(found.expected, now):
        click.secho(f"\n{line}", fg="red")
    for problem in found.problems:
        first, *others = problem.message.splitlines()
        heading(shown(first), fg="red")
        for line in others:
            print_text(line.strip(), indent=2)
        if problem.hint:
            print_text(problem.hint, indent=2)
    _print_work(found, now)
    _print_waiting(found, now)
    if found.watermarks:
        heading("watermarks")
        columns = [Column("feed", cut="middle"), Column("up to"), Column("behind by")]
        columns.append(Column("run", number=True, goes=1))
        lags = ((mark, "" if mark.lag_s is None else lag(mark.lag_s)) for mark in found.watermarks)
        lines = [
            (scoped(mark.feed, mark.scope), up_to(mark.value, mark.cursor), behind, mark.run_id)
            for mark, behind in lags
        ]
        print_table(columns, lines)
    if found.dead_letters:
        heading("open dead letters")
        columns = [Column("feed", cut="middle"), Column("code"), Column("dead letters", number=True)]
        print_table(columns, [(one.feed, one.code, one.count) for one in found.dead_letters])
    if len(found.hosts) > 1:
        heading("hosts, in the last 24 h")
        counted = [Column(name, number=True) for name in ("running", "succeeded", "failed")]
        rows = [(one.host, UP[one.up], one.running, one.successes, one.failures, _ago(one, now)) for one in found.hosts]
        print_table([Column("host", cut="middle"), Column("daemon"), *counted, Column("last run", goes=1)], rows)
    if found.last_runs:
        heading("last runs")
        print_run_table(found.last_runs[:SHOWN])


def _ago(one: HostActivity, now: datetime) -> str:
    return "" if one.last_run_at is None else f"{span((now - moment(one.last_run_at)).total_seconds())} ago"


def _daemon(found: Status, now: datetime) -> str:
    daemon = found.daemon
    if daemon.running is None:
        return found.daemon.unknown or ""
    if not daemon.running:
        return "not running"
    since = f" for {span((now - moment(daemon.since)).total_seconds())}" if daemon.since else ""
    pid = f" (pid {daemon.pid})" if daemon.pid else ""
    return f"running{since}{pid}"


def _waiting(found: Status) -> str:
    content = found.content
    if content is None:
        return "cannot be told"
    if not content.waiting:
        return "nothing"
    oldest = span(content.oldest_age_s or 0.0)
    return f"{counted(content.waiting, 'file')}, {size(content.size)}, the oldest {oldest} old"


def _ignored(found: Status) -> str | None:
    count = found.content.ignored if found.content else 0
    return counted(count, "name") if count else None


def _last_day(found: Status) -> list[tuple[str, object]]:
    if found.totals is None:
        return []
    totals = found.totals
    runs, rows = counted(totals["total_runs"], "run"), counted(totals["total_rows_out"], "row")
    if totals["successes"] == totals["failures"] == 0:
        return [("last 24 h", "no run has ended")]
    line = f"{runs}, {totals['success_rate']} % succeeded, {rows}"
    line += "".join(f", {totals[f'total_rows_{name}']} {name}" for name in SELDOM if totals[f"total_rows_{name}"])
    return [("last 24 h", line), ("rows", f"▕{sparkline([bucket.rows_out for bucket in found.throughput], MARGIN)}▏")]


def _print_work(found: Status, now: datetime) -> None:
    work = found.work
    if work is None:
        return
    heading("running")
    columns = [Column("file", cut="middle"), Column("feed", cut="middle", goes=1), Column("phase"), Column("for")]
    columns += [Column("read", number=True), Column("of", number=True), Column("share", number=True)]
    lasts = span((now - moment(work.since)).total_seconds())
    read = (size(work.done), size(work.size), f"{work.share} %")
    print_table(columns, [(work.file, work.feed, work.phase.value, lasts, *read)])


def _print_waiting(found: Status, now: datetime) -> None:
    def waited(one: UnfinishedFile) -> str:
        return span((now - moment(one.since)).total_seconds())

    if found.deferred:
        heading("deferred")
        columns = [Column("file", cut="middle"), Column("for"), Column("tries", number=True, goes=1), Column("code")]
        columns.append(Column("why", cut="end", below=True))
        rows = [(one.file, waited(one), one.attempts, one.code, one.message) for one in found.deferred]
        print_table(columns, rows[: 2 * SHOWN])
    if found.unsettled:
        heading("settling")
        columns = [Column("file", cut="middle"), Column("for"), Column("why", cut="end", below=True)]
        print_table(columns, [(one.file, waited(one), one.message) for one in found.unsettled[: 2 * SHOWN]])
    content = found.content
    if content is not None and content.files:
        heading("waiting in the inbox, oldest first")
        columns = [Column("file", cut="middle"), Column("feed", cut="middle", goes=1)]
        columns += [Column("size", number=True), Column("age", number=True)]
        print_table(columns, [(one.file, one.feed, size(one.size), span(one.age_s)) for one in content.files[:SHOWN]])
    if content is not None and content.ignored_names:
        heading("ignored")
        columns = [Column("name", cut="middle"), Column("why", cut="end", below=True)]
        print_table(columns, [(one.file, one.reason) for one in content.ignored_names[:SHOWN]])
