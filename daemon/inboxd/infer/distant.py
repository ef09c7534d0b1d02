"""A few records from further on in a file that is too large to be read whole."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Final

from inboxd.infer.sample import Opener
from inboxd.records.unpack import is_packed
from inboxd.records.windows import WINDOW

_PLACES: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
"""How far into the file, of its size."""
_PIECE: Final = 1 << 20
"""Bytes that are read at each place."""
_APART: Final = 2 * WINDOW
"""Bytes by which the reading of the first part may go on: no record is to be looked at twice."""
_MOST: Final = 200
"""Records of one place."""
_MOST_TRIED: Final = 2_000
_START: Final = re.compile(r"(?:^|[\n,\[}])[ \t\r\n]*(?=\{)")
"""Where an object may begin that is an element or a line."""


def distant_records(opener: Opener, beyond: int, names: Collection[str]) -> list[str]:
    """Return the sources of objects further on in a plain file of more than ``beyond`` bytes.

    Only objects that have the names of the records already known: which of an array's objects begin where is a guess.
    """
    found: list[str] = []
    with opener() as stream:
        if not isinstance(stream, io.BufferedReader) or not stream.seekable():
            return []
        if is_packed(stream.read(4)) or (size := stream.seek(0, io.SEEK_END)) <= beyond:
            return []
        for share in _PLACES:
            start = int(share * size) - _PIECE
            if start < beyond + _APART:
                continue
            stream.seek(start)
            found.extend(_objects(stream.read(_PIECE).decode("utf-8", "ignore"), frozenset(names)))
    return found


def _objects(text: str, names: frozenset[str]) -> Iterator[str]:
    decoder = json.JSONDecoder()
    at, taken = 0, 0
    for _ in range(_MOST_TRIED):
        start = _START.search(text, at)
        if start is None or taken >= _MOST:
            return
        at = start.end()
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict) and value and len(names & value.keys()) * 2 >= max(len(value), 1):
            yield text[at:end]
            taken, at = taken + 1, end
        else:
            at += 1
