"""A feed's table as SQLAlchemy sees it, and the key's text turned back into the key's columns."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from inboxd.model import EXTRA_COLUMN, Feed, FieldType, Scalar
from inboxd.records.typed import typed
from inboxd.records.validate import key_text
from inboxd.store.tables import Stamp


class Day(TypeDecorator[str]):
    """A date: canonical text in Python and on SQLite, ``date`` on PostgreSQL."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:  # Any: as SQLAlchemy declares it
        """Choose the column type of the database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Date())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> object:
        """Hand PostgreSQL a date instead of its text."""
        return date.fromisoformat(value) if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: object, dialect: sa.Dialect) -> str | None:
        """Return canonical text."""
        del dialect
        return None if value is None else str(value)


class Plain(TypeDecorator[str]):
    """A decimal: canonical text in Python and on SQLite, ``numeric`` on PostgreSQL, which keeps its scale."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:  # Any: as SQLAlchemy declares it
        """Choose the column type of the database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Numeric())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> object:
        """Hand PostgreSQL a number instead of its text."""
        return Decimal(value) if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: object, dialect: sa.Dialect) -> str | None:
        """Return canonical text."""
        del dialect
        return f"{value:f}" if isinstance(value, Decimal) else value if value is None else str(value)


_TYPES: Final = {
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
    """Return the feed's table, its own columns included."""
    types = {field.name: field.type for field in feed.fields}
    columns: list[sa.ColumnClause[object]] = [
        sa.column(name, _TYPES[types.get(name, FieldType.JSON)]) for name in feed.columns
    ]
    return sa.table(feed.table, *columns, sa.column("run_id", sa.BigInteger), sa.column("updated_at", Stamp))


def row_of(connection: sa.Connection, feed: Feed, key: str) -> dict[str, object] | None:
    """Return the row that the key's text leads to, each value in its canonical form, or ``None``."""
    try:
        values = key_values(feed, key)
    except ValueError:
        return None  # no key of this feed reads like that
    looked_at = sa.inspect(connection)
    if not looked_at.has_table(feed.table):
        return None
    target = target_of(feed)
    there = {column["name"] for column in looked_at.get_columns(feed.table)}  # a new field's column comes at a start
    of_json = {field.name for field in feed.fields if field.type is FieldType.JSON} | {EXTRA_COLUMN}
    columns = [
        sa.cast(column, sa.Text).label(column.name) if column.name in of_json else column
        for column in target.columns
        if column.name in there
    ]
    where = [target.c[name] == value for name, value in zip(feed.key, values, strict=True)]
    found = connection.execute(sa.select(*columns).where(*where)).mappings().one_or_none()
    return None if found is None else dict(found)


def key_values(feed: Feed, key: str) -> list[Scalar]:
    """Return the key's columns, read from its text; ``ValueError`` if it is no key of this feed."""
    fields = [feed.field(name) for name in feed.key]
    if len(fields) == 1:
        return [typed(fields[0], key)]
    try:
        parts = json.loads(key)
    except RecursionError:
        parts = None
    if not isinstance(parts, list) or len(parts) != len(fields):
        raise ValueError(key)
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return [typed(field, text) for field, text in zip(fields, texts, strict=True)]


def canonical_key(feed: Feed, key: str) -> str:
    """Return the key's text as it is stored, however its JSON was spaced; text that is no key of the feed as it is."""
    try:
        return key_text(key_values(feed, key))
    except ValueError:
        return key
