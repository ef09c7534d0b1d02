"""Append feeds on SQLite: each accepted record is a row of its own, known by its run and its number."""

from __future__ import annotations

from inboxd.store.base import Applied, Foreseen
from inboxd.store.left_out import refuse_left_out
from inboxd.store.sqlite_sql import FeedSql, Part
from inboxd.store.sqlite_staging import Staging


class AppendSql(FeedSql):
    """One feed's statements."""

    def insert(self, part: Part) -> str:
        """Make a row of each record."""
        return f"{self.insert_into_target((f's.{self.number}',))} FROM {self.source(part)}"

    def unwritten(self, part: Part) -> str:
        """Return the key of a record that has no row."""
        ours = f"t.{self.run} = :run AND t.{self.number} = s.{self.number}"
        return (
            f"SELECT s.{self.record_key} FROM {self.source(part)} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.target} AS t WHERE {ours}) LIMIT 1"
        )

    def lineage(self, part: Part) -> str:
        """Write the lineage of one sorted run, in the order of its table."""
        return f"{self.insert_lineage(part, '0')} ORDER BY s.{self.record_key}, s.{self.number}"


class Append:
    """How one file's staged records become rows. Nothing meets anything."""

    def __init__(self, staging: Staging, sql: AppendSql) -> None:
        self._staging = staging
        self._sql = sql

    def count_skipped(self) -> int:
        """Return none: there is no watermark."""
        return 0

    def apply(self, skipped: int) -> Applied:
        """Insert everything; sorted runs are of a size that memory holds."""
        del skipped
        staging = self._staging
        inserted = sum(staging.change(self._sql.insert(part)) for part in staging.single_runs())
        if inserted < staging.records:
            refuse_left_out(staging, self._sql, *map(self._sql.unwritten, staging.single_runs()))
        for part in staging.single_runs():
            staging.change(self._sql.lineage(part))
        return Applied(inserted, 0, None)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do."""
        del skipped, table
        return Foreseen(inserted=self._staging.records)
