"""``inboxd explain``: what became of a key, a run or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import click

from inboxd.cli.arguments import FEED, RUN, LedgerName, Number, Text, one_more
from inboxd.cli.context import print_json, reading_store, settings_of
from inboxd.cli.dead_letters import resolver
from inboxd.cli.names import known_job
from inboxd.cli.tables import DETAIL, Column, heading, print_pairs, print_table, print_text, short_time, shown, title
from inboxd.config import Settings
from inboxd.errors import EXIT_FAILED
from inboxd.operate.dead_letters import DeadLetter
from inboxd.operate.explain import (
    Explanation,
    FileExplanation,
    HistoryEntry,
    RunExplanation,
    Tombstone,
    Winner,
    explain_file,
    explain_run,
)
from inboxd.operate.explain import explain as ask


@click.command()
@click.argument("key", required=False, type=Text())
@click.option("--feed", type=FEED, help="Only in this feed.")
@click.option("--run", "run_id", type=RUN, help="What a run did, record by record.")
@click.option(
    "--file", "file_name", type=LedgerName(), help="What became of a file: its path in the inbox, or just its name."
)
@click.option("--limit", type=Number(1), default=100, show_default=True, help="Records listed of a run or file.")
@click.option("--after", type=Number(), default=0, help="List the records after this number.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def explain(
    context: click.Context,
    key: str | None,
    feed: str | None,
    run_id: int | None,
    file_name: str | None,
    limit: int,
    after: int,
    *,
    as_json: bool,
) -> int:
    """Tell where a row comes from: the row now, every file and record that had KEY, which of them won and why.

    A key of several columns is a JSON array. Exits with 1 if nothing is known.

    \b
    Example:  inboxd explain user-0000123
              inboxd explain '["DE", 4711]' --feed orders
              inboxd explain --run 812
              inboxd explain --file orders/2026-01-15.json
    """
    if sum(one is not None for one in (key, run_id, file_name)) != 1:
        msg = "name one thing to explain: a KEY, --run N or --file NAME"
        raise click.UsageError(msg)
    settings = settings_of(context)
    if key is not None:
        return _explain_key(settings, key, feed, as_json=as_json)
    return _explain_runs(settings, file_name or "" if run_id is None else run_id, limit, after, as_json=as_json)


def _explain_runs(settings: Settings, what: int | str, limit: int, after: int, *, as_json: bool) -> int:
    """Explain a run by its number, or a file by its name."""
    with reading_store(settings) as store:
        found: RunExplanation | FileExplanation | None
        if isinstance(what, int):
            found = explain_run(store, settings.feeds, what, one_more(limit), after)
        else:
            found = explain_file(store, settings.feeds, what, one_more(limit), after)
    if found is None:
        named = f"run {what}" if isinstance(what, int) else f"a file named {shown(what)}"
        click.echo(f"nothing is known of {named}", err=True)
        return EXIT_FAILED
    more = len(found.records) > limit
    found = replace(found, records=found.records[:limit])
    if isinstance(found, FileExplanation):
        found = replace(found, runs=found.runs[:limit])
    if as_json:
        print_json(found)
        return 0
    _print_runs([found.run] if isinstance(found, RunExplanation) else found.runs, found.records)
    if more:
        click.echo(f"… more: --after {found.records[-1].record_no}")
    return 0


def _explain_key(settings: Settings, key: str, feed: str | None, *, as_json: bool) -> int:
    with reading_store(settings) as store:
        known_job(settings, store, feed)
        found = ask(store, settings.feeds, key, feed=feed)
    if as_json:
        print_json(found)
    elif found.feeds:
        _print_key(found)
    else:
        click.echo(f"nothing is known of the key {shown(key)}", err=True)
        for why in found.unfit:
            click.echo(f"  {shown(why)}", err=True)
    return 0 if found.feeds else EXIT_FAILED


def _print_key(found: Explanation) -> None:
    for number, history in enumerate(found.feeds):
        if number:
            click.echo()
        title(f"{shown(found.key)} in feed {history.feed}")
        if history.row is None:
            click.echo(f"no row in table {history.table}")
        else:
            print_pairs(history.row.items())
        if history.tombstone is not None:
            print_text(_buried(history.tombstone))
        if history.touches:
            heading("records with this key, in order of commit")
            _print_entries(history.touches, with_file=True)
        if history.dead_letters:
            heading("dead letters")
            _print_dead_letters(history.dead_letters)


def _buried(tombstone: Tombstone) -> str:
    name = f" ({tombstone.file_name})" if tombstone.file_name is not None else ""
    when = short_time(tombstone.deleted_at)
    return f"last deleted by run {tombstone.run_id}{name}, {when}, by a record whose cursor is {tombstone.cursor}"


def _print_entries(touches: Sequence[HistoryEntry], *, with_file: bool) -> None:
    columns = [Column("record", number=True), Column("step"), Column("why", cut="end", below=True)]
    rows: list[tuple[object, ...]] = [(entry.record_no, entry.outcome.value, _why(entry)) for entry in touches]
    if with_file:
        columns = [Column("run", number=True), Column("file", cut="middle"), *columns, Column("when", goes=1)]
        about = ((entry.run_id, entry.file_name or entry.kind) for entry in touches)
        rows = [(*one, *row, short_time(entry.at)) for one, row, entry in zip(about, rows, touches, strict=True)]
    else:
        columns = [Column("key", cut="middle"), *columns]
        rows = [(entry.record_key, *row) for entry, row in zip(touches, rows, strict=True)]
    print_table(columns, rows)


def _why(entry: HistoryEntry) -> str:
    undone = f"; undone by run {entry.undone_by}" if entry.undone_by is not None else ""
    if entry.kind == "undo":
        left = "left: a later run had changed the row, or had said the same"
        done = "put back what was before" if entry.outcome == "load" else left
        return f"undo of run {entry.undo_of}: {done}"
    if entry.lost_to is not None:
        return f"{entry.lost_to.why}: {_winner(entry.lost_to)}{undone}"
    return f"{entry.detail or ''}{undone}".removeprefix("; ")


def _winner(winner: Winner) -> str:
    record = f", record {winner.record_no}" if winner.record_no is not None else ""
    name = f" ({winner.file_name})" if winner.file_name is not None else ""
    return f"run {winner.run_id}{name}{record}"


def _print_dead_letters(dead_letters: Sequence[DeadLetter]) -> None:
    columns = [Column("id", number=True), Column("run", number=True), Column("record", number=True), Column("code")]
    rows = [
        (one.id, one.run_id, one.record_no, one.code, one.detail, resolver(one.resolved_by)) for one in dead_letters
    ]
    print_table((*columns, DETAIL, Column("resolved by")), rows)


def _print_runs(runs: Sequence[Mapping[str, object]], records: Sequence[HistoryEntry]) -> None:
    for number, run in enumerate(runs):
        if number:
            click.echo()
        print_pairs((name.replace("_", " "), value) for name, value in run.items() if value != "")
    if records:
        heading("records")
        _print_entries(records, with_file=False)
