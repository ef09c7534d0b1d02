"""What was staged of one file on PostgreSQL, in temporary tables, and the statements that read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from inboxd.outcomes import Batch, Reject
from inboxd.store.postgres_driver import TickingConnection
from inboxd.store.postgres_sql import FeedSql
from inboxd.store.staged import Staged

ROWS_AT_ONCE: Final = 5_000
"""Rows fetched with one trip to the server."""


class Staging(Staged):
    """One file's records."""

    def __init__(self, connection: TickingConnection, sql: FeedSql, values: dict[str, object]) -> None:
        super().__init__(connection, sql.feed, values)
        self._sql = sql

    def take(self, batch: Batch) -> None:
        """Take one window of records into the temporary tables."""
        self.filtered += batch.filtered
        if batch.columns:
            self.extent.add(batch.columns)
            self.scopes.add(batch.columns)
            self.copy(self._sql.copy_rows(), zip(*batch.columns, strict=True))
            self.records += len(batch.columns[0])
        if batch.rejects:
            self.copy(self._sql.copy_rejects(), map(_storable, batch.rejects))
            self.rejects += len(batch.rejects)

    def copy(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Send rows to a table."""
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def count_returned(self, statement: str) -> int:
        """Run one statement that writes, and count the rows it wrote as they come: memory stays flat."""
        with self._connection.cursor() as cursor:
            return sum(1 for _ in cursor.stream(f"{statement} RETURNING 1", self.values))

    def pages(self, statement: str, **more: object) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of an answer some thousand at a time: between two the connection may be used."""
        with self._connection.cursor(name="inboxd_pages") as cursor:
            cursor.execute(statement, {**self.values, **more})
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                yield rows


def _storable(reject: Reject) -> tuple[object, ...]:
    """Return a reject's values without U+0000, which PostgreSQL's text cannot hold."""
    texts = (reject.raw, reject.record_key, reject.code, reject.detail)
    raw, record_key, code, detail = (text.replace("\0", "\\u0000") for text in texts)
    context = None if reject.context is None else reject.context.replace("\0", "\\u0000")
    return (reject.record_no, raw, record_key, reject.cursor, code, detail, context)
