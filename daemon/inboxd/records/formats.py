"""Times and dates as people write them: strptime's directives, English on every machine.

``datetime.strptime`` reads the names of months and days as the process's locale has them; this reads the same
directives with English names alone. Which formats there are, and that one says a whole day, the config has checked.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT: Final = 3
"""Letters of a short name."""


def _names(names: tuple[str, ...]) -> str:
    return "|".join(names)


_PATTERNS: Final = {
    "a": _names(tuple(name[:_SHORT] for name in _DAYS)),
    "A": _names(_DAYS),
    "b": _names(tuple(name[:_SHORT] for name in _MONTHS)),
    "B": _names(_MONTHS),
    "d": r"3[01]|[12]\d|0[1-9]|[1-9]| [1-9]",
    "f": r"\d{1,6}",
    "G": r"\d{4}",
    "H": r"2[0-3]|[01]\d|\d",
    "I": r"1[0-2]|0[1-9]|[1-9]",
    "j": r"36[0-6]|3[0-5]\d|[12]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0[1-9]|[1-9]",
    "m": r"1[0-2]|0[1-9]|[1-9]",
    "M": r"[0-5]\d|\d",
    "p": "am|pm",
    "S": r"6[01]|[0-5]\d|\d",
    "u": "[1-7]",
    "U": r"5[0-3]|[0-4]\d|\d",
    "V": r"5[0-3]|0[1-9]|[1-4]\d|\d",
    "w": "[0-6]",
    "W": r"5[0-3]|[0-4]\d|\d",
    "y": r"\d\d",
    "Y": r"\d{4}",
    "z": r"[+-]\d\d:?[0-5]\d(?::?[0-5]\d(?:\.\d{1,6})?)?|z",
}
"""What stands for each directive, as strptime takes it."""

_DIGITS: Final = frozenset("dfGHIjmMSuUVwWyY")
_PIVOT: Final = 69
"""Two digits of a year from here on are of the twentieth century (POSIX)."""


class Format:
    """One format, compiled."""

    def __init__(self, text: str) -> None:
        expression = ""
        parts = re.split(r"%(.)", text, flags=re.DOTALL)
        for position, part in enumerate(parts):
            if position % 2 == 0:
                expression += re.sub(r"(?:\\?\s)+", r"\\s+", re.escape(part))
            elif part == "%":
                expression += "%"
            else:
                expression += f"(?P<{part}>{_PATTERNS[part]})"
                if part == "f" and not _touched_by_digits(parts, position):
                    expression += r"(?:(?<=\d{6})\d*)"  # beyond the microsecond they are cut
        self._pattern = re.compile(expression, re.IGNORECASE | re.ASCII)

    def read(self, text: str) -> datetime | None:
        """Return what the text says, aware if it has an offset; ``None`` if it does not fit."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        said = found.groupdict()
        try:
            day = _day(said)
            hour = int(said.get("H") or 0)
            if "I" in said:
                hour = int(said["I"]) % 12 + (12 if (said.get("p") or "").lower() == "pm" else 0)
            return datetime(
                day.year,
                day.month,
                day.day,
                hour,
                int(said.get("M") or 0),
                int(said.get("S") or 0),
                int((said.get("f") or "").ljust(6, "0")),
                _offset(said.get("z")),
            )
        except (ValueError, OverflowError):
            return None


def _touched_by_digits(parts: list[str], position: int) -> bool:
    """Tell whether a directive that takes digits follows the one at ``position`` with nothing between."""
    return parts[position + 1] == "" and position + 2 < len(parts) and parts[position + 2] in _DIGITS


def _day(said: dict[str, str]) -> date:
    """Return the day; ``ValueError`` if there is no such day."""
    weekday = _weekday(said)
    if "G" in said:
        return date.fromisocalendar(int(said["G"]), int(said["V"]), (weekday or 0) + 1)
    year = int(said["Y"]) if "Y" in said else _century(int(said["y"]))
    if "j" in said:
        day = date(year, 1, 1) + timedelta(days=int(said["j"]) - 1)
        if day.year != year:
            raise ValueError(said["j"])
        return day
    if "d" in said:
        return date(year, _month(said), int(said["d"]))
    return _in_week(year, said, weekday or 0)


def _in_week(year: int, said: dict[str, str], weekday: int) -> date:
    """Return a day by the number of its week, which begins on Monday (``%W``) or Sunday (``%U``)."""
    monday = "W" in said
    week = int(said["W" if monday else "U"])
    first = date(year, 1, 1)
    before = first.weekday() if monday else (first.weekday() + 1) % 7  # days of the week before the first of January
    day = first + timedelta(days=7 * week - before + (weekday if monday else (weekday + 1) % 7))
    if before == 0:
        day -= timedelta(days=7)
    if day.year != year:
        raise ValueError(week)
    return day


def _century(year: int) -> int:
    return year + (1900 if year >= _PIVOT else 2000)


def _month(said: dict[str, str]) -> int:
    if "m" in said:
        return int(said["m"])
    if "b" in said:
        return next(number for number, name in enumerate(_MONTHS, 1) if name.startswith(said["b"].lower()))
    return _MONTHS.index(said["B"].lower()) + 1


def _weekday(said: dict[str, str]) -> int | None:
    """Return the day of the week, 0 is Monday."""
    if "w" in said:
        return (int(said["w"]) + 6) % 7
    if "u" in said:
        return int(said["u"]) - 1
    name = (said.get("a") or said.get("A") or "").lower()
    return next((number for number, day in enumerate(_DAYS) if name and day.startswith(name)), None)


def _offset(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "")
    seconds, _, fraction = digits[4:].partition(".")
    offset = timedelta(
        hours=int(digits[:2]),
        minutes=int(digits[2:4]),
        seconds=int(seconds or 0),
        microseconds=int(fraction.ljust(6, "0") or 0),
    )
    return timezone(offset if text[0] == "+" else -offset)


@lru_cache(maxsize=256)
def format_of(text: str) -> Format:
    """Return a format, compiled once."""
    return Format(text)


@lru_cache(maxsize=64)
def zone_of(name: str | None) -> tzinfo:
    """Return a time zone; ``None`` is UTC."""
    return UTC if name is None else ZoneInfo(name)
