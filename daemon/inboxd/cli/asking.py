"""What is asked before old values are put back, and how much a file may delete once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import click

from inboxd.cli.arguments import ShareOrCount
from inboxd.model import Feed, Limit, Mode

MAX_DELETED: Final = click.option(
    "--max-deleted", type=ShareOrCount(), metavar="LIMIT", help="How many rows these files may delete, once: 100%, 500."
)
YES: Final = click.option("--yes", is_flag=True, help="Put old values back, without asking first.")


def allowing(feed: Feed, limit: Limit | None) -> Feed:
    """Return the feed as it is for these files."""
    return feed if limit is None else replace(feed, max_deleted=limit)


def ask_before_old_values(feeds: Iterable[Feed], *, yes: bool, snapshots: bool = False) -> None:
    """Ask, where the file that is applied last wins: whatever is older than what was loaded would win now.

    ``snapshots``: theirs are not skipped for their age, either.
    """
    names = {
        feed.name
        for feed in feeds
        if feed.ordered and (feed.mode is Mode.UPSERT or (snapshots and feed.mode is Mode.SNAPSHOT))
    }
    if not names or yes:
        return
    which = ", ".join(sorted(names))
    if not sys.stdin.isatty():
        msg = f"of feed {which} the file that is applied last wins: this may put old values back; confirm it with --yes"
        raise click.UsageError(msg)
    click.confirm(f"Of feed {which} the file that is applied last wins: put these files' values back?", abort=True)
