"""Which form of time texts and numbers have, if they have one: ISO 8601, strptime's formats, epochs in any unit."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from inboxd.infer.leaves import PathValues
from inboxd.infer.vocabulary import TIMES
from inboxd.model import FieldType
from inboxd.records.times import day, timestamp

EPOCHS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EPOCH_SPAN: Final = (631_152_000, 4_102_444_800)
"""1990 to 2100, in seconds: numbers in this span may be moments."""

_TIME_IN_NAME: Final = re.compile(r"time|date(?!l)|stamp|created|updated|modified|epoch|_at$")

_NAMED: Final = (
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a, %d %b %Y %H:%M:%S UTC",
    "%d/%b/%Y:%H:%M:%S %z",
    "%d %b %Y %H:%M:%S %z",
    "%d %b %Y %H:%M:%S",
    "%d %b %Y",
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%Y",
    "%b %d %Y",
    "%b %d, %Y",
    "%b %d %Y, %H:%M:%S",
    "%B %d, %Y",
    "%d %B %Y",
    "%d %B, %Y",
)
_NUMBERED: Final = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S.%f UTC",
    "%Y-%m-%d %H:%M:%S %z",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y",
    "%m-%d-%Y %H:%M:%S",
    "%m-%d-%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%d/%m/%y",
)
_PLAIN: Final = ("%Y%m%dT%H%M%SZ", "%Y%m%d%H%M%S", "%Y%m%d")
"""Digits alone: times only where the name says so."""
_CLOCK: Final = ("%H", "%I")
_EPOCH_TEXT: Final = re.compile(r"[0-9]{9,19}(?:\.[0-9]+)?", re.ASCII)


_OFFSETS: Final = ("%z", "%z %Y", "UTC", "GMT", "Z")
_ELSEWHERE: Final = timezone(timedelta(hours=1))
_LOCAL: Final = 'with timezone = "Europe/Berlin": these times have no offset, and are taken for UTC'


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of a path are read as times. ``doubt`` says what the sample does not tell."""

    type: FieldType
    unit: str | None = None
    format: str | None = None
    doubt: str = ""


def form_of(leaf: PathValues) -> Form | None:
    """Return the form that all the values have, ``None`` if there is none: then they are no times."""
    if leaf.kinds == {"text"} and leaf.texts and not leaf.unstorable:
        return _of_texts(leaf.texts, timely_name=is_time_name(leaf.path))
    if leaf.kinds and leaf.kinds <= {"integer", "real", "long"} and is_time_name(leaf.path):
        unit = _unit(leaf.lowest, leaf.highest)
        return Form(FieldType.TIMESTAMP, unit) if unit else None
    return None


def is_time_name(path: tuple[str, ...]) -> bool:
    """Tell whether a name speaks of time."""
    names = [name for name in path if not name.startswith("$")] or list(path)
    if not names:
        return False
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", names[-1]).lower()
    return _TIME_IN_NAME.search(snake) is not None or not TIMES.isdisjoint(re.split(r"[^a-z0-9]+", snake))


def _of_texts(texts: Collection[str], *, timely_name: bool) -> Form | None:
    if all(day(text) is not None for text in texts):
        return Form(FieldType.DATE)
    if all(timestamp(text) is not None for text in texts):
        local = any(timestamp(text) != timestamp(text, _ELSEWHERE) for text in texts)
        return Form(FieldType.TIMESTAMP, doubt=_LOCAL if local else "")
    if timely_name and all(_EPOCH_TEXT.fullmatch(text) for text in texts):
        numbers = [float(text) for text in texts]
        unit = _unit(min(numbers), max(numbers))
        if unit:
            return Form(FieldType.TIMESTAMP, unit)
    fitting = [form for form in (*_NAMED, *_NUMBERED, *(_PLAIN if timely_name else ())) if fits(texts, form)]
    if not fitting:
        return None
    kind = FieldType.TIMESTAMP if any(clock in fitting[0] for clock in _CLOCK) else FieldType.DATE
    if len({_order(form) for form in fitting}) > 1:
        return Form(FieldType.TEXT, None, None, f'a {kind} with format = "{fitting[0]}", or "{fitting[-1]}"')
    local = kind is FieldType.TIMESTAMP and not fitting[0].endswith(_OFFSETS)
    return Form(kind, None, fitting[0], _LOCAL if local else "")


def _order(form: str) -> str:
    """Return whether the day or the month comes first in a form of numbers."""
    return form[:2] if form in _NUMBERED else ""


def fits(texts: Collection[str], form: str) -> bool:
    """Tell whether all texts have a form of strptime's."""
    try:
        for text in texts:
            datetime.strptime(text, form)  # noqa: DTZ007 - only whether it fits is asked
    except (ValueError, OverflowError):
        return False
    return True


def _unit(lowest: float, highest: float) -> str | None:
    """Return the unit in which all numbers from lowest to highest are moments of our time."""
    return next(
        (
            unit
            for unit, factor in EPOCHS.items()
            if EPOCH_SPAN[0] * factor <= lowest and highest < EPOCH_SPAN[1] * factor
        ),
        None,
    )
