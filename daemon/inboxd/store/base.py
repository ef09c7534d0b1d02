"""What goes into a store and comes out of it.

Timestamps are canonical text (``2026-01-15T10:30:00.000000Z``) on both databases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from inboxd.errors import FileFault
from inboxd.model import Cursor, Feed
from inboxd.outcomes import RunStart, RunStatus, Verdict

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


def left_out(table: str, what: str) -> FileFault:
    """Return the fault of a file of which a trigger or rule not of inboxd's making left a change out without a word."""
    message = f"a trigger or rule of table {table!r} left out {what}"
    hint = (
        "`inboxd doctor` names the triggers and rules that somebody added to your table: take it away, let it raise an "
        "error, or leave such records out by the feed's `where`; then `inboxd retry`"
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
