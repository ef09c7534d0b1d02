"""``inboxd watermark``: how far each feed has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from inboxd.cli.arguments import FEED, Text
from inboxd.cli.context import print_json, settings_of, writing_store
from inboxd.cli.names import feed_named
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import Column, print_table, short_time, up_to
from inboxd.clock import SystemClock, stamp
from inboxd.model import Cursor, Feed, Field, Mode, Scalar
from inboxd.records.typed import typed
from inboxd.store.cursors import at_or_below, furthest, scope_of, watermark_name, watermarks_of
from inboxd.words import scoped

SCOPE: Final = click.option(
    "--scope",
    type=Text(),
    multiple=True,
    metavar="VALUE",
    help="Of a snapshot feed with a scope: the value of each field of it.",
)


@click.group()
def watermark() -> None:
    """Show, set or reset a feed's watermark."""


@watermark.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """Show every feed's watermark, which run set it, and when. A snapshot feed has one for each scope.

    \b
    Example:  inboxd watermark show
    """
    settings = settings_of(context)
    with store_if_there(settings) as store:
        rows = store.watermarks() if store else []
    found: list[dict[str, object]] = []
    for feed in settings.feeds:
        about = {"feed": feed.name, "cursor": None if feed.mark_field is None else feed.mark_field.name}
        found += [
            {
                **about,
                "scope": scope_of(feed, row),
                "value": row.value,
                "run_id": row.run_id,
                "updated_at": row.updated_at,
            }
            for row in watermarks_of(feed, rows)
        ] or [{**about, "scope": {}, "value": None, "run_id": None, "updated_at": None}]
    if as_json:
        print_json({"watermarks": found})
        return
    columns = (Column("feed", cut="middle"), Column("up to"), Column("run", number=True), Column("set", goes=1))
    rows_shown = (
        (
            scoped(str(one["feed"]), one["scope"]),  # type: ignore[arg-type]  # as made above
            up_to(one["value"], one["cursor"]),
            one["run_id"],
            _when(one["updated_at"]),
        )
        for one in found
    )
    print_table(columns, rows_shown)


@watermark.command("set")
@click.argument("feed_name", metavar="FEED", type=FEED)
@click.argument("value", type=Text())
@SCOPE
@click.pass_context
def set_to(context: click.Context, feed_name: str, value: str, scope: tuple[str, ...]) -> None:
    """Set a feed's watermark, forward or back.

    Snapshots at or below it will be skipped, and so will records of a feed with `late = "skip"`. It is at most as far
    ahead of the clock as `max_future` allows.

    \b
    Example:  inboxd watermark set events 2026-01-15T00:00:00Z
    """
    settings = settings_of(context)
    feed = feed_named(settings, feed_name)
    name = watermark_name(feed, _scope(feed, scope))
    canonical = _value(feed, feed.mark_field, value)
    if not isinstance(canonical, (str, int)):
        raise TypeError(canonical)  # the config takes timestamps, dates and integers as cursors
    _hold_to_clock(feed, canonical)
    with writing_store(settings) as store:
        store.set_watermark(name, canonical, stamp(SystemClock().now()))
    click.echo(f"{scoped(feed.name, dict(zip(feed.scope, scope, strict=True)))}: {canonical}")


@watermark.command()
@click.argument("feed_name", metavar="FEED", type=FEED)
@SCOPE
@click.pass_context
def reset(context: click.Context, feed_name: str, scope: tuple[str, ...]) -> None:
    """Forget a feed's watermark: nothing will be skipped until a file is loaded. Without --scope those of all scopes.

    \b
    Example:  inboxd watermark reset events
    """
    settings = settings_of(context)
    feed = feed_named(settings, feed_name)
    one = watermark_name(feed, _scope(feed, scope)) if scope else None
    with writing_store(settings) as store:
        names = [row.name for row in watermarks_of(feed, store.watermarks())] if one is None else [one]
        for name in names:
            store.set_watermark(name, None, stamp(SystemClock().now()))
    click.echo(f"{scoped(feed.name, dict(zip(feed.scope, scope, strict=False)))}: none")


def _hold_to_clock(feed: Feed, value: Cursor) -> None:
    """Refuse a watermark that no record may reach: whatever came after it would be skipped, or refused."""
    limit = furthest(feed, SystemClock().now())
    if limit is None or at_or_below(value, limit):
        return
    allowed = f"`max_future` of [feeds.{feed.name}] allows {limit} now"
    hint = "set that or less; records up to a later one come in only with a larger `max_future`"
    raise click.UsageError(f"{value} is too far ahead of the clock for the watermark of {feed.name}: {allowed}; {hint}")


def _when(moment: object) -> str | None:
    return None if moment is None else short_time(str(moment))


def _scope(feed: Feed, values: Sequence[str]) -> tuple[Scalar, ...] | None:
    """Return the scope that a person named, its values as records have them; ``None`` of a feed without snapshots."""
    if len(values) != len(feed.scope):
        wanted = f"--scope for each of {', '.join(feed.scope)}" if feed.scope else "no --scope"
        raise click.UsageError(f"feed {feed.name} takes {wanted}")
    if feed.mode is not Mode.SNAPSHOT:
        return None
    return tuple(_value(feed, feed.field(name), value) for name, value in zip(feed.scope, values, strict=True))


def _value(feed: Feed, field: Field | None, text: str) -> Scalar:
    """Return what a person typed as a field's value, by the rules that records are read by."""
    if field is None:
        raise click.UsageError(f"feed {feed.name} has no cursor, and so no watermark")
    try:
        return typed(field, text)
    except ValueError as error:
        role = "a scope" if field.name in feed.scope else "the watermark"
        raise click.UsageError(f"{text!r} cannot be {role} of {feed.name}: it {error}") from None
