"""The rules of the field types: text, integer, real, boolean, timestamp, date and json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Final

from inboxd.model import Field, FieldType, Scalar
from inboxd.records import times
from inboxd.records.checks import Check, Fault, HugeNumber, Outcome, Scope, Value, show
from inboxd.records.storable import storable, unstorable

MAX_KEY_BYTES: Final = 1_024
"""Bytes of a key's text in UTF-8, the contract's limit."""

INTEGER_RANGE: Final = (-(2**63), 2**63 - 1)


class TextCheck(Check):
    """``text``: any Unicode scalar values but U+0000."""

    types = frozenset({str})
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
        texts: list[str] = column  # type: ignore[assignment] # by contract
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

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of what may be blank; if there is none, of what has another fault."""
        if self.optional:
            return super().suspects(column, scope)
        texts: list[str] = column  # type: ignore[assignment] # by contract
        # "!" comes after every blank of ASCII and before every other character of it, "~" is the last of it
        blank = [i for i, text in enumerate(texts) if text < "!" or (text > "~" and text.isspace())]
        return blank or super().suspects(column, scope)


class IntegerCheck(Check):
    """``integer``: a JSON integer of 64 bits, exact."""

    types = frozenset({int})

    def _read(self, value: Value) -> Outcome:
        lowest, highest = INTEGER_RANGE
        if type(value) is int and lowest <= value <= highest:
            return value
        if type(value) is int or (isinstance(value, HugeNumber) and value.source.lstrip("-").isdigit()):
            return self.invalid(f"{show(value)} does not fit 64 bits")
        return self.invalid(f"{show(value)} is no integer")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        integers: list[int] = column  # type: ignore[assignment] # by contract
        lowest, highest = INTEGER_RANGE
        return integers if min(integers) >= lowest and max(integers) <= highest else None


class RealCheck(Check):
    """``real``: a number, or a string that is one, with optional spaces and sign; finite as a double."""

    types = frozenset({float, int})
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
        try:
            return list(map(float, column))  # type: ignore[arg-type] # by contract
        except OverflowError:
            return None


class BooleanCheck(Check):
    """``boolean``: true and false."""

    types = frozenset({bool})

    def _read(self, value: Value) -> Outcome:
        return value if type(value) is bool else self.invalid(f"{show(value)} is neither true nor false")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return column  # type: ignore[return-value] # by contract


_NO_CEILING: Final = "\U0010ffff"


class TimestampCheck(Check):
    """``timestamp`` as text."""

    types = frozenset({str})
    absent_is = "missing"

    def _read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no timestamp")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.timestamp(value) or self.invalid(f"{show(value)} is no timestamp")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return times.timestamps(column)  # type: ignore[arg-type] # by contract

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of what has another shape, else of what is no day of the calendar or past the ceiling."""
        ceiling = scope.ceiling if self.is_cursor and scope.ceiling else _NO_CEILING
        return times.of_other_shape(column) or times.doubtful(column, ceiling) or super().suspects(column, scope)


class DateCheck(Check):
    """``date``."""

    types = frozenset({str})
    absent_is = "missing"

    def _read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no date")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.day(value) or self.invalid(f"{show(value)} is no date")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return times.days(column)  # type: ignore[arg-type] # by contract


class SourceCheck(Check):
    """What is judged by its source text: ``one`` takes ``bytes``."""

    types = frozenset({bytes})
    wants_source = True
    absent_is = "missing"

    def one(self, value: Value, scope: Scope) -> Outcome:
        """Return the canonical value of a source, or why there is none; null is a source, too."""
        return super().one(None if value == b"null" else value, scope)

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical column of sources, ``None`` if any is not valid."""
        return super().many([None if value == b"null" else value for value in column], scope)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - sources are typed
        if None in column:
            return None
        done = list(map(self._read, column))
        return None if any(type(value) is Fault for value in done) else done  # type: ignore[return-value] # just checked


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
