"""The rules of each field type: one value, or a whole column of them at once.

``one`` is the law: it takes a value as JSON has it and gives the canonical value (see ``inboxd.model``) or a ``Fault``.
``many`` is the fast road: it gives the canonical column if every value is valid, and ``None`` if any is not or may not
be; it must never accept what ``one`` would not, nor give another value. ``suspects`` names those of a column that are
worth asking ``one`` about.

A value that is absent or null and has a ``default`` takes it, whether the field is required or not.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, UnsetType

from inboxd.model import Field, FieldType, Scalar
from inboxd.records import times

MAX_KEY_BYTES: Final = 1_024
MAX_SHOWN: Final = 60
"""Characters of a value that a message shows."""

INTEGER_RANGE: Final = (-(2**63), 2**63 - 1)
MAX_EXPONENT: Final = 1_000
MAX_NUMBER_DIGITS: Final = 10_000
"""Digits of one number inside a ``json`` value; PostgreSQL's numeric ends at 16,383 after the point."""

Value = object
"""A decoded JSON value, ``UNSET`` when absent; ``bytes``, its source, for a check with ``wants_source``."""


class Composite:
    """Stands for an object or an array where only a scalar can be valid."""

    def __init__(self, name: str) -> None:
        self.name = name


class HugeNumber:
    """Stands for a number whose digits are too many to be worth converting."""

    def __init__(self, source: str) -> None:
        self.source = source


class Fault:
    """Why a value is refused. ``readable`` is its canonical value if it has one: right in form, refused for its range."""

    __slots__ = ("code", "readable", "why")

    def __init__(self, code: str, why: str, readable: Scalar = None) -> None:
        self.code = code
        self.why = why
        self.readable = readable


Outcome = Scalar | Fault


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known of a window as a whole, and of the clock."""

    ceiling: str | None
    """The largest timestamp or date that the cursor may have."""
    plain: bool = False
    """The window is ASCII without any backslash: its strings are exactly what stands there."""
    typed: bool = False
    """The values have the field's own type, and NULL and absence only where the field may have them."""


def show(value: Value) -> str:
    """Return a value for a message: short, printable, without what a database cannot store."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Composite):
        return value.name
    if isinstance(value, dict | list) or not isinstance(value, str | int | float | HugeNumber):
        return "an array" if isinstance(value, list) else "an object"
    text = value.source if isinstance(value, HugeNumber) else value if isinstance(value, str) else repr(value)
    cut = text[:MAX_SHOWN]
    dots = "…" if len(text) > MAX_SHOWN else ""
    return (repr(cut) if isinstance(value, str) else cut) + dots


class Check(ABC):
    """The rules of one field."""

    wants_source = False
    """Whether ``one`` takes the value's source text (``bytes``) and ``many`` a column of such."""
    absent_is = "invalid"
    """How the code of an absent value begins: ``missing`` for text, timestamp, date and json."""

    def __init__(self, field: Field, *, needed: bool, is_cursor: bool, is_key: bool) -> None:
        self.field = field
        self.required = needed or field.required
        self.default = None if needed else field.default
        self.optional = not needed and (not field.required or field.default is not None)
        """Whether an absent value or null is valid."""
        self.is_cursor = is_cursor
        self.is_key = is_key
        self._pattern = re.compile(field.pattern) if field.pattern is not None else None
        self._bounded = any(
            limit is not None
            for limit in (field.minimum, field.maximum, field.choices, field.pattern, field.min_length)
        ) or (field.max_length is not None)

    # one value

    def one(self, value: Value, scope: Scope) -> Outcome:
        """Return the canonical value, or why there is none."""
        if value is UNSET or value is None:
            return self.default if self.optional else self.missing("absent" if value is UNSET else "null")
        outcome = self.read(value)
        if isinstance(outcome, Fault):
            return outcome
        if self._bounded:
            why = self._out_of_bounds(outcome)
            if why:
                return self.invalid(f"{show(value if not self.wants_source else outcome)} {why}", outcome)
        if self.is_cursor and scope.ceiling is not None and self.beyond(outcome, scope.ceiling):
            return Fault(f"future_{self.field.label}", f"{show(outcome)} is too far ahead of the clock", outcome)
        return outcome

    @abstractmethod
    def read(self, value: Value) -> Outcome:
        """Return the canonical form of a value that is there and not null."""

    def missing(self, why: str) -> Fault:
        """Return the fault of a value that is absent, null or blank."""
        return Fault(f"{self.absent_is}_{self.field.label}", why)

    def invalid(self, why: str, readable: Scalar = None) -> Fault:
        """Return the fault of a value of the wrong type, form or range."""
        return Fault(f"invalid_{self.field.label}", why, readable)

    def _out_of_bounds(self, value: Scalar) -> str:
        field = self.field
        if field.minimum is not None and value < field.minimum:  # type: ignore[operator] # same type by config
            return f"is below {show(field.minimum)}"
        if field.maximum is not None and value > field.maximum:  # type: ignore[operator] # same type by config
            return f"is above {show(field.maximum)}"
        if field.choices is not None and value not in field.choices:
            return "is not one of the choices"
        if isinstance(value, str):
            if field.min_length is not None and len(value) < field.min_length:
                return f"is shorter than {field.min_length}"
            if field.max_length is not None and len(value) > field.max_length:
                return f"is longer than {field.max_length}"
            if self._pattern is not None and self._pattern.search(value) is None:
                return "does not match the pattern"
        return ""

    @staticmethod
    def beyond(value: Scalar, ceiling: str) -> bool:
        """Tell whether a cursor is past the ceiling; an integer never is."""
        return isinstance(value, str) and value > ceiling[: len(value)]

    # a column

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical column if every value is valid; ``None`` if any is not, or may not be."""
        if not column:
            return []
        if self.optional:
            present = [value for value in column if value is not None and value is not UNSET]
            if len(present) < len(column):
                done = self._all(present, scope) if present else []
                if done is None:
                    return None
                values = iter(done)
                default = self.default
                return [default if value is None or value is UNSET else next(values) for value in column]
        return self._all(column, scope)

    def _all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        done = self.read_all(column, scope)
        if done is None or (self._bounded and any(map(self._out_of_bounds, done))):
            return None
        if self.is_cursor and scope.ceiling is not None and self.beyond(max(done), scope.ceiling):  # type: ignore[type-var] # of one type
            return None
        return done

    @abstractmethod
    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical form of a column of values that are there, ``None`` if in doubt."""

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of the values that may not be valid, so far as that is cheap to tell."""
        found = self.doubtful(column, scope)
        if self.optional:
            return [index for index in found if column[index] is not None and column[index] is not UNSET]
        return found

    def closer(self, column: list[Value], scope: Scope) -> Sequence[int]:
        """Return the indexes of the suspects after a closer look, for when ``suspects`` were not all."""
        return range(len(column))

    @abstractmethod
    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        """Like ``suspects``, with absent values among them."""


def only(column: Iterable[Value], *types: type) -> bool:
    """Tell whether all values are of these types exactly."""
    return set(map(type, column)) <= set(types)


def storable(text: str) -> bool:
    """Tell whether a text has neither U+0000 nor lone surrogates."""
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class TextCheck(Check):
    """``text``: any Unicode scalar values but U+0000."""

    absent_is = "missing"

    def read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no text")
        if not storable(value):
            return self.invalid("U+0000" if "\0" in value else "a lone surrogate")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        if self.is_key and len(value) * 4 > MAX_KEY_BYTES and len(value.encode()) > MAX_KEY_BYTES:
            return self.invalid(f"a key of more than {MAX_KEY_BYTES} bytes")
        return value

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
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

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        if scope.plain:  # "!" comes after every blank and before every other character of ASCII
            return [i for i, v in enumerate(column) if type(v) is not str or v < "!"]
        return [i for i, v in enumerate(column) if type(v) is not str or not v or v.isspace() or "\0" in v]


class IntegerCheck(Check):
    """``integer``: a JSON integer of 64 bits, exact."""

    def read(self, value: Value) -> Outcome:
        lowest, highest = INTEGER_RANGE
        if type(value) is int and lowest <= value <= highest:
            return value
        if type(value) is int or (isinstance(value, HugeNumber) and value.source.lstrip("-").isdigit()):
            return self.invalid(f"{show(value)} does not fit 64 bits")
        return self.invalid(f"{show(value)} is no integer")

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, int):
            return None
        integers: list[int] = column  # type: ignore[assignment] # just checked
        lowest, highest = INTEGER_RANGE
        return integers if min(integers) >= lowest and max(integers) <= highest else None

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        lowest, highest = INTEGER_RANGE
        return [i for i, v in enumerate(column) if type(v) is not int or not lowest <= v <= highest]


class RealCheck(Check):
    """``real``: a number, or a string that is one, with optional spaces and sign; finite as a double."""

    _TEXT = re.compile(r" *[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)? *")

    def read(self, value: Value) -> Outcome:
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

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if scope.typed:
            return column  # type: ignore[return-value] # finite doubles: msgspec refuses what overflows
        if not only(column, float, int):
            return None
        try:
            numbers = list(map(float, column))  # type: ignore[arg-type] # just checked
        except OverflowError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not float and type(v) is not int]


class BooleanCheck(Check):
    """``boolean``: true and false."""

    def read(self, value: Value) -> Outcome:
        return value if type(value) is bool else self.invalid(f"{show(value)} is neither true nor false")

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        return column if scope.typed or only(column, bool) else None  # type: ignore[return-value] # just checked

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not bool]


_NO_CEILING: Final = "\U0010ffff"


class TimestampCheck(Check):
    """``timestamp`` as text."""

    absent_is = "missing"

    def read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no timestamp")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.timestamp(value) or self.invalid(f"{show(value)} is no timestamp")

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, str):
            return None
        return times.timestamps(column)  # type: ignore[arg-type] # just checked

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        return times.of_other_shape(column)

    def closer(self, column: list[Value], scope: Scope) -> Sequence[int]:
        return times.doubtful(column, scope.ceiling if self.is_cursor and scope.ceiling else _NO_CEILING)


class DateCheck(Check):
    """``date``."""

    absent_is = "missing"

    def read(self, value: Value) -> Outcome:
        if type(value) is not str:
            return self.invalid(f"{show(value)} is no date")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return times.day(value) or self.invalid(f"{show(value)} is no date")

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if not scope.typed and not only(column, str):
            return None
        return times.days(column)  # type: ignore[arg-type] # just checked

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        return [i for i, v in enumerate(column) if type(v) is not str or times.day(v) is None]


class SourceCheck(Check):
    """What is judged by its source text: ``one`` takes ``bytes``."""

    wants_source = True
    absent_is = "missing"

    def one(self, value: Value, scope: Scope) -> Outcome:
        return super().one(None if value == b"null" else value, scope)

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        return super().many([None if value == b"null" else value for value in column], scope)

    def read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if None in column or UNSET in column:
            return None
        done = list(map(self.read, column))
        return None if any(type(value) is Fault for value in done) else done  # type: ignore[return-value] # just checked

    def doubtful(self, column: list[Value], scope: Scope) -> list[int]:
        return [i for i, v in enumerate(column) if v is None or v is UNSET or type(self.one(v, scope)) is Fault]


class EpochCheck(SourceCheck):
    """``timestamp`` with a ``unit``: a number of seconds, milliseconds or microseconds from 1970."""

    def read(self, value: Value) -> Outcome:
        assert isinstance(value, bytes)
        source = value.decode()
        if source[0] not in "-0123456789":
            return self.invalid(f"{show_source(value)} is no number")
        return times.epoch(source, self.field.unit or "s") or self.invalid(f"{show_source(value)} is out of range")


class JsonCheck(SourceCheck):
    """``json``: any value, kept as its source text."""

    def read(self, value: Value) -> Outcome:
        assert isinstance(value, bytes)
        if value.startswith(b'"') and self.required and _blank_string(value):
            return self.missing("blank")
        why = unstorable(value)
        return self.invalid(why) if why else value.decode()


_CHECKS: Final = {
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
    kind: type[Check] = EpochCheck if field.type is FieldType.TIMESTAMP and field.unit else _CHECKS[field.type]
    return kind(field, needed=is_key or is_cursor, is_cursor=is_cursor, is_key=is_key)


def show_source(source: bytes) -> str:
    """Return a value's source text for a message."""
    return show(HugeNumber(source.decode())) if source[:1] not in b'"{[' else show(json.loads(source))


_DANGER: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[0-9][eE]|[0-9]{400}")
"""What a JSON text must have in it before a closer look can find anything."""


class _Unstorable(Exception):
    pass


def unstorable(source: bytes) -> str:
    """Say why a valid JSON text cannot be stored as ``json`` on both databases; nothing if it can."""
    if _DANGER.search(source) is None:
        return ""
    try:
        _look(json.loads(source, parse_int=_number, parse_float=_number, object_pairs_hook=_names_and_values))
    except _Unstorable as found:
        return str(found)
    return ""


def _names_and_values(members: list[tuple[str, object]]) -> list[object]:
    return [part for member in members for part in member]


def _number(source: str) -> None:
    mantissa, _, exponent = source.lower().partition("e")
    digits = exponent.lstrip("+-0")
    if len(digits) > len(str(MAX_EXPONENT)) or (digits and int(digits) > MAX_EXPONENT):
        raise _Unstorable(f"an exponent beyond ±{MAX_EXPONENT} in it")
    if len(mantissa) > MAX_NUMBER_DIGITS:
        raise _Unstorable(f"a number of more than {MAX_NUMBER_DIGITS} digits in it")


def _look(value: object) -> None:
    """Look through the strings of a value; at most 200 levels deep, as every record is."""
    if isinstance(value, list):
        for part in value:
            _look(part)
    elif isinstance(value, str) and not storable(value):
        raise _Unstorable("U+0000 in it" if "\0" in value else "a lone surrogate in it")


def _blank_string(source: bytes) -> bool:
    text = json.loads(source)
    return not text or text.isspace()


__all__ = ["Check", "Composite", "Fault", "HugeNumber", "Outcome", "Scope", "UnsetType", "check_of"]
