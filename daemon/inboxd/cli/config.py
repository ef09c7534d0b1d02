"""``inboxd config``: is it right, what is in force, what may be in it."""

from __future__ import annotations

import tomllib

import click

from inboxd.cli.context import print_json, settings_of
from inboxd.config import json_schema
from inboxd.config import show as show_settings


@click.group()
def config() -> None:
    """Check, show or describe the config."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(context: click.Context, *, as_json: bool) -> None:
    """Tell whether the config is right; if not, list every error with its key and line (exit 78).

    \b
    Example:  inboxd --config /etc/inboxd/inboxd.toml config check
    """
    settings = settings_of(context)
    source = str(settings.source) if settings.source else None
    feeds = [feed.name for feed in settings.feeds]
    if as_json:
        print_json({"ok": True, "config": source, "feeds": feeds, "warnings": list(settings.warnings)})
    else:
        for warning in settings.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{source or 'the defaults'}: ok ({', '.join(feeds)})")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """Print the config in force, defaults and environment included, passwords masked.

    \b
    Example:  INBOXD_LOG__LEVEL=debug inboxd config show
    """
    toml = show_settings(settings_of(context))
    if as_json:
        print_json(tomllib.loads(toml))
    else:
        click.echo(toml, nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors.

    \b
    Example:  inboxd config schema > inboxd.schema.json
    """
    print_json(json_schema())
