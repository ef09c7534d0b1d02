"""Feeds on PostgreSQL of which it is found out first what a file changes: deletions, snapshots, the last one wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from inboxd.model import Mode
from inboxd.records.validate import key_text
from inboxd.store.changes import FindsChanges
from inboxd.store.ledger import canonical
from inboxd.store.postgres_changes_sql import ChangesSql
from inboxd.store.postgres_staging import Staging


class Changes(FindsChanges):
    """The steps, each one statement.

    ``gathers``: the keys of a table must be brought to the coordinator to be compared, as with Citus.
    """

    _staging: Staging
    _sql: ChangesSql

    def __init__(self, staging: Staging, sql: ChangesSql, *, force: bool, gathers: bool) -> None:
        super().__init__(staging, sql, force=force)
        self._gathers = gathers

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Leave out the records of a replay whose key was applied later."""
        self._staging.copy(self._sql.copy_origins(), origins)
        self._staging.change(self._sql.find_outdated())

    def _decide(self, *, table: bool) -> None:
        staging, sql = self._staging, self._sql
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

    def _save_images(self) -> None:
        self._staging.change(self._sql.save_images())
        self._staging.change(self._sql.save_absences())

    @property
    def _counts_hold(self) -> bool:
        return not self._gathers

    def _upsert(self) -> int:
        return self._staging.change(self._sql.upsert())

    def _delete(self) -> int:
        return self._staging.change(self._sql.delete())

    def _write_lineage(self) -> None:
        self._staging.change(self._sql.lineage())
