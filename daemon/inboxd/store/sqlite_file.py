"""One file's one transaction on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from inboxd.errors import InboxdError
from inboxd.outcomes import Batch, RunStart
from inboxd.store.base import Way, Work
from inboxd.store.dialects import SQLITE
from inboxd.store.file import FileTransaction, LedgerSql
from inboxd.store.sqlite_append import Append, AppendSql
from inboxd.store.sqlite_changes import Changes
from inboxd.store.sqlite_changes_sql import ChangesSql
from inboxd.store.sqlite_driver import SqliteFaults, driver
from inboxd.store.sqlite_newest import Newest, NewestSql
from inboxd.store.sqlite_scratch import Scratch
from inboxd.store.sqlite_sql import FeedSql
from inboxd.store.sqlite_staging import Staging

LARGE: Final = 32 << 20
"""From so many bytes of a file on, COMMIT may keep a slow disk busy for longer than a watchdog waits."""
SLOW_DISK: Final = 2 << 20
"""Bytes of a file that are surely committed in a second: some four times as many are written."""

LEDGER: Final = LedgerSql(SQLITE)
BEGIN_RUN: Final = (
    "INSERT INTO etl_runs (job_name, status, started_at, file_name, file_size, claim, host, file_mtime, variant) "
    "VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (claim) WHERE status = 'running' "
    "DO UPDATE SET host = excluded.host, job_name = excluded.job_name, variant = excluded.variant RETURNING id"
)


def begin_run(connection: driver.Connection, start: RunStart) -> int:
    """Write the ``running`` row, and return its id; a claim's own running row is used again."""
    row = (
        *(start.feed, start.started_at, start.file_name, start.file_size, start.claim, start.host),
        *(start.file_mtime, start.variant),
    )
    return int(connection.execute(BEGIN_RUN, row).fetchall()[0][0])


class SqliteFile(FileTransaction):
    """The verbs of a file's transaction. Owned by the thread that opened it."""

    _ledger = LEDGER
    _on_postgres = False

    def __init__(
        self,
        connection: driver.Connection,
        scratch: Scratch,
        faults: SqliteFaults,
        begin_writing: Callable[[], None],
        work: Work,
        *,
        now: Callable[[], str],
    ) -> None:
        with faults:
            self._sql = sql = scratch.statements(work.feed)
        values = {"run": work.run_id, "feed": work.feed.name, "table": work.feed.table, "watermark": None}
        self._staging = Staging(connection, faults, sql, values)
        way = _way_of(self._staging, sql, work)
        super().__init__(work, connection=connection, sql=sql, staging=self._staging, way=way, faults=faults, now=now)
        self._scratch = scratch
        self._silences = faults
        self._begin_writing = begin_writing
        self._start = work.start
        self._committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Roll back what was not committed. The error that ended the block is told; a second would only hide it."""
        if error is None:
            with self._faults:
                self._clean_up()
            return
        with suppress(InboxdError), self._faults:
            self._clean_up()

    def _clean_up(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if not self._committed or not self._staging.is_small:
            self._scratch.renew()

    def stage(self, batch: Batch) -> None:
        """Take one window of records; full chunks are sorted and written to the scratch file."""
        self._staging.take(batch)

    # The short lock

    def lock(self) -> int:
        """Write what is left of the staging, then take SQLite's one write lock; a small file's run begins here."""
        with self._faults:
            self._staging.end()
            self._begin_writing()
            if not self._run_id and self._start is not None:
                self._run_id = begin_run(self._connection, self._start)
                self._staging.values["run"] = self._run_id
        self._staging.values["now"] = self._now()
        return self._run_id

    def _finish_staging(self) -> None:
        self._staging.end()

    def _has_table(self) -> bool:
        return self._connection.execute(SQLITE.is_there, (self._feed.table,)).fetchone() is not None

    def _count_repeated(self) -> int:
        return self._staging.count_slices(self._sql.count_repeated)

    def _skip_records(self) -> None:
        if self._staging.records:
            self._staging.change_slices(lambda part: self._sql.insert_lineage(part, "2"))

    def commit(self) -> None:
        """Make it durable, leaving the scratch file empty."""
        with self._faults, self._long_wait():
            if self._staging.is_small:
                self._staging.empty()
            self._connection.execute("COMMIT")
        self._committed = True

    @contextmanager
    def _long_wait(self) -> Iterator[None]:
        """Announce that COMMIT, and the checkpoint in it, may take a while: SQLite calls nobody during them."""
        if self._staging.bytes < LARGE:
            yield
            return
        self._silences.silence(self._staging.bytes / SLOW_DISK)
        try:
            yield
        finally:
            self._silences.silence(0)


def _way_of(staging: Staging, sql: FeedSql, work: Work) -> Way:
    """Return how the records of this kind of feed become rows."""
    if isinstance(sql, AppendSql):
        return Append(staging, sql)
    if isinstance(sql, NewestSql):
        return Newest(staging, sql, force=work.force)
    assert isinstance(sql, ChangesSql)  # noqa: S101 - there is no fourth kind
    return Changes(staging, sql, force=work.force)
