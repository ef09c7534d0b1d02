"""What becomes of a file and of its records: steps, outcomes, counts, verdicts.

Nothing but the standard library and the model; no input or output, nothing that changes after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inboxd.model import Cursor, Row, Scalar


class RunStatus(StrEnum):
    """``etl_runs.status``: running → success (in the file's transaction), or → failure (after a rollback)."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"


class LineageStep(StrEnum):
    """``lineage.step``: what became of a record."""

    STAGE = "stage"
    LOAD = "load"
    STALE = "stale"
    SKIP = "skip"
    REJECT = "reject"
    DELETE = "delete"


class Step(StrEnum):
    """The steps of a file's way, in order. Each is a boundary at which a crash must be harmless.

    The hook (see ``Hook``) is called before and after each. Production times the steps with it, the crash
    tests kill the process there, so a step added here is tested without anybody writing a test.
    """

    CLAIM = "claim"
    BEGIN = "begin"
    STAGE = "stage"
    SEAL = "seal"
    LOCK = "lock"
    UPSERT = "upsert"
    ADVANCE = "advance"
    RECORD = "record"
    COMMIT = "commit"
    ARCHIVE = "archive"


class Edge(StrEnum):
    """The two sides of a step."""

    BEFORE = "before"
    AFTER = "after"


Hook = Callable[[Step, Edge], None]


class Outcome(StrEnum):
    """How an attempt at a file ended; each has one log event."""

    LOADED = "loaded"
    DUPLICATE = "duplicate"
    FAILED = "failed"


ALL_REJECTED: Final = "all_rejected"
"""In the ledger such a file is a success, as nothing went wrong; nobody who watches takes it for one."""


UNREADABLE_KEY: Final = "?"


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was refused. ``cursor`` is ``None`` when it could not be read: then it is never skipped."""

    record_no: int
    raw: str
    record_key: str
    cursor: Cursor | None
    code: str
    detail: str
    context: str | None = None
    """What the feed reads for it from outside of it: a JSON object from path to value; ``None`` if nothing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One window of records, decoded and validated: the good ones by column, the others one by one; in file order.

    A million tuples cost the allocator, the garbage collector and the cache a third of the staging: columns do not.
    """

    columns: Sequence[Sequence[Scalar]]
    """One per name of the feed's ``row_columns``; none at all where no record was good."""
    rejects: Sequence[Reject]
    size: int
    """How many unpacked bytes of the file it came from."""
    filtered: int = 0
    """How many records are none of the feed's: ``where`` leaves them out, or there was nothing at the path."""

    @property
    def rows(self) -> list[Row]:
        """The good records as tuples."""
        return list(zip(*self.columns, strict=True))


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a file's records: ``rows_in`` is the sum of all others but ``rows_deleted``, which is of rows."""

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    rows_skipped: int = 0
    rows_stale: int = 0
    rows_filtered: int = 0
    rows_deleted: int = 0

    @property
    def all_rejected(self) -> bool:
        """Whether there were records for the feed, and every one not skipped was rejected."""
        return self.rows_rejected > 0 and not self.rows_out and not self.rows_stale

    def named(self) -> dict[str, int]:
        """Return the counts under their names in logs, tables and reports."""
        return {name: getattr(self, name) for name in self.__slots__}


TOLD: Final = {"rows_out": "loaded"} | {name: name.removeprefix("rows_") for name in Counts.__slots__[2:]}
"""What the counts but ``rows_in`` are called where people are told of them."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """What is known of a run before its work begins: the ``running`` row."""

    feed: str
    started_at: str
    host: str
    file_name: str | None = None
    file_size: int | None = None
    claim: str | None = None
    file_mtime: str | None = None
    """Canonical text."""
    variant: str = ""
    """What of the file's name and path makes its content another one: a JSON object, ``""`` if nothing does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a file ended: everything its log line, its ``etl_runs`` row and a command's output say."""

    outcome: Outcome
    run_id: int
    feed: str
    file_name: str
    counts: Counts = Counts()
    duration_ms: int = 0
    size: int = 0
    sha256: str | None = None
    watermark: Cursor | None = None
    duplicate_of: int | None = None
    error_code: str | None = None
    error: str | None = None
    hint: str = ""
    place: tuple[int, int, int] | None = None
    """Line and column (from 1) and byte offset (from 0) of the fault, where it has one."""
    keys_repeat: int = 0
    """Records with the key of an earlier one of the file from which the cursor does not tell them apart."""
    details: Mapping[str, object] | None = None
    """Further entries of a failed file's report."""
    errors: tuple[str, ...] = ()
    """The first 100 rejects of the file as ``"key: code"``."""
    content_returned: bool = False
    """A duplicate of a feed in which the last file wins, and other content came in between: it would change rows."""

    @property
    def outcome_name(self) -> str:
        """The outcome in metrics, page and status: a file of which every record was rejected is told apart."""
        return ALL_REJECTED if self.outcome is Outcome.LOADED and self.counts.all_rejected else self.outcome.value
