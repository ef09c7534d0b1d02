"""JSON by its source text, taken apart with the standard library: members, elements, what stands at a path."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

BLANK: Final = re.compile(r"[ \t\r\n]*")
_LONGEST_INDEX: Final = 9


class Number(str):
    """A JSON number, as written."""

    __slots__ = ()


def _no_constant(name: str) -> None:
    raise ValueError(name)


DECODER: Final = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
"""Numbers stay as written; ``NaN`` and its like are none."""


def past_blank(text: str, pos: int) -> int:
    """Return the place of the next character that is no white space."""
    found = BLANK.match(text, pos)
    return found.end() if found else pos


def end_of(text: str, pos: int) -> int:
    """Return where the value that begins at ``pos`` ends; ``ValueError`` if there is none."""
    return DECODER.raw_decode(text, pos)[1]


def members(source: str) -> list[tuple[str, str]]:
    """Return an object's names and the sources of their values, repeated names too."""
    found: list[tuple[str, str]] = []
    pos = past_blank(source, 1)
    while source[pos] != "}":
        name, pos = DECODER.raw_decode(source, pos)
        start = past_blank(source, past_blank(source, pos) + 1)
        end = end_of(source, start)
        found.append((str(name), source[start:end]))
        pos = past_blank(source, end)
        if source[pos] == ",":
            pos = past_blank(source, pos + 1)
    return found


def elements(source: str) -> list[str]:
    """Return the sources of an array's elements."""
    found: list[str] = []
    pos = past_blank(source, 1)
    while source[pos] != "]":
        end = end_of(source, pos)
        found.append(source[pos:end])
        pos = past_blank(source, end)
        if source[pos] == ",":
            pos = past_blank(source, pos + 1)
    return found


def index_of(name: str) -> int | None:
    """Return the index that a name is in an array."""
    return int(name) if name.isascii() and name.isdecimal() and len(name) <= _LONGEST_INDEX else None


def at(source: str, names: Sequence[str]) -> str | None:
    """Return the source at a path, ``None`` if it leads nowhere; of a repeated name the last counts."""
    here: str | None = source
    for name in names:
        if here is None:
            return None
        if here.startswith("{"):
            here = dict(members(here)).get(name)
        elif here.startswith("[") and (index := index_of(name)) is not None:
            inside = elements(here)
            here = inside[index] if index < len(inside) else None
        else:
            return None
    return here


def all_at(source: str, names: Sequence[str]) -> list[str | None]:
    """Return the sources at a path, one for each time that its names are there; ``[None]`` if it leads nowhere."""
    if not names or not source.startswith("{"):
        return [at(source, names)]
    return [end for name, inner in members(source) if name == names[0] for end in all_at(inner, names[1:])] or [None]


def is_there(source: str | None) -> bool:
    """Tell whether a value is there and not null."""
    return source is not None and source != "null"


def text_of(source: str) -> str | None:
    """Return the text that a source is, ``None`` if it is another kind of value."""
    return str(json.loads(source)) if source.startswith('"') else None


def number_of(source: str) -> str | None:
    """Return the number that a source is, as written."""
    return source if source[:1] in "-0123456789" else None


def comparable(source: str) -> object:
    """Return what equal values have alike: numbers by value, and a number is no text."""
    if number_of(source) is not None:
        return Decimal(source)
    text = text_of(source)
    return source if text is None else ("text", text)


def canonical(source: str) -> str:
    """Return a JSON text so that equal values have the same: sorted members, plain numbers, no white space."""
    return _written(json.loads(source, parse_int=Number, parse_float=Number))


def _written(value: object) -> str:
    if isinstance(value, Number):
        text = f"{Decimal(value):f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)
