"""The nouns: what every other module talks about.

Lowest floor. Standard library only, no input or output, nothing that changes after it was made.

Values inside inboxd have one form on their way from the decoder to both databases:

=============  ==============================================================================
field type     Python value
=============  ==============================================================================
``text``       ``str`` without U+0000 and without lone surrogates
``integer``    ``int`` in -2**63 … 2**63-1
``real``       ``float``, finite
``boolean``    ``bool``
``timestamp``  ``str``, UTC, exactly ``2026-01-15T10:30:00.000000Z``: sorts as it reads
``date``       ``str``, exactly ``2026-01-15``
``json``       ``str``, the JSON source text of the value
=============  ==============================================================================

An optional field that is absent and has no default is ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Cursor = str | int
"""A cursor value: canonical text of a timestamp or date, or an integer. Compared within one feed only."""

Scalar = str | int | float | bool | None
Row = tuple[Scalar, ...]
"""One valid record, in the order of ``Feed.row_columns``."""


class FieldType(StrEnum):
    """The types a field may have."""

    TEXT = "text"
    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    JSON = "json"


class Late(StrEnum):
    """What a feed does with a record at or below its watermark."""

    SKIP = "skip"
    MERGE = "merge"


class Extra(StrEnum):
    """What a feed does with fields that it does not name."""

    IGNORE = "ignore"
    REJECT = "reject"
    KEEP = "keep"


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


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field of a feed.

    ``path`` leads to the value inside the record, outermost name first. ``minimum`` and ``maximum`` are in the
    field's own value form (canonical text for timestamps and dates); ``unit`` is the unit of an epoch number.
    """

    name: str
    type: FieldType
    path: tuple[str, ...]
    label: str
    required: bool = True
    default: Scalar = None
    minimum: Scalar = None
    maximum: Scalar = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    choices: tuple[Scalar, ...] | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """``max_rejected``: a share of the records not skipped (0.0 … 1.0), or a count; exactly one is set."""

    share: float | None = None
    count: int | None = None

    def exceeded(self, rejected: int, considered: int) -> bool:
        """Tell whether ``rejected`` of ``considered`` records (those not skipped) are too many."""
        if self.count is not None:
            return rejected > self.count
        return self.share is not None and rejected > self.share * considered


EXTRA_COLUMN: Final = "extra"
RECORD_KEY_COLUMN: Final = "record_key"
RECORD_NO_COLUMN: Final = "record_no"


@dataclass(frozen=True, slots=True)
class Feed:
    """A named kind of file: which files, which fields, which table."""

    name: str
    match: tuple[str, ...]
    table: str
    key: tuple[str, ...]
    cursor: str
    fields: tuple[Field, ...]
    records: tuple[str, ...] = ()
    late: Late = Late.SKIP
    max_future_s: float = 86_400.0
    max_rejected: RejectLimit = RejectLimit(share=1.0)
    extra: Extra = Extra.IGNORE
    undo: bool = False

    def __hash__(self) -> int:
        """Hash the name alone: what is made once for a feed is looked up for each file, and no two feeds share one."""
        return hash(self.name)

    def field(self, name: str) -> Field:
        """Return the field of that name; raises ``KeyError``."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    @property
    def cursor_field(self) -> Field:
        """The field whose value orders the records."""
        return self.field(self.cursor)

    @property
    def columns(self) -> tuple[str, ...]:
        """The target table's columns that come from the record, in the order of the feed's fields."""
        names = tuple(field.name for field in self.fields)
        return (*names, EXTRA_COLUMN) if self.extra is Extra.KEEP else names

    @property
    def record_key_column(self) -> str:
        """The staged column that holds the key's text: the key itself when it is one text field."""
        if len(self.key) == 1 and self.field(self.key[0]).type is FieldType.TEXT:
            return self.key[0]
        return RECORD_KEY_COLUMN

    @property
    def row_columns(self) -> tuple[str, ...]:
        """What a ``Row`` holds: ``columns``, then ``record_key`` if it is not one of them, then ``record_no``."""
        if self.record_key_column == RECORD_KEY_COLUMN:
            return (*self.columns, RECORD_KEY_COLUMN, RECORD_NO_COLUMN)
        return (*self.columns, RECORD_NO_COLUMN)


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

    @property
    def rows(self) -> list[Row]:
        """The good records as tuples."""
        return list(zip(*self.columns, strict=True))


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a file's records: ``rows_in`` is the sum of the four others."""

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    rows_skipped: int = 0
    rows_stale: int = 0

    @property
    def all_rejected(self) -> bool:
        """Whether there were records for the feed, and every one not skipped was rejected."""
        return self.rows_rejected > 0 and not self.rows_out and not self.rows_stale


@dataclass(frozen=True, slots=True)
class RunStart:
    """What is known of a run before its work begins: the ``running`` row."""

    feed: str
    started_at: str
    host: str
    file_name: str | None = None
    file_size: int | None = None
    claim: str | None = None


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
    details: Mapping[str, object] | None = None
    """Further entries of a failed file's report."""
    errors: tuple[str, ...] = ()
    """The first 100 rejects of the file as ``"key: code"``."""

    @property
    def told(self) -> str:
        """The outcome in metrics, page and status: a file of which every record was rejected is told apart."""
        return ALL_REJECTED if self.outcome is Outcome.LOADED and self.counts.all_rejected else self.outcome.value


def printable(name: str) -> str:
    """Return a file name as text that any encoder takes: bytes that are not UTF-8 are backslash-escaped.

    ``name`` is as ``os.fsdecode`` gives it: bytes that are not UTF-8 are lone surrogates in it.
    """
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that no file name can hold: it came from elsewhere
        return name.encode("utf-8", "backslashreplace").decode("utf-8")
