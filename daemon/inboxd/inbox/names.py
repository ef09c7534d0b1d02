"""Names of files: which suffixes are ours, and how a name is changed without losing its meaning or its limit.

Names are as ``os.fsdecode`` gives them. Limits count bytes, so everything here is cut as bytes.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

NAME_MAX: Final = 255
"""Bytes in one name, on every Linux filesystem in common use (``NAME_MAX`` of limits.h)."""
SUFFIXES: Final = tuple(form + packing for form in (".json", ".ndjson", ".jsonl") for packing in ("", ".gz", ".zst"))
"""What a file must be called to be taken (section "Formats" of the manual)."""
REPORT_SUFFIX: Final = ".error.json"


def marked(name: str, mark: str) -> str:
    """Return ``name`` with ``.mark`` before all its suffixes: ``a.json.gz``, ``run-812`` → ``a.run-812.json.gz``.

    The stem is cut where 255 bytes would be passed, never inside a UTF-8 sequence.
    """
    stem, suffix = split(name)
    tail = os.fsencode(f".{mark}{suffix}")
    return os.fsdecode(_cut(os.fsencode(stem), NAME_MAX - len(tail)) + tail)


def split(name: str) -> tuple[str, str]:
    """Return a name's stem and its suffixes: one of ours as a whole, else what follows the last dot."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return name[: -len(suffix)], suffix
    return os.path.splitext(name)


def report_name(name: str) -> str:
    """Return the name of a failed file's report. One that is cut gets a piece of the name's hash: it stays unique."""
    whole = os.fsencode(name)
    tail = os.fsencode(REPORT_SUFFIX)
    if len(whole) + len(tail) > NAME_MAX:
        piece = f"~{hashlib.sha256(whole).hexdigest()[:8]}".encode()
        whole = _cut(whole, NAME_MAX - len(tail) - len(piece)) + piece
    return os.fsdecode(whole + tail)


def looks_like_report(name: str) -> bool:
    """Tell whether a sender's file is called as a report of ours would be, which we may overwrite."""
    return name.endswith(tuple(suffix + REPORT_SUFFIX for suffix in SUFFIXES))


def _cut(name: bytes, length: int) -> bytes:
    """Return the first ``length`` bytes at most, without the beginning of a UTF-8 sequence at the end."""
    if len(name) <= length:
        return name
    end = length
    while end > length - 4 and name[end] & 0xC0 == 0x80:  # noqa: PLR2004 - 10xxxxxx continues a sequence (RFC 3629)
        end -= 1
    if name[end] & 0xC0 == 0x80:  # noqa: PLR2004 - more than three in a row are no UTF-8: any cut is as good
        end = length
    return name[:end]
