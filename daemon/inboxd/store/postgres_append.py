"""Append feeds on PostgreSQL: each accepted record is a row of its own, known by its run and its number."""

from __future__ import annotations

from inboxd.store.base import Applied, Foreseen
from inboxd.store.postgres_sql import FeedSql
from inboxd.store.postgres_staging import Staging


class AppendSql(FeedSql):
    """One feed's statements."""

    def insert(self) -> str:
        """Make a row of each record."""
        return f"{self.insert_into_target((f's.{self.number}',))} FROM {self.staging} s ORDER BY s.{self.number}"


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
        self._staging.change(self._sql.insert())
        self._staging.change(self._sql.insert_lineage("0", ""))
        return Applied(self._staging.records, 0, None)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do."""
        del skipped, table
        return Foreseen(inserted=self._staging.records)
