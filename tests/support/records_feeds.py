"""Feeds made by hand for the tests of records, and a reader of whole contents."""

from __future__ import annotations

import io
from typing import Any

from inboxd.errors import FileFault
from inboxd.model import Extra, Feed, Field, FieldType, Row
from inboxd.outcomes import Reject
from inboxd.records.decode import Reading
from inboxd.records.windows import WINDOW
from records_oracle import NOW


def declare(name: str, kind: FieldType = FieldType.TEXT, path: str = "", **attributes: Any) -> Field:
    """Return a field, its path as a config has it."""
    label = attributes.pop("label", name)
    return Field(name=name, type=kind, path=tuple((path or name).split(".")), label=label, **attributes)


def feed_of(*fields: Field, key: str = "key", cursor: str = "ts", **attributes: Any) -> Feed:
    """Return a feed of these fields."""
    return Feed(
        name="events", match=("**",), table="target", key=tuple(key.split()), cursor=cursor, fields=fields, **attributes
    )


KEY = declare("key")
NAME = declare("name")
VALUE = declare("value", FieldType.REAL)
TS = declare("ts", FieldType.TIMESTAMP, label="timestamp")
EVENTS = feed_of(KEY, NAME, VALUE, TS)

OPTIONAL = feed_of(
    KEY,
    declare("name", required=False, min_length=1, max_length=5),
    declare("value", FieldType.REAL, required=False, default=0.5, minimum=-10.0),
    declare("count", FieldType.INTEGER, required=False),
    declare("flag", FieldType.BOOLEAN, required=False, default=True),
    declare("day", FieldType.DATE, required=False),
    TS,
)
NESTED = feed_of(
    declare("repo", path="actor.repo"),
    declare("count", FieldType.INTEGER, path="actor.stats.count"),
    declare("name", required=False, path="other.name"),
    declare("ts", FieldType.TIMESTAMP, path="ts"),
    key="repo count",
)
STRICT = feed_of(KEY, declare("count", FieldType.INTEGER, choices=(1, 2, 9)), TS, extra=Extra.REJECT)
KEEPING = feed_of(KEY, declare("payload", FieldType.JSON, required=False), TS, extra=Extra.KEEP)
NUMBERED = feed_of(
    declare("count", FieldType.INTEGER),
    declare("day", FieldType.DATE),
    declare("name", required=False),
    key="count",
    cursor="day",
)
COUNTED = feed_of(KEY, declare("count", FieldType.INTEGER, label="n"), cursor="count")
AWKWARD = feed_of(declare("key", path='k"ey'), declare("name", path="nä\\me"), TS)
OVERLAPPING = feed_of(KEY, declare("all", FieldType.JSON, path="actor"), declare("name", path="actor.name"), TS)
FEEDS = (EVENTS, OPTIONAL, NESTED, STRICT, KEEPING, NUMBERED, COUNTED, AWKWARD, OVERLAPPING)


def read(
    content: bytes, feed: Feed = EVENTS, *, window: int = WINDOW, max_size: int = 2**40
) -> tuple[list[Row], list[Reject]]:
    """Read a whole content; return its rows and rejects."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    size = 0
    for batch in Reading(io.BytesIO(content), feed, now=NOW, max_size=max_size, window=window).batches():
        rows += batch.rows
        rejects += batch.rejects
        size += batch.size
    assert size >= 0
    return rows, rejects


def fault_of(content: bytes, feed: Feed = EVENTS, *, window: int = WINDOW, max_size: int = 2**40) -> FileFault:
    """Return the fault of a content that has one."""
    try:
        found = read(content, feed, window=window, max_size=max_size)
    except FileFault as fault:
        return fault
    raise AssertionError(f"no fault, but {found}")


def record(**members: str) -> bytes:
    """Return a valid record of ``EVENTS``, with some members replaced by these JSON texts (``""``: left out)."""
    values = {"key": '"a"', "name": '"n"', "value": "1.5", "ts": '"2026-01-15T10:30:00Z"'} | members
    return ("{" + ",".join(f'"{name}":{text}' for name, text in values.items() if text) + "}").encode()
