"""``inboxd config``: is it right, what is in force, what may be in it."""

from __future__ import annotations

import click

from inboxd.cli.context import print_json, settings_of


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
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    settings = settings_of(context)
    source = str(settings.source) if settings.source else None
    feeds = [feed.name for feed in settings.feeds]
    if as_json:
        print_json({"ok": True, "config": source, "feeds": feeds})
    else:
        click.echo(f"{source or 'the defaults'}: ok ({', '.join(feeds)})")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """Print the config in force, defaults and environment included, passwords masked.

    \b
    Example:  INBOXD_LOG__LEVEL=debug inboxd config show
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from inboxd.config import show as as_toml  # noqa: PLC0415 - beside the command of the same name
    from inboxd.config import shown_values  # noqa: PLC0415 - beside the command of the same name

    settings = settings_of(context)
    if as_json:
        print_json(shown_values(settings))
    else:
        click.echo(as_toml(settings), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors.

    \b
    Example:  inboxd config schema > inboxd.schema.json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from inboxd.config import json_schema  # noqa: PLC0415 - it needs more of pydantic than other commands do

    print_json(json_schema())
