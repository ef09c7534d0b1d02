"""What every store can do: the verbs of a file's transaction, in the order in which they are used, and the reads.

Timestamps are canonical text (``2026-01-15T10:30:00.000000Z``) on both databases. All methods raise ``TransientFault``
when the database is locked, gone, full or broken, and ``FileFault`` when it refuses the data: ``refused_by_database``
where a rule of the user's own does, else ``internal_error``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

from inboxd.errors import FileFault
from inboxd.model import Batch, Counts, Cursor, Feed, Reject, RunStart, RunStatus, Scalar, Verdict

if TYPE_CHECKING:  # SQLAlchemy costs 0.1 s to import: only code that reads with it pays
    import sqlalchemy as sa


ANNOUNCED_LENGTH: Final = 56
"""Of a host's name as much is announced: PostgreSQL's names of sessions have 63 bytes, and ours begin with a word."""


CONTROL_TABLES: Final = frozenset(
    {"etl_runs", "dead_letters", "lineage_records", "watermarks", "before_images"}
    | {"tombstones", "notices", "expectations", "feed_columns"}
)
"""Inboxd's own tables: what refuses a row of theirs is a fault of inboxd's."""


def refused(rule: str, reason: str) -> FileFault:
    """Return the fault of a file whose data a rule refused not of inboxd's making; ``reason`` is the driver's word."""
    message = f"the table's own rule refused a row: {rule} ({reason.strip()})"
    hint = (
        "somebody added this constraint, index or trigger to your table: mend the records, or take the rule away, "
        "then `inboxd retry`"
    )
    return FileFault("refused_by_database", message, hint)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a command waits while another program holds what it needs: so many seconds, and whom it tells."""

    wait_s: float
    waiting: Callable[[], None]
    """Called while it waits, perhaps several times."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a file's transaction is for; the arguments of ``Store.transaction``."""

    run_id: int
    feed: Feed
    force: bool = False
    variant: str = ""
    start: RunStart | None = None


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """What one receiver is told of one event: a row of ``notices``. ``id`` is the event's, the same for all of them."""

    id: str
    target: str
    event: str
    created: str
    run_id: int | None
    feed: str | None
    body: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended, and when; the notices of it are written with it."""

    verdict: Verdict
    finished_at: str
    notices: tuple[NoticeRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified:
    """What would become of a file's records: ``check``'s answer, from reading only.

    Each record is in one of the counts but ``deleted``, which is of rows.
    """

    inserted: int = 0
    changed: int = 0
    stale: int = 0
    skipped: int = 0
    rejected: int = 0
    filtered: int = 0
    deletions: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What a file's valid records did: how many applied, how many rows went, and the largest cursor that applied."""

    records: int
    deleted: int
    largest: Cursor | None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The same told beforehand: new rows, changed ones, records that delete, rows that would go."""

    inserted: int = 0
    changed: int = 0
    deletions: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of ``etl_runs``. Imported rows have ``None`` where inboxd alone counts."""

    id: int
    job_name: str
    status: RunStatus
    rows_in: int
    rows_out: int
    rows_rejected: int | None
    rows_skipped: int | None
    rows_stale: int | None
    duration_ms: int
    started_at: str
    finished_at: str | None
    file_name: str | None
    file_size: int | None
    content_sha256: str | None
    watermark: str | None
    error_code: str | None
    error: str | None
    duplicate_of: int | None
    superseded_by: int | None
    undo_of: int | None
    claim: str | None
    host: str | None
    rows_filtered: int | None
    rows_deleted: int | None
    commit_no: int | None
    """The order of commits; ``None`` until then."""
    file_mtime: str | None
    variant: str
    """What of the file's name and path makes its content another one: a JSON object, ``""`` if nothing does."""
    report: str | None
    """What a failed file's report holds beyond this row, as JSON."""
    file_removed: str | None
    """When it became known that the archived file was removed: by retention, or by an operator on purpose."""
    table_name: str | None
    """The table that it loaded into; ``None`` of a run that loaded nothing, or was written by the first version."""

    @property
    def all_rejected(self) -> bool:
        """Whether there were records for the feed, and every one not skipped was rejected."""
        return bool(self.rows_rejected) and not self.rows_out and not self.rows_stale


@dataclass(frozen=True, slots=True)
class TableCounts:
    """Exact numbers of rows: in the feeds' tables together, in ``dead_letters``, in the ``lineage`` view."""

    target_rows: int
    dead_letters: int
    lineage_entries: int


@dataclass(frozen=True, slots=True)
class WatermarkRow:
    """One row of ``watermarks``; ``value`` is the cursor's text, also of an integer."""

    name: str
    value: str
    run_id: int | None
    updated_at: str


class Way(Protocol):
    """How the staged records of one kind of feed become rows."""

    def count_skipped(self) -> int:
        """Count the staged records at or below the watermark."""
        ...

    def apply(self, skipped: int) -> Applied:
        """Apply what was staged, and write its lineage; ``skipped`` of the records are left out."""
        ...

    def foresee(self, skipped: int, *, table: bool) -> Foreseen:
        """Tell what ``apply`` would do, writing to no real table; ``table``: whether there is one to look at."""
        ...


@runtime_checkable
class Finder(Way, Protocol):
    """A way that finds out what a file changes before it is changed."""

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Leave out the records of a replay whose key was applied later."""
        ...

    def refuse(self, deleted: int) -> None:
        """Refuse the file if ``max_deleted`` does not allow that so many rows go."""
        ...


class FileTransaction(Protocol):
    """One file's one transaction. Leaving its block without ``commit`` rolls everything back."""

    def stage(self, batch: Batch) -> None:
        """Take one window of records. Locks nothing that others want."""
        ...

    def lock(self) -> int:
        """Begin the short lock: nothing that is read from here on can change before ``commit``; return the run's id."""
        ...

    def duplicate_of(self, sha256: str) -> int | None:
        """Return the run that loaded this content for this feed and still stands."""
        ...

    def has_loaded(self, size: int) -> bool:
        """Tell whether a run that stands loaded a file of so many bytes for this feed. Asked without a lock."""
        ...

    def followed(self, run_id: int) -> bool:
        """Tell whether other content of this feed was loaded after a run, and still stands."""
        ...

    def last_finished_at(self) -> str | None:
        """Return when the last of inboxd's own runs ended."""
        ...

    def watermark(self) -> Cursor | None:
        """Return the feed's watermark."""
        ...

    def upsert(self, watermark: Cursor | None) -> Counts:
        """Skip, reject and apply what was staged, and write the dead letters and the lineage.

        A record at or below ``watermark`` is skipped; with ``None`` none is. Raises ``FileFault``
        ``too_many_deleted`` where more rows would go than the feed's ``max_deleted`` allows.
        """
        ...

    def repeated(self) -> int:
        """Count the staged records with the key of an earlier one from which the cursor does not tell them apart.

        After ``upsert`` or ``classify``. On SQLite a very large file may have some more: each slice is counted alone.
        """
        ...

    def rejected_counts(self) -> Mapping[str, int]:
        """Return how many records were rejected (not skipped) by code; after ``upsert`` or ``classify``."""
        ...

    def first_faults(self, limit: int) -> Sequence[Reject]:
        """Return the first rejected (not skipped) records in file order; after ``upsert`` or ``classify``."""
        ...

    def classify(self, watermark: Cursor | None) -> Classified:
        """Tell what ``upsert`` would do, writing to no real table and taking no lock. Instead of ``lock``."""
        ...

    def outdate(self, origins: Sequence[tuple[str, int, int, int]]) -> None:
        """Let staged records of a feed without a cursor be stale whose key was applied after they had come.

        Each is told by its key and number, and by the run and number it had when it was refused. After ``lock``.
        """
        ...

    def refuse_deletions(self, deleted: int) -> None:
        """Raise ``FileFault`` ``too_many_deleted`` where ``classify`` found that more rows would go than may."""
        ...

    def staged(self) -> int:
        """Return how many records were staged, rejects included."""
        ...

    def scopes(self) -> Sequence[tuple[Scalar, ...]]:
        """Return the combinations of the values of a snapshot's scope that the staged records have; two at most."""
        ...

    def cover(self, scope: tuple[Scalar, ...]) -> None:
        """Say which scope a snapshot is of. After ``lock``, before all that follows."""
        ...

    def skip(self) -> Counts:
        """Skip everything that was staged, valid or not, and write its lineage. Instead of ``upsert``."""
        ...

    def mark(self, as_of: Cursor) -> None:
        """Let the scope's watermark be this run's: raise it to the snapshot's moment. Instead of ``advance``."""
        ...

    def resolve(self, ids: Sequence[int]) -> int:
        """Mark dead letters as resolved by this run; returns how many of them no other has resolved. After ``lock``."""
        ...

    def advance(self, limit: Cursor | None) -> Cursor | None:
        """Raise the feed's watermark to the largest cursor this run committed, at most ``limit``.

        Returns that largest cursor, uncapped, or ``None`` when nothing was loaded.
        """
        ...

    def record(self, end: RunEnd) -> None:
        """Turn the run's row from running to success (a duplicate is one, with zero counts)."""
        ...

    def commit(self) -> None:
        """Make it all durable at once."""
        ...


class Store(Protocol):
    """One database. Its writing half is owned by one thread; the reads may be called from any."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Let go of the database. May be called twice."""
        ...

    # Who is there

    def announce(self, host: str) -> None:
        """Let everybody see that a daemon of this host is up, for as long as its session lasts. Call it once."""
        ...

    def identity(self) -> str:
        """Return what tells this database from every other one, whatever URL leads to it."""
        ...

    def announced(self) -> frozenset[str] | None:
        """Return the hosts whose daemons are up, by ``ANNOUNCED_LENGTH`` of their names; ``None``: unknown."""
        ...

    # The schema

    def schema_current(self) -> bool:
        """Tell whether the control tables are of this version of inboxd."""
        ...

    def upgrade(self) -> bool:
        """Migrate the control tables; returns whether anything was to do. ``OperatorFault`` if they are newer."""
        ...

    def prepare(self, feeds: Sequence[Feed]) -> None:
        """Create the feeds' tables and add the columns of new fields.

        Raises ``OperatorFault`` ``schema_mismatch`` with every difference that would drop or retype a column or
        change a key, having changed nothing.
        """
        ...

    # A file's way

    def begin(self, start: RunStart, *, small: bool = False) -> int:
        """Commit the ``running`` row, not durably, and return its id; a claim's own running row is used again.

        A ``small`` file's run may begin with its transaction instead: then there is none yet, and this returns 0.
        """
        ...

    def transaction(
        self, run_id: int, feed: Feed, *, force: bool = False, variant: str = "", start: RunStart | None = None
    ) -> AbstractContextManager[FileTransaction]:
        """Open a file's transaction. ``force``: an equal cursor is applied too, and the content's run is superseded.

        ``variant`` is what of the file's name and path makes its content another one, as in ``RunStart``.
        """
        ...

    def fail(self, run_id: int, end: RunEnd) -> None:
        """Turn the run's row from running to failure, with zero counts."""
        ...

    def drop(self, run_id: int) -> None:
        """Delete a ``running`` row: an orderly stop."""
        ...

    def drop_claim(self, claim: str) -> None:
        """Delete the claim's ``running`` row, if it has one: an orderly stop, or a file that settles again.

        Raises ``TransientFault`` ``run_taken`` when the claim is another daemon's by now.
        """
        ...

    # What a crash left

    def interrupt_abandoned(self, finished_at: str) -> list[RunRow]:
        """Turn ``running`` rows of files whose daemon is gone into failures with code ``interrupted``; return them.

        SQLite: all rows with a claim, because the caller holds the daemon's lock. PostgreSQL: those whose daemon's
        session is gone.
        """
        ...

    def take_over(self, claim: str, finished_at: str) -> bool:
        """Make ours a claim that no living daemon holds, and tell whether it was so.

        Its ``running`` row, if any, becomes ``interrupted``. Until ``let_go`` no other daemon gets it.
        """
        ...

    def keep(self, claim: str) -> bool:
        """Tell whether a claim is still ours; a lost connection may have given it to another daemon."""
        ...

    def let_go(self, claim: str) -> None:
        """Give a claim up: its file was moved to where it belongs."""
        ...

    def turn(self, feed: Feed) -> AbstractContextManager[None]:
        """Hold the turn of an ordered feed while a command works on its file; waits until no daemon has one at work."""
        ...

    def take_turn(self, feed: str) -> bool:
        """Make it this daemon's turn to claim files of an ordered feed; ``False`` while it is another's."""
        ...

    def end_turn(self, feed: str) -> None:
        """Let others have their turn."""
        ...

    def runs_of_claim(self, claim: str) -> list[RunRow]:
        """Return the runs of a claim, oldest first."""
        ...

    # Reads

    def run(self, run_id: int) -> RunRow | None:
        """Return one run."""
        ...

    def runs(
        self,
        *,
        job: str | None = None,
        status: RunStatus | None = None,
        before: int | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> list[RunRow]:
        """Return runs, newest first: of a job, a status, with an id below ``before``, begun at ``since`` or later."""
        ...

    def table_counts(self, feeds: Sequence[Feed]) -> TableCounts:
        """Count the rows of the feeds' tables, the dead letters and the lineage."""
        ...

    def watermarks(self) -> list[WatermarkRow]:
        """Return every feed's watermark, by name."""
        ...

    def set_watermark(self, name: str, value: Cursor | None, updated_at: str) -> None:
        """Put a watermark (see ``cursors.watermark_name``) where the operator wants it; ``None`` removes it."""
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """Lend a SQLAlchemy connection with one consistent view of the database, for questions."""
        ...

    def await_commits(self, connection: sa.Connection) -> None:
        """Return once what was committed can be seen on every node of the database; ``DatabaseFault`` if that lasts."""
        ...

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """Lend a SQLAlchemy connection in one durable write transaction, committed at the block's end or not at all."""
        ...
