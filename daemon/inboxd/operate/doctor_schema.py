"""The database's tables, columns, indexes and views, compared with what they should be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.errors import OperatorFault
from inboxd.model import Feed
from inboxd.operate.findings import Finding, Health
from inboxd.store.database import Store
from inboxd.store.dialects import SQLITE, Dialect, dialect_of
from inboxd.store.feed_tables import (
    KEY_INDEX,
    MADE,
    TableShape,
    key_index,
    made_columns,
    missing,
    own_columns_of,
    wanted_tables,
)
from inboxd.store.schema import statements
from inboxd.store.shapes import Index, indexes, rules, shapes, triggers, views
from inboxd.store.sqlite_driver import driver

NAMED: Final = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX|VIEW) \"?(\w+)\"?")
BACKUP: Final = "restore it from a backup: what it held cannot be made up"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database has."""

    tables: dict[str, TableShape]
    indexes: dict[str, Index]
    views: dict[str, list[str]]


def compared(store: Store, feeds: Sequence[Feed]) -> Iterator[Finding]:
    """Tell what differs from this version's tables and from the config's, and name what is the user's own."""
    wanted, texts = _expected()
    with store.reading() as connection:
        found = Schema(shapes(connection), indexes(connection), views(connection))
        wrong = [*_control_tables(wanted, found), *_indexes_and_views(wanted, found, texts)]
        if "feed_columns" in found.tables:
            wrong += _feed_tables(connection, feeds, found)
        own = _own(connection, feeds, wanted, found)
    yield from wrong
    if not wrong:
        yield Finding("schema", Health.OK, "the tables are of this version of inboxd")
    if own:
        yield Finding("schema", Health.OK, f"your own, left as they are: {', '.join(own)}")


def _expected() -> tuple[Schema, dict[str, str]]:
    """Return what this version makes, and the statement that makes each index and view."""
    texts = {name: " ".join(made.split()) for name, made in statements(SQLITE).items()}
    with closing(driver.connect(":memory:", isolation_level=None)) as memory:
        for statement in texts.values():
            memory.execute(statement)
        memory.backup(target := driver.connect(":memory:", check_same_thread=False))
    engine = sa.create_engine("sqlite+pysqlite://", module=driver, creator=lambda: target, poolclass=sa.StaticPool)
    with engine.connect() as connection:
        found = Schema(shapes(connection), indexes(connection), views(connection))
    engine.dispose()
    return found, texts


def _control_tables(wanted: Schema, found: Schema) -> Iterator[Finding]:
    for table, shape in wanted.tables.items():
        there = found.tables.get(table)
        if there is None:
            yield Finding("schema", Health.WRONG, f"table {table} is gone", BACKUP)
            continue
        gone = [name for name in shape.columns if name not in there.columns]
        if gone:
            yield Finding("schema", Health.WRONG, f"table {table} has lost {', '.join(gone)}", BACKUP)
        if there.key != shape.key:
            message = f"table {table} has the key ({', '.join(there.key)}), not ({', '.join(shape.key)})"
            yield Finding("schema", Health.WRONG, message, f"ALTER TABLE {table} …, or restore it from a backup")


def _indexes_and_views(wanted: Schema, found: Schema, texts: dict[str, str]) -> Iterator[Finding]:
    for name, index in wanted.indexes.items():
        if index.table in found.tables and found.indexes.get(name) != index:
            there = "is gone" if name not in found.indexes else "is not as inboxd made it"
            drop = "" if name not in found.indexes else f"DROP INDEX {name}; "
            yield Finding("schema", Health.WRONG, f"index {name} of {index.table} {there}", f"{drop}{texts[name]}")
    for name, columns in wanted.views.items():
        if found.views.get(name) != columns:
            there = "is gone" if name not in found.views else "is not as inboxd made it"
            drop = "" if name not in found.views else f"DROP VIEW {name}; "
            yield Finding("schema", Health.WRONG, f"view {name} {there}", f"{drop}{texts[name]}")


def _feed_tables(connection: sa.Connection, feeds: Sequence[Feed], found: Schema) -> Iterator[Finding]:
    def any_row(query: str) -> bool:
        escaped = query.replace("%", "%%") if connection.dialect.name == "postgresql" else query
        return connection.exec_driver_sql(escaped).first() is not None

    def indexed(index: str) -> tuple[str, ...]:
        return found.indexes[index].columns if index in found.indexes else ()

    try:
        tables = wanted_tables(feeds, _dialect(connection))
        lacking = missing(tables, found.tables.get, indexed, any_row, _made(connection), _dialect(connection))
    except OperatorFault as fault:
        yield Finding("schema", Health.WRONG, fault.message, fault.hint)
        return
    absent = [table for table in tables if table not in found.tables]
    alter = "ALTER TABLE "
    columns = [statement.removeprefix(alter) for statement in lacking if statement.startswith(alter)]
    named = {each[1] for statement in lacking if (each := re.match('CREATE INDEX "([^"]+)"', statement))}
    gone = named - {key_index(table) for table in absent}
    indexes = f"index {', '.join(sorted(gone))}" if gone else ""
    for what in (f"table {', '.join(absent)}" if absent else "", ", ".join(columns), indexes):
        if what:
            yield Finding("schema", Health.WRONG, f"not there: {what}", "inboxd db upgrade, or the daemon's next start")


def _dialect(connection: sa.Connection) -> Dialect:
    return dialect_of(connection.dialect.name)


def _made(connection: sa.Connection) -> dict[str, set[str]]:
    return made_columns(tuple(row) for row in connection.exec_driver_sql(MADE))


def _own(connection: sa.Connection, feeds: Sequence[Feed], wanted: Schema, found: Schema) -> list[str]:
    """Return what is neither inboxd's nor in its way."""
    made = _made(connection) if "feed_columns" in found.tables else {}
    shared = wanted.tables.keys() & found.tables.keys()
    own = {table: found.tables[table].columns.keys() - wanted.tables[table].columns.keys() for table in shared}
    for table, (shape, _) in wanted_tables(feeds, _dialect(connection)).items():
        if table in found.tables:
            own[table] = {*own_columns_of(shape, found.tables[table], made.get(table))}
    names = [f"column {name} of {table}" for table in sorted(own) for name in sorted(own[table])]
    names += [
        f"index {name} of {index.table}"
        for name, index in sorted(found.indexes.items())
        if index.table in own and name not in wanted.indexes and not name.endswith(KEY_INDEX)
    ]
    names += [f"trigger {name} of {table}" for table, name in sorted(triggers(connection)) if table in own]
    return names + [f"{name} of {table}" for table, name in sorted(rules(connection)) if table in own]
