"""JSON in one spelling: what ``jsonb`` calls equal has the same text, so that SQLite can compare it."""

from __future__ import annotations

import json
from decimal import Decimal


class _Number(str):
    """A number's canonical text."""

    __slots__ = ()


def canonical_json(text: str) -> str:
    """Return the text with its members sorted, its numbers in plain digits, and no white space.

    Of a name that is there twice the last value counts. Exponents are within ±1000, as records are held to that.
    """
    return _written(json.loads(text, parse_int=_plain, parse_float=_plain))


def _plain(text: str) -> _Number:
    number = f"{Decimal(text):f}"
    if "." in number:
        number = number.rstrip("0").removesuffix(".")
    return _Number("0" if number in {"-0", "0"} else number)


def _written(value: object) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        members = sorted(value.items())
        return "{" + ",".join(f"{_quoted(name)}:{_written(each)}" for name, each in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
