"""The rules of the field types: text, integer, real, boolean, timestamp, date and json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import UNSET

from inboxd.model import Field, FieldType, Scalar
from inboxd.records import times
from inboxd.records.checks import Check, Fault, HugeNumber, Outcome, Scope, Value, only, show
from inboxd.records.storable import storable, unstorable

MAX_KEY_BYTES: Final = 1_024
"""Bytes of a key's text in UTF-8, the contract's limit."""

INTEGER_RANGE: Final = (-(2**63), 2**63 - 1)


class TextCheck(Check):
    """``text``: any Unicode scalar values but U+0000."""

    absent_is = "missing"

    def _read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no text")
        if not storable(value):
            return self.invalid("U+0000" if "\0" in value else "a lone surrogate")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        if self.is_key and len(value) * 4 > MAX_KEY_BYTES and len(value.encode()) > MAX_KEY_BYTES:
            return self.invalid(f"a key of more than {MAX_KEY_BYTES} bytes")
        return value

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, str):
            return None
        texts: list[str] = column  # type: ignore[assignment] # just checked
        if self.required and not (scope.plain and min(texts) >= "!") and ("" in texts or any(map(str.isspace, texts))):
            return None
        if not scope.plain and "\0" in "".join(texts):
            return None
        if scope.typed and scope.plain:  # msgspec has bounded the characters of a key, here each is a byte
            return texts
        if (
            self.is_key
            and max(map(len, texts)) * 4 > MAX_KEY_BYTES
            and max(map(len, map(str.encode, texts))) > MAX_KEY_BYTES
        ):
            return None
        return texts

    def _doubtful(self, column: list[Value]) -> list[int]:
        # "!" comes after every blank of ASCII and before every other character of it, "~" is the last of it
        return [
            i for i, v in enumerate(column) if type(v) is not str or v < "!" or (v > "~" and v.isspace()) or "\0" in v
        ]


class IntegerCheck(Check):
    """``integer``: a JSON integer of 64 bits, exact."""

    def _read(self, value: Value) -> Outcome:
        lowest, highest = INTEGER_RANGE
        if type(value) is int and lowest <= value <= highest:
            return value
        if type(value) is int or (isinstance(value, HugeNumber) and value.source.lstrip("-").isdigit()):
            return self.invalid(f"{show(value)} does not fit 64 bits")
        return self.invalid(f"{show(value)} is no integer")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, int):
            return None
        integers: list[int] = column  # type: ignore[assignment] # just checked
        lowest, highest = INTEGER_RANGE
        return integers if min(integers) >= lowest and max(integers) <= highest else None

    def _doubtful(self, column: list[Value]) -> list[int]:
        lowest, highest = INTEGER_RANGE
        return [i for i, v in enumerate(column) if type(v) is not int or not lowest <= v <= highest]


class RealCheck(Check):
    """``real``: a number, or a string that is one, with optional spaces and sign; finite as a double."""

    _TEXT = re.compile(r" *[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)? *")

    def _read(self, value: Value) -> Outcome:
        if type(value) is float or type(value) is int:
            number = self._double(value)
        elif type(value) is HugeNumber:
            number = self._double(value.source)
        elif type(value) is str and self._TEXT.fullmatch(value):
            number = self._double(value)
        else:
            return self.invalid(f"{show(value)} is no number")
        if not math.isfinite(number):
            return self.invalid(f"{show(value)} is too large for a double")
        return number

    @staticmethod
    def _double(value: float | str) -> float:
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if scope.typed:
            return column  # type: ignore[return-value] # finite doubles: msgspec refuses what overflows
        if not only(column, float, int):
            return None
        try:
            numbers = list(map(float, column))  # type: ignore[arg-type] # just checked
        except OverflowError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    def _doubtful(self, column: list[Value]) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not float and type(v) is not int]


class BooleanCheck(Check):
    """``boolean``: true and false."""

    def _read(self, value: Value) -> Outcome:
        return value if type(value) is bool else self.invalid(f"{show(value)} is neither true nor false")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        return column if scope.typed or only(column, bool) else None  # type: ignore[return-value] # just checked

    def _doubtful(self, column: list[Value]) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not bool]


_NO_CEILING: Final = "\U0010ffff"


class TimestampCheck(Check):
    """``timestamp`` as text."""

    absent_is = "missing"

    def _read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no timestamp")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.timestamp(value) or self.invalid(f"{show(value)} is no timestamp")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, str):
            return None
        return times.timestamps(column)  # type: ignore[arg-type] # just checked

    def _doubtful(self, column: list[Value]) -> list[int]:
        return times.of_other_shape(column)

    def closer(self, column: list[Value], scope: Scope) -> Sequence[int]:
        """Return the indexes of what has another shape, is no day of the calendar, or is past the ceiling."""
        return times.doubtful(column, scope.ceiling if self.is_cursor and scope.ceiling else _NO_CEILING)


class DateCheck(Check):
    """``date``."""

    absent_is = "missing"

    def _read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no date")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.day(value) or self.invalid(f"{show(value)} is no date")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, str):
            return None
        return times.days(column)  # type: ignore[arg-type] # just checked

    def _doubtful(self, column: list[Value]) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not str or times.day(v) is None]


_NO_SCOPE: Final = Scope(None)


class SourceCheck(Check):
    """What is judged by its source text: ``one`` takes ``bytes``."""

    wants_source = True
    absent_is = "missing"

    def one(self, value: Value, scope: Scope) -> Outcome:
        """Return the canonical value of a source, or why there is none; null is a source, too."""
        return super().one(None if value == b"null" else value, scope)

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical column of sources, ``None`` if any is not valid."""
        return super().many([None if value == b"null" else value for value in column], scope)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - sources are typed
        if None in column or UNSET in column:
            return None
        done = list(map(self._read, column))
        return None if any(type(value) is Fault for value in done) else done  # type: ignore[return-value] # just checked

    def _doubtful(self, column: list[Value]) -> list[int]:
        return [i for i, v in enumerate(column) if v is None or v is UNSET or type(self.one(v, _NO_SCOPE)) is Fault]


class EpochCheck(SourceCheck):
    """``timestamp`` with a ``unit``: a number of seconds, milliseconds or microseconds from 1970."""

    def _read(self, value: Value) -> Outcome:
        if not isinstance(value, bytes):
            return self.invalid(f"{show(value)} is no number")
        source = value.decode()
        if source[0] not in "-0123456789":
            return self.invalid(f"{_show_source(value)} is no number")
        return times.epoch(source, self.field.unit or "s") or self.invalid(f"{_show_source(value)} is out of range")


class JsonCheck(SourceCheck):
    """``json``: any value, kept as its source text."""

    def _read(self, value: Value) -> Outcome:
        if not isinstance(value, bytes):
            return self.invalid("not given as its source")
        if value.startswith(b'"') and self.required and _blank_string(value):
            return self.missing("blank")
        why = unstorable(value)
        return self.invalid(why) if why else value.decode()


_CHECKS: Final[dict[FieldType, Callable[..., Check]]] = {
    FieldType.TEXT: TextCheck,
    FieldType.INTEGER: IntegerCheck,
    FieldType.REAL: RealCheck,
    FieldType.BOOLEAN: BooleanCheck,
    FieldType.TIMESTAMP: TimestampCheck,
    FieldType.DATE: DateCheck,
    FieldType.JSON: JsonCheck,
}


def check_of(field: Field, *, is_key: bool, is_cursor: bool) -> Check:
    """Return the rules of a field. Key and cursor are always required."""
    kind = EpochCheck if field.type is FieldType.TIMESTAMP and field.unit else _CHECKS[field.type]
    return kind(field, needed=is_key or is_cursor, is_cursor=is_cursor, is_key=is_key)


def _show_source(source: bytes) -> str:
    """Return a value's source text for a message."""
    return show(HugeNumber(source.decode())) if source[:1] not in b'"{[' else show(json.loads(source))


def _blank_string(source: bytes) -> bool:
    text = json.loads(source)
    return not text or text.isspace()
