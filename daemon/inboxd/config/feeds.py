"""The feeds from the config to ``model.Feed``, with everything that the keys of a feed must agree on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from inboxd.config.faults import Faults, Key
from inboxd.config.fields import build_field
from inboxd.config.names import MOST_FIELDS, wrong_feed, wrong_table
from inboxd.config.schema import FeedTable
from inboxd.model import Feed, Field, FieldType

CURSOR_TYPES: Final = (FieldType.TIMESTAMP, FieldType.DATE, FieldType.INTEGER)


def build_feeds(tables: Mapping[str, FeedTable], faults: Faults) -> tuple[Feed, ...]:
    """Return the feeds in their order; whatever is wrong is noted in ``faults``, and then a feed may be left out."""
    built = (_build_feed(name, table, faults) for name, table in tables.items())
    feeds = tuple(feed for feed in built if feed is not None)
    _check_shared_tables(feeds, faults)
    return feeds


def _build_feed(name: str, table: FeedTable, faults: Faults) -> Feed | None:
    at: Key = ("feeds", name)
    if (wrong := wrong_feed(name)) is not None:
        faults.add(at, wrong)
    named = name if table.table is None else table.table
    if (wrong := wrong_table(named)) is not None:
        faults.add((*at, "table"), wrong)
    for pattern in table.match or ():
        if pattern.startswith("/") or not {"", ".", ".."}.isdisjoint(pattern.split("/")):
            faults.add((*at, "match"), f"{pattern!r} can match nothing: paths are relative to the inbox")
    for required in ("key", "cursor", "fields"):
        if getattr(table, required) is None:
            faults.add((*at, required), "is missing: a feed must name its key, its cursor and its fields")
    fields = _build_fields(table, at, faults)
    _check_key_and_cursor(table, fields, at, faults)
    if faults.under(at) or table.key is None or table.cursor is None:
        return None
    return Feed(
        name=name,
        match=table.match or (f"{name}/**",),
        table=named,
        key=table.key,
        cursor=table.cursor,
        fields=tuple(field for field in fields.values() if field is not None),
        records=table.records,
        late=table.late,
        max_future_s=table.max_future,
        max_rejected=table.max_rejected,
        extra=table.extra,
        undo=table.undo,
    )


def _build_fields(table: FeedTable, at: Key, faults: Faults) -> dict[str, Field | None]:
    """Return the fields by name; ``None`` is one that was declared, but wrongly."""
    fields: dict[str, Field | None] = {}
    spelt: dict[str, str] = {}
    for name, attributes in (table.fields or {}).items():
        key = (*at, "fields", name)
        fields[name] = build_field(name, attributes, key, faults)
        other = spelt.setdefault(name.lower(), name)
        if other != name:
            faults.add(key, f"differs from {other!r} only in case, which a column's name does not tell apart")
    if len(fields) > MOST_FIELDS:
        faults.add((*at, "fields"), f"has {len(fields)} fields; a table takes {MOST_FIELDS}")
    return fields


def _check_key_and_cursor(table: FeedTable, fields: Mapping[str, Field | None], at: Key, faults: Faults) -> None:
    if table.fields is None:
        return
    for key in table.key or ():
        _check_required(key, fields, (*at, "key"), faults)
        field = fields.get(key)
        if field is not None and field.type is FieldType.JSON:
            faults.add((*at, "key"), f"{key!r} is of type json, which a key cannot be: equal values have many texts")
    if table.key and len(set(table.key)) < len(table.key):
        faults.add((*at, "key"), "names the same field twice")
    if table.cursor is not None:
        _check_required(table.cursor, fields, (*at, "cursor"), faults)
        field = fields.get(table.cursor)
        if field is not None and field.type not in CURSOR_TYPES:
            faults.add((*at, "cursor"), f"{table.cursor!r} is of type {field.type}; it must be {_or(CURSOR_TYPES)}")


def _check_required(name: str, fields: Mapping[str, Field | None], at: Key, faults: Faults) -> None:
    if name not in fields:
        faults.add(at, f"{name!r} is not one of the feed's fields ({', '.join(fields)})")
    elif (field := fields[name]) is not None and not field.required:
        faults.add(at, f"{name!r} must be required, and have no default")


def _check_shared_tables(feeds: Iterable[Feed], faults: Faults) -> None:
    """Note feeds that fill one table, but disagree about what a row of it is."""
    first_of: dict[str, Feed] = {}
    for feed in feeds:
        first = first_of.setdefault(feed.table.lower(), feed)
        if first is feed:
            continue
        at = ("feeds", feed.name, "table")
        differing = [what for what, ours, theirs in _shape(feed, first) if ours != theirs]
        if feed.table != first.table:
            faults.add(
                at, f"differs from the table of feed {first.name!r} only in case, which SQLite does not tell apart"
            )
        elif differing:
            faults.add(at, f"is also filled by feed {first.name!r}, with another {' and '.join(differing)}")


def _shape(feed: Feed, other: Feed) -> Iterable[tuple[str, object, object]]:
    """Yield what makes a table and decides between its rows, for both feeds."""
    yield "key", feed.key, other.key
    yield "cursor", feed.cursor, other.cursor
    types = {field.name: field.type for field in other.fields}
    for field in feed.fields:
        yield f"type of {field.name}", field.type, types.get(field.name, field.type)


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
