"""Where a window may be cut: after a record, told by what stands between two records.

A guess, and a cheap one: ``},{`` may also stand in a string or in a nested array. It needs no proof: a chunk begins
at a record, so if it can be decoded as a list of records, it ended at one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_BLANK: Final = b" \t\r\n"
_TRIES: Final = 2_000
"""Candidates that are looked at before the exact scanner has to find the end."""

_LONGEST_BEGINNING: Final = 200
"""Bytes of a record in which its first name must end to be of use."""


def candidates(text: bytes, start: int, *, array: bool, beginning: bytes = b"{") -> Iterator[int]:
    """Yield the likely ends of records in ``text[start:]``, the last first: each just after a ``}``.

    In an array, ``}`` and ``{`` with a comma between; else with nothing between. White space may stand anywhere.
    ``beginning`` is how the next record begins.
    """
    opener = len(text)
    for _ in range(_TRIES):
        opener = text.rfind(beginning, start + 1, opener)
        if opener < 0:
            return
        before = opener - 1
        while before > start and text[before] in _BLANK:
            before -= 1
        if array:
            if text[before] != ord(","):
                continue
            before -= 1
            while before > start and text[before] in _BLANK:
                before -= 1
        if before > start and text[before] == ord("}"):
            yield before + 1


def last(text: bytes, start: int, *, array: bool) -> int | None:
    """Return the last likely end, taking it that records begin alike: with the same space and name."""
    colon = text.find(b":", start, start + _LONGEST_BEGINNING) + 1
    return next(candidates(text, start, array=array, beginning=text[start:colon] or b"{"), None)


def last_balanced(text: bytes, start: int, *, array: bool) -> int | None:
    """Return the last likely end up to which every bracket is closed, if those in strings are no trouble."""
    depth = previous = None
    for end in candidates(text, start, array=array):
        if depth is None or previous is None:
            depth = _depth(text, start, end)
        else:
            depth -= _depth(text, end, previous)
        previous = end
        if depth == 0:
            return end
    return None


def _depth(text: bytes, start: int, end: int) -> int:
    return (
        text.count(b"{", start, end)
        + text.count(b"[", start, end)
        - text.count(b"}", start, end)
        - text.count(b"]", start, end)
    )
