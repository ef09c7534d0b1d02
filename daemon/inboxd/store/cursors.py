"""Cursor values as both databases' transactions handle them: all of one feed, and so all of one type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

from inboxd.clock import ahead, moment
from inboxd.fieldtypes import with_one_zero
from inboxd.model import Cursor, Feed, FieldType, Mode, Scalar
from inboxd.store.base import WatermarkRow
from inboxd.store.ledger import canonical


def at_or_below(value: Cursor, limit: Cursor) -> bool:
    """Compare two cursors. Canonical text compares as what it says."""
    if isinstance(value, int) and isinstance(limit, int):
        return value <= limit
    return str(value) <= str(limit)


def from_text(feed: Feed, text: str) -> Cursor:
    """Return a cursor of this feed from its text in ``watermarks``."""
    field = feed.mark_field
    return int(text) if field is not None and field.type is FieldType.INTEGER else text


def from_run(text: str | None) -> Cursor | None:
    """Return a cursor from its text in ``etl_runs``, whose feed may be gone: only an integer is all digits."""
    if text is None:
        return None
    return int(text) if text.removeprefix("-").isdecimal() else text


def from_database(value: object) -> Cursor | None:
    """Return a cursor that came out of a feed's own table."""
    if isinstance(value, date):  # a datetime is one too
        return canonical(value)
    return value if isinstance(value, int | str) else None


def watermark_name(feed: Feed, scope: Sequence[Scalar] | None) -> str:
    """Return what a feed's watermark is called: a snapshot feed has one for each scope."""
    if scope is None:
        return feed.name
    return f"{feed.name} {json.dumps(with_one_zero(scope), ensure_ascii=False, separators=(',', ':'))}"


def watermarks_of(feed: Feed, rows: Iterable[WatermarkRow]) -> list[WatermarkRow]:
    """Return a feed's watermarks, the highest first: one at most, but one for each scope of a snapshot feed."""
    if feed.mark_field is None:
        return []
    of_snapshots = f"{feed.name} ["  # no feed's name has a space in it
    mine = [
        row
        for row in rows
        if (row.name.startswith(of_snapshots) if feed.mode is Mode.SNAPSHOT else row.name == feed.name)
    ]
    values: dict[str, Any] = {row.name: from_text(feed, row.value) for row in mine}
    return sorted(mine, key=lambda row: values[row.name], reverse=True)


def scope_of(feed: Feed, row: WatermarkRow) -> dict[str, Scalar]:
    """Return the values of the scope that a feed's watermark is of, by field; none where it has no scope."""
    _, _, values = row.name.partition(" ")
    return dict(zip(feed.scope, json.loads(values or "[]"), strict=False))


def furthest(feed: Feed, now: datetime) -> Cursor | None:
    """Return the largest watermark that ``max_future`` allows; ``None`` for a number, which has no clock."""
    field = feed.mark_field
    if field is None or field.type is FieldType.INTEGER:
        return None
    text = ahead(now, feed.max_future_s)
    return text[:10] if field.type is FieldType.DATE else text


def newest_marks(rows: Sequence[WatermarkRow], feeds: Iterable[Feed]) -> dict[str, str]:
    """Return each feed's watermark, where it has one; of a snapshot feed with several scopes the furthest."""
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
