"""What becomes of one record: a row, a deletion, a dead letter with its code, or nothing of the feed's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from inboxd.audit.documents import Record
from inboxd.audit.forms import Blank, Wrong, form_of, storable, storable_json, utc
from inboxd.audit.values import at, canonical, comparable, index_of, is_there, members, text_of
from inboxd.model import Condition, Cursor, Extra, Feed, Field, FieldType, Origin, Path, Scalar, names_of, origin_of
from inboxd.outcomes import UNREADABLE_KEY

LONGEST_KEY: Final = 1_024
"""Bytes of a key's text."""
_MISSING: Final = (FieldType.TEXT, FieldType.TIMESTAMP, FieldType.DATE, FieldType.JSON)
"""Types of which an absent value is ``missing_…``; of the others it is ``invalid_…``."""


class Kind(StrEnum):
    """What a record is."""

    FILTERED = "filtered"
    ROW = "row"
    DELETION = "deletion"
    REJECT = "reject"
    ABSENT = "absent"
    """No record: a key that a snapshot has not."""


@dataclass(slots=True)
class Verdict:
    """One judged record. ``values`` are by column, JSON in canonical form; of a deletion its key and cursor alone."""

    number: int
    kind: Kind
    raw: str
    key: str = UNREADABLE_KEY
    cursor: Cursor | None = None
    code: str = ""
    values: dict[str, Scalar] = field(default_factory=dict)


@dataclass(slots=True)
class _Read:
    """One field of a record: its value, or why there is none and what can be read of it all the same."""

    value: Scalar = None
    code: str = ""
    readable: Scalar = None


def key_text(values: Sequence[Scalar]) -> str:
    """Return what a record is called by its key: the text itself, or JSON; of several columns an array."""
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    text = as_array(values)
    return text[1:-1] if len(values) == 1 else text


def as_array(values: Sequence[Scalar]) -> str:
    """Return values as a JSON array. Of the two zeros that a number has there is only one, as in a table."""
    one_zero = [0.0 if isinstance(value, float) and value == 0 else value for value in values]
    return json.dumps(one_zero, ensure_ascii=False, separators=(",", ":"))


class Judge:
    """Judges the records of one feed; ``now`` is when the run began."""

    def __init__(self, feed: Feed, now: datetime) -> None:
        self._feed = feed
        try:
            self._ceiling = utc(now + timedelta(seconds=feed.max_future_s))
        except OverflowError:
            self._ceiling = "9999-12-31T23:59:59.999999Z"
        needed = {*feed.key, *feed.scope, feed.cursor}
        self._fields = [_Field(each, self._ceiling, feed, needed=each.name in needed) for each in feed.fields]
        self._identity = [one for one in self._fields if one.field.name in {*feed.key, feed.cursor}]
        read = [path for each in feed.fields for path in each.paths]
        conditions = (*feed.where, *(feed.deletes.conditions if feed.deletes else ()))
        asked = [condition.path for condition in conditions]
        named = [*read, *asked] if feed.extra is Extra.REJECT else read
        self._known = {path[0] for path in named if origin_of(path) is None and path}
        positions = [path for path in read if origin_of(path) is None and index_of(str(path[0])) is not None]
        self._takes_any = bool(positions) or (Origin.RECORD, "value") in {*read, *asked}

    def judge(self, record: Record) -> Verdict:
        """Return what a record is."""
        feed = self._feed
        verdict = Verdict(record.number, Kind.ROW, record.source)
        if not all(_holds(condition, record) for condition in feed.where):
            verdict.kind = Kind.FILTERED
            return verdict
        deletes = feed.deletes is not None and all(_holds(one, record) for one in feed.deletes.conditions)
        if not record.source.startswith("{") and not self._takes_any:
            verdict.kind, verdict.code = Kind.REJECT, "not_an_object"
            return verdict
        fields = self._identity if deletes else self._fields
        found = {one.field.name: one.read(record) for one in fields}
        self._name(verdict, found)
        verdict.code = next((one.code for one in found.values() if one.code), "")
        if not deletes and feed.extra is not Extra.IGNORE:
            code, extra = self._extra(record.source)
            verdict.code = verdict.code or code
            verdict.values[feed.own_columns.extra] = extra
        verdict.values |= {name: one.value for name, one in found.items()}
        verdict.kind = Kind.REJECT if verdict.code else Kind.DELETION if deletes else Kind.ROW
        return verdict

    def moment(self, record: Record) -> Cursor:
        """Return the moment of a snapshot from what is around a record; raises ``ValueError`` if it is none."""
        feed = self._feed
        if feed.as_of is None:
            raise ValueError(feed.name)
        return _cursor(_Field(feed.as_of, None, feed, needed=True).read(record).value)

    def of_file(self, record: Record) -> tuple[Scalar, ...] | None:
        """Return the values of a snapshot's scope where they come from around the records."""
        scope = [one for name in self._feed.scope for one in self._fields if one.field.name == name]
        return tuple(one.read(record).value for one in scope) if all(one.field.is_of_file for one in scope) else None

    def _name(self, verdict: Verdict, found: dict[str, _Read]) -> None:
        """Set the key and the cursor, as far as they can be read; a key that is too long is a fault of its field."""
        feed = self._feed
        key = [found[name].readable for name in feed.key]
        if None not in key:
            verdict.key = key_text(key) if key else f"#{verdict.number}"
        if len(verdict.key.encode()) > LONGEST_KEY:
            verdict.key = UNREADABLE_KEY
            longest = max(feed.key, key=lambda name: len(key_text([found[name].readable])))
            found[longest].code = f"invalid_{feed.field(longest).label}"
        cursor = found[feed.cursor].readable if feed.cursor is not None else None
        verdict.cursor = cursor if isinstance(cursor, str | int) else None

    def _extra(self, source: str) -> tuple[str, str | None]:
        unknown = {name: one for name, one in members(source) if name not in self._known}
        if not unknown:
            return "", None
        if self._feed.extra is Extra.REJECT:
            return "unexpected_field", None
        if not all(storable(name) and storable_json(one) for name, one in unknown.items()):
            return "invalid_extra", None
        return "", canonical("{" + ",".join(f"{json.dumps(name)}:{one}" for name, one in unknown.items()) + "}")


def _cursor(value: Scalar) -> Cursor:
    if not isinstance(value, str | int):
        raise ValueError(value)  # noqa: TRY004 - the file's value is wrong, not a caller's type
    return value


class _Field:
    """The rules of one field."""

    def __init__(self, declared: Field, ceiling: str | None, feed: Feed, *, needed: bool) -> None:
        self.field = declared
        self._form = form_of(declared)
        self._required = needed or declared.required
        self._default = None if needed else declared.default
        if declared.type is FieldType.JSON and isinstance(self._default, str):
            self._default = canonical(self._default)
        self._optional = not needed and (not declared.required or declared.default is not None)
        self._ceiling = ceiling if declared.name == feed.cursor else None
        self._is_key = declared.name in feed.key
        self._pattern = re.compile(declared.pattern) if declared.pattern is not None else None

    def read(self, record: Record) -> _Read:
        """Return the field of a record: of a repeated name each value must be valid, and the last one counts."""
        found = [self._value(source) for source in self._sources(record)]
        code = next((one.code for one in found if one.code), "")
        readable = found[-1].readable if all(one.readable is not None for one in found) else None
        return _Read(found[-1].value, code, found[-1].readable if not code else readable)

    def _sources(self, record: Record) -> Sequence[str | None]:
        paths, null = self.field.paths, False
        for path in paths:
            found = record.inside(names_of(path)) if origin_of(path) is None else [record.look(path)]
            if len(paths) == 1 or (is_there(found[-1]) and not self._is_null(found[-1] or "")):
                return found
            null = null or found[-1] is not None
        return ["null"] if null else [None]

    def _is_null(self, source: str) -> bool:
        return source == "null" or (bool(self.field.null) and text_of(source) in self.field.null)

    def _value(self, source: str | None) -> _Read:
        label = self.field.label
        missing = f"{'missing' if self.field.type in _MISSING else 'invalid'}_{label}"
        if source is None or self._is_null(source):
            return _Read(self._default, readable=self._default) if self._optional else _Read(code=missing)
        try:
            value = self._form(source)
        except Wrong:
            return _Read(code=f"invalid_{label}")
        except Blank:
            value = None if self._required else self._blank(source)
            if value is None:
                return _Read(code=missing if self._required else f"invalid_{label}")
        if self._is_key and len(key_text([value]).encode()) > LONGEST_KEY:
            return _Read(code=f"invalid_{label}")
        fault = self._fault(value)
        if fault:
            return _Read(code=f"{fault}_{label}", readable=value)
        return _Read(canonical(source) if self.field.type is FieldType.JSON else value, readable=value)

    def _fault(self, value: Scalar) -> str:
        """Return what is wrong with a value that has the form of its type."""
        if self._out_of_bounds(value):
            return "invalid"
        beyond = self._ceiling is not None and isinstance(value, str) and value > self._ceiling[: len(value)]
        return "future" if beyond else ""

    def _blank(self, source: str) -> Scalar:
        """Return a blank where it is a value: of a text or JSON that is not required."""
        if self.field.type is FieldType.TEXT:
            return text_of(source)
        return source if self.field.type is FieldType.JSON and storable_json(source) else None

    def _out_of_bounds(self, value: Scalar) -> bool:
        declared = self.field
        size = _size(declared, value)
        lowest, highest = _size(declared, declared.minimum), _size(declared, declared.maximum)
        if declared.choices is not None and size not in [_size(declared, one) for one in declared.choices]:
            return True
        if (lowest is not None and size < lowest) or (highest is not None and size > highest):  # type: ignore[operator] # of one type
            return True
        if not isinstance(value, str) or declared.type is FieldType.DECIMAL:
            return False
        return (
            (declared.min_length is not None and len(value) < declared.min_length)
            or (declared.max_length is not None and len(value) > declared.max_length)
            or (self._pattern is not None and self._pattern.search(value) is None)
        )


def _size(declared: Field, value: Scalar) -> object:
    return Decimal(value) if declared.type is FieldType.DECIMAL and isinstance(value, str) else value


def _holds(condition: Condition, record: Record) -> bool:
    path: Path = condition.path
    source = at(record.source, names_of(path)) if origin_of(path) is None else record.look(path)
    if source is None or not is_there(source):
        return condition.any_of is None and condition.pattern is None and not condition.exists
    value, text = comparable(source), text_of(source)
    return (
        condition.exists is not False
        and (condition.any_of is None or value in map(comparable, condition.any_of))
        and (condition.none_of is None or value not in map(comparable, condition.none_of))
        and (condition.pattern is None or (text is not None and re.search(condition.pattern, text) is not None))
    )
