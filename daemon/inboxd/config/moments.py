"""What the config says of times: how they are written, their zone, and when files are expected."""

from __future__ import annotations

import re
from datetime import time
from typing import Final
from zoneinfo import ZoneInfo

from inboxd.config.faults import Faults, Key
from inboxd.config.schema import ExpectTable
from inboxd.model import Expect

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DIRECTIVES: Final = frozenset("aAwdbBmyYHIpMSfzjUWGuV%")
"""strptime's, but for those that depend on the locale or the host: %c %x %X %Z."""
_CLOCK: Final = frozenset("HIpMSfz")


def check_format(text: str, at: Key, faults: Faults, *, dates: bool) -> None:
    """Note what keeps a format from being read alike everywhere, and from saying a whole day."""
    found = re.findall(r"%(.?)", text, re.DOTALL)
    for directive in found:
        if directive not in _DIRECTIVES or directive == "":
            known = " ".join(f"%{letter}" for letter in sorted(_DIRECTIVES))
            faults.add(at, f"{text!r} has %{directive}, which is not one of {known}")
    there = set(found)
    if len(there - {"%"}) < len([letter for letter in found if letter != "%"]):
        faults.add(at, f"{text!r} has the same directive twice")
    year = there & {"Y", "y"}
    weekday = there & {"a", "A", "w", "u"}
    months = there & {"m", "b", "B"} and "d" in there
    if not (
        (year and (months or "j" in there or (weekday and there & {"U", "W"}))) or (there >= {"G", "V"} and weekday)
    ):
        faults.add(at, f"{text!r} does not say the year, the month and the day")
    if dates and there & _CLOCK:
        faults.add(at, f"{text!r} has a time of the day, which a date does not have")


def check_zone(name: str, at: Key, faults: Faults) -> None:
    """Note a name that is no time zone here."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # KeyError: ZoneInfoNotFoundError; OSError: the name of a folder
        faults.add(at, f'{name!r} is not a time zone that this host knows; write one such as "Europe/Berlin"')


def build_expect(table: ExpectTable, at: Key, faults: Faults) -> Expect | None:
    """Return when files are to arrive; whatever is wrong is noted in ``faults``."""
    if (table.every is None) == (table.by is None) and not faults.under(at):
        faults.add(at, 'must have one of the two: every, such as "1h", or by, such as "06:00"')
    if table.every == 0:
        faults.add((*at, "every"), "must be more than zero")
    if table.by is None:
        for name in ("timezone", "days"):
            if name in table.model_fields_set:
                faults.add((*at, name), "is for a deadline (by), not for every")
    check_zone(table.timezone, (*at, "timezone"), faults)
    clock = _TIME.fullmatch(table.by) if table.by is not None else None
    if table.by is not None and clock is None:
        faults.add((*at, "by"), 'must be a time of the day, such as "06:00"')
    days = parse_days(table.days)
    if days is None:
        faults.add((*at, "days"), f'must be weekdays of {", ".join(DAYS)}, such as "mon-fri" or "sat,sun"')
    if faults.under(at):
        return None
    return Expect(
        every=table.every,
        by=time(int(clock[1]), int(clock[2])) if clock else None,
        timezone=table.timezone,
        days=days or (),
        grace=table.grace,
        min_records=table.min_records,
    )


def parse_days(text: str) -> tuple[int, ...] | None:
    """Return weekdays, 0 is Monday, from ``"mon-fri"`` or ``"sat,sun"``; ``None`` if it is neither."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (name.strip() for name in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            return None
        start, end = DAYS.index(first), DAYS.index(last or first)
        days.update(day % len(DAYS) for day in range(start, end + 1 if end >= start else end + 1 + len(DAYS)))
    return tuple(sorted(days))


def format_days(days: tuple[int, ...]) -> str:
    """Return text that ``parse_days`` reads as the same days."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)
