"""What feed fits some files: paths, types, a likely key and cursor, told from a sample of their records.

A guess for a person to edit, so it leans to the side that loses nothing: what was absent once is optional, what had
two types is ``json``, a number with a fraction anywhere is ``real``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from inboxd.errors import FileFault
from inboxd.model import Feed, Field, FieldType
from inboxd.records.decode import read_batches
from inboxd.records.times import day, timestamp
from inboxd.records.unpack import ByteStream

Opener = Callable[[], AbstractContextManager[ByteStream]]
Member = Any  # Any: whatever a JSON document holds

SAMPLE: Final = 10_000
"""Records looked at, of all files together."""
MOST_FIELDS: Final = 60
"""With more leaves than this, nested objects are kept as ``json`` in place of being taken apart."""
DEEPEST: Final = 4
HEAD: Final = 1 << 20
"""Bytes in which an envelope's array must begin."""
EPOCHS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}
EPOCH_SPAN: Final = (946_684_800, 4_102_444_800)
"""2000 to 2100, in seconds: whole numbers in this span may be points in time."""
KEY_NAMES: Final = ("id", "key", "uuid", "guid", "eventid", "event_id", "record_id", "name")
CURSOR_NAMES: Final = (
    "updated_at",
    "updated",
    "modified",
    "ts",
    "timestamp",
    "eventtime",
    "time",
    "created_at",
    "created",
)

_PROBE: Final = Feed(
    name="probe",
    match=("**",),
    table="probe",
    key=("probe",),
    cursor="at",
    fields=(
        Field("probe", FieldType.TEXT, ("\0 inboxd probe",), "probe"),
        Field("at", FieldType.INTEGER, ("\0 inboxd probe",), "at"),
    ),
)
"""A feed that no record fits: each is given back as a reject, with its exact source."""
_ARRAY: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_]+")
_NUMBER: Final = re.compile(r"\s*[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*", re.ASCII)
"""Text that a ``real`` field takes for a number."""
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(slots=True)
class Leaf:
    """One path in the records, and what was found there."""

    path: tuple[str, ...]
    seen: int = 0
    kinds: set[str] = field(default_factory=set)
    values: set[object] = field(default_factory=set)
    units: set[str] = field(default_factory=lambda: set(EPOCHS))

    def take(self, value: Member) -> None:
        """Note one value; null is the same as absent."""
        if value is None:
            return
        self.seen += 1
        self.kinds.add(_kind(value))
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            self.values.add(value)
            self.units = {unit for unit in self.units if _in_span(value, unit)}

    @property
    def type(self) -> FieldType:
        """The narrowest type that all values fit."""
        kinds = self.kinds
        if kinds == {"integer"}:
            return FieldType.INTEGER
        if kinds & {"integer", "real"} and kinds <= {"integer", "real", "number"}:
            return FieldType.REAL
        if kinds and kinds <= {"timestamp", "date"}:
            return FieldType.DATE if kinds == {"date"} else FieldType.TIMESTAMP
        if kinds and kinds <= {"timestamp", "date", "text", "number", "blank"}:
            return FieldType.TEXT
        return FieldType.BOOLEAN if kinds == {"boolean"} else FieldType.JSON

    @property
    def unit(self) -> str | None:
        """The unit of whole numbers that look like points in time."""
        if self.kinds != {"integer"} or len(self.values) < 1:
            return None
        return next((unit for unit in EPOCHS if unit in self.units), None)


@dataclass(frozen=True, slots=True)
class Guess:
    """One field of the feed that is proposed."""

    name: str
    path: tuple[str, ...]
    type: FieldType
    required: bool
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A feed that fits the samples; ``key`` or ``cursor`` is empty where nothing was fit for it."""

    records: tuple[str, ...]
    sampled: int
    key: tuple[str, ...]
    cursor: str
    fields: tuple[Guess, ...]


def infer(openers: Sequence[Opener], *, reserved: Collection[str] = ()) -> Proposal:
    """Look at files and propose a feed; raises ``FileFault`` where a file is broken or holds no objects.

    ``reserved`` are names that no field may have.
    """
    records_path = _envelope(openers[0])
    documents = [json.loads(raw) for raw in _sources(openers, records_path)]
    objects = [document for document in documents if isinstance(document, dict)]
    if not objects:
        raise FileFault("no_records", "there are no objects in it", "a record is a JSON object")
    leaves = _leaves(objects)
    return _propose(records_path, len(objects), leaves, reserved)


def _sources(openers: Sequence[Opener], path: tuple[str, ...]) -> Iterator[str]:
    left = SAMPLE
    for opener in openers:
        for raw in _raw_records(opener, path):
            yield raw
            left -= 1
            if not left:
                return


def _raw_records(opener: Opener, path: tuple[str, ...]) -> Iterator[str]:
    probe = Feed("probe", ("**",), "probe", ("probe",), "at", _PROBE.fields, records=path)
    with opener() as stream:
        for batch in read_batches(stream, probe, now=datetime.now(UTC), max_size=1 << 62):
            for reject in batch.rejects:
                yield reject.raw


def _envelope(opener: Opener) -> tuple[str, ...]:
    """Return where the records sit: ``()`` at the top level, else the path of the first array of objects."""
    with opener() as stream:
        head = stream.read(HEAD)
    if not _lone_object(opener, head):
        return ()
    for match in _ARRAY.finditer(head):
        name: str = json.loads(b'"' + match.group(1) + b'"')
        for path in ((name,), *((outer, name) for outer in _outer_names(head[: match.start()]))):
            if _holds_records(opener, path):
                return path
    return ()


def _lone_object(opener: Opener, head: bytes) -> bool:
    """Tell whether the file is one object, which may be an envelope: not an array, nor records one after another."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return False
    try:
        records = _raw_records(opener, ())
        return next(records, None) is None or next(records, None) is None
    except FileFault as fault:
        return fault.code == "record_too_large"


def _outer_names(before: bytes) -> list[str]:
    return [json.loads(b'"' + name + b'"') for name in re.findall(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\{', before)]


def _holds_records(opener: Opener, path: tuple[str, ...]) -> bool:
    try:
        return next(_raw_records(opener, path), None) is not None
    except FileFault:
        return False


def _leaves(objects: Sequence[dict[str, Member]]) -> list[Leaf]:
    """Take the records apart; with too many leaves, only their first level."""
    leaves: dict[tuple[str, ...], Leaf] = {}
    for deepest in (DEEPEST, 2, 1):
        leaves = {}
        for document in objects:
            for path, value in _walk(document, (), deepest):
                leaves.setdefault(path, Leaf(path)).take(value)
        if len(leaves) <= MOST_FIELDS:
            break
    found = [leaf for leaf in leaves.values() if leaf.kinds]
    whole = {leaf.path for leaf in found if not leaf.kinds <= {"object"}}
    return [leaf for leaf in found if not any(leaf.path[:end] in whole for end in range(1, len(leaf.path)))]


def _walk(value: dict[str, Member], path: tuple[str, ...], deepest: int) -> Iterator[tuple[tuple[str, ...], Member]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and len(path) + 1 < deepest:
            yield from _walk(inner, (*path, name), deepest)
        else:
            yield (*path, name), inner


def _kind(value: Member) -> str:  # noqa: PLR0911 - one return for each kind
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "real"
    if isinstance(value, float):
        return "real"
    if not isinstance(value, str):
        return "object"
    if not value or value.isspace():
        return "blank"
    if _NUMBER.fullmatch(value):
        return "number"
    if day(value) is not None:
        return "date"
    return "timestamp" if timestamp(value) is not None else "text"


def _in_span(value: object, unit: str) -> bool:
    earliest, latest = EPOCH_SPAN
    return isinstance(value, int) and earliest * EPOCHS[unit] <= value < latest * EPOCHS[unit]


def _propose(
    records_path: tuple[str, ...], sampled: int, leaves: Sequence[Leaf], reserved: Collection[str]
) -> Proposal:
    names = _names([leaf.path for leaf in leaves], reserved)
    key = _likely(leaves, KEY_NAMES, lambda leaf: _fit_for_key(leaf, sampled) and len(leaf.values) == sampled)
    key = key or _likely(leaves, KEY_NAMES, lambda leaf: _fit_for_key(leaf, sampled) and _named_like_key(leaf))
    cursor = _likely(leaves, CURSOR_NAMES, lambda leaf: _fit_for_cursor(leaf, sampled))
    guesses = tuple(
        Guess(
            name=names[leaf.path],
            path=leaf.path,
            type=FieldType.TIMESTAMP if leaf.unit and _named_like_time(leaf) else leaf.type,
            required=leaf in (key, cursor) or (leaf.seen == sampled and "blank" not in leaf.kinds),
            unit=leaf.unit if leaf.unit and _named_like_time(leaf) else None,
        )
        for leaf in leaves
    )
    return Proposal(
        records=records_path,
        sampled=sampled,
        key=(names[key.path],) if key else (),
        cursor=names[cursor.path] if cursor else "",
        fields=guesses,
    )


def _likely(leaves: Sequence[Leaf], usual: Sequence[str], fit: Callable[[Leaf], bool]) -> Leaf | None:
    """Return the leaf that is fit and has the most usual name; failing such names, the first one that is fit."""
    fitting = [leaf for leaf in leaves if fit(leaf)]
    ranked = [
        (usual.index(plain), len(leaf.path), leaf) for leaf in fitting if (plain := leaf.path[-1].lower()) in usual
    ]
    if ranked:
        return min(ranked, key=lambda one: (one[1], one[0]))[2]
    return fitting[0] if fitting else None


def _fit_for_key(leaf: Leaf, sampled: int) -> bool:
    kind = leaf.type in {FieldType.TEXT, FieldType.INTEGER} and "blank" not in leaf.kinds
    return kind and leaf.seen == sampled


def _named_like_key(leaf: Leaf) -> bool:
    """Tell whether the name says so: the samples may hold several versions of one row."""
    name = _plain(leaf.path[-1])
    return name in KEY_NAMES or name.endswith("_id")


def _fit_for_cursor(leaf: Leaf, sampled: int) -> bool:
    timely = leaf.type in {FieldType.TIMESTAMP, FieldType.DATE} or (leaf.unit is not None and _named_like_time(leaf))
    return timely and leaf.seen == sampled


def _named_like_time(leaf: Leaf) -> bool:
    name = leaf.path[-1].lower()
    return name in CURSOR_NAMES or any(part in name for part in ("time", "date", "updated", "created", "_at", "stamp"))


def _names(paths: Sequence[tuple[str, ...]], reserved: Collection[str]) -> dict[tuple[str, ...], str]:
    """Return a column's name for each path: its last name if that is nobody else's, else all of it."""
    last = [_plain(path[-1]) for path in paths]
    taken: set[str] = set()
    names: dict[tuple[str, ...], str] = {}
    for path, short in zip(paths, last, strict=True):
        name = short if last.count(short) == 1 else "_".join(_plain(part) for part in path)
        while name in taken or name in reserved:
            name += "_"
        taken.add(name)
        names[path] = name
    return names


def _plain(name: str) -> str:
    """Return a name as a column is called: snake case, nothing that needs quotes."""
    plain = _NOT_A_NAME.sub("_", _CAMEL.sub("_", name)).strip("_").lower()
    return plain if plain and not plain[0].isdigit() else f"f_{plain}"
