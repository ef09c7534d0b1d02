"""What both databases need to know of feeds whose changes are found out before they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from inboxd.errors import FileFault
from inboxd.model import Feed, Gone, Mode, Origin, origin_of

LISTED_KEYS: Final = 100
"""Keys of rows that would go that a report names; their number is exact."""
OUTDATED: Final = (
    "SELECT DISTINCT o.record_no FROM {origins} o JOIN {runs} was ON was.id = o.run_id "
    "JOIN {runs} r ON r.table_name = {table} AND r.commit_no >= was.commit_no "
    "JOIN {lineage} l ON l.run_id = r.id AND l.record_key = o.record_key "
    "LEFT JOIN {runs} u ON u.id = r.superseded_by AND u.undo_of = r.id "
    "WHERE r.undo_of IS NULL AND u.id IS NULL AND l.outcome IN (0, 4) "
    "AND (r.commit_no > was.commit_no OR l.record_no > o.original)"
)
"""The staged records of a replay whose key was applied later: by a later commit, or further down in their own file."""
_UNCOMPARED: Final = {(Origin.RECORD, "no")}


def keeps_marks(feed: Feed) -> bool:
    """Tell whether a key's upsert and its deletion both stand: a marked row keeps the values of its upsert."""
    return feed.cursor is not None and feed.deletes is not None and feed.deletes.then is Gone.MARK


def finds_changes(feed: Feed) -> bool:
    """Tell whether it must be found out which records change something, before anything is changed.

    Those of all other feeds with a cursor are applied straight away, and looked at again only where some did not.
    """
    if feed.mode is Mode.APPEND:
        return False
    return feed.ordered or feed.deletes is not None or feed.cursor_field.is_of_file


def last_wins(feed: Feed) -> bool:
    """Tell whether of a key's records that the cursor does not tell apart the last one of the file stands."""
    return feed.cursor is None or feed.cursor_field.is_of_file


def says_again(feed: Feed) -> bool:
    """Tell whether a record is stale because it equals the row, and for no other reason that a later file could have.

    Of two snapshots the later one is undone first.
    """
    return feed.mode is Mode.UPSERT and feed.cursor is None


def compared(feed: Feed) -> tuple[str, ...]:
    """Return the columns by which a record is found equal to the row it meets: not those that differ by the file."""
    from_context = {
        field.name
        for field in feed.fields
        if any(origin_of(path) is Origin.FILE or path in _UNCOMPARED for path in field.paths)
    }
    return tuple(name for name in feed.columns if name not in from_context and name not in feed.key)


def enough_live(feed: Feed, deleted: int) -> int:
    """Return from how many live rows on so many may be deleted; ``-1`` where all must be counted."""
    share = feed.max_deleted.share
    if not share:
        return -1
    return max(deleted, math.floor((deleted - 1) / Fraction(repr(share))) + 1)


def refuse_deletions(feed: Feed, deleted: int, live: int, keys: Sequence[str]) -> None:
    """Refuse a file that would delete more rows than ``max_deleted`` allows."""
    most = feed.max_deleted.most(live)
    if deleted <= most:
        return
    what = "a scope of" if feed.scope else ""
    message = f"{deleted} rows of {what} table {feed.table!r} would be deleted; max_deleted allows {most}".replace(
        "  ", " "
    )
    hint = (
        "look at the file; if it is right, let it pass once: `inboxd retry NAME --max-deleted 100%`, or `load` with it"
    )
    raise FileFault("too_many_deleted", message, hint, details={"rows_deleted": deleted, "keys": list(keys)})
