"""The one place where the time is read, and the one text form of moments: ``2026-01-15T10:30:00.000000Z``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Protocol

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MOMENT: Final = "0001-01-01T00:00:00.000000Z"
LAST_MOMENT: Final = "9999-12-31T23:59:59.999999Z"
"""The ends of the time that Python, and so the canonical text, can tell."""


_FORM: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[Tt ]((?:[01]\d|2[0-3]):[0-5]\d)(?::([0-5]\d)(?:[.,](\d+))?)?"
    r"(?:[Zz]|([+-])((?:[01]\d|2[0-3]))(?::?([0-5]\d))?)?)?",
    re.ASCII,
)


class Clock(Protocol):
    """What code that needs the time is given."""

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for pauses and durations."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # asked some thirty times for each file


def stamp(moment: datetime) -> str:
    """Return an aware moment as canonical text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def moment(text: str) -> datetime:
    """Return canonical text (see ``stamp``) as an aware moment."""
    return datetime.fromisoformat(text)


def ahead(now: datetime, seconds: float) -> str:
    """Return the moment so many seconds after ``now``, or the last there is."""
    try:
        return stamp(now + timedelta(seconds=seconds))
    except OverflowError:
        return LAST_MOMENT


def in_canonical_form(text: str, zone: tzinfo = UTC) -> str | None:
    """Return a timestamp, in RFC 3339 or a common form of ISO 8601, as canonical text; ``None`` if it is none.

    Without an offset it is in ``zone``. What is beyond the microsecond is cut; second 60 and hour 24 are invalid.
    Raises ``OverflowError`` where UTC has no such year.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    day, clock, second, fraction, sign, hours, minutes = form.groups()
    try:
        if sign is None and zone is not UTC and text[-1] not in "Zz":
            found = in_utc(datetime.fromisoformat(f"{day}T{clock or '00:00'}:{second or '00'}"), zone)
            if found is None:
                return None
            return f"{found.replace(tzinfo=None).isoformat()}.{(fraction or '')[:6].ljust(6, '0')}Z"
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}:{second or '00'}")
        if sign is not None:
            offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
            moment = moment - offset if sign == "+" else moment + offset
    except ValueError:
        return None
    return f"{moment.isoformat()}.{(fraction or '')[:6].ljust(6, '0')}Z"


def in_utc(moment: datetime, zone: tzinfo) -> datetime | None:
    """Return a moment in UTC, one without an offset being in ``zone``.

    ``None`` if a change of the clocks leaves it out, or UTC has no such year; of one that it has twice, the first.
    """
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
        there = moment.replace(tzinfo=zone, fold=0).astimezone(UTC)
        return there if there.astimezone(zone).replace(tzinfo=None) == moment else None
    except OverflowError:
        return None
