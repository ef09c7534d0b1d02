"""The types that a field may have, in one table: what each room asks about a type stands here.

What needs more than the standard library hangs on it in two other tables: the rules by which records are judged, with
what msgspec decodes for them (``records.kinds``), and SQLAlchemy's types (``operate.target``). A test holds that each
type is in all three.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from inboxd.clock import in_canonical_form, stamp
from inboxd.model import FieldType, Scalar

_INTEGERS: Final = range(-(2**63), 2**63)
_DECIMAL: Final = re.compile(r" *[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?0*[0-9]{1,6})? *", re.ASCII)
_PLAIN: Final = re.compile(r"(?:0|-?[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
"""The usual decimals, which are in their plain form as they stand."""

MAX_KEY_BYTES: Final = 1_024
"""Bytes of a key's text in UTF-8, the contract's limit."""
MAX_DECIMAL_DIGITS: Final = 1_000
"""Digits of a decimal in its plain form, a single zero before the point not counted."""


def literal(kind: FieldType, value: object) -> Scalar:
    """Return a value of a config file in its field's form; ``ValueError`` says what it must be."""
    return TYPES[kind].literal(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        msg = "must be a text, without U+0000"
        raise ValueError(msg)
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INTEGERS:
        msg = "must be an integer of 64 bits"
        raise ValueError(msg)
    return value


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = "must be a number"
        raise ValueError(msg)  # noqa: TRY004 - the operator's text is wrong, not a caller's type
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        msg = "must be a finite number"
        raise ValueError(msg)
    return number


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        msg = "must be true or false"
        raise ValueError(msg)  # noqa: TRY004 - as above
    return value


def _timestamp(value: object) -> str:
    """Return canonical text from text as records have it, or a TOML date; no offset is UTC."""
    try:
        if isinstance(value, datetime):
            return stamp(value if value.tzinfo else value.replace(tzinfo=UTC))
        found = in_canonical_form(
            value.isoformat() if isinstance(value, date) else value if isinstance(value, str) else ""
        )
    except OverflowError:
        msg = "is outside the years 1 to 9999 in UTC"
        raise ValueError(msg) from None
    if found is None:
        msg = 'must be a timestamp, such as "2026-01-15T10:30:00Z"'
        raise ValueError(msg)
    return found


def _date(value: object) -> str:
    msg = 'must be a date, such as "2026-01-15"'
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str) or re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII) is None:
        raise ValueError(msg)
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(msg) from None


def _json(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        msg = "must be a value that JSON has"
        raise ValueError(msg) from None
    if "\\u0000" in text:
        msg = "must not hold U+0000"
        raise ValueError(msg)
    return text


def _decimal(value: object) -> str:
    """Return the plain form of a number in quotes, or of one that TOML keeps exactly: an integer."""
    number = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    plain = plain_decimal(number) if isinstance(number, str) else None
    if plain is None:
        msg = f'must be a number in quotes, such as "12.50", of at most {MAX_DECIMAL_DIGITS} digits'
        raise ValueError(msg)
    return plain


def plain_decimal(text: str) -> str | None:
    """Return a number as a decimal is stored, ``None`` if it is no number or has too many digits.

    Plain digits with the scale as given; no exponent, no plus, no negative zero: ``1.50e1`` is ``15.0``.
    """
    if len(text) < MAX_DECIMAL_DIGITS and _PLAIN.fullmatch(text):
        return text
    if _DECIMAL.fullmatch(text) is None:
        return None
    sign, mantissa, exponent = _parts(text.strip(" "))
    whole, _, fraction = mantissa.partition(".")
    scale = len(fraction) - exponent
    digits = (whole + fraction).lstrip("0")
    if max(len(digits), scale) > MAX_DECIMAL_DIGITS or (digits and len(digits) - scale > MAX_DECIMAL_DIGITS):
        return None
    digits = digits + "0" * -scale if digits else ""
    scale = max(scale, 0)
    digits = digits.rjust(scale + 1, "0")
    plain = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{plain}" if sign == "-" and plain.strip("0.") else plain


def _parts(number: str) -> tuple[str, str, int]:
    sign = number[0] if number[0] in "+-" else ""
    mantissa, _, exponent = number[len(sign) :].lower().partition("e")
    return sign, mantissa, int(exponent or 0)


def with_one_zero(values: Iterable[Scalar]) -> list[Scalar]:
    """Return values without a negative zero: to a table it is the same zero, but as text it would be another key."""
    return [0.0 if isinstance(value, float) and value == 0 else value for value in values]


def sortable(kind: FieldType, value: Scalar) -> Scalar | Decimal:
    """Return what orders values of a type: all but decimals order by themselves."""
    return Decimal(value) if kind is FieldType.DECIMAL and isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What there is to know of a field type."""

    sqlite: str
    """Its column type on SQLite. The first word tells a retyped column, "TEXT" gives the affinity."""
    postgres: str
    """Its column type on PostgreSQL, as ``format_type()`` spells it."""
    literal: Callable[[object], Scalar]
    """Gives a value of a config file in the form that values of the type have."""
    attributes: frozenset[str]
    """The attributes of a field that mean something for it, beside those that every field has."""
    expected: str
    """What somebody must type who names a key or a cursor of the type: "must be …"."""
    example: Callable[[datetime], object]
    """Gives a value of a JSON record, of that moment where it is a time."""
    is_key: bool = True
    """Whether a key or a snapshot's scope may have it."""
    is_cursor: bool = False


_BOUNDS: Final = frozenset({"min", "max", "choices"})

TYPES: Final = {
    FieldType.TEXT: TypeFacts(
        "TEXT",
        "text",
        _text,
        frozenset({"min_length", "max_length", "pattern", "choices", "coerce"}),
        f"text that is not blank, at most {MAX_KEY_BYTES} bytes of it",
        lambda _now: "a",
    ),
    FieldType.INTEGER: TypeFacts(
        "INTEGER", "bigint", _integer, _BOUNDS | {"coerce"}, "an integer of 64 bits", lambda _now: 1, is_cursor=True
    ),
    FieldType.REAL: TypeFacts("REAL", "double precision", _real, _BOUNDS, "a number", lambda _now: 1.5),
    FieldType.BOOLEAN: TypeFacts(
        "BOOLEAN", "boolean", _boolean, frozenset({"choices", "coerce"}), "true or false", lambda _now: True
    ),
    FieldType.TIMESTAMP: TypeFacts(
        "TIMESTAMP TEXT",
        "timestamp with time zone",
        _timestamp,
        _BOUNDS | {"unit", "format", "timezone"},
        "a timestamp, such as 2026-01-15T10:30:00Z",
        lambda now: f"{now:%Y-%m-%dT%H:%M:%SZ}",
        is_cursor=True,
    ),
    FieldType.DATE: TypeFacts(
        "DATE TEXT",
        "date",
        _date,
        _BOUNDS | {"format"},
        "a date, such as 2026-01-15",
        lambda now: f"{now:%Y-%m-%d}",
        is_cursor=True,
    ),
    FieldType.DECIMAL: TypeFacts(
        "DECIMAL TEXT",
        "numeric",
        _decimal,
        _BOUNDS,
        "of another type: a decimal field cannot be key or cursor",
        lambda _now: "1.50",
        is_key=False,
    ),
    FieldType.JSON: TypeFacts(
        "JSON TEXT",
        "jsonb",
        _json,
        frozenset(),
        "of another type: a json field cannot be key or cursor",
        lambda _now: {},
        is_key=False,
    ),
}
"""Every type; a column of ours takes its type from here, too."""

CURSOR_TYPES: Final = tuple(kind for kind in FieldType if TYPES[kind].is_cursor)
