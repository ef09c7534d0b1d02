"""What the two databases say differently about before-images: JSON is taken apart with other words in each.

An image is a row as a JSON object of its columns, each in the form that the database casts back without loss; a
``json`` column is a string in it, holding the JSON text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from inboxd.model import Feed, FieldType
from inboxd.operate.target import TYPES, column_type
from inboxd.store.tables import before_images

Rows = sa.SelectBase


POSTGRES_TYPES: Final[dict[FieldType, Callable[[], sa.types.TypeEngine[Any]]]] = {
    **TYPES,
    FieldType.JSON: postgresql.JSONB,
}


class Dialect(Protocol):
    """The things that differ."""

    def key(self, feed: Feed, images: sa.FromClause) -> list[sa.ColumnElement[object]]:
        """Return the target's key columns, read from an image's ``record_key``."""
        ...

    def value(self, feed: Feed, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        """Return a column of an image; NULL if the image is older than the column."""
        ...

    def typed(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        """Return a text as a value of a field's type."""
        ...

    def with_number(
        self, image: sa.ColumnElement[str], name: str, number: sa.ColumnElement[int]
    ) -> sa.ColumnElement[str]:
        """Return an image whose column of that name, an integer, has another value."""
        ...

    def insert_or_replace(
        self, target: sa.TableClause, names: list[str], rows: Rows, key: tuple[str, ...]
    ) -> sa.Insert:
        """Return the statement that puts rows in place of those with their keys."""
        ...


def dialect_of(connection: sa.Connection) -> Dialect:
    """Return the database's way."""
    return _Postgres() if connection.dialect.name == "postgresql" else _Sqlite()


class _Sqlite:
    _AFFINITY: Final[dict[FieldType, Callable[[], sa.types.TypeEngine[Any]]]] = {
        FieldType.INTEGER: sa.Integer,
        FieldType.REAL: sa.REAL,
    }

    def key(self, feed: Feed, images: sa.FromClause) -> list[sa.ColumnElement[object]]:
        text = images.c.record_key
        if len(feed.key) > 1:
            return [sa.func.json_extract(text, f"$[{place}]") for place in range(len(feed.key))]
        kind = column_type(feed, feed.key[0])
        if kind is FieldType.BOOLEAN:
            return [sa.case((text == "true", 1), else_=0)]
        return [self.typed(text, kind)]

    def typed(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        if kind not in self._AFFINITY:
            return sa.type_coerce(text, sa.Text())
        return sa.cast(text, self._AFFINITY[kind]())

    def value(self, feed: Feed, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        del feed
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return sa.func.json_extract(image, f'$."{quoted}"')

    def with_number(
        self, image: sa.ColumnElement[str], name: str, number: sa.ColumnElement[int]
    ) -> sa.ColumnElement[str]:
        return sa.func.json_set(image, f'$."{name}"', number)

    def insert_or_replace(
        self, target: sa.TableClause, names: list[str], rows: Rows, key: tuple[str, ...]
    ) -> sa.Insert:
        insert = sqlite.insert(target).from_select(names, rows)
        changing = {name: insert.excluded[name] for name in names if name not in key}
        return insert.on_conflict_do_update(index_elements=list(key), set_=changing)


class _Postgres:
    def key(self, feed: Feed, images: sa.FromClause) -> list[sa.ColumnElement[object]]:
        text = images.c.record_key
        if len(feed.key) == 1:
            return [self.typed(text, column_type(feed, feed.key[0]))]
        return [self.typed(_member(text, str(place)), column_type(feed, name)) for place, name in enumerate(feed.key)]

    def typed(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        return sa.cast(text, POSTGRES_TYPES[kind]())

    def value(self, feed: Feed, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        return self.typed(_member(image, name), column_type(feed, name))

    def with_number(
        self, image: sa.ColumnElement[str], name: str, number: sa.ColumnElement[int]
    ) -> sa.ColumnElement[str]:
        # As text: `jsonb` would write other numbers anew. In a string of the image the quotes would be escaped.
        member = sa.literal(f'"{name}" : ').concat(sa.cast(number, sa.Text))
        return sa.func.regexp_replace(image, f'"{name}" : [0-9]+', member)

    def insert_or_replace(
        self, target: sa.TableClause, names: list[str], rows: Rows, key: tuple[str, ...]
    ) -> sa.Insert:
        insert = postgresql.insert(target).from_select(names, rows)
        changing = {name: insert.excluded[name] for name in names if name not in key}
        return insert.on_conflict_do_update(index_elements=list(key), set_=changing)


def _member(text: sa.ColumnElement[str], name: str) -> sa.ColumnElement[str]:
    """Return a member of a JSON object or array as text. ``jsonb`` would write numbers anew; ``json`` keeps them."""
    return sa.func.json_extract_path_text(sa.cast(text, postgresql.JSON), name)


def member(connection: sa.Connection, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[str]:
    """Return a member of an image that is not of a feed's table, as text."""
    if connection.dialect.name == "postgresql":
        return _member(image, name)
    return sa.cast(sa.func.json_extract(image, f'$."{name}"'), sa.Text)


def writer_of(feed: Feed, dialect: Dialect) -> sa.ColumnElement[object]:
    """Return the run that had written the row of an image."""
    return dialect.value(feed, before_images.c.image, feed.own_columns.run_id)
