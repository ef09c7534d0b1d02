"""``inboxd runs``: the ledger, run by run."""

from __future__ import annotations

from dataclasses import asdict

import click

from inboxd.cli.arguments import FEED, GivenFile, Moment, Number
from inboxd.cli.context import print_json, settings_of, writing_store
from inboxd.cli.names import known_job
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import print_runs, shown
from inboxd.clock import SystemClock
from inboxd.errors import EXIT_FAILED, MEND_AND_RETRY, FileFault
from inboxd.inbox.source import Source
from inboxd.model import printable
from inboxd.operate.imports import import_runs as take_in
from inboxd.outcomes import RunStatus
from inboxd.words import counted


@click.group()
def runs() -> None:
    """List the runs, or import those of other jobs."""


@runs.command("list")
@click.option("--feed", type=FEED, help="Only runs of this feed or job.")
@click.option("--status", type=click.Choice(["success", "failure", "running"]), help="Only runs with this status.")
@click.option("--since", type=Moment(), help="Only runs that began in the last 24h, 7d, …, or from this time on.")
@click.option("--limit", type=Number(1), default=20, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_runs(
    context: click.Context, feed: str | None, status: str | None, since: str | None, limit: int, *, as_json: bool
) -> None:
    """List the newest runs, newest first.

    \b
    Example:  inboxd runs list --status failure --since 24h
    """
    settings = settings_of(context)
    with store_if_there(settings) as store:
        known_job(settings, store, feed)
        wanted = RunStatus(status) if status else None
        found = [] if store is None else store.runs(job=feed, status=wanted, since=since, limit=limit)
    if as_json:
        print_json({"runs": [asdict(run) for run in found]})
        return
    print_runs(found)


@runs.command("import")
@click.argument("name", metavar="FILE", type=GivenFile())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def import_runs(context: click.Context, name: str, *, as_json: bool) -> int:
    """Import the run records of other jobs, so that one health feed covers all of them.

    FILE is a JSON list of objects with job_name, status, started_at, and if they are known rows_in, rows_out,
    duration_ms and finished_at. Good records are taken, bad ones listed (then exit 1). Importing a file again changes
    nothing; a run that was running and has ended since is brought up to date.

    \b
    Example:  inboxd runs import nightly.json
    """
    with writing_store(settings_of(context)) as store:
        try:
            with Source(name) as source:
                found = take_in(store, source, now=SystemClock().now())
        except FileFault as fault:
            hint = "mend the file and import it again" if fault.hint == MEND_AND_RETRY else fault.hint
            raise FileFault(fault.code, fault.message, hint) from None
    if as_json:
        print_json({"file": printable(name), **asdict(found)})
    else:
        click.echo(
            f"{counted(found.records, 'record')}: {found.imported} imported, {found.updated} updated, "
            f"{found.unchanged} known already, {found.rejected} rejected"
        )
        for error in found.errors:
            click.echo(f"  record {error.record_no} ({shown(error.job_name)}): {shown(error.detail)}", err=True)
    return EXIT_FAILED if found.rejected else 0
