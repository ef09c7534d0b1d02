"""One file's one transaction on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from inboxd.errors import RUN_TAKEN, DatabaseFault, TransientFault
from inboxd.model import Batch, Counts, Cursor, Feed, Late, Mode, Outcome, Reject, Scalar
from inboxd.store.base import Applied, Classified, Foreseen, RunEnd, Way, Work
from inboxd.store.changes import finds_changes
from inboxd.store.cursors import at_or_below, from_database, from_text, watermark_name
from inboxd.store.feed_tables import quoted
from inboxd.store.ledger import (
    NOTICE_COLUMNS,
    canonical,
    notice_values,
    refuse_replayed,
    skipped_counts,
    success_values,
)
from inboxd.store.postgres_append import Append, AppendSql
from inboxd.store.postgres_changes import Changes
from inboxd.store.postgres_changes_sql import ChangesSql
from inboxd.store.postgres_citus import await_commits
from inboxd.store.postgres_driver import TickingConnection
from inboxd.store.postgres_faults import LOST, PostgresFaults
from inboxd.store.postgres_newest import Newest, NewestSql
from inboxd.store.postgres_sql import FeedSql
from inboxd.store.postgres_staging import Staging
from inboxd.store.resolving import resolve_applied

OWN_RUN = "SELECT 1 FROM etl_runs WHERE id = %s AND status = 'running' FOR UPDATE SKIP LOCKED"
ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended('inboxd ' || %s, 0))"
BESIDE_OTHERS = "SELECT pg_advisory_xact_lock_shared(hashtextextended('inboxd ' || %s, 0))"
"""Of a table's files that may run side by side, but not beside an undo, or a feed that keeps before-images."""
STANDS = "status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL"
FIND_DUPLICATE = f"SELECT id FROM etl_runs WHERE job_name = %s AND content_sha256 = %s AND variant = %s AND {STANDS}"
HAS_LOADED = (
    f"SELECT 1 FROM etl_runs WHERE job_name = %s AND content_sha256 IS NOT NULL AND {STANDS} AND file_size = %s LIMIT 1"
)
FOLLOWED = (
    f"SELECT 1 FROM etl_runs WHERE job_name = %s AND content_sha256 IS NOT NULL AND {STANDS} "
    "AND commit_no > (SELECT commit_no FROM etl_runs WHERE id = %s) LIMIT 1"
)
LAST_FINISHED = "SELECT finished_at FROM etl_runs WHERE commit_no > 0 ORDER BY commit_no DESC LIMIT 1"
WATERMARK = "SELECT value FROM watermarks WHERE name = %s"
TABLE_IS_THERE = "SELECT 1 WHERE to_regclass(%s) IS NOT NULL"
RESOLVE = "UPDATE dead_letters SET resolved_by = %s WHERE id = ANY(%s) AND COALESCE(resolved_by, %s) = %s"
_NOTICE_VALUES = ("%s::timestamptz" if name == "created" else "%s" for name in NOTICE_COLUMNS)
INSERT_NOTICE = f"INSERT INTO notices ({', '.join(NOTICE_COLUMNS)}) VALUES ({', '.join(_NOTICE_VALUES)})"
REPLAYED = (
    "SELECT MIN(d.resolved_by) FROM dead_letters d JOIN etl_runs r ON r.id = d.resolved_by "
    "WHERE d.run_id = %s AND r.superseded_by IS NULL"
)
SUPERSEDE = (
    "UPDATE etl_runs SET superseded_by = %s "
    f"WHERE job_name = %s AND content_sha256 = %s AND variant = %s AND {STANDS} RETURNING id"
)
SUCCEED = (
    "UPDATE etl_runs SET status = 'success', rows_in = %s, rows_out = %s, rows_rejected = %s, rows_skipped = %s, "
    "rows_stale = %s, rows_filtered = %s, rows_deleted = %s, duration_ms = %s, finished_at = %s::timestamptz, "
    "file_size = %s, content_sha256 = %s, watermark = %s, duplicate_of = %s, table_name = %s, "
    "commit_no = nextval('etl_runs_commit_no_seq') WHERE id = %s AND status = 'running'"
)


def feed_sql(feed: Feed, slot: int) -> FeedSql:
    """Return the statements of a feed, as its kind wants them."""
    if feed.mode is Mode.APPEND:
        return AppendSql(feed, slot)
    return ChangesSql(feed, slot) if finds_changes(feed) else NewestSql(feed, slot)


class PostgresFile:
    """The verbs of a file's transaction. Owned by the thread that opened it; its transaction has begun.

    ``counts_hold``: what the server says of an upsert is so; with Citus it is not (see ``Newest``).
    """

    def __init__(
        self,
        connection: TickingConnection,
        sql: FeedSql,
        work: Work,
        *,
        now: Callable[[], str],
        counts_hold: bool,
    ) -> None:
        self._connection = connection
        self._sql = sql
        self._feed = work.feed
        self._run_id = work.run_id
        self._now = now
        self._force = work.force
        self._variant = work.variant
        self._faults = PostgresFaults()
        values = {"run": work.run_id, "feed": work.feed.name, "table": work.feed.table, "watermark": None}
        self._staging = Staging(connection, sql, values)
        self._with_citus = not counts_hold
        self._way = self._way_of(counts_hold=counts_hold)
        self._scope: tuple[Scalar, ...] | None = None
        self._applied = Applied(0, 0, None)
        self._locks_watermark = False
        self.committed = False
        if work.run_id:
            self._own_run()

    def _way_of(self, *, counts_hold: bool) -> Way:
        """Return how the records of this kind of feed become rows."""
        sql = self._sql
        if isinstance(sql, AppendSql):
            return Append(self._staging, sql)
        if isinstance(sql, NewestSql):
            return Newest(self._staging, sql, force=self._force, counts_hold=counts_hold)
        assert isinstance(sql, ChangesSql)  # noqa: S101 - there is no fourth kind
        return Changes(self._staging, sql, self._feed, force=self._force, gathers=not counts_hold)

    def _own_run(self) -> None:
        """Hold the run's row to the end: other daemons tell by it that this one is alive and at work."""
        with self._faults:
            own = self._connection.execute(OWN_RUN, (self._run_id,)).fetchone()
        if own is None:
            message = f"run {self._run_id} is no longer ours"
            raise TransientFault(RUN_TAKEN, message, "another daemon is working on this file")

    def stage(self, batch: Batch) -> None:
        """Take one window of records into temporary tables."""
        with self._faults:
            self._staging.take(batch)

    def lock(self) -> int:
        """Let a ``skip`` feed's files through one by one.

        So too those of a table of which is kept, or found out first, what a file changes: that must stay true.
        """
        with self._faults:
            if self._feed.undo or finds_changes(self._feed):
                self._connection.execute(ONE_BY_ONE, (f"table {self._feed.table}",))
                if self._with_citus:
                    await_commits(self._connection)
            else:
                self._connection.execute(BESIDE_OTHERS, (f"table {self._feed.table}",))
            if self._feed.late is Late.SKIP and self._feed.cursor is not None:
                self._connection.execute(ONE_BY_ONE, (f"feed {self._feed.name}",))  # the first file has no row to lock
                self._locks_watermark = True
        self._staging.values["now"] = self._now()
        return self._run_id

    def duplicate_of(self, sha256: str) -> int | None:
        """Return the run that loaded this content for this feed and still stands."""
        with self._faults:
            row = self._connection.execute(FIND_DUPLICATE, (self._feed.name, sha256, self._variant)).fetchone()
        return None if row is None else int(row[0])

    def has_loaded(self, size: int) -> bool:
        """Tell whether a run that stands loaded a file of so many bytes for this feed."""
        with self._faults:
            return self._connection.execute(HAS_LOADED, (self._feed.name, size)).fetchone() is not None

    def followed(self, run_id: int) -> bool:
        """Tell whether other content of this feed was loaded after a run, and still stands."""
        with self._faults:
            return self._connection.execute(FOLLOWED, (self._feed.name, run_id)).fetchone() is not None

    def last_finished_at(self) -> str | None:
        """Return when the last of inboxd's own runs ended."""
        with self._faults:
            row = self._connection.execute(LAST_FINISHED).fetchone()
        return None if row is None else canonical(row[0])

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark; a ``skip`` feed's is locked with it."""
        statement = f"{WATERMARK} FOR UPDATE" if self._locks_watermark else WATERMARK
        with self._faults:
            row = self._connection.execute(statement, (watermark_name(self._feed, self._scope),)).fetchone()
        return None if row is None else from_text(self._feed, row[0])

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage."""
        staging = self._staging
        staging.values["watermark"] = watermark
        with self._faults:
            skipped = self._way.count_skipped()
            if staging.records or self._feed.mode is Mode.SNAPSHOT:
                self._applied = self._way.apply(skipped)
            rejected = self._write_rejects() if staging.rejects else 0
            resolve_applied(staging, self._feed, self._applied.records, on_postgres=True)
        applied = self._applied
        return Counts(
            rows_in=staging.records + staging.rejects + staging.filtered,
            rows_out=applied.records,
            rows_rejected=rejected,
            rows_skipped=skipped + staging.rejects - rejected,
            rows_stale=staging.records - skipped - applied.records,
            rows_filtered=staging.filtered,
            rows_deleted=applied.deleted,
        )

    def _write_rejects(self) -> int:
        rejected = self._staging.change(self._sql.dead_letters(skipping=self._skips))
        self._staging.change(self._sql.lineage_of_rejects(skipping=self._skips))
        return rejected

    @property
    def _skips(self) -> bool:
        return self._staging.watermark is not None

    def repeated(self) -> int:
        """Count the staged records with the key of an earlier one from which the cursor does not tell them apart."""
        if self._feed.mode is Mode.APPEND or self._staging.records <= 1:
            return 0
        with self._faults:
            return int(self._staging.one(self._sql.count_repeated())[0])

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected by code."""
        with self._faults:
            rows = self._connection.execute(
                self._sql.count_rejected(skipping=self._skips), self._staging.values
            ).fetchall()
        return {str(code): int(count) for code, count in rows}

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected records in file order."""
        if not self._staging.rejects:
            return []
        with self._faults:
            statement = self._sql.first_rejects(skipping=self._skips)
            rows = self._connection.execute(statement, {**self._staging.values, "limit": limit}).fetchall()
        return [
            Reject(record_no, raw, key, from_database(cursor), code, detail, context)
            for record_no, raw, key, cursor, code, detail, context in rows
        ]

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do; writes to temporary tables alone."""
        staging = self._staging
        staging.values["watermark"] = watermark
        found = Foreseen()
        with self._faults:
            skipped = self._way.count_skipped()
            if staging.records or self._feed.mode is Mode.SNAPSHOT:
                there = self._connection.execute(TABLE_IS_THERE, (quoted(self._feed.table),)).fetchone() is not None
                found = self._way.foresee(skipped, table=there)
        rejected = sum(self.rejected_counts().values()) if staging.rejects else 0
        return Classified(
            inserted=found.inserted,
            changed=found.changed,
            stale=staging.records - skipped - found.inserted - found.changed - found.deletions,
            skipped=skipped + staging.rejects - rejected,
            rejected=rejected,
            filtered=staging.filtered,
            deletions=found.deletions,
            deleted=found.deleted,
        )

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Let staged records be stale whose key was applied after they had come."""
        if isinstance(self._way, Changes):
            with self._faults:
                self._way.outdate(origins)

    def refuse_deletions(self, deleted: int) -> None:
        """Raise ``FileFault`` where so many rows are more than the feed's ``max_deleted``."""
        if isinstance(self._way, Changes):
            with self._faults:
                self._way.refuse(deleted)

    def staged(self) -> int:
        """Return how many records were staged, rejects included."""
        return self._staging.records + self._staging.rejects

    def scopes(self) -> Sequence[tuple[Scalar, ...]]:
        """Return the combinations of the values of a snapshot's scope that the staged records have."""
        return [*self._staging.scopes.found][:2]

    def cover(self, scope: tuple[Scalar, ...]) -> None:
        """Say which scope a snapshot is of."""
        self._scope = scope
        self._staging.values.update({f"scope{place}": value for place, value in enumerate(scope)})

    def skip(self) -> Counts:
        """Skip everything that was staged, valid or not, and write its lineage."""
        staging = self._staging
        with self._faults:
            staging.change(self._sql.insert_lineage("2", ""))
            staging.change(self._sql.skip_rejects())
        return skipped_counts(staging.records + staging.rejects, staging.filtered)

    def mark(self, as_of: Cursor) -> None:
        """Let the scope's watermark be this run's: raise it to the snapshot's moment."""
        about = {"name": watermark_name(self._feed, self._scope), "reached": str(as_of)}
        with self._faults:
            if self._feed.undo:
                self._staging.change(self._sql.save_watermark(), **about)
            self._staging.change(self._sql.mark(), **about)

    def resolve(self, letters: Sequence[int]) -> int:
        """Mark dead letters as resolved by this run; returns how many of them were still open."""
        with self._faults:
            return self._connection.execute(RESOLVE, (self._run_id, list(letters), self._run_id, self._run_id)).rowcount

    def advance(self, limit: Cursor | None) -> Cursor | None:
        """Raise the feed's watermark to the largest cursor this run committed, at most ``limit``."""
        largest = self._applied.largest
        if largest is None:
            return None
        reached = largest if limit is None or at_or_below(largest, limit) else limit
        with self._faults:
            self._staging.change(self._sql.advance(), reached=str(reached))
        return largest

    def record(self, end: RunEnd) -> None:
        """Turn the run's row from running to success."""
        verdict = end.verdict
        with self._faults:
            replaces = self._force or self._feed.mode is Mode.SNAPSHOT
            if replaces and verdict.outcome is Outcome.LOADED and verdict.sha256 is not None:
                self._supersede(verdict.sha256)
            updated = self._connection.execute(SUCCEED, (*success_values(end, self._feed), self._run_id)).rowcount
            for notice in notice_values(end):
                self._connection.execute(INSERT_NOTICE, notice)
        if updated != 1:
            message = f"run {self._run_id} is no longer ours"
            raise TransientFault(RUN_TAKEN, message, "another daemon is working on this file")

    def _supersede(self, sha256: str) -> None:
        """Take the place of the run that had loaded this content; an append feed's rows of it go."""
        content = (self._run_id, self._feed.name, sha256, self._variant)
        for (run_id,) in self._connection.execute(SUPERSEDE, content).fetchall():
            if self._feed.mode is Mode.APPEND:
                replay = self._connection.execute(REPLAYED, (run_id,)).fetchone()
                refuse_replayed(run_id, replay[0] if replay else None)
                table, run = quoted(self._feed.table), quoted(self._feed.own_columns.run_id)
                self._connection.execute(f"DELETE FROM {table} WHERE {run} = {int(run_id)}".encode())

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
