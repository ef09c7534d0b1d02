"""Cursor values compared with each other, and with the clock."""

from __future__ import annotations

from datetime import datetime

from inboxd.clock import moment
from inboxd.model import Cursor, Feed, FieldType


def above(one: Cursor, other: Cursor) -> bool:
    """Tell whether ``one`` is past ``other``; both are of one feed, and so of one type."""
    if isinstance(one, int) and isinstance(other, int):
        return one > other
    return str(one) > str(other)


def cursor_of(feed: Feed, text: str) -> Cursor:
    """Return a stored cursor's text as the feed's value."""
    return int(text) if feed.cursor_field.type is FieldType.INTEGER else text


def lag_s(feed: Feed, text: str, now: datetime) -> float | None:
    """Return how many seconds a watermark is behind ``now``; ``None`` for a number, which has no clock."""
    kind = feed.cursor_field.type
    if kind is FieldType.INTEGER:
        return None
    reached = moment(f"{text}T00:00:00Z" if kind is FieldType.DATE else text)
    return round((now - reached).total_seconds(), 3)
