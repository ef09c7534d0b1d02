"""Values as source text: an object's members, an array's elements, what stands at a path, and the value itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from inboxd.records.checks import Composite, HugeNumber, Value
from inboxd.records.scan import STRING, Scanner, past_blank

_LONGEST_INTEGER: Final = 300
"""Digits beyond which an integer is not converted: far past 64 bits, and within what a double can hold."""

_MEMBER: Final = re.compile(rb'[\s,]*("[^"\\]*")\s*:\s*(?:("[^"\\]*"|[^\s,}\]"{\[]+)|(?=["{\[]))')
_NAME: Final = re.compile(rb"[\s,]*")
_COLON: Final = re.compile(rb"\s*:\s*")
_ARRAY: Final = msgspec.json.Decoder(list[Raw])


def members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the values' sources of a valid object, in order, all of them."""
    pos = 1
    while True:
        match = _MEMBER.match(raw, pos)
        if match is not None:
            pos = match.end()
            name, source = match.groups()
            if source is None:
                end = _end_of(raw, pos)
                source, pos = raw[pos:end], end
            yield name[1:-1].decode(), source
            continue
        start = _skip(_NAME, raw, pos)
        if raw[start] != ord('"'):
            return
        end = _end_of(raw, start)
        value = _skip(_COLON, raw, end)
        pos = _end_of(raw, value)
        yield json.loads(raw[start:end]), raw[value:pos]


def elements(raw: bytes) -> list[bytes]:
    """Return the sources of a valid array's elements."""
    try:
        return list(map(bytes, _ARRAY.decode(raw)))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):  # a lone surrogate, which msgspec refuses
        return list(_elements(raw))


def _elements(raw: bytes) -> Iterator[bytes]:
    pos = past_blank(raw, 1)
    while raw[pos] != ord("]"):
        end = _end_of(raw, pos)
        yield raw[pos:end]
        pos = past_blank(raw, end)
        if raw[pos] == ord(","):
            pos = past_blank(raw, pos + 1)


def _skip(pattern: re.Pattern[bytes], raw: bytes, pos: int) -> int:
    match = pattern.match(raw, pos)
    return match.end() if match is not None else pos


def _end_of(raw: bytes, pos: int) -> int:
    simple = STRING.match(raw, pos)
    return simple.end() if simple is not None else Scanner(0).advance(raw, pos, final=True)[0]


def index_of(name: str) -> int | None:
    """Return the index that a name is in an array, ``None`` if it is none."""
    return int(name) if name.isascii() and name.isdecimal() and len(name) < len(str(2**31)) else None


def all_at(source: bytes, names: Sequence[str]) -> list[bytes | None]:
    """Return the sources at a path, one for each time its names are there; ``None`` where it leads nowhere.

    From the first element of an array on, of a name that is there twice only the last counts.
    """
    if not names:
        return [source]
    if not source.startswith(b"{"):
        return [last_at(source, names)]
    found: list[bytes | None] = []
    for name, inner in members(source):
        if name == names[0]:
            found.extend(all_at(inner, names[1:]))
    return found or [None]


def last_at(source: bytes, names: Sequence[str]) -> bytes | None:
    """Return the source at a path, ``None`` if it leads nowhere; of a name that is there twice, the last counts."""
    for name in names:
        found: bytes | None = None
        if source.startswith(b"{"):
            for member, inner in members(source):
                if member == name:
                    found = inner
        elif source.startswith(b"["):
            index = index_of(name)
            inside = elements(source) if index is not None else []
            found = inside[index] if index is not None and index < len(inside) else None
        if found is None:
            return None
        source = found
    return source


def is_there(source: bytes | None) -> bool:
    """Tell whether a value is there and not null."""
    return source is not None and source != b"null"


def value_of(source: bytes) -> Value:
    """Return the value of a valid JSON text as the checks want it."""
    first = source[:1]
    if first == b'"':
        return json.loads(source) if b"\\" in source else source[1:-1].decode()
    if first in b"{[":
        return Composite("an object" if first == b"{" else "an array")
    if first in b"tfn":
        return {b"t": True, b"f": False, b"n": None}[first]
    if source.lstrip(b"-").isdigit():
        return int(source) if len(source) <= _LONGEST_INTEGER else HugeNumber(source.decode())
    number = float(source)
    return number if math.isfinite(number) else HugeNumber(source.decode())
