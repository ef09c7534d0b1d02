"""``inboxd notify``: whether those who are to be told of events can be reached."""

from __future__ import annotations

import os

import click

from inboxd.cli.context import print_json, settings_of
from inboxd.cli.tables import shown
from inboxd.clock import SystemClock, stamp
from inboxd.errors import EXIT_FAILED
from inboxd.outbox.delivery import Delivery, Undelivered
from inboxd.outbox.notices import rows


@click.group()
def notify() -> None:
    """Notices: who is told of which event."""


@notify.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def test(context: click.Context, *, as_json: bool) -> int:
    """Hand a notice, with the event "test", to each receiver of the config, and tell who took it.

    It is sent from here, at once: try it as the user that the daemon runs as. The service has a sandbox of its own.

    \b
    Example:  inboxd notify test
              sudo -u inboxd inboxd --config /etc/inboxd/inboxd.toml notify test
    """
    receivers = settings_of(context).notify
    values = {"level": "info", "host": os.uname().nodename, "text": "a test: nothing happened"}
    notice_rows = rows("test", stamp(SystemClock().now()), values, [one.name for one in receivers])
    found: list[dict[str, str | None]] = []
    for receiver, row in zip(receivers, notice_rows, strict=True):
        fault = None
        try:
            Delivery().deliver(receiver, row.body)
        except Undelivered as reason:
            fault = str(reason)
        found.append({"to": receiver.name, "error": fault})
    if as_json:
        print_json({"receivers": found})
    elif not found:
        click.echo("no notices are sent: the config has no [[notify]]")
    for one in () if as_json else found:
        click.echo(f"{shown(one['to'])}: {shown(one['error'] or 'taken')}")
    return EXIT_FAILED if any(one["error"] for one in found) else 0
