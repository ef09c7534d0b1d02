"""``inboxd doctor``: is everything as it should be."""

from __future__ import annotations

import click

from inboxd.cli.context import print_json, settings_of, writing_store
from inboxd.cli.opening import store_or_reason
from inboxd.cli.tables import STYLES, print_text, shown
from inboxd.clock import SystemClock
from inboxd.errors import EXIT_FAILED
from inboxd.operate.disk_ledger import Names, note_removed
from inboxd.operate.doctor import examine, mend
from inboxd.operate.findings import Examined, Health
from inboxd.words import counted


@click.command()
@click.option("--deep", is_flag=True, help="Read every processed file, and all of a large database: takes its time.")
@click.option(
    "--mend",
    "mending",
    is_flag=True,
    help="End killed one-shot runs, date runs of the future to now, note files that were removed on purpose.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, *, deep: bool, mending: bool, as_json: bool) -> int:
    """Look for what is wrong: folders, permissions, a real rename, claims, the disk against the ledger, the database.

    Each thing that is wrong comes with the command that mends it, and makes the exit code 1. Run it as the user who
    runs the daemon; it may be running or not.

    \b
    Example:  inboxd doctor
              sudo -u inboxd inboxd --config /etc/inboxd/inboxd.toml doctor --json
    """
    settings = settings_of(context)
    now = SystemClock().now()
    if mending:
        with writing_store(settings) as store:
            mended = mend(store, now=now)
            noted = note_removed(store, settings.inbox, settings.archive, now=now)
        click.echo(f"{mended.killed} killed runs ended as interrupted, {mended.ahead} dated back to now", err=True)
        if noted.removed.count:
            click.echo(f"noted as removed on purpose: {_listed(noted.removed)}", err=True)
        if noted.too_new.count:
            what = f"not noted, as the run ended less than a minute ago: {_listed(noted.too_new)}"
            click.echo(f"{what}; if it is gone on purpose, say `inboxd doctor --mend` once more then", err=True)
    with store_or_reason(settings, without_tables=True) as (opened, fault):
        slices = (settings.inbox, settings.archive, settings.database)
        found = list(examine(Examined(*slices, opened, now, deep, settings.feeds, fault)))
    ok = all(one.status is not Health.WRONG for one in found)
    if as_json:
        print_json({"ok": ok, "checks": found})
        return 0 if ok else EXIT_FAILED
    for one in found:
        click.secho(f"{one.status.value:<8} ", nl=False, **STYLES[one.status.value])
        print_text(f"{one.check}: {one.message}", indent=9, hanging=True)
        if one.remedy and one.status is not Health.OK:
            print_text(f"→ {one.remedy}", indent=9)
    return 0 if ok else EXIT_FAILED


def _listed(names: Names) -> str:
    listed = ", ".join(names.first) + (", …" if names.count > len(names.first) else "")
    return f"{counted(names.count, 'file')}: {shown(listed)}"
