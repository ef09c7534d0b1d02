"""Cursor values as both databases' transactions handle them: all of one feed, and so all of one type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from operator import itemgetter
from typing import Any

from inboxd.model import Cursor, Feed, FieldType, Row
from inboxd.store.ledger import canonical


def at_or_below(value: Cursor, limit: Cursor) -> bool:
    """Compare two cursors. Canonical text compares as what it says."""
    if isinstance(value, int) and isinstance(limit, int):
        return value <= limit
    return str(value) <= str(limit)


def from_text(feed: Feed, text: str) -> Cursor:
    """Return a cursor of this feed from its text in ``watermarks``."""
    return int(text) if feed.cursor_field.type is FieldType.INTEGER else text


def from_database(value: object) -> Cursor | None:
    """Return a cursor that came out of a feed's own table."""
    if isinstance(value, date):  # a datetime is one too
        return canonical(value)
    return value if isinstance(value, int | str) else None


class Extent:
    """The smallest and the largest cursor of what was staged so far."""

    __slots__ = ("_cursor_of", "highest", "lowest")

    def __init__(self, feed: Feed) -> None:
        self._cursor_of: Callable[[Row], Any] = itemgetter(feed.row_columns.index(feed.cursor))
        self.lowest: Cursor | None = None
        self.highest: Cursor | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take more rows into account, at least one."""
        cursors = list(map(self._cursor_of, rows))
        if self.lowest is not None:
            cursors += (self.lowest, self.highest)
        self.lowest, self.highest = min(cursors), max(cursors)

    def reaches_down_to(self, watermark: Cursor | None) -> bool:
        """Tell whether any row is at or below the watermark."""
        return watermark is not None and self.lowest is not None and at_or_below(self.lowest, watermark)
