"""Names of files: which suffixes are ours, and how a name is changed without losing its meaning or its limit.

Names are as ``os.fsdecode`` gives them. Limits count bytes, so everything here is cut as bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from inboxd.model import printable

NAME_MAX: Final = 255
"""Bytes in one name, on every Linux filesystem in common use (``NAME_MAX`` of limits.h)."""
PACKINGS: Final = (".gz", ".zst")
"""What may follow each suffix of ``inbox.suffixes``."""
LONGEST_SUFFIX: Final = 64
"""Bytes; what is longer is part of the name."""
_ESCAPED: Final = re.compile(r"\\x([89a-f][0-9a-f])")
CLAIMED: Final = ".claimed"
"""The one thing of inboxd's own in an inbox. Hidden, so the scan never enters it."""
PRIVATE: Final = 0o700
"""Its mode."""
_MARK: Final = re.compile(r"(?P<stem>.*)\.(?P<mark>run-(?P<run>[0-9]{1,18})(?:-[0-9]+)?)", re.DOTALL)
REPORT_SUFFIX: Final = ".error.json"


@dataclass(frozen=True, slots=True)
class Names:
    """The names a file may get: its own (unless reserved for reports), then with the run's number, then a counter."""

    name: str
    run_id: int
    reserved: bool = False

    def __iter__(self) -> Iterator[str]:
        if not self.reserved:
            yield self.name
        yield marked(self.name, f"run-{self.run_id}")
        for number in range(2, 10_000):
            yield marked(self.name, f"run-{self.run_id}-{number}")


def suffixes_of(suffixes: Iterable[str]) -> tuple[str, ...]:
    """Return the endings of the names that are taken: each of ``inbox.suffixes``, and each of its packings."""
    return tuple(suffix.lower() + packing for suffix in suffixes for packing in ("", *PACKINGS))


def is_taken(name: str, endings: tuple[str, ...]) -> bool:
    """Tell whether a name has one of the endings; letter case does not matter."""
    return name.endswith(endings) or name.lower().endswith(endings)


def spellings(shown: str) -> tuple[str, ...]:
    """Return the names that ``model.printable`` shows so: bytes that are no UTF-8 are escaped in what is shown."""
    plain = _ESCAPED.sub(lambda found: os.fsdecode(bytes([int(found[1], 16)])), shown)
    return (shown,) if plain == shown else (shown, plain)


def marked(name: str, mark: str) -> str:
    """Return ``name`` with ``.mark`` before all its suffixes: ``a.json.gz``, ``run-812`` → ``a.run-812.json.gz``.

    The stem is cut where 255 bytes would be passed, never inside a UTF-8 sequence.
    """
    stem, suffix = split(name)
    tail = os.fsencode(f".{mark}{suffix}")
    return os.fsdecode(_cut(os.fsencode(stem), NAME_MAX - len(tail)) + tail)


def runs_told(archived: str) -> list[int]:
    """Return the runs whose numbers an archived file's path tells, in its name or in those of its folders."""
    found = (_MARK.fullmatch(split(part)[0]) for part in archived.split("/"))
    return [*dict.fromkeys(int(match["run"]) for match in found if match is not None)]


def original(archived: str, run_id: int, recorded: str) -> str | None:
    """Return the path in the inbox of what a run has archived under a path; ``None`` if it is not that run's file.

    ``recorded`` is the path that the run took, as ``model.printable`` shows it. The run's number may be in the name of
    the file, and in those of its folders: see ``Archive.move``.
    """
    ours, theirs = archived.split("/"), recorded.split("/")
    if len(ours) != len(theirs):
        return None
    found = [_original(part, run_id, was) for part, was in zip(ours, theirs, strict=True)]
    plain = [part for part in found if part is not None]
    return "/".join(plain) if len(plain) == len(found) else None


def _original(part: str, run_id: int, recorded: str) -> str | None:
    if printable(part) == recorded:
        return part
    stem, suffix = split(part)
    match = _MARK.fullmatch(stem)
    if match is None or int(match["run"]) != run_id:
        return None
    plain = match["stem"] + suffix
    if printable(plain) == recorded:
        return plain
    return recorded if marked(recorded, match["mark"]) == part else None  # its stem was too long for the mark


def split(name: str) -> tuple[str, str]:
    """Return a name's stem and its suffixes: how it is packed, if it is, and what its last dot but that begins."""
    packed = next((len(packing) for packing in PACKINGS if name.lower().endswith(packing) and name != packing), 0)
    whole, packing = name[: len(name) - packed], name[len(name) - packed :]
    dot = whole.rfind(".")
    if dot <= 0 or len(os.fsencode(whole[dot:])) > LONGEST_SUFFIX:
        return whole, packing
    return whole[:dot], whole[dot:] + packing


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
    return name.lower().endswith(REPORT_SUFFIX)


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
