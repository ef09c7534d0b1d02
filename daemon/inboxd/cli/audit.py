"""``inboxd audit``: the database, derived anew from the archived files."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Final

import click

from inboxd.audit.audit import audit as audit_tables
from inboxd.audit.audit import records_of
from inboxd.audit.check import Kept
from inboxd.audit.report import Report, TableReport
from inboxd.cli.arguments import FEED, RUN
from inboxd.cli.context import print_json, reading_store, settings_of
from inboxd.cli.names import feed_named
from inboxd.cli.progress import progress_of_rows
from inboxd.cli.tables import Column, heading, print_table, print_text, shown
from inboxd.clock import SystemClock
from inboxd.config import Settings
from inboxd.errors import EXIT_FAILED
from inboxd.store.database import Store
from inboxd.words import counted

SHOWN: Final = 100
"""Differences that are printed of each table; ``--json`` has 1,000."""


@click.command()
@click.option("--feed", "feed_name", type=FEED, help="Only the table of this feed.")
@click.option("--since", type=RUN, help="Prove what this run did and those after it; take the rest as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def audit(context: click.Context, feed_name: str | None, since: int | None, *, as_json: bool) -> int:
    """Derive every row, count, dead letter and watermark anew from the archived files, and compare.

    It reads only, with a reader of its own that shares nothing with the loader, so it takes its time. Exits with 1 if
    anything differs. What no archived file can prove is counted and named.

    \b
    Example:  inboxd audit
              inboxd audit --feed orders --since 812
    """
    settings = settings_of(context)
    with reading_store(settings) as store:
        report = _audit(settings, store, feed_name, since)
    if as_json:
        print_json({"ok": not report.difference_count, **asdict(report)})
    else:
        _print(report)
    return EXIT_FAILED if report.difference_count else 0


def _audit(settings: Settings, store: Store, feed_name: str | None, since: int | None) -> Report:
    feeds = settings.feeds
    table = None if feed_name is None else feed_named(settings, feed_name).table
    kept = Kept(
        now=SystemClock().now(),
        host=os.uname().nodename if settings.database.is_postgres else None,
        files=settings.archive.keep,
        lineage=settings.retention.lineage,
        dead_letters=settings.retention.resolved,
        tombstones=settings.retention.tombstones,
    )
    first = 0
    if since is not None:
        run = store.run(since)
        if run is None or run.commit_no is None:
            raise click.UsageError(f"there is no run {since} that has ended; `inboxd runs list` lists the runs")
        first = run.commit_no
    with progress_of_rows(records_of(store, feeds, table)) as advance:
        return audit_tables(
            store, feeds, settings.inbox.path, settings.archive, kept, table=table, since=first, progress=advance
        )


def _print(report: Report) -> None:
    columns = [Column("table", cut="middle"), *(Column(name, number=True) for name in ("runs", "rows"))]
    columns += [Column(name, number=True) for name in ("dead letters", "lineage", "not proved", "differences")]
    print_table(columns, [_line(table) for table in report.tables])
    for table in report.tables:
        if table.unproven:
            heading(f"{shown(table.table)}: {counted(table.runs_unproven, 'run')} that nothing proves")
            columns = [Column("run", number=True), Column("file", cut="middle"), Column("why", cut="end", below=True)]
            print_table(columns, [(one.run_id, one.file, one.why) for one in table.unproven])
            print_text(f"everything that came after run {table.last_unproven} is proved")
        for note in table.notes:
            print_text(f"{table.table}: {note}")
        if table.differences:
            heading(f"{shown(table.table)}: {counted(table.difference_count, 'difference')}", fg="red")
            columns = [Column("what"), Column("key", cut="middle"), Column("run", number=True)]
            columns += [Column("file", cut="middle"), Column("how", cut="end", below=True)]
            found = table.differences[:SHOWN]
            print_table(columns, [(one.kind, one.key, one.run_id, one.file, one.detail) for one in found])


def _line(table: TableReport) -> tuple[object, ...]:
    unproven = (
        f"{counted(table.runs_unproven, 'run')}, {counted(table.rows_unproven, 'row')}" if table.runs_unproven else None
    )
    return (table.table, table.runs, table.rows, table.dead_letters, table.lineage, unproven, table.difference_count)
