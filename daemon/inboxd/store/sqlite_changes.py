"""Feeds on SQLite of which it is found out first what a file changes: deletions, snapshots, the last one that wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from inboxd.model import Mode
from inboxd.records.validate import key_text
from inboxd.store.changes import FindsChanges
from inboxd.store.sqlite_changes_sql import ChangesSql
from inboxd.store.sqlite_staging import Staging


class Changes(FindsChanges):
    """The steps, slice by slice of the key's range where they may be long."""

    _staging: Staging
    _sql: ChangesSql

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Leave out the records of a replay whose key was applied later."""
        insert = f"INSERT INTO {self._sql.origins} VALUES (?, ?, ?, ?)"
        self._staging.insert_many(self._sql.origins, insert, iter(origins))
        self._staging.insert_from(self._sql.outdated, self._sql.find_outdated())

    def _decide(self, *, table: bool) -> None:
        staging, sql = self._staging, self._sql
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

    def _save_images(self) -> None:
        self._staging.change(self._sql.save_images())

    @property
    def _counts_hold(self) -> bool:
        return True

    def _upsert(self) -> int:
        return self._staging.change_slices(self._sql.upsert)

    def _delete(self) -> int:
        return self._staging.change_keys(self._sql.changes, self._sql.key_columns(), self._sql.delete)

    def _write_lineage(self) -> None:
        self._staging.change_slices(self._sql.lineage)
