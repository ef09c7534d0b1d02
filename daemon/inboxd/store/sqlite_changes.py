"""Feeds on SQLite of which it is found out first what a file changes: deletions, snapshots, the last one that wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from inboxd.model import Feed, Mode
from inboxd.records.validate import key_text
from inboxd.store.base import Applied, Foreseen
from inboxd.store.changes import LISTED_KEYS, enough_live, refuse_deletions
from inboxd.store.sqlite_changes_sql import ChangesSql
from inboxd.store.sqlite_staging import Staging


class Changes:
    """How one file's staged records become rows: find the winners, decide, then change what is to be changed."""

    def __init__(self, staging: Staging, sql: ChangesSql, feed: Feed, *, force: bool) -> None:
        self._staging = staging
        self._sql = sql
        self._feed = feed
        self._force = force
        self._last = 0

    def count_skipped(self) -> int:
        """Return none: these feeds have no watermark, or merge."""
        return 0

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Leave out the records of a replay whose key was applied later."""
        insert = f"INSERT INTO {self._sql.origins} VALUES (?, ?, ?, ?)"
        self._staging.insert_many(self._sql.origins, insert, iter(origins))
        self._staging.insert_from(self._sql.outdated, self._sql.find_outdated())

    def apply(self, skipped: int) -> Applied:
        """Change what is to be changed, and write the lineage."""
        del skipped
        staging, sql, feed = self._staging, self._sql, self._feed
        self._decide(table=True)
        applied, deleted, deletions, _, largest = self._count()
        self.refuse(deleted)
        gone = deletions + deleted > 0
        if feed.undo:
            staging.change(sql.save_images())
            if deletions and feed.cursor is not None:
                staging.change(sql.save_tombstones())
        if deletions and feed.cursor is not None:
            staging.change(sql.bury())
        if applied > deletions:
            staging.change_slices(sql.upsert)
        if gone:
            staging.change_keys(sql.changes, sql.key_columns(), sql.delete)
        staging.change_slices(sql.lineage)
        if feed.mode is Mode.SNAPSHOT and deleted:
            staging.change(sql.lineage_of_absent(), last=self._last)
        return Applied(applied, deleted, largest)

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do, ``table`` being whether there is one."""
        del skipped
        self._decide(table=table)
        applied, deleted, deletions, new, _ = self._count()
        return Foreseen(inserted=new, changed=applied - deletions - new, deletions=deletions, deleted=deleted)

    def _decide(self, *, table: bool) -> None:
        staging, sql = self._staging, self._sql
        self._last = staging.records + staging.rejects + staging.filtered
        staging.fill(sql.winners, sql.find_winners)
        staging.fill(sql.changes, partial(sql.decide, force=self._force, table=table))
        if self._feed.mode is Mode.SNAPSHOT and table:
            staging.insert_many(sql.changes, sql.add_absent(), self._absent())

    def _absent(self) -> Iterator[tuple[Any, ...]]:
        for number, key in enumerate(self._staging.rows(self._sql.absent_keys()), self._last + 1):
            yield (*key, key_text([*self._feed_values(key)]), number)

    def _feed_values(self, key: tuple[Any, ...]) -> Iterator[Any]:
        """Return the key's values as records have them: SQLite has no boolean."""
        for name, value in zip(self._feed.key, key, strict=True):
            yield bool(value) if self._feed.field(name).type == "boolean" else value

    def _count(self) -> tuple[int, int, int, int, Any]:
        applied, deleted, deletions, new, largest = self._staging.one(self._sql.count_changes(), last=self._last)
        return applied, deleted, deletions, new, largest

    def refuse(self, deleted: int) -> None:
        """Refuse the file if ``max_deleted`` does not allow that so many rows go."""
        if not deleted:
            return
        enough = enough_live(self._feed, deleted)
        (live,) = self._staging.one(self._sql.count_live(), enough=enough)
        keys = [key for (key,) in self._staging.rows(self._sql.deleted_keys(), limit=LISTED_KEYS)]
        refuse_deletions(self._feed, deleted, live, keys)
