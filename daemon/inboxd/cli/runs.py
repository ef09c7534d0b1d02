"""``inboxd runs``: the ledger, run by run."""

from __future__ import annotations

from dataclasses import asdict

import click

from inboxd.cli.context import print_json, reading_store, settings_of
from inboxd.model import RunStatus


@click.group()
def runs() -> None:
    """List the runs, or take in those of other jobs."""


@runs.command("list")
@click.option("--feed", help="Only runs of this feed or job.")
@click.option("--status", type=click.Choice(["success", "failure", "running"]), help="Only runs with this status.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_runs(
    context: click.Context, feed: str | None, status: str | None, limit: int, *, as_json: bool
) -> None:
    """List the newest runs, newest first.

    \b
    Example:  inboxd runs list --status failure
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    with reading_store(settings_of(context)) as store:
        found = store.runs(job=feed, status=RunStatus(status) if status else None, limit=limit)
    if as_json:
        print_json({"runs": [asdict(run) for run in found]})
        return
    from inboxd.cli.tables import print_runs  # noqa: PLC0415 - rich is imported only where a table is drawn

    print_runs(found)
