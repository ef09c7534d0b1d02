"""The one place where the time is read, and the one text form of moments: ``2026-01-15T10:30:00.000000Z``."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MOMENT: Final = "0001-01-01T00:00:00.000000Z"
LAST_MOMENT: Final = "9999-12-31T23:59:59.999999Z"
"""The ends of the time that Python, and so the canonical text, can tell."""


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
