"""The beginning of a file as values: parsed once, in bounded memory, however large the file is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any, Final, Protocol

from inboxd.records.unpack import ByteStream, unpacked

Value = Any  # Any: whatever a JSON document holds; numbers that Python cannot hold are ``Huge``

HEAD: Final = 8 << 20
"""Unpacked bytes of all files together that are looked at as values; the proof reads on."""
LEAST_HEAD: Final = 64 << 10
"""The same of one of many files."""

_LONGEST_INTEGER: Final = 300
"""Digits beyond which an integer is kept as its text: Python refuses to convert 4,300 of them."""
_DOUBLE_DIGITS: Final = 15
"""Digits that every double keeps."""
_EXACT: Final = Context(prec=2_000, Emax=MAX_EMAX, Emin=MIN_EMIN)
_BLANK: Final = re.compile(r"[ \t\r\n]*+")
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{},]|"', re.DOTALL)


class Huge(str):
    """A number that no float or integer of Python's is asked to hold, as its source text."""

    __slots__ = ()


class Rounded(float):
    """A number with digits that a double does not keep: ``12345678901234567.89``."""

    __slots__ = ()


class Opener(Protocol):
    """Opens the content of a sample, from its beginning."""

    def __call__(self) -> AbstractContextManager[ByteStream]:
        """Return the content, opened."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The top-level values at the beginning of a file. ``cut`` tells that it goes on."""

    values: list[Value]
    cut: bool


def _integer(source: str) -> int | Huge:
    return int(source) if len(source) <= _LONGEST_INTEGER else Huge(source)


def _real(source: str) -> float:
    value = float(source)
    return Rounded(value) if len(source) > _DOUBLE_DIGITS and _loses_digits(source, value) else value


def _loses_digits(source: str, value: float) -> bool:
    """Tell whether a double is none that could have been printed like this, in so many digits."""
    given = Decimal(source)
    exponent = given.as_tuple().exponent
    if not (isinstance(exponent, int) and math.isfinite(value)) or given == Decimal(repr(value)):
        return False
    lost = _EXACT.abs(_EXACT.subtract(given, Decimal(value)))
    return _EXACT.add(lost, lost) > Decimal((0, (1,), exponent))


def _constant(name: str) -> Value:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=_constant)


def value_of(source: str) -> Value:
    """Return the value of a record's source."""
    return _DECODER.decode(source)


def pairs_of(source: str) -> Value:
    """Return the value of a record's source, its objects as ``Pairs``: with all values of a repeated name."""
    return json.loads(source, parse_int=_integer, parse_float=_real, parse_constant=_constant, object_pairs_hook=Pairs)


class Pairs(list[tuple[str, Value]]):
    """The members of an object in their order, repeated names too."""

    __slots__ = ()


def read_heads(openers: list[Opener]) -> list[Head]:
    """Return the beginning of each file; ``None`` values of one that is broken are found by the proof."""
    share = max(HEAD // max(1, len(openers)), LEAST_HEAD)
    return [read_head(opener, share) for opener in openers]


def read_head(opener: Opener, size: int) -> Head:
    """Return the top-level values within the first ``size`` bytes; of one that goes on beyond, as much as is there.

    What is no JSON ends the reading without an error: the proof reads the file again, exactly, and says where.
    Raises ``FileFault`` where it cannot be unpacked.
    """
    with opener() as stream:
        content = _read(unpacked(stream), size + 1)
    cut = len(content) > size
    text = content[:size].decode("utf-8-sig", "ignore" if cut else "replace")
    return Head(list(_values(text, cut=cut)), cut)


def _read(stream: ByteStream, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _values(text: str, *, cut: bool) -> Iterator[Value]:
    at = _past_blank(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            if cut and (value := _unfinished(text[at:])) is not None:
                yield value
            return
        yield value
        at = _past_blank(text, at)


def _past_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _unfinished(text: str) -> Value | None:
    """Return what there is of a value that was cut: up to the last comma, with everything closed; else ``None``."""
    closers: list[str] = []
    end, closing = 0, ""
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first == '"':
            if token.end() - token.start() == 1:
                break
        elif first == ",":
            end, closing = token.start(), "".join(reversed(closers))
        elif first in "[{":
            closers.append("]" if first == "[" else "}")
        elif closers:
            closers.pop()
    if not closing:
        return None
    try:
        return _DECODER.decode(text[:end] + closing)
    except (ValueError, RecursionError):
        return None
