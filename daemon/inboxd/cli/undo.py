"""``inboxd undo``: one bad file, taken back."""

from __future__ import annotations

import os
import shlex

import click

from inboxd.cli.arguments import RUN
from inboxd.cli.context import print_json, reading_store, settings_of, writing_store
from inboxd.cli.tables import Column, heading, print_table, print_text
from inboxd.clock import SystemClock
from inboxd.config import Settings
from inboxd.inbox.archive import place_of
from inboxd.inbox.names import spellings
from inboxd.model import Mode, Origin, origin_of, printable
from inboxd.operate.undo import plan
from inboxd.operate.undo import undo as take_back
from inboxd.operate.undo_plan import Undo
from inboxd.operate.undo_reload import Passed
from inboxd.words import counted


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def undo(context: click.Context, run_id: int, *, dry_run: bool, as_json: bool) -> None:
    """Take back what run RUN did to its feed's table, for feeds with `undo = true`.

    Keys that a later run has changed are left and listed. The watermark goes back to what the remaining runs reached,
    and the content is released: the file, mended or not, may be loaded again.

    \b
    Example:  inboxd undo 812 --dry-run
              inboxd undo 812
    """
    settings = settings_of(context)
    if dry_run:
        with reading_store(settings) as store:
            found = plan(store, settings.feeds, run_id)
    else:
        host = os.uname().nodename
        with writing_store(settings) as store:
            found = take_back(store, settings.feeds, run_id, clock=SystemClock(), host=host)
    if as_json:
        print_json(_as_json(settings, found, dry_run=dry_run))
    else:
        _print(settings, found, dry_run=dry_run)


def _as_json(settings: Settings, found: Undo, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "run_id": found.run_id,
        "undo_of": found.undo_of,
        "feed": found.feed,
        "file": found.file_name,
        "considered": found.considered,
        "restored": found.restored,
        "left": found.left,
        "left_keys": found.left_keys,
        "watermark_before": found.watermark_before,
        "watermark_after": found.watermark_after,
        "again": _again(settings, found),
        "reload": [
            {
                "run_id": one.run_id,
                "feed": one.feed,
                "file": one.file_name,
                "stale": one.stale,
                "skipped": one.skipped,
                "command": _reload(settings, one),
            }
            for one in found.reload
        ],
    }


def _print(settings: Settings, found: Undo, *, dry_run: bool) -> None:
    run = f"run {found.undo_of}" + (f" ({found.file_name})" if found.file_name else "")
    verb = "would be restored" if dry_run else "restored"
    own = "" if found.run_id is None else f", by run {found.run_id}"
    print_text(f"{run} of feed {found.feed}: {found.restored} of {counted(found.considered, 'key')} {verb}{own}")
    if found.watermark_before != found.watermark_after:
        goes = "would go" if dry_run else "went"
        print_text(f"the watermark {goes} from {found.watermark_before} back to {found.watermark_after or 'none'}")
    if found.left:
        heading(f"left, because a later run has changed them, or has said the same: {found.left}")
        kept = (Column("key", cut="middle"), Column("by run", number=True))
        print_table(kept, [(one.record_key, one.run_id) for one in found.left_keys])
    if found.reload:
        heading("records of these files lost to this run, or to one undone before; the commands load them again")
        columns = (Column("run", number=True), Column("stale", number=True), Column("skipped", number=True))
        print_table(columns, [(one.run_id, one.stale, one.skipped) for one in found.reload])
        for one in found.reload:
            click.echo(f"  {_reload(settings, one)}")
    again = _again(settings, found)
    if again is not None:
        heading("the file can be loaded again" if not dry_run else "the file could be loaded again then")
        print_text("mend the file and drop it again, or load it as it is:", indent=2)
        click.echo(f"  {again}")


def _again(settings: Settings, found: Undo) -> str | None:
    """Return the command that loads the undone file again as it is."""
    if found.file_name is None:
        return None
    if found.claim is None:
        return shlex.join(["inboxd", "load", "--feed", found.feed, found.file_name])
    return shlex.join(["inboxd", "retry", _archived(settings, found.file_name, found.undo_of)])


def _reload(settings: Settings, one: Passed) -> str:
    """Return the command that loads a file's records again: its content counts as loaded, so it takes --force.

    A snapshot that was skipped for its age needs none: it is above the watermark now, or is skipped again. A replay is
    undone, which opens its dead letters again.
    """
    if one.file_name is None:
        replay = shlex.join(["inboxd", "dead-letters", "replay", "--feed", one.feed])
        return f"inboxd undo {one.run_id} && {replay}"
    name = one.file_name if one.claim is None else _archived(settings, one.file_name, one.run_id)
    feed = next((feed for feed in settings.feeds if feed.name == one.feed), None)
    skipped = feed is not None and feed.mode is Mode.SNAPSHOT
    reads_path = feed is not None and any(origin_of(path) in (Origin.FILE, Origin.CAPTURE) for path in feed.paths)
    as_it_lay = ["--as", one.file_name] if reads_path and one.claim is not None else []
    return shlex.join(["inboxd", "load", *([] if skipped else ["--force"]), "--feed", one.feed, *as_it_lay, name])


def _archived(settings: Settings, file_name: str, run_id: int) -> str:
    """Return where the file of a run lies in ``processed/``, or should lie."""
    processed = settings.archive.processed
    places = (place_of(processed, name, run_id) for name in spellings(file_name))
    found = next((place.path for place in places if place is not None), os.fspath(processed / file_name))
    return printable(found)
