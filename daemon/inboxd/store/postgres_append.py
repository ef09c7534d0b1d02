"""Append feeds on PostgreSQL: each accepted record is a row of its own, known by its run and its number."""

from __future__ import annotations

from inboxd.store.base import Applied, Foreseen
from inboxd.store.left_out import refuse_left_out
from inboxd.store.postgres_sql import FeedSql
from inboxd.store.postgres_staging import Staging


class AppendSql(FeedSql):
    """One feed's statements."""

    def insert(self) -> str:
        """Make a row of each record."""
        return f"{self.insert_into_target((f's.{self.number}',))} FROM {self.staging} s ORDER BY s.{self.number}"

    def unwritten(self) -> str:
        """Return the key of a record that has no row."""
        ours = f"t.{self.run} = %(run)s::bigint AND t.{self.number} = s.{self.number}"
        return (
            f"SELECT s.{self.record_key} FROM {self.staging} s "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.target} t WHERE {ours}) LIMIT 1"
        )


class Append:
    """How one file's staged records become rows. Nothing meets anything."""

    def __init__(self, staging: Staging, sql: AppendSql) -> None:
        self._staging = staging
        self._sql = sql

    def count_skipped(self) -> int:
        """Return none: there is no watermark."""
        return 0

    def apply(self, skipped: int) -> Applied:
        """Insert everything."""
        del skipped
        inserted = self._staging.change(self._sql.insert())
        if inserted < self._staging.records:
            refuse_left_out(self._staging, self._sql, self._sql.unwritten())
        self._staging.change(self._sql.insert_lineage("0", ""))
        return Applied(self._staging.records, 0, None)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do."""
        del skipped, table
        return Foreseen(inserted=self._staging.records)
