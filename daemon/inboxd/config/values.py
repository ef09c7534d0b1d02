"""Durations, sizes and limits: from the text people write to numbers, and back."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from inboxd.model import Limit

FOREVER: Final = "forever"
_SECONDS: Final = {"ms": "0.001", "s": "1", "m": "60", "h": "3600", "d": "86400", "w": "604800"}
_BYTES: Final = {
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "B": 1,
}
_NUMBER_AND_UNIT: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]+)")
_SHARE: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*%")
LONGEST_S: Final = 36_500 * 86_400
"""A hundred years: longer is for ever, and now plus it is still a date (years end at 9999)."""


def parse_duration(value: object) -> float:
    """Return seconds from ``"100ms"``, ``"5s"``, ``"10m"``, ``"24h"``, ``"30d"`` or ``"2w"``."""
    seconds = _scaled(value, _SECONDS, 'a duration with its unit (ms, s, m, h, d, w), such as "5s"')
    if seconds > LONGEST_S:
        msg = "is longer than a hundred years"
        raise ValueError(msg)
    return float(seconds)


def parse_keep(value: object) -> float | None:
    """Return seconds, or ``None`` for ``"forever"``."""
    if value is None or value == FOREVER:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        msg = f'{error}, or "{FOREVER}"'
        raise ValueError(msg) from None


def parse_size(value: object) -> int:
    """Return bytes from ``"16GiB"``, ``"500MB"`` or ``"1024B"``."""
    size = _scaled(
        value, {unit: str(factor) for unit, factor in _BYTES.items()}, 'a size with its unit, such as "16GiB"'
    )
    if size < 1 or size != int(size) or size >= 2**63:
        msg = "must be a whole number of bytes, at least 1B and less than 8388608TiB"
        raise ValueError(msg)
    return int(size)


def parse_limit(value: object) -> Limit:
    """Return a limit from a share (``"10%"``) or a count (``100``)."""
    if isinstance(value, Limit):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Limit(count=value)
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or Decimal(found["number"]) > 100:  # noqa: PLR2004 - per cent
        msg = 'must be a share from "0%" to "100%", or a count of records'
        raise ValueError(msg)
    return Limit(share=float(Decimal(found["number"]) / 100))


def _scaled(value: object, factors: dict[str, str], expected: str) -> Decimal:
    """Return number times unit, exactly: ``"0.1s"`` is a tenth, not a binary neighbour of it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    found = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found["unit"] not in factors:
        msg = f"must be {expected}"
        raise ValueError(msg)
    return Decimal(found["number"]) * Decimal(factors[found["unit"]])


def format_duration(seconds: float | None) -> str:
    """Return text that ``parse_duration`` (or ``parse_keep``) reads as the same number."""
    if seconds is None:
        return FOREVER
    exact = Decimal(repr(seconds))
    for unit, least in (("d", 2), ("h", 1), ("m", 1), ("s", 0), ("ms", 1)):  # a day is 24h, as people write it
        number = exact / Decimal(_SECONDS[unit])
        if number == number.to_integral_value() and number >= least:
            return f"{int(number)}{unit}"
    return f"{exact:f}s"


def format_size(size: int) -> str:
    """Return the text with the largest binary unit that holds the size exactly."""
    unit = next(unit for unit, factor in _BYTES.items() if size % factor == 0 and (unit.endswith("iB") or unit == "B"))
    return f"{size // _BYTES[unit]}{unit}"


def format_limit(limit: Limit) -> str | int:
    """Return the limit as it is written in a config file."""
    if limit.count is not None:
        return limit.count
    percent = (Decimal(repr(limit.share)) * 100).normalize()
    return f"{percent:f}%"
