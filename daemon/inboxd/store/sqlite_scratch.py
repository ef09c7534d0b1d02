"""Where a file is staged on SQLite: an attached file without a name or a sync."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from inboxd.errors import DatabaseFault
from inboxd.model import Feed, Mode
from inboxd.store.changes import finds_changes
from inboxd.store.sqlite_append import AppendSql
from inboxd.store.sqlite_changes_sql import ChangesSql
from inboxd.store.sqlite_driver import driver
from inboxd.store.sqlite_newest import NewestSql
from inboxd.store.sqlite_sql import FeedSql

PAGE_BYTES: Final = 8_192
"""Twice SQLite's own: staging is read and written from one end to the other, half as many calls then do."""
CACHE_KIB: Final = 8_192
"""Enough to insert sorted chunks, and for a page or two of each of some hundred while slices are read from all."""


def feed_sql(feed: Feed, slot: int) -> FeedSql:
    """Return the statements of a feed, as its kind wants them."""
    if feed.mode is Mode.APPEND:
        return AppendSql(feed, slot)
    return ChangesSql(feed, slot) if finds_changes(feed) else NewestSql(feed, slot)


class Scratch:
    """Keeps the staging tables. It belongs to one connection and to the thread that owns that.

    The file is unlinked as soon as it is attached, so not even ``kill -9`` leaves it behind. Its journal is in memory,
    and small, as staging hardly changes pages that were there before. Without one a full disk would leave it corrupt,
    and SQLite cannot detach what it cannot read. After a rollback ``renew`` puts an empty file in its place.
    """

    def __init__(self, connection: driver.Connection, folder: Path | None) -> None:
        self._connection = connection
        self._folder = folder
        self._attached = False
        self._slots: dict[str, FeedSql] = {}
        self._created: set[FeedSql] = set()
        self._feeds_met = 0

    def statements(self, feed: Feed) -> FeedSql:
        """Return the feed's statements, its first staging tables being there."""
        try:
            return self._prepared(feed)
        except driver.Error:  # a full disk: what was half made would be in the way for ever
            with suppress(driver.Error):
                self.renew()
            raise

    def _prepared(self, feed: Feed) -> FeedSql:
        sql = self._slots.get(feed.name)
        if sql is not None and sql.feed != feed:  # a changed config: what the feed had goes, or each reload left some
            self.renew()
            sql = None
        if not self._attached:
            self._attach()
        if sql is None:
            self._feeds_met += 1
            sql = self._slots[feed.name] = feed_sql(feed, self._feeds_met)
        if sql not in self._created:
            for statement in sql.create_tables():
                self._connection.execute(statement)
            self._created.add(sql)
        return sql

    def renew(self) -> None:
        """Throw everything staged away, and give its disk space back. Not inside a transaction."""
        if self._attached:
            self._attached = False
            self._created.clear()
            self._connection.execute("DETACH scratch")

    def _attach(self) -> None:
        if self._folder is None:  # a reader may own no folder to write to: then staging is held in memory
            self._connection.execute("ATTACH ':memory:' AS scratch")
        else:
            self._attach_file(self._folder)
        self._attached = True
        execute: Callable[[str], object] = self._connection.execute
        execute(f"PRAGMA scratch.page_size = {PAGE_BYTES}")
        execute("PRAGMA scratch.journal_mode = MEMORY")
        execute("PRAGMA scratch.synchronous = OFF")
        execute("PRAGMA scratch.locking_mode = EXCLUSIVE")
        execute(f"PRAGMA scratch.cache_size = -{CACHE_KIB}")

    def _attach_file(self, folder: Path) -> None:
        try:
            handle, path = tempfile.mkstemp(prefix=".inboxd-staging-", dir=folder)
        except OSError as error:
            message = f"no file to stage in can be made in {folder}: {error.strerror}"
            raise DatabaseFault("database_unavailable", message, "look at the disk and its permissions") from error
        try:
            self._connection.execute("ATTACH ? AS scratch", (os.fsencode(path),))  # of any bytes
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - a str from mkstemp
