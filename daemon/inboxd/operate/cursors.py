"""How far feeds have come, and how long ago that was."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from inboxd.clock import moment
from inboxd.model import Feed, FieldType
from inboxd.store.cursors import watermarks_of
from inboxd.store.database import Store


def newest_marks(store: Store, feeds: Iterable[Feed]) -> dict[str, str]:
    """Return each feed's watermark, where it has one; of a snapshot feed with several scopes the furthest."""
    rows = store.watermarks()
    found = {feed.name: watermarks_of(feed, rows) for feed in feeds}
    return {name: mine[0].value for name, mine in found.items() if mine}


def mark_time(feed: Feed, text: str) -> datetime | None:
    """Return a feed's watermark as a moment; ``None`` for a number, which has no clock."""
    kind = None if feed.mark_field is None else feed.mark_field.type
    if kind is FieldType.TIMESTAMP:
        return moment(text)
    return moment(f"{text}T00:00:00Z") if kind is FieldType.DATE else None


def lag_s(feed: Feed, text: str, now: datetime) -> float | None:
    """Return how many seconds a watermark is behind ``now``; ``None`` for a number."""
    reached = mark_time(feed, text)
    return None if reached is None else round((now - reached).total_seconds(), 3)
