"""``inboxd watermark``: how far each feed has come."""

from __future__ import annotations

import click

from inboxd.cli.arguments import FEED, Text
from inboxd.cli.context import print_json, settings_of, writing_store
from inboxd.cli.names import feed_named
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import Column, print_table, short_time
from inboxd.clock import SystemClock, stamp
from inboxd.model import Cursor, Feed
from inboxd.records.typed import typed


@click.group()
def watermark() -> None:
    """Show, set or reset a feed's watermark."""


@watermark.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """Show every feed's watermark, which run set it, and when.

    \b
    Example:  inboxd watermark show
    """
    settings = settings_of(context)
    with store_if_there(settings) as store:
        rows = {row.name: row for row in store.watermarks()} if store else {}
    found = [
        {
            "feed": feed.name,
            "cursor": feed.cursor,
            "value": rows[feed.name].value if feed.name in rows else None,
            "run_id": rows[feed.name].run_id if feed.name in rows else None,
            "updated_at": rows[feed.name].updated_at if feed.name in rows else None,
        }
        for feed in settings.feeds
    ]
    if as_json:
        print_json({"watermarks": found})
        return
    columns = (Column("feed", cut="middle"), Column("up to"), Column("run", number=True), Column("set", goes=1))
    rows_shown = ((one["feed"], one["value"] or "none yet", one["run_id"], _when(one["updated_at"])) for one in found)
    print_table(columns, rows_shown)


@watermark.command("set")
@click.argument("feed_name", metavar="FEED", type=FEED)
@click.argument("value", type=Text())
@click.pass_context
def set_to(context: click.Context, feed_name: str, value: str) -> None:
    """Set a feed's watermark, forward or back. Records at or below it will be skipped.

    \b
    Example:  inboxd watermark set events 2026-01-15T00:00:00Z
    """
    settings = settings_of(context)
    feed = feed_named(settings, feed_name)
    canonical = _cursor(feed, value)
    with writing_store(settings) as store:
        store.set_watermark(feed, canonical, stamp(SystemClock().now()))
    click.echo(f"{feed.name}: {canonical}")


@watermark.command()
@click.argument("feed_name", metavar="FEED", type=FEED)
@click.pass_context
def reset(context: click.Context, feed_name: str) -> None:
    """Forget a feed's watermark: nothing will be skipped until a file is loaded.

    \b
    Example:  inboxd watermark reset events
    """
    settings = settings_of(context)
    feed = feed_named(settings, feed_name)
    with writing_store(settings) as store:
        store.set_watermark(feed, None, stamp(SystemClock().now()))
    click.echo(f"{feed.name}: none")


def _when(moment: object) -> str | None:
    return None if moment is None else short_time(str(moment))


def _cursor(feed: Feed, text: str) -> Cursor:
    """Return what a person typed as the feed's cursor value, by the rules that its records are read by."""
    if feed.cursor is None:
        raise click.UsageError(f"feed {feed.name} has no cursor, and so no watermark")
    try:
        found = typed(feed.cursor_field, text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} cannot be the watermark of {feed.name}: it {error}") from None
    if not isinstance(found, (str, int)):
        raise TypeError(feed.cursor_field.type)  # the config takes timestamps, dates and integers as cursors
    return found
