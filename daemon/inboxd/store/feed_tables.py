"""The feeds' tables: what they must look like, what they look like, and the columns that may be added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from zlib import crc32

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.model import Feed, FieldType, Gone, Mode, OwnColumns
from inboxd.store.dialects import Dialect, quoted

MADE: Final = "SELECT table_name, column_name FROM feed_columns"
"""The columns of feeds' tables that inboxd has made."""
KEY_INDEX: Final = "_inboxd_key"
"""With the table's name before it the index by which an append feed's records are found."""
_LONGEST_STEM: Final = 50
"""Of a longer name a part of this length is in that of its index: PostgreSQL's names have 63 bytes."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as a feed wants it, or as the database has it: columns to types as the database spells them; the key."""

    columns: Mapping[str, str]
    key: tuple[str, ...]
    required: frozenset[str] = frozenset()
    """Columns that take no NULL."""


Wanted: TypeAlias = tuple[TableShape, Feed]
"""What a table must look like, and the first of the feeds that fill it."""


def own_types(feed: Feed) -> dict[str, FieldType]:
    """Return the columns that inboxd adds to a feed's table: the run that last wrote the row, and when.

    Where rows are marked also since when they are, in an append feed the record's number, which is of its key.
    """
    own = feed.own_columns
    columns = {own.run_id: FieldType.INTEGER, own.updated_at: FieldType.TIMESTAMP}
    if marks(feed):
        columns[own.deleted_at] = FieldType.TIMESTAMP
    if feed.mode is Mode.APPEND:
        columns[own.record_no] = FieldType.INTEGER
    return columns


def marks(feed: Feed) -> bool:
    """Tell whether the rows of deleted or absent records stay, marked."""
    return Gone.MARK in {feed.absent, feed.deletes.then if feed.deletes else None}


def table_key(feed: Feed) -> tuple[str, ...]:
    """Return the primary key of a feed's table."""
    own = feed.own_columns
    return (own.run_id, own.record_no) if feed.mode is Mode.APPEND else feed.key


def wanted_tables(feeds: Sequence[Feed], dialect: Dialect) -> dict[str, Wanted]:
    """Return each table that the feeds fill; raises ``OperatorFault`` if feeds of one table cannot share it."""
    groups: dict[str, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault(feed.table, []).append(feed)
    return {table: (_wanted_shape(group, dialect.types), group[0]) for table, group in groups.items()}


def missing(
    tables: Mapping[str, Wanted],
    shape_of: Callable[[str], TableShape | None],
    indexed: Callable[[str], tuple[str, ...]],
    any_row: Callable[[str], bool],
    made: Mapping[str, AbstractSet[str]],
    dialect: Dialect,
) -> list[str]:
    """Return the statements that make the tables and add the columns that are not there yet.

    ``shape_of`` tells what a table looks like now, ``None`` if there is none; ``indexed`` which columns an index has;
    ``any_row`` whether a query finds a row; ``made`` which columns inboxd has made: another one is somebody's own, and
    stays as long as it takes NULL.
    Raises ``OperatorFault`` with every difference when adding is not enough.
    """
    statements: list[str] = []
    problems: list[str] = []
    for table, (wanted, feed) in tables.items():
        found = shape_of(table)
        statements += _record(table, wanted.columns.keys() - made.get(table, frozenset()))
        if found is None:
            statements += _create_table(table, wanted, feed, dialect)
            continue
        own = own_columns_of(wanted, found, made.get(table))
        problems += [
            f"table {table!r} has a column of your own, {name!r}, that does not accept NULL: inboxd cannot fill it"
            for name in sorted(own & found.required)
        ]
        kept = {name: kind for name, kind in found.columns.items() if name not in own}
        ours = replace(found, columns=kept)
        problems += _differences(table, wanted, ours, feed, any_row)
        statements += [
            f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {kind}"
            for name, kind in wanted.columns.items()
            if name not in found.columns
        ]
        statements += _index(table, feed, indexed(key_index(table)))
    if problems:
        _refuse(problems)
    return statements


def own_columns_of(wanted: TableShape, found: TableShape, made: AbstractSet[str] | None) -> frozenset[str]:
    """Return the columns that somebody added by hand.

    They cannot be told from a former field's in a table of the first version that was not prepared since: ``None``.
    """
    return frozenset() if made is None else frozenset(found.columns.keys() - wanted.columns.keys() - made)


def _record(table: str, columns: AbstractSet[str]) -> list[str]:
    """Return the statements that remember which columns are inboxd's."""
    insert = "INSERT INTO feed_columns (table_name, column_name) VALUES"
    return [f"{insert} ({_text(table)}, {_text(name)}) ON CONFLICT DO NOTHING" for name in sorted(columns)]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def made_columns(rows: Iterable[Sequence[object]]) -> dict[str, set[str]]:
    """Return what ``MADE`` finds, by table."""
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(str(table), set()).add(str(column))
    return found


def _wanted_shape(feeds: Sequence[Feed], types: Mapping[FieldType, str]) -> TableShape:
    """Return the table that these feeds (all of one table) share; raises ``OperatorFault`` if they cannot."""
    first = feeds[0]
    columns: dict[str, str] = {}
    for feed in feeds:
        _refuse_sharing(first, feed)
        for name, kind in (*_feed_columns(feed), *own_types(feed).items()):
            if columns.setdefault(name, types[kind]) != types[kind]:
                _refuse([f"feeds of table {feed.table!r} disagree about {name!r}: {columns[name]} or {types[kind]}"])
    return TableShape(columns, table_key(first))


def _refuse_sharing(one: Feed, other: Feed) -> None:
    """Refuse two feeds of one table of which one would not see what the other does to it."""
    if one is other:
        return
    both = f"feeds {one.name!r} and {other.name!r} share table {one.table!r}, but "
    alone = next((feed for feed in (one, other) if feed.mode is not Mode.UPSERT), None)
    if alone is not None:
        _refuse([f'{both}that of a feed with mode = "{alone.mode}" has no other; give one of them a table of its own'])
    if (one.key, one.cursor) != (other.key, other.cursor):
        _refuse([f"{both}not key and cursor"])
    if one.deletes != other.deletes:
        _refuse([f"{both}not deletes: a deletion that only one of them knows of would be undone by the other"])
    if one.own_columns != other.own_columns:
        _refuse(
            [f"{both}not the names of inboxd's own columns: both must have the field that one of them gives way to"]
        )


def _feed_columns(feed: Feed) -> list[tuple[str, FieldType]]:
    """Return the columns with their types; the one of unknown fields, which no field declares, is JSON."""
    types = {field.name: field.type for field in feed.fields}
    return [(name, types.get(name, FieldType.JSON)) for name in feed.columns]


def _create_table(table: str, wanted: TableShape, feed: Feed, dialect: Dialect) -> list[str]:
    not_null = {*wanted.key, feed.cursor, *(feed.key if feed.mode is not Mode.APPEND else ())}
    texts = {name for name in feed.key if feed.field(name).type is FieldType.TEXT}
    lines = [
        f"{quoted(name)} {kind}"
        + (dialect.collation if name in texts else "")
        + (" NOT NULL" if name in not_null else "")
        for name, kind in wanted.columns.items()
    ]
    key = ", ".join(map(quoted, wanted.key))
    create = f"CREATE TABLE {quoted(table)} ({', '.join(lines)}, PRIMARY KEY ({key})){dialect.without_rowid}"
    return [create, *_index(table, feed, ())]


def key_index(table: str) -> str:
    """Return the name of the index by which the records of an append feed's table are found."""
    stem = table if len(table) <= _LONGEST_STEM else f"{table[: _LONGEST_STEM - 9]}_{crc32(table.encode()):08x}"
    return stem + KEY_INDEX


def _index(table: str, feed: Feed, there: tuple[str, ...]) -> list[str]:
    """Return the statements that make an append feed's index anew where it has not the columns of the key."""
    wanted = feed.key if feed.mode is Mode.APPEND else ()
    if there == wanted:
        return []
    name = quoted(key_index(table))
    create = f"CREATE INDEX {name} ON {quoted(table)} ({', '.join(map(quoted, wanted))})"
    return [*([f"DROP INDEX {name}"] if there else []), *([create] if wanted else [])]


def _differences(
    table: str, wanted: TableShape, found: TableShape, feed: Feed, any_row: Callable[[str], bool]
) -> list[str]:
    """Say what keeps ``found`` from becoming ``wanted`` by adding columns alone."""
    lines = []
    if found.key != wanted.key:
        line = f"table {table!r} has the key ({', '.join(found.key)}), the feed wants ({', '.join(wanted.key)})"
        if feed.mode is Mode.APPEND or found.key == ("run_id", "record_no"):
            line += ": what is appended and what is upserted never share a table, so give the feed a new one"
        lines.append(line)
    deleted_at = feed.own_columns.deleted_at
    for name, kind in found.columns.items():
        if name not in wanted.columns and name == deleted_at:
            if any_row(f"SELECT 1 FROM {quoted(table)} WHERE {quoted(name)} IS NOT NULL LIMIT 1"):
                lines.append(
                    f"table {table!r} has rows that are marked as deleted, which the feed would not know of: "
                    f"delete those where {name} is set"
                )
        elif name not in wanted.columns:
            lines.append(f"table {table!r} has the column {name!r} ({kind}), which the feed no longer names")
        elif wanted.columns[name].lower() != kind.lower():
            lines.append(f"table {table!r}: column {name!r} is {kind}, the feed wants {wanted.columns[name]}")
    lines += [
        f"table {table!r} was made when {plain!r} was inboxd's own column: it has no {own!r}, so the feed's field "
        f"{plain!r} needs another name"
        for own, plain in _stepped_aside(feed).items()
        if own not in found.columns and plain in found.columns
    ]
    if feed.cursor is not None and _lacks(table, feed.cursor, found, any_row):
        lines.append(
            f"table {table!r} has rows without {feed.cursor!r}, which is to be the cursor: fill them in, or delete them"
        )
    return lines


def _stepped_aside(feed: Feed) -> dict[str, str]:
    """Return the columns of ours that have another name because of a field, each with its usual name."""
    plain = OwnColumns()
    names = {getattr(feed.own_columns, each): getattr(plain, each) for each in OwnColumns.__slots__}
    return {own: usual for own, usual in names.items() if own in own_types(feed) and own != usual}


def _lacks(table: str, column: str, found: TableShape, any_row: Callable[[str], bool]) -> bool:
    """Tell whether a row has nothing in a column, which may be still to be added."""
    condition = f" WHERE {quoted(column)} IS NULL" if column in found.columns else ""
    if column in found.required:
        return False
    return any_row(f"SELECT 1 FROM {quoted(table)}{condition} LIMIT 1")


def _refuse(lines: Sequence[str]) -> None:
    hint = "change the feed back, give it a new table, or change the table by hand; inboxd only ever adds columns"
    raise OperatorFault("schema_mismatch", "; ".join(lines), hint, exit_code=EXIT_CONFIG)
