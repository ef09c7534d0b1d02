"""The feeds' tables: what they must look like, what they look like, and the columns that may be added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.model import Feed, Field, FieldType, names_of

OWN_COLUMNS = ("run_id", "updated_at")
"""The columns that inboxd adds to a feed's table: the run that last wrote the row, and when."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as a feed wants it, or as the database has it: columns to types as the database spells them; the key."""

    columns: Mapping[str, str]
    key: tuple[str, ...]


Wanted: TypeAlias = tuple[TableShape, Feed]
"""What a table must look like, and the first of the feeds that fill it."""


def quoted(name: str) -> str:
    """Return an identifier as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def wanted_tables(feeds: Sequence[Feed], types: Mapping[FieldType, str]) -> dict[str, Wanted]:
    """Return each table that the feeds fill; raises ``OperatorFault`` if feeds of one table cannot share it."""
    groups: dict[str, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault(feed.table, []).append(feed)
    return {table: (_wanted_shape(group, types), group[0]) for table, group in groups.items()}


def missing(
    tables: Mapping[str, Wanted],
    shape_of: Callable[[str], TableShape | None],
    *,
    key_suffix: str = "",
    table_suffix: str = "",
) -> list[str]:
    """Return the statements that make the tables and add the columns that are not there yet.

    ``shape_of`` tells what a table looks like now, ``None`` if there is none. Raises ``OperatorFault`` with every
    difference when adding is not enough. ``key_suffix`` follows the type of a text key's column, ``table_suffix`` a new
    table's closing bracket.
    """
    statements: list[str] = []
    problems: list[str] = []
    for table, (wanted, feed) in tables.items():
        found = shape_of(table)
        if found is None:
            statements.append(_create_table(table, wanted, feed, key_suffix=key_suffix, table_suffix=table_suffix))
            continue
        problems += _differences(table, wanted, found)
        statements += [
            f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {kind}"
            for name, kind in wanted.columns.items()
            if name not in found.columns
        ]
    if problems:
        _refuse(problems)
    return statements


def _wanted_shape(feeds: Sequence[Feed], types: Mapping[FieldType, str]) -> TableShape:
    """Return the table that these feeds (all of one table) share; raises ``OperatorFault`` if they cannot."""
    first = feeds[0]
    _refuse_what_is_to_come(feeds)
    columns: dict[str, str] = {}
    for feed in feeds:
        if feed.key != first.key or feed.cursor != first.cursor:
            _refuse([f"feeds {first.name!r} and {feed.name!r} share table {feed.table!r}, but not key and cursor"])
        for name, kind in _feed_columns(feed):
            if columns.setdefault(name, types[kind]) != types[kind]:
                _refuse([f"feeds of table {feed.table!r} disagree about {name!r}: {columns[name]} or {types[kind]}"])
    return TableShape(
        {**columns, "run_id": types[FieldType.INTEGER], "updated_at": types[FieldType.TIMESTAMP]}, first.key
    )


def _refuse_what_is_to_come(feeds: Sequence[Feed]) -> None:
    """Refuse what the config can already say and the rest cannot do yet, before it could do it wrongly."""
    for feed in feeds:
        plain = Feed(
            feed.name, feed.match, feed.table, feed.key, feed.cursor, feed.fields, late=feed.late, expect=feed.expect
        )
        same = replace(
            plain,
            records=feed.records,
            max_future_s=feed.max_future_s,
            max_rejected=feed.max_rejected,
            extra=feed.extra,
            undo=feed.undo,
        )
        own = {"run_id", "record_no", "record_key", "updated_at", "extra"}
        if (
            feed != same
            or feed.cursor is None
            or any(field != _plain_field(field) or field.name.lower() in own for field in feed.fields)
        ):
            hint = "leave them out until the next version"
            message = f"feed {feed.name!r} uses settings that this version knows but cannot follow yet"
            raise OperatorFault("unsupported_feed", message, hint, exit_code=EXIT_CONFIG)


def _plain_field(field: Field) -> Field:
    unit = field.unit if field.unit != "ns" else None
    kind = FieldType.TEXT if field.type is FieldType.DECIMAL else field.type
    path = names_of(field.path)
    return replace(
        field, path=path, unit=unit, type=kind, coalesce=(), formats=(), timezone=None, null=(), coerce=False
    )


def _feed_columns(feed: Feed) -> list[tuple[str, FieldType]]:
    """Return the columns with their types; the one of unknown fields, which no field declares, is JSON."""
    types = {field.name: field.type for field in feed.fields}
    return [(name, types.get(name, FieldType.JSON)) for name in feed.columns]


def _create_table(table: str, wanted: TableShape, feed: Feed, *, key_suffix: str, table_suffix: str) -> str:
    not_null = {*feed.key, feed.cursor}
    lines = [
        f"{quoted(name)} {kind}"
        + (key_suffix if name in feed.key and feed.field(name).type is FieldType.TEXT else "")
        + (" NOT NULL" if name in not_null else "")
        for name, kind in wanted.columns.items()
    ]
    key = ", ".join(map(quoted, feed.key))
    return f"CREATE TABLE {quoted(table)} ({', '.join(lines)}, PRIMARY KEY ({key})){table_suffix}"


def _differences(table: str, wanted: TableShape, found: TableShape) -> list[str]:
    """Say what keeps ``found`` from becoming ``wanted`` by adding columns alone."""
    lines = []
    if found.key != wanted.key:
        lines.append(f"table {table!r} has the key ({', '.join(found.key)}), the feed wants ({', '.join(wanted.key)})")
    for name, kind in found.columns.items():
        if name not in wanted.columns:
            lines.append(f"table {table!r} has the column {name!r} ({kind}), which the feed no longer names")
        elif wanted.columns[name].lower() != kind.lower():
            lines.append(f"table {table!r}: column {name!r} is {kind}, the feed wants {wanted.columns[name]}")
    return lines


def _refuse(lines: Sequence[str]) -> None:
    hint = "change the feed back, give it a new table, or change the table by hand; inboxd only ever adds columns"
    raise OperatorFault("schema_mismatch", "; ".join(lines), hint, exit_code=EXIT_CONFIG)
