"""One file's one transaction on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from types import TracebackType
from typing import Any, Final, Self

from inboxd.errors import RUN_TAKEN, InboxdError, WorldFault
from inboxd.model import Batch, Counts, Cursor, Feed, Outcome, Reject, Scalar
from inboxd.store.base import Classified, RunEnd
from inboxd.store.cursors import Extent, at_or_below, from_text
from inboxd.store.ledger import NOTICE_COLUMNS, notice_values, success_values
from inboxd.store.sqlite_driver import SqliteFaults, driver
from inboxd.store.sqlite_scratch import Scratch
from inboxd.store.sqlite_sql import Part

CHUNK_BYTES: Final = 3 << 18
"""From so many bytes of a file (unpacked) on, so after one window, what has come is sorted. Smaller chunks are staged
faster, in the processor's cache, but make more runs: to read slices of them, ten million records took 53 s with one
window a chunk, 49 s with two."""
RUNS_OF_SMALL_CHUNKS: Final = 64
"""Then a file is large, and its chunks are of two windows."""
SAMPLE_RECORDS: Final = 512
SAMPLE_BYTES: Final = 3 << 14
"""A slice is made of parts of so many records or bytes at most: after as many of a sorted chunk a slice may end."""
SAMPLES: Final = 16
"""So many parts change the target in one statement. SQLite keeps each page's former content in memory until it ends."""
MOST_SAMPLES: Final = 128
"""So many at most where there are many runs: a slice that takes few records of each seeks more than it reads."""
GOLDEN_RATIO: Final = 0.618_033_988_749
"""Its multiples, without their whole parts, spread evenly however many there are (Knuth, TAOCP 3, 6.4)."""
LARGE: Final = 32 << 20
"""From so many bytes of a file on, COMMIT may keep a slow disk busy for longer than a watchdog waits."""
SLOW_DISK: Final = 2 << 20
"""Bytes of a file that are surely committed in a second: some four times as many are written."""
READ_AT_ONCE: Final = 500
"""Sorted runs in one statement: SQLite takes no more SELECTs in a compound."""

FIND_DUPLICATE: Final = (
    "SELECT id FROM main.etl_runs WHERE job_name = ? AND content_sha256 = ? AND status = 'success' "
    "AND duplicate_of IS NULL AND superseded_by IS NULL"
)
LAST_FINISHED: Final = (
    "SELECT finished_at FROM main.etl_runs WHERE finished_at IS NOT NULL AND rows_rejected IS NOT NULL "
    "ORDER BY id DESC LIMIT 1"
)
WATERMARK: Final = "SELECT value FROM main.watermarks WHERE name = ?"
TABLE_IS_THERE: Final = "SELECT 1 FROM main.sqlite_schema WHERE name = ?"
RESOLVE: Final = "UPDATE main.dead_letters SET resolved_by = ? WHERE id = ? AND resolved_by IS NULL"
INSERT_NOTICE: Final = (
    f"INSERT INTO main.notices ({', '.join(NOTICE_COLUMNS)}) VALUES ({', '.join('?' for _ in NOTICE_COLUMNS)})"
)
SUPERSEDE: Final = (
    "UPDATE main.etl_runs SET superseded_by = ? WHERE job_name = ? AND content_sha256 = ? AND status = 'success' "
    "AND duplicate_of IS NULL AND superseded_by IS NULL"
)
SUCCEED: Final = (
    "UPDATE main.etl_runs SET status = 'success', rows_in = ?, rows_out = ?, rows_rejected = ?, rows_skipped = ?, "
    "rows_stale = ?, duration_ms = ?, finished_at = ?, file_size = ?, content_sha256 = ?, watermark = ?, "
    "duplicate_of = ? WHERE id = ? AND status = 'running'"
)


class SqliteFile:
    """The verbs of a file's transaction. Owned by the thread that opened it."""

    def __init__(
        self,
        connection: driver.Connection,
        scratch: Scratch,
        faults: SqliteFaults,
        begin_writing: Callable[[], None],
        run_id: int,
        feed: Feed,
        *,
        now: Callable[[], str],
        force: bool,
    ) -> None:
        self._connection = connection
        self._scratch = scratch
        self._faults = faults
        self._begin_writing = begin_writing
        self._run_id = run_id
        self._feed = feed
        self._now = now
        self._force = force
        with faults:
            self._sql = scratch.statements(feed)
        self._values: dict[str, object] = {"run": run_id, "feed": feed.name, "table": feed.table, "watermark": None}
        self._extent = Extent(feed)
        self._chunk: list[list[Scalar]] = [[] for _ in self._sql.columns]
        self._chunk_bytes = 0
        self._bytes = 0
        self._samples: list[tuple[Any, ...]] = []
        self._runs = 0
        self._records = 0
        self._rejects = 0
        self._used_winners = False
        self._largest_loaded: Cursor | None = None
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
        if not self._committed or not self._is_small:
            self._scratch.renew()

    @property
    def _is_small(self) -> bool:
        """Tell whether the scratch file is worth keeping: it does not shrink when it is emptied."""
        return self._runs <= 1 and self._bytes < 2 * CHUNK_BYTES

    # Staging: a transaction that touches nothing but the scratch file, and so locks nothing

    def stage(self, batch: Batch) -> None:
        """Take one window of records; full chunks are sorted and written to the scratch file."""
        for staged, more in zip(self._chunk, batch.columns, strict=False):  # there are none where no record is good
            staged.extend(more)
        self._chunk_bytes += batch.size
        self._bytes += batch.size
        if batch.rejects:
            with self._faults:
                self._begin_staging()
                rejects = ((r.record_no, r.raw, r.record_key, r.cursor, r.code, r.detail) for r in batch.rejects)
                self._connection.executemany(self._sql.stage_rejects(), rejects)
            self._rejects += len(batch.rejects)
        if self._chunk_bytes >= CHUNK_BYTES * (1 if self._runs < RUNS_OF_SMALL_CHUNKS else 2):
            self._write_chunk()

    def _write_chunk(self) -> None:
        columns, size = self._chunk, self._chunk_bytes
        self._chunk, self._chunk_bytes = [[] for _ in columns], 0
        number = len(columns[0])
        if not number:
            return
        self._extent.add(columns)
        keys = self._keys(columns)
        order = sorted(range(number), key=keys.__getitem__)  # stable, in file order: by key, then record number
        every = max(1, min(SAMPLE_RECORDS, number * SAMPLE_BYTES // max(1, size)))
        self._runs += 1
        # Chunks are much alike: without a start of its own for each, all samples would lie around the same few places.
        sampled = order[int(self._runs * GOLDEN_RATIO % 1 * every) :: every]
        self._samples += zip(*([columns[place][i] for i in sampled] for place in self._sql.order_places), strict=True)
        self._records += number
        with self._faults:
            self._begin_staging()
            if self._runs > 1:
                self._connection.execute(self._sql.create_run(self._runs))
            self._insert(columns, order)

    def _keys(self, columns: Sequence[Sequence[Scalar]]) -> Sequence[Any]:
        """Return what the records are sorted by: the key's column, or tuples of its columns."""
        first, *others = (columns[place] for place in self._sql.key_places)
        return list(zip(first, *others, strict=True)) if others else first

    def _insert(self, columns: Sequence[Sequence[Scalar]], order: list[int]) -> None:
        """Insert the records in this order, many at once, their values one behind the other."""
        width = len(columns)
        values: list[Scalar] = [None] * (width * len(order))
        pick = itemgetter(*order)
        for place, column in enumerate(columns):
            values[place::width] = pick(column) if len(order) > 1 else column
        at_once = self._sql.rows_at_once
        whole = len(order) // at_once * at_once
        for rows, first, end in ((at_once, 0, whole), (1, whole, len(order))):
            if first < end:
                step = rows * width
                parts = (values[at : at + step] for at in range(first * width, end * width, step))
                self._connection.executemany(self._sql.stage(self._runs, rows), parts)

    def _begin_staging(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")

    def _end_staging(self) -> None:
        self._write_chunk()
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    # The short lock

    def lock(self) -> None:
        """Write what is left of the staging, then take SQLite's one write lock."""
        with self._faults:
            self._end_staging()
            self._begin_writing()
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
        return None if row is None else str(row[0])

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark."""
        with self._faults:
            row = self._connection.execute(WATERMARK, (self._feed.name,)).fetchone()
        return None if row is None else from_text(self._feed, row[0])

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage."""
        self._values["watermark"] = watermark
        with self._faults:
            skipped = self._count_skipped(watermark)
            applied = self._apply(skipped) if self._records else 0
            rejected, rejects_skipped = self._write_rejects()
        return Counts(
            rows_in=self._records + self._rejects,
            rows_out=applied,
            rows_rejected=rejected,
            rows_skipped=skipped + rejects_skipped,
            rows_stale=self._records - skipped - applied,
        )

    def _apply(self, skipped: int) -> int:
        """Return how many records were loaded. The fast way is for records that met no other and no newer row."""
        considered = self._records - skipped
        if not self._feed.undo:
            applied = self._change_slices(lambda part: self._sql.upsert(part, skipped > 0, self._force))
            if applied == considered:
                self._largest_loaded = self._extent.highest if considered else None
                self._change_slices(lambda part: self._sql.lineage(part, skipped > 0))
                return applied
        return self._apply_winners(skipped)

    def _apply_winners(self, skipped: int) -> int:
        self._find_winners(skipped)
        if self._feed.undo:
            self._change(self._sql.save_images(force=self._force))
        self._change_slices(lambda part: self._sql.upsert_winners(part, force=self._force))
        loaded, self._largest_loaded = self._connection.execute(self._sql.count_winners(), self._values).fetchone()
        self._change_slices(self._sql.lineage_of_winners)
        return int(loaded)

    def _find_winners(self, skipped: int) -> None:
        self._used_winners = True
        self._change_slices(lambda part: self._sql.find_winners(part, skipping=skipped > 0))

    def _count_skipped(self, watermark: Cursor | None) -> int:
        if not self._extent.reaches_down_to(watermark):
            return 0
        counts = (self._connection.execute(self._sql.count_skipped(part), self._values) for part in self._parts())
        return sum(int(count.fetchone()[0]) for count in counts)

    def _write_rejects(self) -> tuple[int, int]:
        if not self._rejects:
            return 0, 0
        rejected = self._change(self._sql.dead_letters())
        self._change(self._sql.lineage_of_rejects())
        return rejected, self._rejects - rejected

    def _parts(self, *, low: bool = False, high: bool = False, numbered: bool = False) -> Iterator[Part]:
        """Yield the runs to read in one statement, in file order."""
        for first in range(1, self._runs + 1, READ_AT_ONCE):
            yield Part(first, min(first + READ_AT_ONCE - 1, self._runs), low, high, numbered)

    def _change_slices(self, statement: Callable[[Part], str]) -> int:
        """Change a table one slice of the keys after the other; returns how many rows that touched."""
        ends, numbered = self._slice_ends()
        touched = 0
        for low, high in zip([None, *ends], [*ends, None], strict=True):
            values = {**self._values, **_bound("low", low), **_bound("high", high)}
            for part in self._parts(low=low is not None, high=high is not None, numbered=numbered):
                touched += self._connection.execute(statement(part), values).rowcount
        return touched

    def _slice_ends(self) -> tuple[Sequence[tuple[Any, ...]], bool]:
        """Return where slices of the key's range end, and whether that is told by record numbers as well."""
        size = self._samples_a_slice()
        ends = sorted(self._samples)[size - 1 :: size]
        keys = [end[:-1] for end in ends]
        if len(set(keys)) == len(keys):
            return keys, False  # a key alone is compared faster
        return ends, True

    def _samples_a_slice(self) -> int:
        """Return how many parts make up a slice: more the more runs, unless the target's pages are many.

        Records that lie far from each other in the target change a page each, and a statement's pages are in memory.
        """
        wanted = min(self._runs // 4, MOST_SAMPLES)
        if wanted <= SAMPLES:
            return SAMPLES
        pages = int(self._connection.execute("PRAGMA main.page_count").fetchone()[0])
        return max(SAMPLES, min(wanted, SAMPLES * self._records // pages))

    def _change(self, statement: str) -> int:
        return self._connection.execute(statement, self._values).rowcount

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected by code."""
        with self._faults:
            return dict(self._connection.execute(self._sql.count_rejected(), self._values).fetchall())

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected records in file order."""
        if not self._rejects:
            return []
        with self._faults:
            rows = self._connection.execute(self._sql.first_rejects(), {**self._values, "limit": limit}).fetchall()
        return [Reject(*row) for row in rows]

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do; writes to the scratch file alone."""
        self._values["watermark"] = watermark
        with self._faults:
            self._end_staging()
            skipped = self._count_skipped(watermark)
            self._find_winners(skipped)
            table = self._connection.execute(TABLE_IS_THERE, (self._feed.table,)).fetchone()
            statement = self._sql.classify_winners(force=self._force) if table else self._sql.count_candidates()
            inserted, changed = self._connection.execute(statement).fetchone()
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
            return self._connection.executemany(RESOLVE, ((self._run_id, letter) for letter in letters)).rowcount

    def advance(self, limit: Cursor | None) -> Cursor | None:
        """Raise the feed's watermark to the largest cursor this run committed, at most ``limit``."""
        largest = self._largest_loaded
        if largest is None:
            return None
        reached = largest if limit is None or at_or_below(largest, limit) else limit
        with self._faults:
            self._connection.execute(self._sql.advance, {**self._values, "reached": str(reached)})
        return largest

    def record(self, end: RunEnd) -> None:
        """Turn the run's row from running to success."""
        verdict = end.verdict
        with self._faults:
            if self._force and verdict.outcome is Outcome.LOADED and verdict.sha256 is not None:
                self._connection.execute(SUPERSEDE, (self._run_id, self._feed.name, verdict.sha256))
            updated = self._connection.execute(SUCCEED, (*success_values(end), self._run_id)).rowcount
            if end.notices:
                self._connection.executemany(INSERT_NOTICE, notice_values(end))
        if updated != 1:
            raise WorldFault(RUN_TAKEN, f"run {self._run_id} is no longer ours", "another program works on this file")

    def commit(self) -> None:
        """Make it durable, leaving the scratch file empty."""
        with self._faults, self._long_wait():
            if self._is_small:
                self._empty_staging()
            self._connection.execute("COMMIT")
        self._committed = True

    @contextmanager
    def _long_wait(self) -> Iterator[None]:
        """Announce that COMMIT, and the checkpoint in it, may take a while: SQLite calls nobody during them."""
        if self._bytes < LARGE:
            yield
            return
        self._faults.silence(self._bytes / SLOW_DISK)
        try:
            yield
        finally:
            self._faults.silence(0)

    def _empty_staging(self) -> None:
        if self._runs:
            self._connection.execute(self._sql.empty_first_run)
        if self._used_winners:
            self._connection.execute(f"DELETE FROM {self._sql.winners}")
        if self._rejects:
            self._connection.execute(f"DELETE FROM {self._sql.rejects}")


def _bound(end: str, record: tuple[Any, ...] | None) -> dict[str, object]:
    """Return the parameters of a slice's end."""
    return {f"{end}{place}": value for place, value in enumerate(record or ())}
