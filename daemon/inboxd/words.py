"""How numbers, spans and moments are written for people, on the page and by commands: short, never untrue."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from inboxd.clock import moment

MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400
LONG: Final = 10_000_000
UNMISTAKABLE: Final = 18 * HOUR
FOUR_DIGITS: Final = 999.5
"""From here on three digits would be written ``1e+03``."""
_PASSWORD: Final = re.compile(r"://[^\s/]*@|\b(?:ssl)?password=\S+", re.IGNORECASE)
_PATH: Final = re.compile(r"(?<![\w./-])(?:/[^\s/'\":;,()]+)+/(?=[^\s/])")


def number(value: int) -> str:
    """``1,234,567``."""
    return f"{value:,}"


def counted(amount: object, noun: str) -> str:
    """Return ``1 file``, ``2 files``: never with separators, as such sentences are copied."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def short(value: float) -> str:
    """Return a number in at most five characters, for the axis of a chart: ``1.2k``, ``3M``."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{_three(value / size)}{unit}"
    return _three(value)


def _three(value: float) -> str:
    """Return a number with three digits, or its four digits before the point: never with an exponent."""
    return f"{value:.3g}" if value < FOUR_DIGITS else f"{value:.0f}"


def span(seconds: float) -> str:
    """Return a span in its two largest units: ``3 d 4 h``, ``2 min 5 s``, ``12 s``."""
    whole = int(max(seconds, 0))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _two(whole, HOUR, "h", MINUTE, "min")
    return _two(whole, DAY, "d", HOUR, "h")


def lag(seconds: float) -> str:
    """Return how far something is behind the clock, as a span; or ahead of it."""
    return span(seconds) if seconds > -1 else f"ahead by {span(-seconds)}"


def rough(seconds: float) -> str:
    """Return a span in its largest unit alone, for where there is little room: ``310 d``."""
    amount, unit, *_ = span(seconds).split(" ")
    return f"{amount} {unit}"


def brief(value: int) -> str:
    """Return a number whole while it is short, else rounded: ``1,234,567``, ``12.3M``."""
    return number(value) if value < LONG else short(value)


def _two(whole: int, large: int, large_unit: str, small: int, small_unit: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {large_unit}" + (f" {rest} {small_unit}" if rest else "")


def milliseconds(value: float) -> str:
    """Return a duration: ``7 ms``, ``1.25 s``, ``3 min 20 s``."""
    if value < 1_000:  # noqa: PLR2004 - one second
        return f"{value:.0f} ms"
    if value < MINUTE * 1_000:
        return f"{value / 1000:.3g} s"
    return span(value / 1000)


def size(value: int) -> str:
    """Return a size in bytes: ``812 B``, ``1.2 MiB``."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 - the next unit
            return f"{_three(amount)} {unit}" if unit != "B" else f"{value} B"
        amount /= 1024
    return f"{amount:.3g} TiB"


def percent(value: float) -> str:
    """Return a share in per cent with one decimal, and 100 only where nothing is missing."""
    return f"{value:.1f}".removesuffix(".0") if value not in {100.0, 0.0} else f"{value:.0f}"


def clock(text: str, now: datetime) -> str:
    """Return a moment as its time of day (UTC), with its date unless no other day's can be meant."""
    when = moment(text)
    if abs((now - when).total_seconds()) < UNMISTAKABLE:
        return f"{when:%H:%M:%S}"
    return f"{when:%d %b %H:%M:%S}" if when.year == now.year else f"{when:%d %b %Y %H:%M}"


def escaped(value: object) -> str:
    """Return a value as text that says nothing to a terminal: control characters are escaped."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def middle(text: str, width: int) -> str:
    """Return a name in so many characters: its beginning and, more of it, its end, which tells files apart."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def without_places(text: str, roots: Sequence[str] = ()) -> str:
    """Return a message without passwords and without the folders of this machine; file names stay.

    ``roots`` are folders known to stand in messages: they may have spaces in them, which no pattern would find.
    """
    text = _PASSWORD.sub("://…@" if "://" in text else "…", text)
    for root in sorted(roots, key=len, reverse=True):
        text = text.replace(root.rstrip("/") + "/", "…/")
    return _PATH.sub("…/", text)


def retry_command(name: str) -> str:
    """Return the command that tries a file again, to be copied whatever its name is."""
    return shlex.join(["inboxd", "retry", *(["--"] if name.startswith("-") else []), name])


def scoped(feed: str, scope: Mapping[str, object]) -> str:
    """Return what a feed's watermark is called for people: with the scope of its snapshots, where there is one."""
    return f"{feed} ({', '.join(f'{name} = {value}' for name, value in scope.items())})" if scope else feed
