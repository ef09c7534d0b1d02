"""``inboxd db``: the database itself."""

from __future__ import annotations

import click

from inboxd import __version__
from inboxd.cli.context import settings_of, writing_store


@click.group()
def db() -> None:
    """Upgrade the database's tables, or copy them to another database."""


@db.command()
@click.pass_context
def upgrade(context: click.Context) -> None:
    """Bring the tables to this version's schema, and give each feed's table its columns.

    The daemon does the same at its start; this command does it before, so that a start is instant.

    \b
    Example:  inboxd db upgrade
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    settings = settings_of(context)
    with writing_store(settings):
        click.echo(f"{settings.database.shown_url}: the schema is that of inboxd {__version__}")
