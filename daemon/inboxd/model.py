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
``decimal``    ``str``, plain digits with the scale as given: ``-12.50``; no exponent, no plus, no negative zero
``json``       ``str``, the JSON source text of the value
=============  ==============================================================================

An optional field that is absent and has no default is ``None``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import time
from enum import Enum, StrEnum
from fractions import Fraction
from functools import lru_cache
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
    DECIMAL = "decimal"
    JSON = "json"


class Mode(StrEnum):
    """What a file means: news about some rows, facts that are each a row, or everything there is."""

    UPSERT = "upsert"
    APPEND = "append"
    SNAPSHOT = "snapshot"


class Shape(StrEnum):
    """What else stands for records: each member of an object, or each top-level value whatever it is."""

    MEMBERS = "members"
    VALUES = "values"


class Gone(StrEnum):
    """What becomes of the row of a record that is deleted or absent."""

    REMOVE = "remove"
    MARK = "mark"


class Late(StrEnum):
    """What a feed does with a record at or below its watermark."""

    SKIP = "skip"
    MERGE = "merge"


class Extra(StrEnum):
    """What a feed does with fields that it does not name."""

    IGNORE = "ignore"
    REJECT = "reject"
    KEEP = "keep"


class Origin(Enum):
    """The first part of a path that does not begin in the record; ``AROUND`` may be repeated."""

    AROUND = "^"
    """The array element around an exploded record; each further one, the element around that."""
    DOCUMENT = "$"
    """The top-level value around the records."""
    FILE = "$file"
    """``name``, ``path`` or ``mtime`` of the file as it lay in the inbox."""
    CAPTURE = "$path"
    """What the name in braces caught in the feed's ``match``."""
    RECORD = "$record"
    """``no``, ``name`` or ``value`` of the record."""


Path = tuple[str | Origin, ...]
"""The way to a value, outermost name first: names in the record, or one or more ``Origin`` and names from there.

A name that is a number is also the index of an array's element.
"""


def names_of(path: Path) -> tuple[str, ...]:
    """Return the names of a path, without where it begins."""
    return tuple(part for part in path if isinstance(part, str))


def origin_of(path: Path) -> Origin | None:
    """Return where a path begins; ``None`` is the record."""
    return path[0] if path and isinstance(path[0], Origin) else None


def spelled(path: Path) -> str:
    """Return a path as a config file writes it: ``^.^.host``, ``$file.name``, ``actor.login``."""
    return ".".join(part.value if isinstance(part, Origin) else part for part in path)


def is_name(path: Path) -> bool:
    """Tell whether a path leads to a name, of the file, of a part of its path or of a member: to text, always."""
    if path == (Origin.FILE, "mtime"):
        return False
    return origin_of(path) in (Origin.FILE, Origin.CAPTURE) or path == (Origin.RECORD, "name")


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field of a feed.

    ``path`` leads to the value; ``coalesce`` are further paths, tried in order where it leads to nothing or null.
    ``minimum`` and ``maximum`` are in the field's own value form (canonical text for timestamps, dates and decimals).
    """

    name: str
    type: FieldType
    path: Path
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
    """The unit of an epoch number: ``s``, ``ms``, ``us`` or ``ns``."""
    coalesce: tuple[Path, ...] = ()
    formats: tuple[str, ...] = ()
    """strptime's formats, of which the first that fits counts; none for the ISO 8601 forms."""
    timezone: str | None = None
    """The zone of times without an offset, by its name in zoneinfo; ``None`` is UTC."""
    null: tuple[str, ...] = ()
    """Texts that count as null."""
    coerce: bool = False
    """Whether values of another JSON type are taken that say exactly the same."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths of the field, in the order in which they are tried."""
        return (self.path, *self.coalesce)

    @property
    def is_of_file(self) -> bool:
        """Whether it has one value for all records of a document: it comes from around them, and from there alone."""
        return all(origin_of(path) in _OF_FILE for path in self.paths)


_OF_FILE: Final = frozenset({Origin.DOCUMENT, Origin.FILE, Origin.CAPTURE})


@dataclass(frozen=True, slots=True)
class Condition:
    """What a raw JSON value must be; every part that is set must hold.

    The values of ``any_of`` and ``none_of`` are JSON texts, so that ``1`` and ``true`` are two.
    """

    path: Path
    any_of: tuple[str, ...] | None = None
    none_of: tuple[str, ...] | None = None
    pattern: str | None = None
    exists: bool | None = None
    """``True``: it is there and not null; ``False``: it is absent or null."""


@dataclass(frozen=True, slots=True)
class Deletes:
    """Which records are deletions (all of the conditions hold), and what becomes of their rows."""

    conditions: tuple[Condition, ...]
    then: Gone


@dataclass(frozen=True, slots=True)
class Expect:
    """When files of a feed are to arrive: ``every`` so many seconds, or ``by`` a time of some days; one is set."""

    every: float | None = None
    by: time | None = None
    timezone: str = "UTC"
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    """The weekdays of a deadline, 0 is Monday."""
    grace: float = 0.0
    """Seconds."""
    min_records: int = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """A share of so many (0.0 … 1.0), or a count; exactly one is set."""

    share: float | None = None
    count: int | None = None

    def exceeded(self, found: int, considered: int) -> bool:
        """Tell whether ``found`` of ``considered`` are too many. Exact: 29% of 100 are 29."""
        if self.count is not None:
            return found > self.count
        return self.share is not None and found > 0 and found > Fraction(repr(self.share)) * considered

    def most(self, considered: int) -> int:
        """Return how many of ``considered`` may go: a share is rounded up, and at least 1."""
        if self.count is not None:
            return self.count
        return max(1, math.ceil(Fraction(repr(self.share)) * considered))


EXTRA_COLUMN: Final = "extra"
OWN_PREFIX: Final = "inboxd_"
"""How the names begin that columns of ours step aside to; no field's name may."""


@dataclass(frozen=True, slots=True)
class OwnColumns:
    """The names of the columns that inboxd adds to a feed's: each steps aside for a field of its name."""

    run_id: str = "run_id"
    updated_at: str = "updated_at"
    deleted_at: str = "deleted_at"
    extra: str = EXTRA_COLUMN
    record_no: str = "record_no"
    record_key: str = "record_key"
    deletion: str = "inboxd_deletion"
    """Only staged: whether the record is a deletion."""


@lru_cache(maxsize=256)
def own_columns(fields: tuple[str, ...]) -> OwnColumns:
    """Return the names of our columns beside fields of such names; letter case tells no columns apart."""
    taken = {name.lower() for name in fields}
    plain = OwnColumns()
    free = {name: getattr(plain, name) for name in OwnColumns.__slots__}
    return OwnColumns(**{name: OWN_PREFIX + column if column in taken else column for name, column in free.items()})


@dataclass(frozen=True, slots=True)
class Feed:
    """A named kind of file: which files, which fields, which table."""

    name: str
    match: tuple[str, ...]
    table: str
    key: tuple[str, ...]
    """The fields that name a record; none only in an append feed."""
    cursor: str | None
    """The field that tells newer from older; ``None`` where what is applied last is the newest."""
    fields: tuple[Field, ...]
    records: tuple[str, ...] = ()
    late: Late = Late.SKIP
    max_future_s: float = 86_400.0
    max_rejected: Limit = Limit(share=1.0)
    extra: Extra = Extra.IGNORE
    undo: bool = False
    mode: Mode = Mode.UPSERT
    shape: Shape | None = None
    explode: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    deletes: Deletes | None = None
    max_deleted: Limit = Limit(share=1.0)
    """Of the table's live rows, or of those in scope."""
    as_of: Field | None = None
    """The moment of a snapshot; only in snapshot feeds, and always there."""
    absent: Gone | None = None
    """What becomes of the rows that a snapshot has not; only in snapshot feeds, and always there."""
    scope: tuple[str, ...] = ()
    allow_empty: bool = False
    expect: Expect | None = None
    beside: tuple[Field, ...] = ()  # columns that other feeds of its table fill, and it does not

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
    def paths(self) -> tuple[Path, ...]:
        """Every path that it reads, of fields, conditions and the snapshot's moment."""
        deletions = self.deletes.conditions if self.deletes else ()
        return (
            *(path for field in self.fields for path in field.paths),
            *(condition.path for condition in (*self.where, *deletions)),
            *(self.as_of.paths if self.as_of else ()),
        )

    @property
    def cursor_field(self) -> Field:
        """The field whose value orders the records; ``KeyError`` where there is none."""
        return self.field(self.cursor_name)

    @property
    def cursor_name(self) -> str:
        """The cursor's name; ``KeyError`` where there is none."""
        if self.cursor is None:
            raise KeyError(f"feed {self.name!r} has no cursor")
        return self.cursor

    @property
    def mark_field(self) -> Field | None:
        """The field whose values its watermark has: the cursor, or a snapshot's moment; ``None`` without either."""
        return self.as_of or (None if self.cursor is None else self.cursor_field)

    @property
    def own_columns(self) -> OwnColumns:
        """The names of the columns that are not the feed's fields."""
        return _columns_of(self).own

    @property
    def ordered(self) -> bool:
        """Whether its files are applied one after another, in order of arrival, as the last one applied counts."""
        return self.mode is Mode.SNAPSHOT or (self.mode is Mode.UPSERT and self.cursor is None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The target table's columns that come from the record, in the order of the feed's fields."""
        return _columns_of(self).table

    @property
    def record_key_column(self) -> str:
        """The staged column that holds the key's text: the key itself when it is one text field."""
        return _columns_of(self).record_key

    @property
    def row_columns(self) -> tuple[str, ...]:
        """What a ``Row`` holds: ``columns``; the key's text if none of them is it; whether it is a deletion; a number.

        Whether it is a deletion (a ``bool``) only where the feed has ``deletes``; such a row has its key and its
        cursor, and what they come from; all else is ``None``.
        """
        return _columns_of(self).row


@dataclass(frozen=True, slots=True)
class _Columns:
    """A feed's columns, as its properties of these names have them."""

    own: OwnColumns
    record_key: str
    table: tuple[str, ...]
    row: tuple[str, ...]


@lru_cache(maxsize=256)
def _columns_of(feed: Feed) -> _Columns:
    """Put a feed's columns together once: they are asked for with each file."""
    names = tuple(field.name for field in feed.fields)
    own = own_columns(names)
    table = (*names, own.extra) if feed.extra is Extra.KEEP else names
    alone = len(feed.key) == 1 and feed.field(feed.key[0]).type is FieldType.TEXT
    key = () if alone else (own.record_key,)
    deletion = (own.deletion,) if feed.deletes else ()
    return _Columns(own, feed.key[0] if alone else own.record_key, table, (*table, *key, *deletion, own.record_no))


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
