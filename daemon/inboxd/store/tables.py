"""The control tables as SQLAlchemy sees them, for questions: the columns of ``control_tables.sql``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from inboxd.store.dialects import COMMITS, POSTGRES, SQLITE
from inboxd.store.ledger import canonical
from inboxd.store.schema import columns, statements

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

# `lineage_records.outcome`; the view `lineage` spells them out.
LOADED: Final = 0
STALE: Final = 1
SKIPPED: Final = 2
REJECTED: Final = 3
DELETED: Final = 4
"""By a record that is a deletion."""
ABSENT: Final = 5
"""Deleted because a snapshot does not have it: no record says so, and none was staged."""


class Canonical(TypeDecorator[str]):
    """Canonical text in Python and on SQLite; PostgreSQL has a type for it.

    SQLAlchemy asks each class itself, not what it inherits, whether statements with it may be cached.
    """

    impl = sa.Text
    cache_ok = True
    on_postgres: sa.types.TypeEngine[Any]
    given: Callable[[str], object]
    """Makes of the text what PostgreSQL's driver is given."""

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the column type of the database."""
        return dialect.type_descriptor(self.on_postgres if dialect.name == POSTGRES.name else sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> object:
        """Hand PostgreSQL a value instead of its text."""
        return value if value is None or dialect.name != POSTGRES.name else self.given(value)

    def process_result_value(self, value: object, dialect: sa.Dialect) -> str | None:
        """Return canonical text."""
        del dialect
        return f"{value:f}" if isinstance(value, Decimal) else canonical(value)


class Stamp(Canonical):
    """A moment."""

    cache_ok = True
    on_postgres = sa.TIMESTAMP(timezone=True)
    given = staticmethod(datetime.fromisoformat)


class Day(Canonical):
    """A date."""

    cache_ok = True
    on_postgres = sa.Date()
    given = staticmethod(date.fromisoformat)


class Plain(Canonical):
    """A decimal: ``numeric`` keeps its scale."""

    cache_ok = True
    on_postgres = sa.Numeric()
    given = Decimal


TYPES: Final[dict[str, type[sa.types.TypeEngine[Any]]]] = {
    "BIGINT": sa.BigInteger,
    "SMALLINT": sa.SmallInteger,
    "TEXT": sa.Text,
    "STAMP": Stamp,
}
SCRIPT: Final = statements(replace(SQLITE, identity="BIGINT NOT NULL PRIMARY KEY", stamp="STAMP"))

metadata = sa.MetaData()


def _table(name: str) -> sa.Table:
    made = SCRIPT[name]
    key = re.findall(r"\w+", "".join(re.findall(r"^ {4}PRIMARY KEY \((.*)\)", made, re.MULTILINE)))
    described = (
        sa.Column(
            column,
            TYPES[kind.split()[0]],
            primary_key=column in key or "PRIMARY KEY" in kind,
            nullable="NOT NULL" not in kind,
        )
        for column, kind in columns(made).items()
    )
    return sa.Table(name, metadata, *described)


etl_runs = _table("etl_runs")
dead_letters = _table("dead_letters")
lineage_records = _table("lineage_records")
watermarks = _table("watermarks")
before_images = _table("before_images")
tombstones = _table("tombstones")
notices = _table("notices")
feed_columns = _table("feed_columns")
expectations = _table("expectations")
lineage = sa.Table(
    "lineage",
    metadata,
    sa.Column("id", sa.BigInteger),
    sa.Column("record_key", sa.Text),
    sa.Column("step", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("created", Stamp),
    sa.Column("run_id", sa.BigInteger),
    sa.Column("record_no", sa.BigInteger),
)
"""The view."""


def next_commit(connection: sa.Connection) -> sa.ColumnElement[int]:
    """Return what numbers the commit of a transaction; it has its locks by then, and writes one run."""
    if connection.dialect.name == "postgresql":
        return sa.func.nextval(COMMITS, type_=sa.BigInteger)
    return sa.select(sa.func.coalesce(sa.func.max(etl_runs.c.commit_no), 0) + 1).scalar_subquery()


def insert(connection: sa.Connection, table: sa.Table) -> Insert:
    """Return an INSERT that may do nothing on a conflict; PostgreSQL's takes the same.

    Of SQLAlchemy's modules for the two databases the other is not loaded: it takes a tenth of all that `status` does.
    """
    return cast("Insert", import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table))
