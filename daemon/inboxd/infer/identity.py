"""What tells one record from another, and newer from older: only what the sample shows, by name and by values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inboxd.clock import stamp
from inboxd.infer.columns import ENOUGH, NAME, Column
from inboxd.infer.forms import EPOCHS
from inboxd.infer.names import singular, snake, words
from inboxd.infer.sample import Value
from inboxd.infer.vocabulary import (
    ANY_RECORD,
    COMPANIONS,
    CURSORS,
    ITSELF,
    NOISE,
    OF_THINGS,
    OTHER_TIMES,
    SUFFIXES,
    WRAPPERS,
)
from inboxd.model import FieldType
from inboxd.records.times import timestamp

_KEY_TYPES: Final = frozenset((FieldType.TEXT, FieldType.INTEGER, FieldType.TIMESTAMP, FieldType.DATE))


@dataclass(frozen=True, slots=True)
class Key:
    """The columns that name a record; ``wished`` tells that a person said so, and not the sample."""

    columns: tuple[Column, ...] = ()
    wished: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names of the columns."""
        return frozenset(column.name for column in self.columns)


@dataclass(slots=True)
class Identities:
    """The records of the sample, to ask which columns tell them apart."""

    records: Sequence[tuple[str | None, Value]]
    columns: Sequence[Column]
    subjects: Collection[str]
    """What the records are called: names of the file, of the feed, of the path to them, in the singular."""
    names_identify: bool = False
    """Whether the names of members are identities: not of a map inside a document, which says what they are of."""
    refused: Collection[frozenset[str]] = ()
    """Sets of columns that the proof has found not to be unique."""

    def key(self, cursor: Column | None) -> Key:
        """Return the key that the sample shows; without columns if there is none."""
        fit = [column for column in self.columns if _may_be_key(column)]
        for column in sorted((one for one in fit if self._alone(one)), key=self._rank):
            if self._unique((column,)):
                return Key((column,))
        if len(self.records) >= ENOUGH:
            for pair in self._pairs(fit, cursor):
                if self._unique(pair):
                    return Key(pair)
        return Key()

    def also_unique(self) -> Column | None:
        """Return a column that is unique and looks like an identity, but not of the records."""
        return next(
            (one for one in self.columns if _may_be_key(one) and self._partly(one) and self._unique((one,))), None
        )

    def _unique(self, columns: tuple[Column, ...]) -> bool:
        if frozenset(column.name for column in columns) in self.refused:
            return False
        seen: set[tuple[str, ...]] = set()
        for name, record in self.records:
            values = tuple(_text_at(name, record, column) for column in columns)
            if values in seen:
                return False
            seen.add(values)
        return True

    def _alone(self, column: Column) -> bool:
        """Tell whether a column's name identifies the records: by itself, or as it names them."""
        if column.path == NAME:
            return self.names_identify
        own = _own_name(column)
        if own is None:
            return False
        if own in ITSELF:
            return True
        *subject, last = own.split("_")
        named = OF_THINGS.get(own) or ((singular("_".join(subject)),) if last in SUFFIXES else ())
        return len(self.records) >= ENOUGH and any(name in self.subjects for name in named)

    def _rank(self, column: Column) -> tuple[int, int]:
        own = _own_name(column) or ""
        return (len(column.path), ITSELF.index(own) if own in ITSELF else len(ITSELF))

    def _general(self, column: Column) -> int:
        """Return 0 where a name is that of any record's identity, such as ``event_id``."""
        subject = (_own_name(column) or "").rpartition("_")[0]
        return 0 if subject in ANY_RECORD or subject in self.subjects or not subject else 1

    def _partly(self, column: Column) -> bool:
        """Tell whether a column identifies something, be it the record or what it is about."""
        own = _own_name(column)
        return own is not None and own.rsplit("_", 1)[-1] in (*ITSELF, *SUFFIXES, *OF_THINGS)

    def _pairs(self, fit: Sequence[Column], cursor: Column | None) -> Iterator[tuple[Column, Column]]:
        identities = [column for column in fit if self._partly(column)]
        identities = sorted(identities, key=lambda one: (not self._unique((one,)), self._general(one)))[:_MOST_PARTS]
        if cursor is not None:
            yield from ((one, cursor) for one in identities if one is not cursor)
        several = [one for one in identities if not self._unique((one,))]
        for place, one in enumerate(several):
            yield from ((one, other) for other in several[place + 1 :])
        companions = [one for one in fit if one not in identities and _is_companion(one)][:_MOST_PARTS]
        for one in several:
            yield from ((one, other) for other in companions if not self._unique((other,)))


_MOST_PARTS: Final = 6


def _may_be_key(column: Column) -> bool:
    return column.always and column.kind.type in _KEY_TYPES and column.leaf.short and not column.leaf.blank


def _own_name(column: Column) -> str | None:
    """Return a column's name in snake case if it is the record's own: ``properties.id``, but not ``actor.id``."""
    path = [str(part) for part in column.path if not str(part).startswith("$")]
    while len(path) > 1 and snake(path[0]) in WRAPPERS:
        path = path[1:]
    if not path or len(path) > 2 or (len(path) == 2 and snake(path[1]) not in ITSELF):  # noqa: PLR2004 - order.id
        return None
    return "_".join(map(snake, path)) or None


def _is_companion(column: Column) -> bool:
    return column.kind.type is FieldType.DATE or snake(str(column.path[-1])) in COMPANIONS


def _text_at(name: str | None, record: Value, column: Column) -> str:
    if column.path == NAME:
        return name or ""
    value = record
    for part in column.path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else repr(value)


def cursor_of(columns: Sequence[Column], *, now: datetime, refused: Collection[str] = ()) -> Column | None:
    """Return the column that tells when a record was made or last changed, ``None`` if there is none."""
    ranked = [
        (rank, len(column.path), place, column)
        for place, column in enumerate(columns)
        if column.name not in refused
        and column.always
        and column.kind.type in (FieldType.TIMESTAMP, FieldType.DATE)
        and not _in_future(column, now)
        and (rank := _cursor_rank(column)) is not None
    ]
    return min(ranked, key=lambda one: one[:3])[3] if ranked else None


def _cursor_rank(column: Column) -> int | None:
    names = [str(part) for part in column.path if not str(part).startswith("$")] or [str(column.path[-1])]
    found = set(words(names[-1])) | {"".join(words(names[-1]))}
    if column.kind.type is FieldType.DATE:
        found.discard("version")  # a day in it is that of an API or a format: "api_version": "2020-08-27"
    if not found.isdisjoint(OTHER_TIMES):
        return None
    return next((rank for rank, usual in enumerate(CURSORS) if not usual.isdisjoint(found)), None)


def _in_future(column: Column, now: datetime) -> bool:
    limit = now + timedelta(hours=24)
    if column.kind.unit:
        latest = column.leaf.highest if not column.leaf.texts else max(map(float, column.leaf.texts))
        return latest / EPOCHS[column.kind.unit] > limit.timestamp()
    if column.kind.format:
        return any(datetime.strptime(text, column.kind.format).year > limit.year for text in column.leaf.texts)  # noqa: DTZ007 - the year will do
    return any((timestamp(text) or "") > stamp(limit) for text in column.leaf.texts)


def subjects_of(names: Sequence[str]) -> set[str]:
    """Return what records may be called after files, feeds and paths of such names."""
    found: set[str] = set()
    for name in names:
        parts = words(name)
        while parts and (parts[-1].isdigit() or parts[-1] in NOISE):
            parts.pop()
        found.update(singular("_".join(parts[start:])) for start in range(len(parts)))
    return found - {""}
