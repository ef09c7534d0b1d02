"""A default, bound or choice from the config, in the form that values of its field have (see ``inboxd.model``)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final

from inboxd.clock import stamp
from inboxd.model import Cursor, Feed, FieldType, Scalar

_MOMENT: Final = re.compile(
    r"""(?P<date>\d{4}-\d{2}-\d{2})
    (?:[Tt\ ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>\.\d+)?(?P<zone>[Zz]|[+-]\d{2}:?\d{2})?)?""",
    re.ASCII | re.VERBOSE,
)
_INTEGERS: Final = range(-(2**63), 2**63)


def literal(kind: FieldType, value: object) -> Scalar:
    """Return the value in its field's form; ``ValueError`` says what it must be."""
    return _FORMS[kind](value)


def cursor_value(feed: Feed, text: str) -> Cursor:
    """Return a cursor value of the feed from what a person typed; ``ValueError`` says what it must be."""
    kind = feed.cursor_field.type
    if kind is not FieldType.INTEGER:
        return _timestamp(text) if kind is FieldType.TIMESTAMP else _date(text)
    try:
        return _integer(int(text))
    except ValueError:
        return _integer(None)


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
    """Return canonical text from RFC 3339 text or a TOML date; no offset is UTC, beyond the microsecond is cut."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    else:
        found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
        msg = 'must be a timestamp, such as "2026-01-15T10:30:00Z"'
        if found is None:
            raise ValueError(msg)
        zone = (found["zone"] or "Z").upper()
        try:
            moment = datetime.fromisoformat(
                f"{found['date']}T{found['time'] or '00:00'}{found['fraction'] or ''}{zone}"
            )
        except ValueError:
            raise ValueError(msg) from None
    try:
        return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except OverflowError:
        msg = "is outside the years 1 to 9999 in UTC"
        raise ValueError(msg) from None


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


_FORMS: Final[dict[FieldType, Callable[[object], Scalar]]] = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.REAL: _real,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.DATE: _date,
    FieldType.JSON: _json,
}
