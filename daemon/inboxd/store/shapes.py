"""What a database's tables look like, for questions about all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from inboxd.model import FieldType
from inboxd.store import postgres_sql, sqlite_sql
from inboxd.store.feed_tables import TableShape

_ON_POSTGRES: Final = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), array_position(i.indkey::int2[], a.attnum),
       a.attnotnull
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND pg_table_is_visible(c.oid)
   AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
 ORDER BY c.relname, a.attnum
"""
_ON_SQLITE: Final = """
SELECT m.name, p.name, p.type, NULLIF(p.pk, 0), p."notnull"
  FROM main.sqlite_schema m CROSS JOIN pragma_table_info(m.name) p
 WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
 ORDER BY m.name, p.cid
"""


def shapes(connection: sa.Connection) -> dict[str, TableShape]:
    """Return every table that a name alone leads to."""
    query = _ON_POSTGRES if connection.dialect.name == "postgresql" else _ON_SQLITE
    columns: dict[str, dict[str, str]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    required: dict[str, set[str]] = {}
    for table, column, kind, place, takes_no_null in connection.execute(sa.text(query.replace(":", "\\:"))):
        columns.setdefault(table, {})[column] = kind
        if place is not None:
            keys.setdefault(table, []).append((place, column))
        if takes_no_null:
            required.setdefault(table, set()).add(column)
    return {
        table: TableShape(
            found, tuple(name for _, name in sorted(keys.get(table, []))), frozenset(required.get(table, ()))
        )
        for table, found in columns.items()
    }


def kinds(connection: sa.Connection) -> Mapping[str, FieldType]:
    """Return the type of a field by what its column's type is called."""
    types = postgres_sql.TYPES if connection.dialect.name == "postgresql" else sqlite_sql.TYPES
    return {text: kind for kind, text in types.items()}
