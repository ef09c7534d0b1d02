"""Filling an empty PostgreSQL database from another one, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

ROWS_AT_ONCE: Final = 5_000
"""Rows fetched with one trip to the server."""

Connection = psycopg.Connection[tuple[Any, ...]]  # Any: whatever the columns hold


class PostgresImport:
    """The verbs of an import. Its transaction has begun; whoever lent it commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, tables: Sequence[str]) -> None:
        """Keep every writer out until the end."""
        names = sql.SQL(", ").join(map(sql.Identifier, tables))
        self._connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names))

    def is_empty(self, table: str) -> bool:
        """Tell whether a table has no rows."""
        query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))
        return self._connection.execute(query).fetchone() is None

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Copy rows in. A value's text is what the column's type reads."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _list(columns))
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def read(self, table: str, columns: Sequence[str], *, as_text: frozenset[str]) -> Iterator[tuple[object, ...]]:
        """Yield a table's rows; the columns ``as_text`` as the server writes them."""
        chosen = sql.SQL(", ").join(
            sql.SQL("{}::text" if name in as_text else "{}").format(sql.Identifier(name)) for name in columns
        )
        query = sql.SQL("SELECT {} FROM {}").format(chosen, sql.Identifier(table))
        with self._connection.cursor(name="inboxd_copied") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            yield from cursor.execute(query)

    def continue_numbers(self, table: str, column: str, last: int) -> None:
        """Let the column's next number be the one after ``last``."""
        self._connection.execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s)", (table, column, last))

    def analyze(self, tables: Sequence[str]) -> None:
        """Tell the planner what is there now, which it would only notice a minute later."""
        self._connection.execute(sql.SQL("ANALYZE {}").format(_list(tables)))


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
