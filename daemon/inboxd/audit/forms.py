"""The forms that a field's values may have, one type after another: a source in, the canonical value out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

from inboxd.audit.values import Number, number_of, text_of
from inboxd.model import Field, FieldType, Scalar

INTEGERS: Final = range(-(2**63), 2**63)
MOST_DIGITS: Final = 1_000
"""Of a decimal."""
_LONGEST_NUMBER: Final = 10_000
"""Digits of a number within a ``json`` value."""
_LARGEST_EXPONENT: Final = 1_000
_NUMBER: Final = re.compile(r" *([+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?) *", re.ASCII)
_LONGEST_EPOCH: Final = 400
_LONG_FRACTION: Final = re.compile(r"(\d{6})\d+", re.ASCII)
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Blank(Exception):
    """A text of nothing but white space."""


class Wrong(Exception):
    """The value has not the form of its type."""


def utc(moment: datetime) -> str:
    """Return the canonical text of a moment."""
    moment = moment.astimezone(UTC)
    day = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
    return f"{day}T{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}.{moment.microsecond:06d}Z"


def storable(text: str) -> bool:
    """Tell whether both databases can hold a text."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def storable_json(source: str) -> bool:
    """Tell whether both databases can hold a JSON value."""

    def look(value: object) -> bool:
        if isinstance(value, list):
            return all(map(look, value))
        if isinstance(value, Number):
            mantissa, _, exponent = value.lower().partition("e")
            return len(mantissa) <= _LONGEST_NUMBER and (not exponent or _is_small(exponent))
        return not isinstance(value, str) or storable(value)

    def pairs(found: list[tuple[str, object]]) -> list[object]:
        return [part for pair in found for part in pair]

    return look(json.loads(source, parse_int=Number, parse_float=Number, object_pairs_hook=pairs))


def _is_small(exponent: str) -> bool:
    digits = exponent.lstrip("+-0")
    return len(digits) < len(str(_LARGEST_EXPONENT)) or digits == str(_LARGEST_EXPONENT)


def form_of(field: Field) -> Callable[[str], Scalar]:
    """Return what turns the source of a value, not null, into its canonical form; raises ``Blank`` and ``Wrong``."""
    if field.type is FieldType.TIMESTAMP and field.unit:
        return lambda source: _epoch(_number_in(source), field.unit or "s")
    if field.type in {FieldType.TIMESTAMP, FieldType.DATE}:
        zone = ZoneInfo(field.timezone) if field.timezone else None
        return lambda source: _moment(field, _string(source), zone)
    if field.coerce and field.type in _COERCED:
        return _COERCED[field.type]
    return _PLAIN[field.type]


def _string(source: str) -> str:
    text = text_of(source)
    if text is None:
        raise Wrong
    if not text.strip():
        raise Blank
    return text


def _text(source: str) -> Scalar:
    text = text_of(source)
    if text is None or not storable(text):
        raise Wrong
    if not text.strip():
        raise Blank
    return text


def _coerced_text(source: str) -> Scalar:
    if source[:1] in "{[":
        raise Wrong
    return _text(source) if source.startswith('"') else source


def _integer(source: str) -> Scalar:
    number = number_of(source)
    if number is None or set(number) - set("-0123456789") or len(number) > len(str(-(2**63))):
        raise Wrong
    return _in_range(int(number))


def _coerced_integer(source: str) -> Scalar:
    number = Decimal(_plain(_number_in(source)))
    if number != number.to_integral_value() or abs(number) > 2**64:
        raise Wrong
    return _in_range(int(number))


def _in_range(number: int) -> int:
    if number not in INTEGERS:
        raise Wrong
    return number


def _real(source: str) -> Scalar:
    number = float(_number_in(source))
    if math.isinf(number):
        raise Wrong
    return number


def _boolean(source: str) -> Scalar:
    if source not in {"true", "false"}:
        raise Wrong
    return source == "true"


def _coerced_boolean(source: str) -> Scalar:
    word = source.strip('"') if source in {'"true"', '"false"'} else source
    if word not in {"true", "false", "0", "1"}:
        raise Wrong
    return word in {"true", "1"}


def _decimal(source: str) -> Scalar:
    return _plain(_number_in(source))


def _plain(number: str) -> str:
    """Return a number in plain digits, the scale as given."""
    try:
        found = Decimal(number)
    except InvalidOperation:
        raise Wrong from None
    _, digits, exponent = found.as_tuple()
    whole = len(digits) + int(exponent) if found else 0
    if max(len(digits) if found else 0, -int(exponent), whole) > MOST_DIGITS:
        raise Wrong
    return f"{found or abs(found):f}" if found or int(exponent) <= 0 else "0"


def _number_in(source: str) -> str:
    """Return the number that a source is, or that its text is."""
    number = number_of(source)
    if number is not None:
        return number
    text = text_of(source)
    found = _NUMBER.fullmatch(text or "")
    if found is None:
        raise (Blank if text is not None and not text.strip() else Wrong)
    return found[1]


def _epoch(number: str, unit: str) -> str:
    if len(number) > _LONGEST_EPOCH:
        raise Wrong
    found = Decimal(number)
    if found and found.adjusted() > 21:  # noqa: PLR2004 - no unit takes the year 9999 so far
        raise Wrong
    sign, digits, exponent = found.as_tuple()
    value = int("".join(map(str, digits)))
    top, bottom = value * 1_000_000, _PER_SECOND[unit]
    if int(exponent) >= 0:
        top *= 10 ** int(exponent)
    else:
        bottom *= 10 ** min(-int(exponent), 2 * _LONGEST_EPOCH)
    microseconds = top // bottom * (-1 if sign else 1)
    try:
        return utc(_EPOCH + timedelta(microseconds=microseconds))
    except OverflowError:
        raise Wrong from None


def _moment(field: Field, text: str, zone: ZoneInfo | None) -> str:
    try:
        if field.formats:
            found = _written(field.formats, text)
        elif field.type is FieldType.DATE:
            return str(date(*_numbers(text, "-", (4, 2, 2))))
        else:
            found = _iso(text)
        if field.type is FieldType.DATE:
            return str(found.date())
        if found.tzinfo is None and zone is not None:
            there = found.replace(tzinfo=zone, fold=0).astimezone(UTC)
            if there.astimezone(zone).replace(tzinfo=None) != found:  # a change of the clocks leaves it out
                raise Wrong
            return utc(there)
        return utc(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError, IndexError):
        raise Wrong from None


def _written(formats: tuple[str, ...], text: str) -> datetime:
    """Read a time by the first format that fits; digits beyond the microsecond are cut."""
    for form in formats:
        said = _LONG_FRACTION.sub(r"\1", text) if "%f" in form else text
        try:
            return datetime.strptime(said, form)  # noqa: DTZ007 - the zone is the caller's matter
        except ValueError:
            continue
    raise Wrong


def _iso(text: str) -> datetime:
    """Read RFC 3339 and the common ISO 8601 forms."""
    if not text.isascii():
        raise Wrong
    day = date(*_numbers(text[:10], "-", (4, 2, 2)))
    if len(text) == 10:  # noqa: PLR2004 - the date alone
        return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the zone is the caller's matter
    if text[10] not in "Tt ":
        raise Wrong
    rest, offset = text[11:], None
    if rest[-1:] in ("Z", "z"):
        rest, offset = rest[:-1], timedelta(0)
    elif (at := max(rest.rfind("+"), rest.rfind("-"))) >= 0:
        rest, offset = rest[:at], _offset(rest[at:])
    clock, dot, fraction = rest.replace(",", ".").partition(".")
    if dot and (not fraction.isdigit() or len(clock) != 8):  # noqa: PLR2004 - only seconds have a fraction
        raise Wrong
    hour, minute, second = [*_numbers(clock, ":", (2, 2, 2) if len(clock) == 8 else (2, 2)), 0][:3]  # noqa: PLR2004 - as above
    microsecond = int((fraction + "000000")[:6])
    found = datetime(day.year, day.month, day.day, hour, minute, second, microsecond)  # noqa: DTZ001 - as above
    return found if offset is None else (found - offset).replace(tzinfo=UTC)


def _offset(text: str) -> timedelta:
    digits = text[1:].replace(":", "")
    if text[1:] not in {digits, f"{digits[:2]}:{digits[2:]}"} or len(digits) not in {2, 4} or not digits.isdigit():
        raise Wrong
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - of a clock
        raise Wrong
    return timedelta(hours=hours, minutes=minutes) * (1 if text[0] == "+" else -1)


def _numbers(text: str, between: str, lengths: tuple[int, ...]) -> list[int]:
    parts = text.split(between)
    if tuple(map(len, parts)) != lengths or not all(part.isascii() and part.isdigit() for part in parts):
        raise Wrong
    return [int(part) for part in parts]


def _json(source: str) -> Scalar:
    text = text_of(source)
    if text is not None and not text.strip():
        raise Blank
    if not storable_json(source):
        raise Wrong
    return source


_PLAIN: Final[dict[FieldType, Callable[[str], Scalar]]] = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.REAL: _real,
    FieldType.BOOLEAN: _boolean,
    FieldType.DECIMAL: _decimal,
    FieldType.JSON: _json,
}
_COERCED: Final = {
    FieldType.TEXT: _coerced_text,
    FieldType.INTEGER: _coerced_integer,
    FieldType.BOOLEAN: _coerced_boolean,
}
