"""Feeds on PostgreSQL of which it is found out first what a file changes: deletions, snapshots, the last one wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from inboxd.model import Feed, Mode
from inboxd.records.validate import key_text
from inboxd.store.base import Applied, Foreseen
from inboxd.store.changes import LISTED_KEYS, enough_live, refuse_deletions
from inboxd.store.cursors import from_database
from inboxd.store.ledger import canonical
from inboxd.store.postgres_changes_sql import ChangesSql
from inboxd.store.postgres_staging import Staging


class Changes:
    """How one file's staged records become rows: find the winners, decide, then change what is to be changed."""

    def __init__(self, staging: Staging, sql: ChangesSql, feed: Feed, *, force: bool, gathers: bool) -> None:
        self._staging = staging
        self._sql = sql
        self._feed = feed
        self._force = force
        self._gathers = gathers
        """Whether the keys of a table must be brought to the coordinator to be compared: with Citus."""
        self._last = 0

    def count_skipped(self) -> int:
        """Return none: these feeds have no watermark, or merge."""
        return 0

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Leave out the records of a replay whose key was applied later."""
        self._staging.copy(self._sql.copy_origins(), origins)
        self._staging.change(self._sql.find_outdated())

    def apply(self, skipped: int) -> Applied:
        """Change what is to be changed, and write the lineage."""
        del skipped
        staging, sql, feed = self._staging, self._sql, self._feed
        self._decide(table=True)
        applied, deleted, deletions, _, largest = self._count()
        self.refuse(deleted)
        buries = deletions > 0 and feed.cursor is not None
        if feed.undo:
            staging.change(sql.save_images())
            staging.change(sql.save_absences())
            if buries:
                staging.change(sql.save_tombstones())
        if buries:
            staging.change(sql.bury())
        if applied > deletions:
            staging.change(sql.upsert())
        if deletions + deleted:
            staging.change(sql.delete())
        staging.change(sql.lineage())
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
        staging.change(sql.find_winners())
        if table:
            staging.change(sql.meet())
        staging.change(sql.decide(force=self._force))
        if self._feed.mode is Mode.SNAPSHOT and table:
            if self._gathers:
                staging.change(sql.gather_present())
            for rows in self._absent():
                staging.copy(sql.copy_absent(), rows)

    def _absent(self) -> Iterator[list[Sequence[object]]]:
        number = self._last
        for page in self._staging.pages(self._sql.absent_keys(gathered=self._gathers)):
            rows: list[Sequence[object]] = []
            for found in page:
                key = [canonical(value) if isinstance(value, date) else value for value in found]
                number += 1
                rows.append((*key, True, key_text(key), number, 1))
            yield rows

    def _count(self) -> tuple[int, int, int, int, Any]:
        applied, deleted, deletions, new, largest = self._staging.one(self._sql.count_changes(), last=self._last)
        return int(applied), int(deleted), int(deletions), int(new), from_database(largest)

    def refuse(self, deleted: int) -> None:
        """Refuse the file if ``max_deleted`` does not allow that so many rows go."""
        if not deleted:
            return
        (live,) = self._staging.one(self._sql.count_live(enough_live(self._feed, deleted)))
        keys = [key for page in self._staging.pages(self._sql.deleted_keys(), limit=LISTED_KEYS) for (key,) in page]
        refuse_deletions(self._feed, deleted, int(live), keys)
