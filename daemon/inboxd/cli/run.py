"""``inboxd run``: the daemon in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from inboxd.cli.arguments import Text
from inboxd.cli.context import settings_of
from inboxd.config import Settings


@click.command()
@click.option(
    "--once",
    is_flag=True,
    help="Drain the inbox, then exit: 0; 1 if a file failed or has to wait; 69 if the database could not be used.",
)
@click.option(
    "--http", "http", type=Text(), metavar="ADDR", default="", help="Serve the page at ADDR, such as 127.0.0.1:8765."
)
@click.pass_context
def run(context: click.Context, *, once: bool, http: str) -> int:
    """Watch the inbox and load what arrives, until stopped by TERM or INT.

    \b
    Example:  inboxd run --http 127.0.0.1:8765
    """
    from inboxd.signals import Signals  # noqa: PLC0415 - as below

    signals = Signals.installed()  # before what takes its time
    from inboxd.service import Service  # noqa: PLC0415 - `inboxd run --help` needs none of it

    def again(in_force: Path | None) -> Settings:
        return settings_of(context, in_force=in_force)

    return Service(settings_of(context), again, http=http, signals=signals).run(once=once)
