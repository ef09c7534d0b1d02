"""One file's one transaction on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

from inboxd.errors import DatabaseFault
from inboxd.model import Feed, Late, Mode
from inboxd.outcomes import Batch
from inboxd.store.base import Way, Work
from inboxd.store.changes import finds_changes
from inboxd.store.dialects import POSTGRES
from inboxd.store.file import FileTransaction, LedgerSql, run_is_taken
from inboxd.store.postgres_append import Append, AppendSql
from inboxd.store.postgres_changes import Changes
from inboxd.store.postgres_changes_sql import ChangesSql
from inboxd.store.postgres_citus import await_commits
from inboxd.store.postgres_driver import TickingConnection
from inboxd.store.postgres_faults import LOST, PostgresFaults
from inboxd.store.postgres_newest import Newest, NewestSql
from inboxd.store.postgres_sql import FeedSql
from inboxd.store.postgres_staging import Staging

OWN_RUN = "SELECT 1 FROM etl_runs WHERE id = %s AND status = 'running' FOR UPDATE SKIP LOCKED"
ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended('inboxd ' || %s, 0))"
BESIDE_OTHERS = "SELECT pg_advisory_xact_lock_shared(hashtextextended('inboxd ' || %s, 0))"
"""Of a table's files that may run side by side, but not beside an undo, or a feed that keeps before-images."""
LEDGER = LedgerSql(POSTGRES)


def feed_sql(feed: Feed, slot: int) -> FeedSql:
    """Return the statements of a feed, as its kind wants them."""
    if feed.mode is Mode.APPEND:
        return AppendSql(feed, slot)
    return ChangesSql(feed, slot) if finds_changes(feed) else NewestSql(feed, slot)


class PostgresFile(FileTransaction):
    """The verbs of a file's transaction. Owned by the thread that opened it; its transaction has begun.

    ``counts_hold``: what the server says of an upsert is so; with Citus it is not (see ``Newest``).
    """

    _ledger = LEDGER
    _on_postgres = True

    def __init__(
        self,
        connection: TickingConnection,
        sql: FeedSql,
        work: Work,
        *,
        now: Callable[[], str],
        counts_hold: bool,
    ) -> None:
        values = {"run": work.run_id, "feed": work.feed.name, "table": work.feed.table, "watermark": None}
        self._sql = sql
        self._staging = Staging(connection, sql, values)
        way = _way_of(self._staging, sql, work, counts_hold=counts_hold)
        faults = PostgresFaults()
        super().__init__(work, connection=connection, sql=sql, staging=self._staging, way=way, faults=faults, now=now)
        self._with_citus = not counts_hold
        self.committed = False
        if work.run_id:
            self._own_run()

    def _own_run(self) -> None:
        """Hold the run's row to the end: other daemons tell by it that this one is alive and at work."""
        with self._faults:
            own = self._connection.execute(OWN_RUN, (self._run_id,)).fetchone()
        if own is None:
            raise run_is_taken(self._run_id)

    def stage(self, batch: Batch) -> None:
        """Take one window of records into temporary tables."""
        with self._faults:
            self._staging.take(batch)

    def lock(self) -> int:
        """Let a ``skip`` feed's files through one by one.

        So too those of a table of which is kept, or found out first, what a file changes: that must stay true. And a
        reload that takes the rows away which an append feed's file has made before.
        """
        reloads = self._force and self._feed.mode is Mode.APPEND
        with self._faults:
            if self._feed.undo or finds_changes(self._feed) or reloads:
                self._connection.execute(ONE_BY_ONE, (f"table {self._feed.table}",))
                if self._with_citus:
                    await_commits(self._connection)
            else:
                self._connection.execute(BESIDE_OTHERS, (f"table {self._feed.table}",))
            if self._feed.late is Late.SKIP and self._feed.cursor is not None:
                self._connection.execute(ONE_BY_ONE, (f"feed {self._feed.name}",))  # the first file has no row to lock
                self._read_watermark = f"{self._ledger.watermark} FOR UPDATE"
        self._staging.values["now"] = self._now()
        return self._run_id

    def _finish_staging(self) -> None:
        """Do nothing: each window was written as it came."""

    def _has_table(self) -> bool:
        return self._connection.execute(POSTGRES.is_there, (self._feed.table,)).fetchone() is not None

    def _count_repeated(self) -> int:
        return int(self._staging.one(self._sql.count_repeated())[0])

    def _skip_records(self) -> None:
        self._staging.change(self._sql.insert_lineage("2", ""))

    def commit(self) -> None:
        """Make it durable. If the connection is lost in here, only the ledger can tell the outcome."""
        try:
            with self._faults:
                self._connection.execute("COMMIT")
        except DatabaseFault as fault:
            if not self._with_citus or fault.code != "database_error":
                raise
            raise DatabaseFault(LOST[0], fault.message, LOST[1]) from fault  # a worker's, in the middle of it
        self.committed = True


def _way_of(staging: Staging, sql: FeedSql, work: Work, *, counts_hold: bool) -> Way:
    """Return how the records of this kind of feed become rows."""
    if isinstance(sql, AppendSql):
        return Append(staging, sql)
    if isinstance(sql, NewestSql):
        return Newest(staging, sql, force=work.force, counts_hold=counts_hold)
    assert isinstance(sql, ChangesSql)  # noqa: S101 - there is no fourth kind
    return Changes(staging, sql, force=work.force, gathers=not counts_hold)
