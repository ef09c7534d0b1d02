"""One file's one transaction: its verbs, in the order in which they are used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from inboxd.errors import RUN_TAKEN, TransientFault
from inboxd.model import Cursor, Mode, Scalar
from inboxd.outcomes import Batch, Counts, Outcome, Reject
from inboxd.store.base import Applied, Classified, Finder, Foreseen, RunEnd, Way, Work, left_out
from inboxd.store.cursors import at_or_below, from_database, from_text, watermark_name
from inboxd.store.dialects import Dialect, quoted
from inboxd.store.ledger import (
    NOTICE_COLUMNS,
    canonical,
    notice_values,
    refuse_replayed,
    success_values,
)
from inboxd.store.resolving import resolve_applied

if TYPE_CHECKING:
    from inboxd.store import postgres_sql, postgres_staging, sqlite_sql, sqlite_staging

STANDS: Final = "status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL"


class LedgerSql:
    """The statements on the ledger that a file's run needs."""

    def __init__(self, dialect: Dialect) -> None:
        schema, mark, moment = dialect.schema, dialect.mark, dialect.moment
        runs = f"{schema}etl_runs"
        content = f"job_name = {mark} AND content_sha256 = {mark} AND variant = {mark} AND {STANDS}"
        notice = (moment if name == "created" else mark for name in NOTICE_COLUMNS)
        self.duplicate = f"SELECT id FROM {runs} WHERE {content}"
        self.has_loaded = (
            f"SELECT 1 FROM {runs} WHERE job_name = {mark} AND content_sha256 IS NOT NULL AND {STANDS} "
            f"AND file_size = {mark} LIMIT 1"
        )
        self.followed = (
            f"SELECT 1 FROM {runs} WHERE job_name = {mark} AND content_sha256 IS NOT NULL AND {STANDS} "
            f"AND commit_no > (SELECT commit_no FROM {runs} WHERE id = {mark}) LIMIT 1"
        )
        self.last_finished = f"SELECT finished_at FROM {runs} WHERE commit_no > 0 ORDER BY commit_no DESC LIMIT 1"
        self.watermark = f"SELECT value FROM {schema}watermarks WHERE name = {mark}"
        self.resolve = (
            f"UPDATE {schema}dead_letters SET resolved_by = {mark} WHERE id = {mark} "
            f"AND COALESCE(resolved_by, {mark}) = {mark}"
        )
        self.replayed = (
            f"SELECT MIN(d.resolved_by) FROM {schema}dead_letters d JOIN {runs} r ON r.id = d.resolved_by "
            f"WHERE d.run_id = {mark} AND r.superseded_by IS NULL AND r.content_sha256 IS NULL"
        )
        self.settle = (
            f"UPDATE {schema}dead_letters SET resolved_by = {mark} WHERE run_id = {mark} AND resolved_by IS NULL"
        )
        self.supersede = f"UPDATE {runs} SET superseded_by = {mark} WHERE {content} RETURNING id"
        self.succeed = (
            f"UPDATE {runs} SET status = 'success', {', '.join(f'{name} = {mark}' for name in Counts.__slots__)}, "
            f"duration_ms = {mark}, finished_at = {moment}, file_size = {mark}, content_sha256 = {mark}, "
            f"watermark = {mark}, duplicate_of = {mark}, table_name = {mark}, commit_no = {dialect.next_commit} "
            f"WHERE id = {mark} AND status = 'running'"
        )
        self.fail = (
            f"UPDATE {runs} SET status = 'failure', duration_ms = {mark}, finished_at = {moment}, "
            f"file_size = COALESCE({mark}, file_size), content_sha256 = {mark}, error_code = {mark}, error = {mark}, "
            f"report = {mark}, commit_no = {dialect.next_commit} WHERE id = {mark} AND status = 'running'"
        )
        self.notice = f"INSERT INTO {schema}notices ({', '.join(NOTICE_COLUMNS)}) VALUES ({', '.join(notice)})"


class FileTransaction(ABC):
    """One file's one transaction. Leaving its block without ``commit`` rolls everything back.

    Owned by the thread that opened it.
    """

    _ledger: LedgerSql
    _on_postgres: bool

    def __init__(
        self,
        work: Work,
        *,
        connection: Any,  # noqa: ANN401 - either driver's
        sql: postgres_sql.FeedSql | sqlite_sql.FeedSql,
        staging: postgres_staging.Staging | sqlite_staging.Staging,
        way: Way,
        faults: AbstractContextManager[None],
        now: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._feed = work.feed
        self._run_id = work.run_id
        self._force = work.force
        self._variant = work.variant
        self._says = sql
        self._staged = staging
        self._way = way
        self._faults = faults
        self._now = now
        self._read_watermark = self._ledger.watermark
        self._scope: tuple[Scalar, ...] | None = None
        self._applied = Applied(0, 0, None)

    @abstractmethod
    def stage(self, batch: Batch) -> None:
        """Take one window of records. Locks nothing that others want."""

    @abstractmethod
    def lock(self) -> int:
        """Begin the short lock: nothing that is read from here on can change before ``commit``; return the run's id."""

    @abstractmethod
    def commit(self) -> None:
        """Make it all durable at once."""

    # What each database does in its own way

    @abstractmethod
    def _finish_staging(self) -> None:
        """Write what is left to be staged."""

    @abstractmethod
    def _has_table(self) -> bool:
        """Tell whether the feed's table is there."""

    @abstractmethod
    def _count_repeated(self) -> int: ...

    @abstractmethod
    def _skip_records(self) -> None:
        """Write the lineage of staged records that are all skipped."""

    # Under the short lock

    def duplicate_of(self, sha256: str) -> int | None:
        """Return the run that loaded this content for this feed and still stands."""
        with self._faults:
            row = self._connection.execute(self._ledger.duplicate, (self._feed.name, sha256, self._variant)).fetchone()
        return None if row is None else int(row[0])

    def has_loaded(self, size: int) -> bool:
        """Tell whether a run that stands loaded a file of so many bytes for this feed. Asked without a lock."""
        with self._faults:
            return self._connection.execute(self._ledger.has_loaded, (self._feed.name, size)).fetchone() is not None

    def followed(self, run_id: int) -> bool:
        """Tell whether other content of this feed was loaded after a run, and still stands."""
        with self._faults:
            return self._connection.execute(self._ledger.followed, (self._feed.name, run_id)).fetchone() is not None

    def last_finished_at(self) -> str | None:
        """Return when the last of inboxd's own runs ended."""
        with self._faults:
            row = self._connection.execute(self._ledger.last_finished).fetchone()
        return None if row is None else canonical(row[0])

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark."""
        name = watermark_name(self._feed, self._scope)
        with self._faults:
            row = self._connection.execute(self._read_watermark, (name,)).fetchone()
        return None if row is None else from_text(self._feed, row[0])

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage.

        A record at or below ``watermark`` is skipped; with ``None`` none is. Raises ``FileFault``
        ``too_many_deleted`` where more rows would go than the feed's ``max_deleted`` allows.
        """
        staged = self._staged
        staged.values["watermark"] = watermark
        rejected = 0
        with self._faults:
            skipped = self._way.count_skipped()
            if staged.records or self._feed.mode is Mode.SNAPSHOT:
                self._applied = self._way.apply(skipped)
            if staged.rejects:
                rejected = staged.change(self._says.dead_letters())
                staged.change(self._says.lineage_of_rejects())
            resolve_applied(staged, self._feed, self._applied.records, on_postgres=self._on_postgres)
        applied = self._applied
        return Counts(
            rows_in=staged.records + staged.rejects + staged.filtered,
            rows_out=applied.records,
            rows_rejected=rejected,
            rows_skipped=skipped + staged.rejects - rejected,
            rows_stale=staged.records - skipped - applied.records,
            rows_filtered=staged.filtered,
            rows_deleted=applied.deleted,
        )

    def repeated(self) -> int:
        """Count the staged records with the key of an earlier one from which the cursor does not tell them apart.

        After ``upsert`` or ``classify``. On SQLite a very large file may have some more: each slice is counted alone.
        """
        if self._feed.mode is Mode.APPEND or self._staged.records <= 1:
            return 0
        with self._faults:
            return self._count_repeated()

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected (not skipped) by code; after ``upsert`` or ``classify``."""
        with self._faults:
            return dict(self._staged.rows(self._says.count_rejected()))

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected (not skipped) records in file order; after ``upsert`` or ``classify``."""
        if not self._staged.rejects:
            return []
        with self._faults:
            return [
                Reject(number, raw, key, from_database(cursor), *rest)
                for number, raw, key, cursor, *rest in self._staged.rows(self._says.first_rejects(), limit=limit)
            ]

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do, writing to no real table and taking no lock. Instead of ``lock``."""
        staged = self._staged
        staged.values["watermark"] = watermark
        found = Foreseen()
        with self._faults:
            self._finish_staging()
            skipped = self._way.count_skipped()
            if staged.records or self._feed.mode is Mode.SNAPSHOT:
                found = self._way.foresee(skipped, table=self._has_table())
            rejected = sum(self.rejected_counts().values()) if staged.rejects else 0
        return Classified(
            inserted=found.inserted,
            changed=found.changed,
            stale=staged.records - skipped - found.inserted - found.changed - found.deletions,
            skipped=skipped + staged.rejects - rejected,
            rejected=rejected,
            filtered=staged.filtered,
            deletions=found.deletions,
            deleted=found.deleted,
        )

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Let staged records of a feed without a cursor be stale whose key was applied after they had come.

        Each is told by its key and number, and by the run and number it had when it was refused. After ``lock``.
        """
        if isinstance(self._way, Finder):
            with self._faults:
                self._way.outdate(origins)

    def refuse_deletions(self, deleted: int) -> None:
        """Raise ``FileFault`` ``too_many_deleted`` where ``classify`` found that more rows would go than may."""
        if isinstance(self._way, Finder):
            with self._faults:
                self._way.refuse(deleted)

    def staged(self) -> int:
        """Return how many records were staged, rejects included."""
        return self._staged.records + self._staged.rejects

    def scopes(self) -> Sequence[tuple[Scalar, ...]]:
        """Return the combinations of the values of a snapshot's scope that the staged records have; two at most."""
        return [*self._staged.scopes.found][:2]

    def cover(self, scope: tuple[Scalar, ...]) -> None:
        """Say which scope a snapshot is of. After ``lock``, before all that follows."""
        self._scope = scope
        self._staged.values.update({f"scope{place}": value for place, value in enumerate(scope)})

    def skip(self) -> Counts:
        """Skip everything that was staged, valid or not, and write its lineage. Instead of ``upsert``."""
        with self._faults:
            self._skip_records()
            self._staged.change(self._says.skip_rejects())
        staged, filtered = self.staged(), self._staged.filtered
        return Counts(rows_in=staged + filtered, rows_skipped=staged, rows_filtered=filtered)

    def mark(self, as_of: Cursor) -> None:
        """Let the scope's watermark be this run's: raise it to the snapshot's moment. Instead of ``advance``."""
        about = {"name": watermark_name(self._feed, self._scope), "reached": str(as_of)}
        with self._faults:
            if self._feed.undo:
                self._staged.change(self._says.save_watermark(), **about)
            self._staged.change(self._says.mark(), **about)

    def resolve(self, ids: Sequence[int]) -> int:
        """Mark dead letters as resolved by this run; returns how many of them no other has resolved. After ``lock``."""
        run = self._run_id
        cursor = self._connection.cursor()
        with self._faults:
            cursor.executemany(self._ledger.resolve, [(run, dead_letter, run, run) for dead_letter in ids])
        return int(cursor.rowcount)

    def advance(self, limit: Cursor | None) -> Cursor | None:
        """Raise the feed's watermark to the largest cursor this run committed, at most ``limit``.

        Returns that largest cursor, uncapped, or ``None`` when nothing was loaded.
        """
        largest = self._applied.largest
        if largest is None:
            return None
        reached = largest if limit is None or at_or_below(largest, limit) else limit
        with self._faults:
            self._staged.change(self._says.advance(), reached=str(reached))
        return largest

    def record(self, end: RunEnd) -> None:
        """Turn the run's row from running to success (a duplicate is one, with zero counts)."""
        verdict = end.verdict
        with self._faults:
            replaces = self._force or self._feed.mode is Mode.SNAPSHOT
            if replaces and verdict.outcome is Outcome.LOADED and verdict.sha256 is not None:
                self._supersede(verdict.sha256)
            values = (*success_values(end, self._feed), self._run_id)
            updated = self._connection.execute(self._ledger.succeed, values).rowcount
            for notice in notice_values(end):
                self._connection.execute(self._ledger.notice, notice)
        if updated != 1:
            raise run_is_taken(self._run_id)

    def _supersede(self, sha256: str) -> None:
        """Take the place of the run that had loaded this content; an append feed's rows of it go.

        The records that it had refused were judged again by this run: what was open of them is resolved.
        """
        content = (self._run_id, self._feed.name, sha256, self._variant)
        for (run_id,) in self._connection.execute(self._ledger.supersede, content).fetchall():
            if self._feed.mode is Mode.APPEND:
                refuse_replayed(run_id, self._connection.execute(self._ledger.replayed, (run_id,)).fetchone()[0])
                table, run = quoted(self._feed.table), quoted(self._feed.own_columns.run_id)
                self._connection.execute(f"DELETE FROM {table} WHERE {run} = {int(run_id)}")
                still_there = f"SELECT 1 FROM {table} WHERE {run} = {int(run_id)} LIMIT 1"
                if self._connection.execute(still_there).fetchone() is not None:
                    raise left_out(self._feed.table, f"the removal of the rows of run {run_id}")
            self._connection.execute(self._ledger.settle, (self._run_id, run_id))


def run_is_taken(run_id: int) -> TransientFault:
    """Return the error of a run whose row is no longer ours."""
    message = f"run {run_id} is no longer ours"
    return TransientFault(RUN_TAKEN, message, "another program is working on this file")
