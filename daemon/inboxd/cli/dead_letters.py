"""``inboxd dead-letters``: the records that were refused, and their way back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TextIO

import click

from inboxd.cli.arguments import FEED, RUN, GivenFile, Moment, Number, OneFile, Text, one_more
from inboxd.cli.context import print_json, reading_store, settings_of, writing_store, written
from inboxd.cli.names import known_code, known_job, known_letters, known_run
from inboxd.cli.opening import store_if_there
from inboxd.cli.tables import DETAIL, Column, heading, print_table, short_time, shown
from inboxd.clock import SystemClock
from inboxd.config import Settings
from inboxd.model import Feed, Mode
from inboxd.operate.dead_letters import (
    CodeCount,
    DeadLetter,
    Filter,
    count_open,
    dead_letter_pages,
    edited_records,
    export_line,
    feeds_with_dead_letters,
    not_open,
)
from inboxd.operate.dead_letters import dismiss as put_aside
from inboxd.operate.dead_letters import list_dead_letters as ask
from inboxd.operate.replay import Replay
from inboxd.operate.replay import replay as put_back
from inboxd.store.cursors import furthest
from inboxd.store.database import Store
from inboxd.words import counted


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose dead letters; it takes them as one ``Filter`` named ``wanted``."""

    @wraps(command)
    def choosing(
        *, feed: str | None, code: str | None, run: int | None, since: str | None, until: str | None, **others: object
    ) -> None:
        command(wanted=Filter(feed, code, run, since, until), **others)

    for option in (
        click.option("--until", type=Moment(), help="Only dead letters written before this time."),
        click.option("--since", type=Moment(), help="Only dead letters of the last 24h, 7d, …, or from this time on."),
        click.option("--run", "run", type=RUN, help="Only dead letters of this run."),
        click.option("--code", type=Text(), help="Only dead letters with this error code."),
        click.option("--feed", type=FEED, help="Only dead letters of this feed."),
    ):
        choosing = option(choosing)
    return choosing


def _hold(settings: Settings, store: Store | None, wanted: Filter) -> None:
    """Refuse a feed, code, run or number that is none: it would match nothing, and seem to say so."""
    known_job(settings, store, wanted.feed)
    known_code(settings, store, wanted.code)
    known_run(store, wanted.run)
    known_letters(store, wanted.ids)


@click.group("dead-letters")
def dead_letters() -> None:
    """List refused records, export them to be mended, or replay them after a fix of the config."""


@dead_letters.command("list")
@_filters
@click.option("--resolved", is_flag=True, help="Only those that are resolved: by a later run, or dismissed.")
@click.option("--all", "everything", is_flag=True, help="Resolved or not.")
@click.option("--limit", type=Number(1), default=100, show_default=True, help="At most so many.")
@click.option("--after", type=Number(), default=0, help="Only dead letters with an id above this: the next page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_dead_letters(
    context: click.Context, wanted: Filter, limit: int, after: int, *, resolved: bool, everything: bool, as_json: bool
) -> None:
    """List the refused records, oldest first: where they came from and what is wrong with them.

    \b
    Example:  inboxd dead-letters list --feed orders --code invalid_value --since 24h
    """
    wanted = replace(wanted, resolved=None if everything else resolved)
    settings = settings_of(context)
    with store_if_there(settings) as store:
        _hold(settings, store, wanted)
        found = [] if store is None else ask(store, wanted, limit=one_more(limit), after=after)
    found, more = found[:limit], len(found) > limit
    if as_json:
        print_json({"dead_letters": found})
        return
    _print_dead_letters(found, with_resolver=wanted.resolved is not False)
    if not found:
        click.echo(_none(wanted))
    elif more:
        click.echo(f"… more: --after {found[-1].id}")


def _none(wanted: Filter) -> str:
    """Say that there is none: no others are spoken of than those that were asked for."""
    which = {None: "", False: "open ", True: "resolved "}[wanted.resolved]
    such = "such " if wanted != Filter(resolved=wanted.resolved) else ""
    return f"no {such}{which}dead letters"


def _print_dead_letters(found: Sequence[DeadLetter], *, with_resolver: bool) -> None:
    columns = [Column("id", number=True), Column("run", number=True, goes=3), Column("record", number=True, goes=2)]
    columns += [Column("feed", cut="middle", goes=4), Column("key", cut="middle"), Column("code"), DETAIL]
    columns.append(Column("created", goes=1))
    rows: list[tuple[object, ...]] = [
        (one.id, one.run_id, one.record_no, one.feed, one.record_key, one.code, one.detail, short_time(one.created))
        for one in found
    ]
    if with_resolver:
        columns.append(Column("resolved by"))
        rows = [(*row, resolver(one.resolved_by)) for row, one in zip(rows, found, strict=True)]
    print_table(columns, rows)


@dead_letters.command()
@_filters
@click.option("--output", type=OneFile(), help="Write to this file, whole or not at all.")
@click.pass_context
def export(context: click.Context, wanted: Filter, output: Path | None) -> None:
    """Write the open dead letters as NDJSON, one record a line, ready to be mended and dropped into the inbox.

    \b
    Example:  inboxd dead-letters export --feed orders --output mended.ndjson
              sed -i 's/"n\\/a"/null/' mended.ndjson && mv mended.ndjson inbox/orders/
    """
    settings = settings_of(context)
    feeds = {one.name: one for one in settings.feeds}
    count, exported = 0, set[str]()
    with reading_store(settings) as store, _destination(output) as out:
        _hold(settings, store, wanted)
        for page in dead_letter_pages(store, wanted):
            count += len(page)
            exported |= {one.feed for one in page}
            out.writelines(f"{export_line(dead_letter, feeds.get(dead_letter.feed))}\n" for dead_letter in page)
    click.echo(f"{counted(count, 'record')} exported", err=True)
    if len(exported) > 1:
        names = ", ".join(sorted(map(shown, exported)))
        click.echo(f"they are of the feeds {names}; to drop them again, export each feed by itself: --feed", err=True)


def _destination(path: Path | None) -> AbstractContextManager[TextIO]:
    """Lend standard output, or a file that gets its name when it is complete."""
    return nullcontext(sys.stdout) if path is None else written(path)


@dead_letters.command()
@click.argument("ids", nargs=-1, type=Number(), metavar="[ID]…")
@_filters
@click.option("--edited", type=GivenFile(), help="Replay the mended records of this export, and no others.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def replay(context: click.Context, ids: tuple[int, ...], wanted: Filter, edited: str | None, *, as_json: bool) -> None:
    """Judge open dead letters again by today's config, and load those that pass, in one transaction a feed.

    The watermark does not skip them; a row that is newer stays. What fails again stays open, with its new code.

    \b
    Example:  inboxd dead-letters replay --feed orders --code unexpected_field
              inboxd dead-letters replay 17 18
    """
    wanted = replace(wanted, ids=ids)
    mended = None if edited is None else _mended(edited)
    done, still_open, strangers = _replay(settings_of(context), wanted, mended)
    if as_json:
        print_json({"replays": done, **_sums(done), "open": still_open, "not_open": strangers})
        return
    for one in done:
        verb = f"run {one.run_id}" if one.run_id is not None else "no run written"
        click.echo(f"{one.feed}: {one.loaded} loaded, {one.stale} stale, {one.failed} failed again ({verb})")
    if not done and not still_open:
        click.echo(_none(wanted))
    if strangers:
        some = ", ".join(map(str, strangers[:10])) + (", …" if strangers[10:] else "")
        click.echo(f"{counted(len(strangers), 'record')} left alone, whose dead letters are not open: {some}")
    failures = [(one.feed, failure) for one in done for failure in one.failures]
    if failures:
        heading("failed again")
        rows = [(failure.id, name, failure.record_key, failure.code, failure.detail) for name, failure in failures]
        columns = [Column("id", number=True), Column("feed", cut="middle", goes=1), Column("key", cut="middle")]
        columns += [Column("code"), DETAIL]
        print_table(columns, rows)
    if still_open:
        heading("still open")
        known = {feed.name: feed for feed in settings_of(context).feeds}
        columns = [Column("feed", cut="middle"), Column("code"), Column("dead letters", number=True)]
        columns.append(Column("why", below=True))
        print_table(columns, [(one.feed, one.code, one.count, _why_open(known.get(one.feed))) for one in still_open])


def _why_open(feed: Feed | None) -> str:
    """Return why the dead letters of a feed are not replayed, where that is not their own fault."""
    if feed is None:
        return "the feed is not in the config"
    return "the next snapshot says what there is" if feed.mode is Mode.SNAPSHOT else ""


def _mended(path: str) -> dict[int, str]:
    with Path(path).open("rb") as lines:
        return edited_records(lines)


def _replay(
    settings: Settings, wanted: Filter, edited: dict[int, str] | None
) -> tuple[list[Replay], list[CodeCount], list[int]]:
    """Replay what is wanted, feed by feed; return that, what of it is open afterwards, and the edits of none open."""
    clock, host = SystemClock(), os.uname().nodename
    known = {feed.name: feed for feed in settings.feeds}
    done: list[Replay] = []
    with writing_store(settings) as store:
        _hold(settings, store, wanted)
        strangers = not_open(store, wanted, edited or ())
        for name in feeds_with_dead_letters(store, wanted):
            feed = known.get(name)
            if feed is None or feed.mode is Mode.SNAPSHOT:  # said with what stays open
                continue
            limit = furthest(feed, clock.now())
            done.append(put_back(store, feed, wanted, clock=clock, host=host, limit=limit, edited=edited))
        return done, count_open(store, wanted), strangers


@dead_letters.command()
@click.argument("ids", nargs=-1, type=Number(), metavar="[ID]…")
@_filters
@click.option("--all", "everything", is_flag=True, help="All that are open.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def dismiss(context: click.Context, ids: tuple[int, ...], wanted: Filter, *, everything: bool, as_json: bool) -> None:
    """Mark open dead letters as dealt with: those that nobody will mend. They stay to be looked at.

    A dead letter is also resolved by a replay, and by a later file that applies a record of its feed and key.

    \b
    Example:  inboxd dead-letters dismiss 17 18
              inboxd dead-letters dismiss --feed orders --code invalid_value
    """
    wanted = replace(wanted, ids=ids)
    if everything == (wanted != Filter()):
        raise click.UsageError("name the dead letters to dismiss, by number or by a filter, or say --all")
    settings = settings_of(context)
    with writing_store(settings) as store:
        _hold(settings, store, wanted)
        count = put_aside(store, wanted)
        still_open = sum(one.count for one in count_open(store))
    if as_json:
        print_json({"dismissed": count, "open": still_open})
    else:
        click.echo(f"{counted(count, 'dead letter')} dismissed, {still_open} still open")


def resolver(resolved_by: int | None) -> str:
    """Return who has resolved a dead letter, for people."""
    return "" if resolved_by is None else f"run {resolved_by}" if resolved_by else "dismissed"


def _sums(done: Sequence[Replay]) -> dict[str, int]:
    return {
        "considered": sum(one.considered for one in done),
        "loaded": sum(one.loaded for one in done),
        "stale": sum(one.stale for one in done),
        "failed": sum(one.failed for one in done),
    }
