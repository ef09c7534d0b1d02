"""The feeds' tables: what they must look like, what they look like, and the columns that may be added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.model import Feed, FieldType

OWN_COLUMNS = ("run_id", "updated_at")
"""The columns that inboxd adds to a feed's table: the run that last wrote the row, and when."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as a feed wants it, or as the database has it: columns to types as the database spells them; the key."""

    columns: Mapping[str, str]
    key: tuple[str, ...]


def quoted(name: str) -> str:
    """Return an identifier as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def wanted_shape(feeds: Sequence[Feed], types: Mapping[FieldType, str]) -> TableShape:
    """Return the table that these feeds (all of one table) share; raises ``OperatorFault`` if they cannot."""
    first = feeds[0]
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


def differences(table: str, wanted: TableShape, found: TableShape) -> list[str]:
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


def refuse_differences(lines: Sequence[str]) -> None:
    """Raise ``OperatorFault`` with every difference, if there are any."""
    if lines:
        _refuse(lines)


def by_table(feeds: Sequence[Feed]) -> dict[str, list[Feed]]:
    """Group feeds by the table they fill."""
    groups: dict[str, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault(feed.table, []).append(feed)
    return groups


def create_table(table: str, wanted: TableShape, feed: Feed, *, key_suffix: str = "", table_suffix: str = "") -> str:
    """Return the ``CREATE TABLE`` of a feed's table; ``key_suffix`` follows the type of a text key's column."""
    not_null = {*feed.key, feed.cursor}
    lines = [
        f"{quoted(name)} {kind}"
        + (key_suffix if name in feed.key and feed.field(name).type is FieldType.TEXT else "")
        + (" NOT NULL" if name in not_null else "")
        for name, kind in wanted.columns.items()
    ]
    key = ", ".join(map(quoted, feed.key))
    return f"CREATE TABLE {quoted(table)} ({', '.join(lines)}, PRIMARY KEY ({key})){table_suffix}"


def _feed_columns(feed: Feed) -> list[tuple[str, FieldType]]:
    """Return the columns with their types; the one of unknown fields, which no field declares, is JSON."""
    types = {field.name: field.type for field in feed.fields}
    return [(name, types.get(name, FieldType.JSON)) for name in feed.columns]


def _refuse(lines: Sequence[str]) -> None:
    hint = "change the feed back, give it a new table, or change the table by hand; inboxd only ever adds columns"
    raise OperatorFault("schema_mismatch", "; ".join(lines), hint, exit_code=EXIT_CONFIG)
