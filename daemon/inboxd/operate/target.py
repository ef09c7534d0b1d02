"""Feeds' tables as SQLAlchemy sees them, and a key's text turned back into the key's columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.model import OWN_PREFIX, Feed, Field, FieldType, Scalar
from inboxd.records.typed import typed
from inboxd.records.validate import key_text
from inboxd.store.base import CONTROL_TABLES
from inboxd.store.feed_tables import TableShape, own_types
from inboxd.store.shapes import kinds, shapes
from inboxd.store.tables import Day, Plain, Stamp, etl_runs

TYPES: Final = {
    FieldType.TEXT: sa.Text,
    FieldType.INTEGER: sa.BigInteger,
    FieldType.REAL: sa.Double,
    FieldType.BOOLEAN: sa.Boolean,
    FieldType.TIMESTAMP: Stamp,
    FieldType.DATE: Day,
    FieldType.DECIMAL: Plain,
    FieldType.JSON: sa.JSON,
}


def target_of(feed: Feed) -> sa.TableClause:
    """Return the feed's table, its own columns and those of other feeds included."""
    names = (*feed.columns, *own_types(feed), *(field.name for field in feed.beside))
    columns: list[sa.ColumnClause[object]] = [sa.column(name, TYPES[column_type(feed, name)]) for name in names]
    return sa.table(feed.table, *columns)


def column_type(feed: Feed, name: str) -> FieldType:
    """Return the type of a column of the feed's table."""
    types = {
        feed.own_columns.extra: FieldType.JSON,
        **own_types(feed),
        **{each.name: each.type for each in (*feed.beside, *feed.fields)},
    }
    return types[name]


@dataclass(frozen=True, slots=True)
class FilledTable:
    """A table that feeds fill or filled, as the database has it. What touched a row is asked by table, not by feed."""

    name: str
    columns: Mapping[str, FieldType | None]
    """``None`` is a type that no field has: the column is somebody's own."""
    key: tuple[Field, ...]
    """What records are found by, where there is anything."""
    newest: tuple[str, ...] = ()
    """Where a key may have several rows: what tells which of them came last."""
    feeds: tuple[str, ...] = ()
    """Those of the config."""

    def of_table(self, also: Collection[str] = ()) -> sa.ColumnElement[bool]:
        """Tell the runs that may have touched the table's rows.

        A run of the first version does not say its table: then its feed counts, one of the config's or of ``also``.
        """
        runs = etl_runs.c
        unnamed = sa.and_(runs.table_name.is_(None), runs.job_name.in_({*self.feeds, *also}))
        return sa.or_(runs.table_name == self.name, unnamed)


def filled_tables(connection: sa.Connection, feeds: Sequence[Feed]) -> list[FilledTable]:
    """Return the tables of the config's feeds, in its order, and those whose feeds have left it."""
    there, types = shapes(connection), kinds(connection)
    groups: dict[str, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault(feed.table, []).append(feed)
    for name, shape in there.items():
        if name not in CONTROL_TABLES and name not in groups and _is_ours(shape):
            groups[name] = []
    none = TableShape({}, ())
    return [_filled(name, there.get(name, none), types, group) for name, group in groups.items()]


def _is_ours(shape: TableShape) -> bool:
    return all({name, OWN_PREFIX + name} & shape.columns.keys() for name in ("run_id", "updated_at"))


def _filled(name: str, shape: TableShape, types: Mapping[str, FieldType], feeds: Sequence[Feed]) -> FilledTable:
    columns = {column: types.get(kind) for column, kind in shape.columns.items()}
    own = tuple(OWN_PREFIX + one if OWN_PREFIX + one in columns else one for one in ("run_id", "record_no"))
    appended = shape.key == own
    if feeds:
        key = tuple(feeds[0].field(column) for column in feeds[0].key)
    else:
        names = () if appended else shape.key
        key = tuple(Field(column, columns[column] or FieldType.TEXT, (column,), column) for column in names)
    return FilledTable(name, columns, key, own if appended else (), tuple(feed.name for feed in feeds))


def row_of(connection: sa.Connection, table: FilledTable, key: str) -> dict[str, object] | None:
    """Return the row that the key's text leads to, each value in its canonical form, or ``None``."""
    if not table.columns or not table.key:
        return None
    try:
        values = key_values(table, key)
    except ValueError:
        return None  # no key of this table reads like that
    return _row(connection, table, {field.name: value for field, value in zip(table.key, values, strict=True)})


def row_at(connection: sa.Connection, table: FilledTable, run_id: int, record_no: int) -> dict[str, object] | None:
    """Return the row that a record of a run has become in a table without a key, where each has a row of its own."""
    return _row(connection, table, dict(zip(table.newest, (run_id, record_no), strict=True)))


def _row(connection: sa.Connection, table: FilledTable, wanted: Mapping[str, Scalar]) -> dict[str, object] | None:
    types = {name: TYPES[kind or FieldType.TEXT] for name, kind in table.columns.items()}
    target = sa.table(table.name, *(sa.column(name, kind) for name, kind in types.items()))
    columns = [
        sa.cast(column, sa.Text).label(column.name) if table.columns[column.name] in {None, FieldType.JSON} else column
        for column in target.columns
    ]
    where = [target.c[name] == value for name, value in wanted.items()]
    newest = [target.c[name].desc() for name in table.newest]
    found = connection.execute(sa.select(*columns).where(*where).order_by(*newest).limit(1)).mappings().one_or_none()
    return None if found is None else dict(found)


def key_values(table: FilledTable, key: str) -> list[Scalar]:
    """Return the key's columns, read from its text; ``ValueError`` says why it is no key of this table."""
    if len(table.key) == 1:
        return [_part(table, table.key[0], key)]
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or len(parts) != len(table.key):
        names = ", ".join(field.name for field in table.key)
        msg = f"the key of table {table.name} is ({names}): write its {len(table.key)} values as a JSON array"
        raise ValueError(msg)
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return [_part(table, field, text) for field, text in zip(table.key, texts, strict=True)]


def _part(table: FilledTable, field: Field, text: str) -> Scalar:
    try:
        return typed(field, text)
    except ValueError as error:
        msg = f"{field.name} of table {table.name} {error}"
        raise ValueError(msg) from None


def canonical_key(table: FilledTable, key: str) -> tuple[str, str | None]:
    """Return the key's text as it is stored, however it was typed; or as it is, and why it is no key of the table."""
    if not table.key:
        return key, None
    try:
        return key_text(key_values(table, key)), None
    except ValueError as error:
        return key, str(error)
