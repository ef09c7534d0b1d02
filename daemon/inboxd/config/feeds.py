"""The feeds from the config to ``model.Feed``, with everything that the keys of a feed must agree on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from inboxd.config.conditions import build_conditions
from inboxd.config.faults import Faults, Key
from inboxd.config.fields import Inherited, build_field, build_moment
from inboxd.config.globs import captures_of, never_reached
from inboxd.config.modes import check_mode
from inboxd.config.moments import build_expect
from inboxd.config.names import MOST_FIELDS, wrong_feed, wrong_table
from inboxd.config.reach import check_paths
from inboxd.config.schema import EVENTS, FeedTable, MomentTable
from inboxd.fieldtypes import CURSOR_TYPES, TYPES
from inboxd.model import Deletes, Extra, Feed, Field, FieldType, Gone, Limit, Mode, Origin

SNAPSHOT_DELETES: Final = Limit(share=0.2)
"""``max_deleted`` of a snapshot that does not say it: half a file must not empty a table."""


def build_feeds(tables: Mapping[str, FeedTable], faults: Faults) -> tuple[Feed, ...]:
    """Return the feeds in their order; whatever is wrong is noted in ``faults``, and then a feed may be left out."""
    built = (_build_feed(name, table, faults) for name, table in tables.items())
    feeds = tuple(feed for feed in built if feed is not None)
    _check_shared_tables(feeds, faults)
    return tuple(replace(feed, beside=_beside(feed, feeds)) for feed in feeds)


def _beside(feed: Feed, feeds: Iterable[Feed]) -> tuple[Field, ...]:
    """Return the columns of a feed's table that only others of the feeds fill."""
    found: dict[str, Field] = {}
    for other in feeds:
        if other.table == feed.table:
            found |= {field.name: field for field in other.fields}
            if other.extra is Extra.KEEP:
                extra = other.own_columns.extra
                found[extra] = Field(extra, FieldType.JSON, (extra,), extra)
    return tuple(field for name, field in found.items() if name not in feed.columns)


def doubts(tables: Mapping[str, FeedTable], feeds: Iterable[Feed]) -> Iterator[tuple[Key, str]]:
    """Yield what a valid config says that may not be meant."""
    feeds = tuple(feeds)
    for name in never_reached(feeds):
        yield ("feeds", name, "match"), "no file in the inbox comes to this feed: one before it takes everything"
    for feed in feeds:
        said = "late" in tables[feed.name].model_fields_set or feed.name == EVENTS
        if feed.mode is Mode.UPSERT and feed.cursor and not said:
            why = "which leaves out what is at or below the watermark, as when files arrive out of order"
            yield ("feeds", feed.name, "late"), f'is not said; it is "{feed.late}", {why}'


def _build_feed(name: str, table: FeedTable, faults: Faults) -> Feed | None:
    at: Key = ("feeds", name)
    if (wrong := wrong_feed(name)) is not None:
        faults.add(at, wrong)
    named = name if table.table is None else table.table
    if (wrong := wrong_table(named)) is not None:
        faults.add((*at, "table"), wrong)
    _check_match(table, at, faults)
    if table.fields is None:
        faults.add((*at, "fields"), "is missing: a feed must name its fields")
    check_mode(table, at, faults)
    fields = _build_fields(table, at, faults)
    _check_roles(table, fields, at, faults)
    feed = _assembled(name, named, table, fields, at, faults)
    if not faults.under(at):
        check_paths(feed, at, faults)
    return None if faults.under(at) else feed


def _assembled(
    name: str, table_name: str, table: FeedTable, fields: Mapping[str, Field | None], at: Key, faults: Faults
) -> Feed:
    snapshot = table.mode is Mode.SNAPSHOT
    moment = table.as_of or MomentTable.model_construct(path=(Origin.FILE, "mtime"))
    return Feed(
        name=name,
        match=table.match or (f"{name}/**",),
        table=table_name,
        key=table.key or (),
        cursor=table.cursor or None,
        fields=tuple(field for field in fields.values() if field is not None),
        records=table.records,
        late=table.late,
        max_future_s=table.max_future,
        max_rejected=table.max_rejected,
        extra=table.extra,
        undo=table.undo,
        mode=table.mode,
        shape=table.shape,
        explode=table.explode,
        where=build_conditions(table.where or (), (*at, "where"), faults),
        deletes=_build_deletes(table, (*at, "deletes"), faults),
        max_deleted=table.max_deleted or (SNAPSHOT_DELETES if snapshot else Limit(share=1.0)),
        as_of=build_moment(moment, (*at, "as_of"), faults) if snapshot else None,
        absent=table.absent,
        scope=table.scope or (),
        allow_empty=table.allow_empty,
        expect=build_expect(table.expect, (*at, "expect"), faults) if table.expect else None,
    )


def _build_deletes(table: FeedTable, at: Key, faults: Faults) -> Deletes | None:
    if table.deletes is None:
        return None
    said = {condition.then for condition in table.deletes if condition.then is not None}
    if len(said) != 1:
        why = "must be given" if not said else "must be the same in all of the conditions"
        faults.add((*at, "then"), f"{why}: remove, which takes the row out, or mark, which sets deleted_at")
    return Deletes(build_conditions(table.deletes, at, faults), next(iter(said), Gone.REMOVE))


def _check_match(table: FeedTable, at: Key, faults: Faults) -> None:
    for pattern in table.match or ():
        if pattern.startswith("/") or not {"", ".", ".."}.isdisjoint(pattern.split("/")):
            faults.add((*at, "match"), f"{pattern!r} can match nothing: paths are relative to the inbox")
        try:
            captures_of(pattern)
        except ValueError as error:
            faults.add((*at, "match"), str(error))


def _build_fields(table: FeedTable, at: Key, faults: Faults) -> dict[str, Field | None]:
    """Return the fields by name; ``None`` is one that was declared, but wrongly."""
    fields: dict[str, Field | None] = {}
    spelt: dict[str, str] = {}
    inherited = Inherited(table.null or (), bool(table.coerce))
    for name, attributes in (table.fields or {}).items():
        key = (*at, "fields", name)
        fields[name] = build_field(name, attributes, inherited, key, faults)
        other = spelt.setdefault(name.lower(), name)
        if other != name:
            faults.add(key, f"differs from {other!r} only in case, which column names do not distinguish")
    if len(fields) > MOST_FIELDS:
        faults.add((*at, "fields"), f"has {len(fields)} fields; a table takes {MOST_FIELDS}")
    return fields


def _check_roles(table: FeedTable, fields: Mapping[str, Field | None], at: Key, faults: Faults) -> None:
    """Note what keeps fields from being the feed's key, cursor or scope."""
    if table.fields is None:
        return
    for role, names in (("key", table.key or ()), ("scope", table.scope or ())):
        for name in names:
            _check_required(name, fields, (*at, role), faults)
            field = fields.get(name)
            if field is not None and not TYPES[field.type].is_key:
                why = "equal values have many texts" if field.type is FieldType.JSON else "its text has its scale in it"
                faults.add((*at, role), f"{name!r} is of type {field.type}, which a {role} cannot be: {why}")
        if len(set(names)) < len(names):
            faults.add((*at, role), "names the same field twice")
    if table.cursor:
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
        alone = next((each for each in (feed, first) if each.mode is not Mode.UPSERT), None)
        differing = [what for what, ours, theirs in _shape(feed, first) if ours != theirs]
        if feed.table != first.table:
            faults.add(
                at,
                f"differs from the table of feed {first.name!r} only in case, which SQLite does not distinguish",
            )
        elif alone is not None:
            faults.add(at, f"is also filled by feed {first.name!r}; a feed of mode {alone.mode} has its table alone")
        elif differing:
            faults.add(at, f"is also filled by feed {first.name!r}, with another {' and '.join(differing)}")


def _shape(feed: Feed, other: Feed) -> Iterable[tuple[str, object, object]]:
    """Yield what makes a table and decides between its rows, for both feeds."""
    yield "key", feed.key, other.key
    yield "cursor", feed.cursor, other.cursor
    yield "deletes", feed.deletes, other.deletes
    types = {field.name: field.type for field in other.fields}
    for field in feed.fields:
        yield f"type of {field.name}", field.type, types.get(field.name, field.type)


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
