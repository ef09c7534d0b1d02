"""One file's one transaction on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from inboxd.errors import RUN_TAKEN, InboxdError, TransientFault
from inboxd.model import Batch, Counts, Cursor, Feed, Mode, Outcome, Reject, RunStart, Scalar
from inboxd.store.base import Applied, Classified, Foreseen, RunEnd, Way, Work
from inboxd.store.cursors import at_or_below, from_text, watermark_name
from inboxd.store.feed_tables import quoted
from inboxd.store.ledger import NOTICE_COLUMNS, notice_values, refuse_replayed, skipped_counts, success_values
from inboxd.store.resolving import resolve_applied
from inboxd.store.sqlite_append import Append, AppendSql
from inboxd.store.sqlite_changes import Changes
from inboxd.store.sqlite_changes_sql import ChangesSql
from inboxd.store.sqlite_driver import SqliteFaults, driver
from inboxd.store.sqlite_newest import Newest, NewestSql
from inboxd.store.sqlite_scratch import Scratch
from inboxd.store.sqlite_staging import Staging

LARGE: Final = 32 << 20
"""From so many bytes of a file on, COMMIT may keep a slow disk busy for longer than a watchdog waits."""
SLOW_DISK: Final = 2 << 20
"""Bytes of a file that are surely committed in a second: some four times as many are written."""

STANDS: Final = "status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL"
FIND_DUPLICATE: Final = (
    f"SELECT id FROM main.etl_runs WHERE job_name = ? AND content_sha256 = ? AND variant = ? AND {STANDS}"
)
HAS_LOADED: Final = (
    f"SELECT 1 FROM main.etl_runs WHERE job_name = ? AND content_sha256 IS NOT NULL AND {STANDS} "
    "AND file_size = ? LIMIT 1"
)
FOLLOWED: Final = (
    f"SELECT 1 FROM main.etl_runs WHERE job_name = ? AND content_sha256 IS NOT NULL AND {STANDS} "
    "AND commit_no > (SELECT commit_no FROM main.etl_runs WHERE id = ?) LIMIT 1"
)
LAST_FINISHED: Final = "SELECT finished_at FROM main.etl_runs WHERE commit_no > 0 ORDER BY commit_no DESC LIMIT 1"
WATERMARK: Final = "SELECT value FROM main.watermarks WHERE name = ?"
TABLE_IS_THERE: Final = "SELECT 1 FROM main.sqlite_schema WHERE name = ?"
RESOLVE: Final = "UPDATE main.dead_letters SET resolved_by = ?1 WHERE id = ?2 AND COALESCE(resolved_by, ?1) = ?1"
INSERT_NOTICE: Final = (
    f"INSERT INTO main.notices ({', '.join(NOTICE_COLUMNS)}) VALUES ({', '.join('?' for _ in NOTICE_COLUMNS)})"
)
REPLAYED: Final = (
    "SELECT MIN(d.resolved_by) FROM main.dead_letters d JOIN main.etl_runs r ON r.id = d.resolved_by "
    "WHERE d.run_id = ? AND r.superseded_by IS NULL"
)
SUPERSEDE: Final = (
    "UPDATE main.etl_runs SET superseded_by = ? "
    f"WHERE job_name = ? AND content_sha256 = ? AND variant = ? AND {STANDS} RETURNING id"
)
NEXT_COMMIT: Final = "(SELECT COALESCE(MAX(commit_no), 0) + 1 FROM main.etl_runs)"
BEGIN_RUN: Final = (
    "INSERT INTO etl_runs (job_name, status, started_at, file_name, file_size, claim, host, file_mtime, variant) "
    "VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (claim) WHERE status = 'running' "
    "DO UPDATE SET host = excluded.host, job_name = excluded.job_name, variant = excluded.variant RETURNING id"
)
SUCCEED: Final = (
    "UPDATE main.etl_runs SET status = 'success', rows_in = ?, rows_out = ?, rows_rejected = ?, rows_skipped = ?, "
    "rows_stale = ?, rows_filtered = ?, rows_deleted = ?, duration_ms = ?, finished_at = ?, file_size = ?, "
    "content_sha256 = ?, watermark = ?, duplicate_of = ?, table_name = ?, "
    f"commit_no = {NEXT_COMMIT} WHERE id = ? AND status = 'running'"
)


def begin_run(connection: driver.Connection, start: RunStart) -> int:
    """Write the ``running`` row, and return its id; a claim's own running row is used again."""
    row = (
        *(start.feed, start.started_at, start.file_name, start.file_size, start.claim, start.host),
        *(start.file_mtime, start.variant),
    )
    return int(connection.execute(BEGIN_RUN, row).fetchall()[0][0])


class SqliteFile:
    """The verbs of a file's transaction. Owned by the thread that opened it."""

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
        self._connection = connection
        self._scratch = scratch
        self._faults = faults
        self._begin_writing = begin_writing
        self._run_id = work.run_id
        self._feed = feed = work.feed
        self._now = now
        self._start = work.start
        self._force = work.force
        self._variant = work.variant
        with faults:
            self._sql = scratch.statements(feed)
        values = {"run": work.run_id, "feed": feed.name, "table": feed.table, "watermark": None}
        self._staging = Staging(connection, faults, self._sql, values)
        self._way = self._way_of(feed)
        self._scope: tuple[Scalar, ...] | None = None
        self._applied = Applied(0, 0, None)
        self._committed = False

    def _way_of(self, feed: Feed) -> Way:
        """Return how the records of this kind of feed become rows."""
        if isinstance(self._sql, AppendSql):
            return Append(self._staging, self._sql)
        if isinstance(self._sql, NewestSql):
            return Newest(self._staging, self._sql, force=self._force)
        assert isinstance(self._sql, ChangesSql)  # noqa: S101 - there is no fourth kind
        return Changes(self._staging, self._sql, feed, force=self._force)

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
        return None if row is None else str(row[0])

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark."""
        with self._faults:
            row = self._connection.execute(WATERMARK, (watermark_name(self._feed, self._scope),)).fetchone()
        return None if row is None else from_text(self._feed, row[0])

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage."""
        staging = self._staging
        staging.values["watermark"] = watermark
        with self._faults:
            skipped = self._way.count_skipped()
            if staging.records or self._feed.mode is Mode.SNAPSHOT:
                self._applied = self._way.apply(skipped)
            rejected, rejects_skipped = self._write_rejects()
            resolve_applied(staging, self._feed, self._applied.records, on_postgres=False)
        applied = self._applied
        return Counts(
            rows_in=staging.records + staging.rejects + staging.filtered,
            rows_out=applied.records,
            rows_rejected=rejected,
            rows_skipped=skipped + rejects_skipped,
            rows_stale=staging.records - skipped - applied.records,
            rows_filtered=staging.filtered,
            rows_deleted=applied.deleted,
        )

    def _write_rejects(self) -> tuple[int, int]:
        if not self._staging.rejects:
            return 0, 0
        rejected = self._staging.change(self._sql.dead_letters())
        self._staging.change(self._sql.lineage_of_rejects())
        return rejected, self._staging.rejects - rejected

    def repeated(self) -> int:
        """Count the staged records with the key of an earlier one from which the cursor does not tell them apart."""
        if self._feed.mode is Mode.APPEND or self._staging.records <= 1:
            return 0
        with self._faults:
            return self._staging.count_slices(self._sql.count_repeated)

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected by code."""
        with self._faults:
            return dict(self._staging.rows(self._sql.count_rejected()))

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected records in file order."""
        if not self._staging.rejects:
            return []
        with self._faults:
            return [Reject(*row) for row in self._staging.rows(self._sql.first_rejects(), limit=limit)]

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do; writes to the scratch file alone."""
        staging = self._staging
        staging.values["watermark"] = watermark
        found = Foreseen()
        with self._faults:
            staging.end()
            skipped = self._way.count_skipped()
            if staging.records or self._feed.mode is Mode.SNAPSHOT:
                there = self._connection.execute(TABLE_IS_THERE, (self._feed.table,)).fetchone() is not None
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
            if staging.records:
                staging.change_slices(lambda part: self._sql.insert_lineage(part, "2"))
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
            return self._connection.executemany(RESOLVE, ((self._run_id, letter) for letter in letters)).rowcount

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
            if end.notices:
                self._connection.executemany(INSERT_NOTICE, notice_values(end))
        if updated != 1:
            message = f"run {self._run_id} is no longer ours"
            raise TransientFault(RUN_TAKEN, message, "another program is working on this file")

    def _supersede(self, sha256: str) -> None:
        """Take the place of the run that had loaded this content; an append feed's rows of it go."""
        content = (self._run_id, self._feed.name, sha256, self._variant)
        for (run_id,) in self._connection.execute(SUPERSEDE, content).fetchall():
            if self._feed.mode is Mode.APPEND:
                refuse_replayed(run_id, self._connection.execute(REPLAYED, (run_id,)).fetchone()[0])
                run = quoted(self._feed.own_columns.run_id)
                self._connection.execute(f"DELETE FROM main.{quoted(self._feed.table)} WHERE {run} = ?", (run_id,))

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
        self._faults.silence(self._staging.bytes / SLOW_DISK)
        try:
            yield
        finally:
            self._faults.silence(0)
