"""What a database's tables look like, for questions about all of them at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from inboxd.model import FieldType
from inboxd.store.dialects import dialect_of
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
_INDEXES_ON_POSTGRES: Final = """
SELECT t.relname, c.relname, i.indisunique,
       ARRAY(SELECT COALESCE(a.attname, '')::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0
             ORDER BY k.place)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
 WHERE NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
   AND pg_table_is_visible(t.oid) AND t.relpersistence <> 't'
   AND t.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
"""
_INDEXES_ON_SQLITE: Final = """
SELECT m.name, l.name, l."unique", (SELECT json_group_array(COALESCE(i.name, '')) FROM pragma_index_info(l.name) i)
  FROM main.sqlite_schema m CROSS JOIN pragma_index_list(m.name) l
 WHERE m.type = 'table' AND l.origin = 'c'
"""
_VIEWS_ON_POSTGRES: Final = """
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relkind = 'v' AND pg_table_is_visible(c.oid)
   AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
 ORDER BY c.relname, a.attnum
"""
_VIEWS_ON_SQLITE: Final = """
SELECT m.name, p.name FROM main.sqlite_schema m CROSS JOIN pragma_table_info(m.name) p
 WHERE m.type = 'view' ORDER BY m.name, p.cid
"""
_TRIGGERS_ON_POSTGRES: Final = """
SELECT c.relname, g.tgname FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
 WHERE NOT g.tgisinternal AND pg_table_is_visible(c.oid)
"""
_RULES_ON_POSTGRES: Final = """
SELECT c.relname, 'rule ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
 WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
 UNION ALL
SELECT c.relname, 'row-level security' FROM pg_class c WHERE c.relrowsecurity AND pg_table_is_visible(c.oid)
"""
_TRIGGERS_ON_SQLITE: Final = "SELECT tbl_name, name FROM main.sqlite_schema WHERE type = 'trigger'"


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is no primary key's; an expression among its columns is ``""``."""

    table: str
    unique: bool
    columns: tuple[str, ...]


def indexes(connection: sa.Connection) -> dict[str, Index]:
    """Return the indexes of all tables, by their names, but those of primary keys."""
    rows = _rows(connection, _INDEXES_ON_POSTGRES, _INDEXES_ON_SQLITE)
    return {
        name: Index(table, bool(unique), tuple(json.loads(columns) if isinstance(columns, str) else columns))
        for table, name, unique, columns in rows
    }


def views(connection: sa.Connection) -> dict[str, list[str]]:
    """Return the columns of each view."""
    found: dict[str, list[str]] = {}
    for view, column in _rows(connection, _VIEWS_ON_POSTGRES, _VIEWS_ON_SQLITE):
        found.setdefault(view, []).append(column)
    return found


def triggers(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return each table's triggers, all of them somebody's own: inboxd makes none."""
    return [(table, name) for table, name in _rows(connection, _TRIGGERS_ON_POSTGRES, _TRIGGERS_ON_SQLITE)]


def rules(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return what else each table has that may leave rows out, of which inboxd makes none; SQLite has no such thing."""
    if connection.dialect.name != "postgresql":
        return []
    return [(table, name) for table, name in connection.execute(sa.text(_RULES_ON_POSTGRES))]


def _rows(connection: sa.Connection, on_postgres: str, on_sqlite: str) -> list[Any]:  # Any: whatever the columns hold
    query = on_postgres if connection.dialect.name == "postgresql" else on_sqlite
    return list(connection.execute(sa.text(query.replace(":", "\\:"))))


def shapes(connection: sa.Connection) -> dict[str, TableShape]:
    """Return every table that a name alone leads to."""
    columns: dict[str, dict[str, str]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    required: dict[str, set[str]] = {}
    for table, column, kind, place, takes_no_null in _rows(connection, _ON_POSTGRES, _ON_SQLITE):
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
    return {text: kind for kind, text in dialect_of(connection.dialect.name).types.items()}
