"""Timestamps and dates: RFC 3339 and the common ISO 8601 forms in, one canonical text out.

Fractions beyond the microsecond are cut. Second 60 and hour 24 are invalid, and so is everything outside the years
1 … 9999 after conversion to UTC.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import ROUND_DOWN, Context
from functools import lru_cache
from typing import Final

from inboxd.clock import EPOCH, in_canonical_form, stamp

_EPOCH_RANGE_US: Final = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""0001-01-01T00:00:00Z and the last microsecond of the year 9999, in microseconds from 1970."""

_MICROSECOND_EXPONENT: Final = {"s": 6, "ms": 3, "us": 0, "ns": -3}
_DIGITS: Final = {ord(digit): "0" for digit in "123456789"}
_SHAPE: Final = re.compile(r"0000-00-00(?:([Tt ])00:00:00(?:[.,](0+))?(Z|z|[+-]00:00|[+-]0000|[+-]00)?)?")
"""The shapes (all digits made 0) of which a whole column can go through in bulk."""

_DATE_SHAPE: Final = "0000-00-00"
_MICROSECOND_DIGITS: Final = 6
_LONGEST_EPOCH: Final = 400
"""Characters of an epoch number that are looked at; nothing in the range of years needs more."""

_EXACT: Final = Context(prec=_LONGEST_EPOCH, rounding=ROUND_DOWN, traps=[])
"""Takes every digit of such a number: the default's 28 would round one that is longer."""


def timestamp(text: str, zone: tzinfo = UTC) -> str | None:
    """Return the canonical text of a timestamp, ``None`` if it is none; without an offset it is in ``zone``."""
    try:
        return in_canonical_form(text, zone)
    except OverflowError:
        return None


def timestamps(texts: list[str]) -> list[str] | None:
    """Return the canonical texts of a column of one shape; ``None`` if it is not that, or one of them is no timestamp.

    Proved by C code: the shape by a comparison (``fromisoformat`` takes week dates and other forms of the same length),
    the calendar by ``fromisoformat``, hour 24 by a search (Python 3.13 takes it).
    """
    shape = texts[0].translate(_DIGITS)
    form = _SHAPE.fullmatch(shape)
    joined = "\n".join(texts)
    if form is None or joined.translate(_DIGITS) != "\n".join([shape] * len(texts)):
        return None
    between, fraction, zone = form.groups()
    if between and f"{between}24:" in joined:
        return None
    if zone and zone not in "Zz" and joined.count(zone) != len(texts):
        return None
    usual = between == "T" and zone == "Z" and "," not in shape
    try:
        deque(map(datetime.fromisoformat, texts if usual else [text[:19] for text in texts]), maxlen=0)
    except ValueError:
        return None
    return _rewritten(texts, joined, len(fraction or ""), usual=usual, dates=between is None)


def _rewritten(texts: list[str], joined: str, digits: int, *, usual: bool, dates: bool) -> list[str]:
    """Return valid timestamps of one shape in canonical form; ``digits`` are those of their fraction."""
    if dates:
        return [f"{text}T00:00:00.000000Z" for text in texts]
    if usual and not digits:
        return joined.replace("Z", ".000000Z").split("\n")
    if usual and digits == _MICROSECOND_DIGITS:
        return texts
    ending = "0" * max(0, _MICROSECOND_DIGITS - digits) + "Z"
    end = len("0000-00-00T00:00:00.") + min(digits, _MICROSECOND_DIGITS)
    return [f"{text[:10]}T{text[11:19]}.{text[20:end]}{ending}" for text in texts]


@lru_cache(maxsize=64)
def sane(shape: str) -> re.Pattern[str]:
    """Return a pattern of the texts of a shape that are timestamps, but for the lengths of months."""
    rest = re.escape(shape[19:]).replace("0", r"\d")
    clock = re.escape(shape[10:11]) + r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d" if len(shape) > len(_DATE_SHAPE) else ""
    return re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])" + clock + rest, re.ASCII)


def of_other_shape(texts: Sequence[object]) -> list[int]:
    """Return the indexes of the texts that have not the column's usual shape: cheap, and blind to a 13th month."""
    usual = _usual_shape(texts)
    strings = [text if isinstance(text, str) else usual for text in texts]
    shapes = "\n".join(strings).translate(_DIGITS).split("\n")
    if not usual or len(shapes) != len(texts):
        return list(range(len(texts)))
    return [i for i, shape in enumerate(shapes) if shape != usual]


def doubtful(texts: Sequence[object], ceiling: str) -> list[int]:
    """Return the indexes of the texts that may be no timestamp, be past ``ceiling``, or have an unusual shape."""
    usual = _usual_shape(texts)
    if not usual:
        return list(range(len(texts)))
    matches = sane(usual).fullmatch
    return [i for i, text in enumerate(texts) if isinstance(text, str) and (text > ceiling or not matches(text))]


def _usual_shape(texts: Sequence[object]) -> str:
    """Return the shape of the first timestamp of a column; nothing if it is not one that goes through in bulk."""
    first = next((text for text in texts if isinstance(text, str) and timestamp(text)), "")
    shape = first.translate(_DIGITS)
    return shape if _SHAPE.fullmatch(shape) else ""


def day(text: str) -> str | None:
    """Return the canonical text of a date, ``None`` if it is none: exactly ``2026-01-15``."""
    if len(text) != len(_DATE_SHAPE) or text.translate(_DIGITS) != _DATE_SHAPE:
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        return None
    return text


def days(texts: list[str]) -> list[str] | None:
    """Return the canonical texts of a column, ``None`` if any of them is no date."""
    if "\n".join(texts).translate(_DIGITS) != "\n".join([_DATE_SHAPE] * len(texts)):
        return None
    try:
        deque(map(date.fromisoformat, texts), maxlen=0)
    except ValueError:
        return None
    return texts


def epoch(source: str, unit: str) -> str | None:
    """Return the canonical text of an epoch number, given as JSON writes numbers, ``None`` if out of range.

    Exact: no digit before the microsecond is lost, and those beyond are cut, never rounded.
    """
    if len(source) > _LONGEST_EPOCH:
        return None
    number = _EXACT.create_decimal(source)
    lowest, highest = _EPOCH_RANGE_US
    if not number.is_finite() or number.adjusted() > len(str(highest)) + 3:
        return None
    microseconds = int(_EXACT.scaleb(number, _MICROSECOND_EXPONENT[unit]))
    if not lowest <= microseconds <= highest:
        return None
    return stamp(EPOCH + timedelta(microseconds=microseconds))
