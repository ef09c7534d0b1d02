"""What the two databases say differently about before-images: JSON is taken apart with other words in each.

An image is a row as a JSON object of its columns, each in the form that the database casts back without loss; a
``json`` column is a string in it, holding the JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def has(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
        """Tell whether an image has a column, be it NULL."""
        ...

    def typed(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        """Return a text as a value of a field's type."""
        ...

    def inner(self, image: sa.ColumnElement[str], name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """Return the image that another one has under a name."""
        ...

    def part(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        """Return a column of an image as ``overlaid`` takes it."""
        ...

    def as_part(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        """Return the text of a number as ``overlaid`` takes a value of a field's type."""
        ...

    def overlaid(
        self, image: sa.ColumnElement[str], parts: Mapping[str, sa.ColumnElement[object]]
    ) -> sa.ColumnElement[str]:
        """Return an image of which some columns, as far as it has them, have other values."""
        ...

    def gathered(self, connection: sa.Connection, query: sa.Select[Any], name: str) -> sa.FromClause:
        """Return the rows of a query that reads lineage, for statements that change images.

        Lineage may be distributed, and Citus plans such a statement itself: it refuses functions that read a time or
        make JSON of a column. So the rows are put into a table of this transaction.
        """
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
        return self.part(image, name)

    def has(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
        return sa.func.json_type(image, _place(name)).is_not(None)

    def inner(self, image: sa.ColumnElement[str], name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        return sa.func.json_extract(image, sa.literal('$."').concat(name).concat('"'))

    def part(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        return sa.func.json_extract(image, _place(name))

    def as_part(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        return self.typed(text, kind)

    def overlaid(
        self, image: sa.ColumnElement[str], parts: Mapping[str, sa.ColumnElement[object]]
    ) -> sa.ColumnElement[str]:
        pairs = [each for name, value in parts.items() for each in (_place(name), value)]
        return sa.func.json_replace(image, *pairs)

    def gathered(self, connection: sa.Connection, query: sa.Select[Any], name: str) -> sa.FromClause:
        del connection
        return query.cte(name)

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

    def has(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
        return self.part(image, name).is_not(None)

    def inner(self, image: sa.ColumnElement[str], name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        return _member(image, name)

    def part(self, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[object]:
        return sa.func.json_extract_path(sa.cast(image, postgresql.JSON), name)

    def as_part(self, text: sa.ColumnElement[str], kind: FieldType) -> sa.ColumnElement[object]:
        number = kind in {FieldType.INTEGER, FieldType.REAL}
        return sa.func.to_json(self.typed(text, kind) if number else sa.cast(text, sa.Text))

    def overlaid(
        self, image: sa.ColumnElement[str], parts: Mapping[str, sa.ColumnElement[object]]
    ) -> sa.ColumnElement[str]:
        # Member by member: `jsonb` would write other numbers anew.
        member = sa.func.json_each(sa.cast(image, postgresql.JSON)).table_valued("key", "value").alias("member")
        cases = [(member.c.key == name, value) for name, value in parts.items()]
        made = sa.select(sa.func.json_object_agg(member.c.key, sa.case(*cases, else_=member.c.value)))
        return sa.cast(made.select_from(member).correlate_except(member).scalar_subquery(), sa.Text)

    def gathered(self, connection: sa.Connection, query: sa.Select[Any], name: str) -> sa.FromClause:
        columns = [sa.Column(column.name, column.type) for column in query.selected_columns]
        made = sa.Table(name, sa.MetaData(), *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")
        made.create(connection)
        connection.execute(sa.insert(made).from_select([column.name for column in columns], query))
        return made

    def insert_or_replace(
        self, target: sa.TableClause, names: list[str], rows: Rows, key: tuple[str, ...]
    ) -> sa.Insert:
        insert = postgresql.insert(target).from_select(names, rows)
        changing = {name: insert.excluded[name] for name in names if name not in key}
        return insert.on_conflict_do_update(index_elements=list(key), set_=changing)


def _place(name: str) -> str:
    """Return where a member is in a JSON object, as SQLite says it."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{quoted}"'


def _member(text: sa.ColumnElement[str], name: str | sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Return a member of a JSON object or array as text. ``jsonb`` would write numbers anew; ``json`` keeps them."""
    return sa.func.json_extract_path_text(sa.cast(text, postgresql.JSON), name)


def member(connection: sa.Connection, image: sa.ColumnElement[str], name: str) -> sa.ColumnElement[str]:
    """Return a member of an image that is not of a feed's table, as text."""
    if connection.dialect.name == "postgresql":
        return _member(image, name)
    return sa.cast(sa.func.json_extract(image, f'$."{name}"'), sa.Text)


def computed(
    source: sa.FromClause, *columns: Sequence[sa.ColumnElement[Any]]
) -> tuple[list[sa.ColumnElement[Any]], ...]:
    """Return lists of columns worked out first: an UPDATE of rows that are distributed may only name what it sets."""
    labelled = [
        [each.label(f"c{turn}_{place}") for place, each in enumerate(some)] for turn, some in enumerate(columns)
    ]
    found = sa.select(*(each for some in labelled for each in some)).select_from(source).cte("computed")
    found = found.prefix_with("MATERIALIZED", dialect="postgresql")
    return tuple([found.c[each.name] for each in some] for some in labelled)


def writer_of(feed: Feed, dialect: Dialect) -> sa.ColumnElement[object]:
    """Return the run that had written the row of an image."""
    return dialect.value(feed, before_images.c.image, feed.own_columns.run_id)
