"""What both databases need to know of feeds whose changes are found out before they are made."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from inboxd.errors import FileFault
from inboxd.model import Cursor, Feed, Field, Gone, Mode, Origin, origin_of
from inboxd.store.base import Applied, Foreseen
from inboxd.store.cursors import from_database
from inboxd.store.left_out import refuse_left_out
from inboxd.store.staged import Staged
from inboxd.store.statements import Statements

LISTED_KEYS: Final = 100
"""Keys of rows that would go that a report names; their number is exact."""
NUMBER: Final = (Origin.RECORD, "no")
"""The path of a record's number in its file."""


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


def of_file_alone(feed: Feed) -> tuple[Field, ...]:
    """Return the fields that differ by the file whatever its records say: its name, path and time, their numbers."""
    return tuple(
        field
        for field in feed.fields
        if all(origin_of(path) is Origin.FILE for path in field.paths) or (field.paths == (NUMBER,) and not field.unit)
    )


def compared(feed: Feed) -> tuple[str, ...]:
    """Return the columns by which a record is found equal to the row it meets: not those that differ by the file."""
    alike = {*feed.key, *(field.name for field in of_file_alone(feed))}
    return tuple(name for name in feed.columns if name not in alike)


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


class FindsChanges(ABC):
    """How one file's staged records become rows: find the winners, decide, then change what is to be changed."""

    def __init__(self, staging: Staged, sql: Statements, *, force: bool) -> None:
        self._staging = staging
        self._sql = sql
        self._feed = sql.feed
        self._force = force
        self._last = 0
        """The number of the file's last record; the keys that a snapshot has not are numbered after it."""

    # What each database does in its own way

    @abstractmethod
    def _decide(self, *, table: bool) -> None:
        """Find the winners, and what of them changes something; ``table``: whether there is one to look at."""

    @abstractmethod
    def _save_images(self) -> None:
        """Keep the rows that are about to change, and note those that are not there yet."""

    @abstractmethod
    def _upsert(self) -> int:
        """Write the rows of upserts; return how many were written."""

    @abstractmethod
    def _delete(self) -> int:
        """Take the rows of deletions out, or mark them; return how many rows that touched."""

    @property
    @abstractmethod
    def _counts_hold(self) -> bool:
        """Whether the database says how many rows a statement touched."""

    @abstractmethod
    def _write_lineage(self) -> None: ...

    # The way

    def count_skipped(self) -> int:
        """Return none: these feeds have no watermark, or merge."""
        return 0

    def apply(self, skipped: int) -> Applied:
        """Change what is to be changed, and write the lineage."""
        del skipped
        staging, sql, feed = self._staging, self._sql, self._feed
        applied, deleted, deletions, _, largest = self._find(table=True)
        upserts = applied - deletions
        self.refuse(deleted)
        buries = deletions > 0 and feed.cursor is not None
        if feed.undo:
            self._save_images()
            if buries:
                staging.change(sql.save_tombstones())
        if buries:
            staging.change(sql.bury())
        if upserts and self._upsert() < upserts and self._counts_hold:
            refuse_left_out(staging, sql, sql.unwritten_change())
        if deletions + deleted:
            touched = self._delete()  # with a mark of their own rows that were marked before, too
            if (touched < deleted or keeps_marks(feed)) and self._counts_hold:
                refuse_left_out(staging, sql, sql.undeleted_change())
        self._write_lineage()
        if feed.mode is Mode.SNAPSHOT and deleted:
            staging.change(sql.lineage_of_absent(), last=self._last)
        return Applied(applied, deleted, largest)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do, ``table`` being whether there is one."""
        del skipped
        applied, deleted, deletions, new, _ = self._find(table=table)
        return Foreseen(inserted=new, changed=applied - deletions - new, deletions=deletions, deleted=deleted)

    def _find(self, *, table: bool) -> tuple[int, int, int, int, Cursor | None]:
        """Return how many records apply, rows go, records delete, rows are new; and the largest cursor."""
        staging = self._staging
        self._last = staging.records + staging.rejects + staging.filtered
        self._decide(table=table)
        applied, deleted, deletions, new, largest = staging.one(self._sql.count_changes(), last=self._last)
        return int(applied), int(deleted), int(deletions), int(new), from_database(largest)

    def refuse(self, deleted: int) -> None:
        """Refuse the file if ``max_deleted`` does not allow that so many rows go."""
        if not deleted:
            return
        (live,) = self._staging.one(self._sql.count_live(enough_live(self._feed, deleted)))
        keys = [key for (key,) in self._staging.rows(self._sql.deleted_keys(), limit=LISTED_KEYS)]
        refuse_deletions(self._feed, deleted, int(live), keys)
