"""Feeds with a cursor on SQLite: of a key's records the one with the highest cursor stands, of equals the first.

``winners`` is needed only where two records of a file meet, or one meets a newer row: per key the record that a
record-by-record application would leave standing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from inboxd.model import Feed
from inboxd.store.base import Applied, Foreseen
from inboxd.store.left_out import refuse_left_out
from inboxd.store.sqlite_sql import FeedSql, Part
from inboxd.store.sqlite_staging import Staging


class NewestSql(FeedSql):
    """One feed's statements."""

    def __init__(self, feed: Feed, slot: int) -> None:
        super().__init__(feed, slot)
        self.upsert: Callable[[Part, bool, bool], str] = lru_cache(8)(self._upsert)
        self.lineage: Callable[[Part, bool], str] = lru_cache(8)(self._lineage)

    def create_tables(self) -> list[str]:
        """Return what is made once."""
        keys = [f"k{i} {self.types[name]} NOT NULL" for i, name in enumerate(self.feed.key)]
        columns = f"{', '.join(keys)}, cursor {self.types[self.feed.cursor_name]}, record_key TEXT, record_no INTEGER"
        winners = f"CREATE TABLE {self.winners} ({columns}, PRIMARY KEY ({self.key_columns()})) WITHOUT ROWID"
        return [*super().create_tables(), winners]

    def _upsert(self, part: Part, skipping: bool, force: bool) -> str:  # noqa: FBT001 - lru_cache's keys
        """Apply each key's first hit. It counts as many changes as records exactly if no two of them met."""
        where = f"s.{self.cursor} > :watermark" if skipping else "TRUE"
        newer = f"excluded.{self.cursor} {'>=' if force else '>'} t.{self.cursor}"
        return (
            f"{self.insert_into_target()} FROM {self.source(part)} WHERE {where} {self.in_order(part)} "
            f"{self.on_conflict(f'{newer} AND t.{self.run} IS NOT :run')}"
        )

    def upsert_winners(self, part: Part, *, force: bool) -> str:
        """Apply the winners that are newer than the row they meet."""
        newer = f"excluded.{self.cursor} {'>=' if force else '>'} t.{self.cursor}"
        return (
            f"{self.insert_into_target()} FROM {self.source(part)} CROSS JOIN {self.winners} AS w "
            f"WHERE {self.key_is('w', 's')} AND w.record_no = s.{self.number} {self.in_order(part)} "
            f"{self.on_conflict(newer)}"
        )

    def find_winners(self, part: Part, *, skipping: bool) -> str:
        """Keep each key's first record with the highest cursor; parts are given in file order."""
        names = (*self.feed.key, self.feed.cursor_name, self.feed.record_key_column)
        where = f"s.{self.cursor} > :watermark" if skipping else "TRUE"
        return (
            f"INSERT INTO {self.winners} AS w SELECT {self.keys('s')}, s.{self.cursor}, "
            f"s.{self.record_key}, s.{self.number} FROM {self.source(part, names)} WHERE {where} {self.in_order(part)} "
            f"ON CONFLICT ({self.key_columns()}) DO UPDATE SET "
            "cursor = excluded.cursor, record_no = excluded.record_no WHERE excluded.cursor > w.cursor"
        )

    def count_winners(self) -> str:
        """Count the winners that stand in the target, and find their largest cursor."""
        return (
            f"SELECT COUNT(*), MAX(w.cursor) FROM {self.winners} AS w CROSS JOIN {self.target} AS t "
            f"WHERE {self.key_is('w', 't')} AND t.{self.run} = :run"
        )

    def unwritten(self, *, force: bool) -> str:
        """Return the key of a winner that is not in the target, nor met a row that stands against it."""
        older = f"t.{self.cursor} < w.cursor"
        if force:
            older += f" OR t.{self.cursor} = w.cursor AND t.{self.run} IS NOT :run"
        return (
            f"SELECT w.record_key FROM {self.winners} AS w WHERE NOT EXISTS (SELECT 1 FROM {self.target} AS t "
            f"WHERE {self.key_is('w', 't')} AND ({older}) IS NOT TRUE) LIMIT 1"
        )

    def classify_winners(self, *, force: bool) -> str:
        """Count the winners without a row, and those newer than their row."""
        newer = f"w.cursor {'>=' if force else '>'} t.{self.cursor}"
        return (
            f"SELECT COUNT(*) FILTER (WHERE t.{self.cursor} IS NULL), COUNT(*) FILTER (WHERE {newer}) "
            f"FROM {self.winners} AS w LEFT JOIN {self.target} AS t ON {self.key_is('w', 't')}"
        )

    def count_candidates(self) -> str:
        """Count the winners, all of them new, where the target is still to be made."""
        return f"SELECT COUNT(*), 0 FROM {self.winners}"

    def save_images(self, *, force: bool) -> str:
        """Keep the rows that the winners are about to replace, and note those that are not there yet."""
        newer = f"w.cursor {'>=' if force else '>'} t.{self.cursor}"
        return (
            "INSERT INTO main.before_images (run_id, table_name, record_key, image) "
            f"SELECT :run, :table, w.record_key, CASE WHEN t.{self.cursor} IS NOT NULL THEN {self.image()} END "
            f"FROM {self.winners} AS w LEFT JOIN {self.target} AS t ON {self.key_is('w', 't')} "
            f"WHERE t.{self.cursor} IS NULL OR {newer}"
        )

    def _lineage(self, part: Part, skipping: bool) -> str:  # noqa: FBT001 - lru_cache's keys
        """Write the lineage of records that were all loaded, but for the skipped."""
        outcome = f"CASE WHEN s.{self.cursor} > :watermark THEN 0 ELSE 2 END" if skipping else "0"
        return self.insert_lineage(part, outcome)

    def lineage_of_winners(self, part: Part) -> str:
        """Write the lineage of records of which some lost."""
        won = f"w.record_no = s.{self.number} AND t.{self.run} = :run"
        joins = (
            f"LEFT JOIN {self.winners} AS w ON {self.key_is('w', 's')} "
            f"LEFT JOIN {self.target} AS t ON {self.key_is('w', 't')}"
        )
        # Outside the CASE a NULL watermark compares to NULL, which is not true: then nothing was skipped.
        outcome = f"CASE WHEN s.{self.cursor} <= :watermark THEN 2 WHEN {won} THEN 0 ELSE 1 END"
        return self.insert_lineage(part, outcome, joins)

    def count_skipped(self, part: Part) -> str:
        """Count the records at or below the watermark."""
        return f"SELECT COUNT(*) FROM {self.source(part, (self.feed.cursor_name,))} WHERE s.{self.cursor} <= :watermark"


class Newest:
    """How one file's staged records become rows."""

    def __init__(self, staging: Staging, sql: NewestSql, *, force: bool) -> None:
        self._staging = staging
        self._sql = sql
        self._force = force
        self._undo = sql.feed.undo

    def count_skipped(self) -> int:
        """Count the staged records at or below the watermark."""
        staging = self._staging
        if not staging.extent.reaches_down_to(staging.watermark):
            return 0
        return sum(int(str(staging.one(self._sql.count_skipped(part))[0])) for part in staging.parts())

    def apply(self, skipped: int) -> Applied:
        """Apply what was staged. The fast way is for records that met no other and no newer row."""
        staging, sql, skipping = self._staging, self._sql, skipped > 0
        considered = staging.records - skipped
        if not self._undo:
            applied = staging.change_slices(lambda part: sql.upsert(part, skipping, self._force))
            if applied == considered:
                staging.change_slices(lambda part: sql.lineage(part, skipping))
                return Applied(applied, 0, staging.extent.highest if considered else None)
        return self._apply_winners(considered, skipping=skipping)

    def _apply_winners(self, considered: int, *, skipping: bool) -> Applied:
        staging, sql = self._staging, self._sql
        self._find_winners(skipping=skipping)
        if self._undo:
            staging.change(sql.save_images(force=self._force))
        staging.change_slices(lambda part: sql.upsert_winners(part, force=self._force))
        loaded, largest = staging.one(sql.count_winners())
        if loaded < considered:
            refuse_left_out(staging, sql, sql.unwritten(force=self._force))
        staging.change_slices(sql.lineage_of_winners)
        return Applied(loaded, 0, largest)

    def _find_winners(self, *, skipping: bool) -> None:
        self._staging.fill(self._sql.winners, lambda part: self._sql.find_winners(part, skipping=skipping))

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do, ``table`` being whether there is one."""
        self._find_winners(skipping=skipped > 0)
        statement = self._sql.classify_winners(force=self._force) if table else self._sql.count_candidates()
        inserted, changed = self._staging.one(statement)
        return Foreseen(inserted=inserted, changed=changed)
