"""One file's one transaction on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from inboxd.errors import RUN_TAKEN, WorldFault
from inboxd.model import Batch, Counts, Cursor, Feed, Late, Outcome, Reject
from inboxd.store.base import Classified, RunEnd
from inboxd.store.cursors import Extent, at_or_below, from_database, from_text
from inboxd.store.feed_tables import quoted
from inboxd.store.ledger import NOTICE_COLUMNS, canonical, notice_values, success_values
from inboxd.store.postgres_driver import TickingConnection
from inboxd.store.postgres_faults import PostgresFaults
from inboxd.store.postgres_sql import FeedSql

OWN_RUN = "SELECT 1 FROM etl_runs WHERE id = %s AND status = 'running' FOR UPDATE SKIP LOCKED"
ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended('inboxd ' || %s, 0))"
FIND_DUPLICATE = (
    "SELECT id FROM etl_runs WHERE job_name = %s AND content_sha256 = %s AND status = 'success' "
    "AND duplicate_of IS NULL AND superseded_by IS NULL"
)
LAST_FINISHED = (
    "SELECT finished_at FROM etl_runs WHERE finished_at IS NOT NULL AND rows_rejected IS NOT NULL "
    "ORDER BY id DESC LIMIT 1"
)
WATERMARK = "SELECT value FROM watermarks WHERE name = %s"
TABLE_IS_THERE = "SELECT 1 WHERE to_regclass(%s) IS NOT NULL"
RESOLVE = "UPDATE dead_letters SET resolved_by = %s WHERE id = ANY(%s) AND resolved_by IS NULL"
_NOTICE_VALUES = ("%s::timestamptz" if name == "created" else "%s" for name in NOTICE_COLUMNS)
INSERT_NOTICE = f"INSERT INTO notices ({', '.join(NOTICE_COLUMNS)}) VALUES ({', '.join(_NOTICE_VALUES)})"
SUPERSEDE = (
    "UPDATE etl_runs SET superseded_by = %s WHERE job_name = %s AND content_sha256 = %s AND status = 'success' "
    "AND duplicate_of IS NULL AND superseded_by IS NULL"
)
SUCCEED = (
    "UPDATE etl_runs SET status = 'success', rows_in = %s, rows_out = %s, rows_rejected = %s, rows_skipped = %s, "
    "rows_stale = %s, duration_ms = %s, finished_at = %s::timestamptz, file_size = %s, content_sha256 = %s, "
    "watermark = %s, duplicate_of = %s WHERE id = %s AND status = 'running'"
)


class PostgresFile:
    """The verbs of a file's transaction. Owned by the thread that opened it; its transaction has begun.

    ``counts_hold``: the server says of an upsert how many rows it wrote. Citus says how many it was given
    (github.com/citusdata/citus/issues/3377), and so what was written is looked for.
    """

    def __init__(
        self,
        connection: TickingConnection,
        sql: FeedSql,
        run_id: int,
        *,
        now: Callable[[], str],
        force: bool,
        counts_hold: bool,
    ) -> None:
        self._connection = connection
        self._sql = sql
        self._feed: Feed = sql.feed
        self._run_id = run_id
        self._now = now
        self._force = force
        self._counts_hold = counts_hold
        self._faults = PostgresFaults()
        self._values: dict[str, object] = {
            "run": run_id,
            "feed": sql.feed.name,
            "table": sql.feed.table,
            "watermark": None,
        }
        self._extent = Extent(sql.feed)
        self._records = 0
        self._rejects = 0
        self._largest_loaded: Cursor | None = None
        self._locks_watermark = False
        self.committed = False
        if run_id:
            self._own_run()

    def _own_run(self) -> None:
        """Hold the run's row to the end: other daemons tell by it that this one is alive and at work."""
        with self._faults:
            own = self._connection.execute(OWN_RUN, (self._run_id,)).fetchone()
        if own is None:
            raise WorldFault(RUN_TAKEN, f"run {self._run_id} is no longer ours", "another daemon works on this file")

    def stage(self, batch: Batch) -> None:
        """Take one window of records into temporary tables."""
        with self._faults:
            if batch.columns:
                self._extent.add(batch.columns)
                self._copy(self._sql.copy_rows(), zip(*batch.columns, strict=True))
                self._records += len(batch.columns[0])
            if batch.rejects:
                self._copy(self._sql.copy_rejects(), map(_storable, batch.rejects))
                self._rejects += len(batch.rejects)

    def _copy(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def lock(self) -> None:
        """Let a ``skip`` feed's files through one by one (and an ``undo`` feed's, whose before-images must be true)."""
        with self._faults:
            if self._feed.undo:
                self._connection.execute(ONE_BY_ONE, (f"table {self._feed.table}",))
            if self._feed.late is Late.SKIP:
                self._connection.execute(ONE_BY_ONE, (f"feed {self._feed.name}",))  # the first file has no row to lock
                self._locks_watermark = True
        self._values["now"] = self._now()

    def duplicate_of(self, sha256: str) -> int | None:
        """Return the run that loaded this content for this feed and still stands."""
        with self._faults:
            row = self._connection.execute(FIND_DUPLICATE, (self._feed.name, sha256)).fetchone()
        return None if row is None else int(row[0])

    def last_finished_at(self) -> str | None:
        """Return when the last of inboxd's own runs ended."""
        with self._faults:
            row = self._connection.execute(LAST_FINISHED).fetchone()
        return None if row is None else canonical(row[0])

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark; a ``skip`` feed's is locked with it."""
        statement = f"{WATERMARK} FOR UPDATE" if self._locks_watermark else WATERMARK
        with self._faults:
            row = self._connection.execute(statement, (self._feed.name,)).fetchone()
        return None if row is None else from_text(self._feed, row[0])

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage."""
        self._values["watermark"] = watermark
        with self._faults:
            skipped = self._count_skipped()
            applied = self._apply(skipped) if self._records else 0
            rejected = self._write_rejects() if self._rejects else 0
        return Counts(
            rows_in=self._records + self._rejects,
            rows_out=applied,
            rows_rejected=rejected,
            rows_skipped=skipped + self._rejects - rejected,
            rows_stale=self._records - skipped - applied,
        )

    def _apply(self, skipped: int) -> int:
        """Return how many records were loaded. If they all were, no two met, and their lineage needs no join."""
        sql, skipping, considered = self._sql, skipped > 0, self._records - skipped
        if self._feed.undo:
            self._change(sql.find_winners(skipping=skipping))
            self._change(sql.save_images(force=self._force))
            self._change(f"DELETE FROM {sql.winners}")
        applied = self._change(sql.upsert(skipping=skipping, force=self._force))
        if applied and (applied < considered or not self._counts_hold):
            applied = self._change(sql.find_standing_winners(skipping=skipping, gathered=not self._counts_hold))
        whole = applied == considered
        if self._feed.undo:
            self._change(sql.save_absences(skipping=skipping, whole=whole))
        if whole:
            self._largest_loaded = self._extent.highest if considered else None
            self._change(sql.lineage(skipping=skipping))
            return applied
        if applied:
            self._largest_loaded = from_database(self._one(sql.largest_winner())[0])
        self._change(sql.lineage_of_winners(skipping=skipping))
        return applied

    def _count_skipped(self) -> int:
        watermark = self._values["watermark"]
        if not isinstance(watermark, int | str) or not self._extent.reaches_down_to(watermark):
            return 0
        return int(str(self._one(self._sql.count_skipped())[0]))

    def _write_rejects(self) -> int:
        rejected = self._change(self._sql.dead_letters(skipping=self._skips))
        self._change(self._sql.lineage_of_rejects(skipping=self._skips))
        return rejected

    @property
    def _skips(self) -> bool:
        return self._values["watermark"] is not None

    def _change(self, statement: str) -> int:
        return self._connection.execute(statement, self._values).rowcount

    def _one(self, statement: str) -> tuple[object, ...]:
        return self._connection.execute(statement, self._values).fetchone() or (None,)

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected by code."""
        with self._faults:
            rows = self._connection.execute(self._sql.count_rejected(skipping=self._skips), self._values).fetchall()
        return {str(code): int(count) for code, count in rows}

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected records in file order."""
        if not self._rejects:
            return []
        with self._faults:
            statement = self._sql.first_rejects(skipping=self._skips)
            rows = self._connection.execute(statement, {**self._values, "limit": limit}).fetchall()
        return [
            Reject(record_no, raw, key, from_database(cursor), code, detail)
            for record_no, raw, key, cursor, code, detail in rows
        ]

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do; writes to temporary tables alone."""
        self._values["watermark"] = watermark
        with self._faults:
            skipped = self._count_skipped()
            self._change(self._sql.find_winners(skipping=skipped > 0))
            table = self._connection.execute(TABLE_IS_THERE, (quoted(self._feed.table),)).fetchone()
            winners = int(str(self._one(self._sql.count_winners())[0]))
            met, changed = map(int, map(str, self._one(self._sql.count_met(force=self._force)))) if table else (0, 0)
            inserted = winners - met
        rejected = sum(self.rejected_counts().values()) if self._rejects else 0
        return Classified(
            inserted=inserted,
            changed=changed,
            stale=self._records - skipped - inserted - changed,
            skipped=skipped + self._rejects - rejected,
            rejected=rejected,
        )

    def resolve(self, letters: Sequence[int]) -> int:
        """Mark dead letters as resolved by this run; returns how many of them were still open."""
        with self._faults:
            return self._connection.execute(RESOLVE, (self._run_id, list(letters))).rowcount

    def advance(self, limit: Cursor | None) -> Cursor | None:
        """Raise the feed's watermark to the largest cursor this run committed, at most ``limit``."""
        largest = self._largest_loaded
        if largest is None:
            return None
        reached = largest if limit is None or at_or_below(largest, limit) else limit
        with self._faults:
            self._connection.execute(self._sql.advance(), {**self._values, "reached": str(reached)})
        return largest

    def record(self, end: RunEnd) -> None:
        """Turn the run's row from running to success."""
        verdict = end.verdict
        with self._faults:
            if self._force and verdict.outcome is Outcome.LOADED and verdict.sha256 is not None:
                self._connection.execute(SUPERSEDE, (self._run_id, self._feed.name, verdict.sha256))
            updated = self._connection.execute(SUCCEED, (*success_values(end), self._run_id)).rowcount
            for notice in notice_values(end):
                self._connection.execute(INSERT_NOTICE, notice)
        if updated != 1:
            raise WorldFault(RUN_TAKEN, f"run {self._run_id} is no longer ours", "another daemon works on this file")

    def commit(self) -> None:
        """Make it durable. If the connection is lost in here, only the ledger can tell the outcome."""
        with self._faults:
            self._connection.execute("COMMIT")
        self.committed = True


def _storable(reject: Reject) -> tuple[object, ...]:
    """Return a reject's values without U+0000, which PostgreSQL's text cannot hold."""
    texts = (text.replace("\0", "\\u0000") for text in (reject.raw, reject.record_key, reject.code, reject.detail))
    raw, record_key, code, detail = texts
    return (reject.record_no, raw, record_key, reject.cursor, code, detail)
