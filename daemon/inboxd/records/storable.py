"""What both databases can store of a JSON text: PostgreSQL knows no U+0000, no lone surrogates, no endless numbers."""

from __future__ import annotations

import json
import re
from typing import Final

MAX_EXPONENT: Final = 1_000
MAX_NUMBER_DIGITS: Final = 10_000
"""Digits of one number inside a ``json`` value; PostgreSQL's numeric ends at 16,383 after the point."""

_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_NUMBER: Final = re.compile(rb"(?:\A|[\s:,\[])-?[0-9.]+[eE][+-]?[0-9]{4}")
"""The beginning of a number whose exponent has four digits, or of what looks like it in a string."""

_ALIKE: Final = bytes.maketrans(b"123456789E", b"000000000e")
"""Makes every digit 0: then the beginnings of long exponents are found at the speed of a search for fixed bytes."""


class _Unstorable(Exception):
    pass


def unstorable(source: bytes) -> str:
    """Say why a valid JSON text cannot be stored as ``json`` on both databases; nothing if it can."""
    escapes = b"\\u" in source and _ESCAPE.search(source)
    exponents = b"0e0000" in source.translate(_ALIKE, b"+-") and _NUMBER.search(source)
    if not escapes and not exponents and len(source) <= MAX_NUMBER_DIGITS:
        return ""
    try:
        _look(json.loads(source, parse_int=_number, parse_float=_number, object_pairs_hook=_names_and_values))
    except _Unstorable as found:
        return str(found)
    return ""


def _names_and_values(members: list[tuple[str, object]]) -> list[object]:
    return [part for member in members for part in member]


def _number(source: str) -> None:
    mantissa, _, exponent = source.lower().partition("e")
    digits = exponent.lstrip("+-0")
    if len(digits) > len(str(MAX_EXPONENT)) or (digits and int(digits) > MAX_EXPONENT):
        raise _Unstorable(f"an exponent beyond ±{MAX_EXPONENT} in it")
    if len(mantissa) > MAX_NUMBER_DIGITS:
        raise _Unstorable(f"a number of more than {MAX_NUMBER_DIGITS} digits in it")


def _look(value: object) -> None:
    """Look through the strings of a value; at most 200 levels deep, as every record is."""
    if isinstance(value, list):
        for part in value:
            _look(part)
    elif isinstance(value, str) and not storable(value):
        raise _Unstorable("U+0000 in it" if "\0" in value else "a lone surrogate in it")


def storable(text: str) -> bool:
    """Tell whether a text has neither U+0000 nor lone surrogates."""
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
