"""Feeds with a cursor on PostgreSQL: of a key's records the one with the highest cursor stands, of equals the first.

A second hit on a key in one INSERT is an error here, so ``DISTINCT ON`` picks each key's winner.
"""

from __future__ import annotations

from inboxd.store.base import Applied, Foreseen
from inboxd.store.cursors import from_database
from inboxd.store.left_out import refuse_left_out
from inboxd.store.postgres_sql import FeedSql, quoted
from inboxd.store.postgres_staging import Staging


class NewestSql(FeedSql):
    """One feed's statements."""

    def temporary(self) -> list[tuple[str, str]]:
        """Return the temporary tables with their columns."""
        winners = ", ".join(self.column(name) for name in self._winner_columns())
        return [*super().temporary(), (self.winners, winners)]

    def _winner_columns(self) -> tuple[str, ...]:
        feed = self.feed
        return tuple(dict.fromkeys((*feed.key, feed.cursor_name, feed.record_key_column, self.own.record_no)))

    def upsert(self, *, skipping: bool, force: bool) -> str:
        """Apply each key's winner if it is newer than the row it meets."""
        key = self.keys("s")
        return (
            f"{self.insert_into_target(distinct=f'DISTINCT ON ({key})')} FROM {self.staging} s "
            f"WHERE {self._not_skipped('s', self.cursor, skipping=skipping)} {self._winners_first()} "
            f"{self.on_conflict(self._newer('EXCLUDED', force=force))}"
        )

    def find_winners(self, *, skipping: bool) -> str:
        """Find each key's winner, whether or not it will be applied."""
        return self._insert_winners(self._each_winner("", self._not_skipped("s", self.cursor, skipping=skipping)))

    def find_standing_winners(self, *, skipping: bool, gathered: bool) -> str:
        """Find the winners whose rows this run wrote.

        ``gathered``: the winners are found before the join, so that no others are sent to the nodes of a distributed
        table. On one server that takes twice as long: it sorts those that lost, too.
        """
        join, ours = f"JOIN {self.target} t ON {self.same_key}", f"t.{self.run} = %(run)s::bigint"
        kept = self._not_skipped("s", self.cursor, skipping=skipping)
        if not gathered:
            return self._insert_winners(self._each_winner(join, f"{ours} AND {kept}"))
        return self._insert_winners(
            f"SELECT {self._winner_values()} FROM ({self._each_winner('', kept)}) s {join} WHERE {ours}"
        )

    def unwritten(self, *, skipping: bool, force: bool) -> str:
        """Return the key of a winner that is not in the target, nor met a row that stands against it."""
        older = f"t.{self.cursor} {'<=' if force else '<'} s.{self.cursor} AND t.{self.run} <> %(run)s::bigint"
        winners = self._each_winner("", self._not_skipped("s", self.cursor, skipping=skipping))
        return (
            f"SELECT s.{self.record_key} FROM ({winners}) s WHERE NOT EXISTS (SELECT 1 FROM {self.target} t "
            f"WHERE {self.same_key} AND ({older}) IS NOT TRUE) LIMIT 1"
        )

    def _insert_winners(self, select: str) -> str:
        return f"INSERT INTO {self.winners} ({', '.join(map(quoted, self._winner_columns()))}) {select}"

    def _each_winner(self, join: str, where: str) -> str:
        return (
            f"SELECT DISTINCT ON ({self.keys('s')}) {self._winner_values()} FROM {self.staging} s {join} "
            f"WHERE {where} {self._winners_first()}"
        )

    def _winner_values(self) -> str:
        return ", ".join(f"s.{quoted(name)}" for name in self._winner_columns())

    def largest_winner(self) -> str:
        """Return the largest cursor among the winners."""
        return f"SELECT MAX({self.cursor}) FROM {self.winners}"

    def count_met(self, *, force: bool) -> str:
        """Count the winners that meet a row, and those of them that are newer."""
        return (
            f"SELECT COUNT(*), COUNT(*) FILTER (WHERE {self._newer('s', force=force)}) "
            f"FROM {self.winners} s JOIN {self.target} t ON {self.same_key}"
        )

    def count_winners(self) -> str:
        """Count the winners, whether or not they meet a row."""
        return f"SELECT COUNT(*) FROM {self.winners}"

    def save_images(self, *, force: bool) -> str:
        """Keep the rows that the winners are about to replace."""
        return (
            "INSERT INTO before_images (run_id, table_name, record_key, image) "
            f"SELECT %(run)s::bigint, %(table)s::text, s.{self.record_key}, {self.image()} "
            f"FROM {self.winners} s JOIN {self.target} t ON {self.same_key} WHERE {self._newer('s', force=force)}"
        )

    def save_absences(self, *, skipping: bool, whole: bool) -> str:
        """Note the keys that had no row before: those that were loaded (``whole``: all were) and have no image."""
        source = self.staging if whole else self.winners
        return (
            "INSERT INTO before_images (run_id, table_name, record_key) "
            f"SELECT %(run)s::bigint, %(table)s::text, s.{self.record_key} FROM {source} s "
            f"WHERE {self._not_skipped('s', self.cursor, skipping=skipping)} AND NOT EXISTS ("
            "SELECT 1 FROM before_images b WHERE b.run_id = %(run)s::bigint AND b.table_name = %(table)s::text "
            f"AND b.record_key = s.{self.record_key})"
        )

    def lineage(self, *, skipping: bool) -> str:
        """Write the lineage of records that were all loaded, but for the skipped."""
        outcome = "0"
        if skipping:
            outcome = f"CASE WHEN {self._not_skipped('s', self.cursor, skipping=True)} THEN 0 ELSE 2 END"
        return self.insert_lineage(outcome, "")

    def lineage_of_winners(self, *, skipping: bool) -> str:
        """Write the lineage of records of which some lost."""
        join = f"LEFT JOIN {self.winners} t ON {self.same_key} AND t.{self.number} = s.{self.number}"
        standing = f"CASE WHEN t.{self.number} IS NULL THEN 1 ELSE 0 END"
        if skipping:
            kept = self._not_skipped("s", self.cursor, skipping=True)
            standing = f"CASE WHEN NOT {kept} THEN 2 WHEN t.{self.number} IS NULL THEN 1 ELSE 0 END"
        return self.insert_lineage(standing, join)

    def count_skipped(self) -> str:
        """Count the records at or below the watermark."""
        return f"SELECT COUNT(*) FROM {self.staging} s WHERE s.{self.cursor} <= %(watermark)s::{self.cursor_type}"

    def _winners_first(self) -> str:
        return f"ORDER BY {self.keys('s')}, s.{self.cursor} DESC, s.{self.number}"

    def _newer(self, source: str, *, force: bool) -> str:
        return f"{source}.{self.cursor} {'>=' if force else '>'} t.{self.cursor}"

    def _not_skipped(self, alias: str, cursor: str, *, skipping: bool) -> str:
        return f"{alias}.{cursor} > %(watermark)s::{self.cursor_type}" if skipping else "TRUE"


class Newest:
    """How one file's staged records become rows.

    ``counts_hold``: the server says of an upsert how many rows it wrote. Citus says how many it was given
    (github.com/citusdata/citus/issues/3377), but it returns exactly what it wrote, and so that is counted.
    """

    def __init__(self, staging: Staging, sql: NewestSql, *, force: bool, counts_hold: bool) -> None:
        self._staging = staging
        self._sql = sql
        self._force = force
        self._counts_hold = counts_hold
        self._undo = sql.feed.undo

    def count_skipped(self) -> int:
        """Count the staged records at or below the watermark."""
        if not self._staging.extent.reaches_down_to(self._staging.watermark):
            return 0
        return int(self._staging.one(self._sql.count_skipped())[0])

    def apply(self, skipped: int) -> Applied:
        """Apply what was staged. If all of it applied, no two records met, and their lineage needs no join."""
        staging, sql, skipping = self._staging, self._sql, skipped > 0
        considered = staging.records - skipped
        if self._undo:
            staging.change(sql.find_winners(skipping=skipping))
            staging.change(sql.save_images(force=self._force))
            staging.change(f"DELETE FROM {sql.winners}")
        upsert = sql.upsert(skipping=skipping, force=self._force)
        applied = staging.change(upsert) if self._counts_hold else staging.count_returned(upsert)
        if applied < considered and self._counts_hold:
            refuse_left_out(staging, sql, sql.unwritten(skipping=skipping, force=self._force))
        if applied and applied < considered:
            applied = staging.change(sql.find_standing_winners(skipping=skipping, gathered=not self._counts_hold))
        whole = applied == considered
        if self._undo:
            staging.change(sql.save_absences(skipping=skipping, whole=whole))
        if whole:
            staging.change(sql.lineage(skipping=skipping))
            return Applied(applied, 0, staging.extent.highest if considered else None)
        largest = from_database(staging.one(sql.largest_winner())[0]) if applied else None
        staging.change(sql.lineage_of_winners(skipping=skipping))
        return Applied(applied, 0, largest)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do, ``table`` being whether there is one."""
        staging, sql = self._staging, self._sql
        staging.change(sql.find_winners(skipping=skipped > 0))
        winners = int(staging.one(sql.count_winners())[0])
        met, changed = staging.one(sql.count_met(force=self._force)) if table else (0, 0)
        return Foreseen(inserted=winners - int(met), changed=int(changed))
