"""What is in the inbox, and which of it is ours: every regular file with a suffix of ours that a feed matches."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from inboxd.inbox.names import SUFFIXES
from inboxd.inbox.notices import FILE_IGNORED, FOLDER_UNREADABLE, Once
from inboxd.inbox.settle import Found

Match = Callable[[str], str | None]
"""Which feed, if any, takes a file of this name (relative to the inbox)."""


DEEPEST: Final = 200
"""Folders on a file's way from the inbox. A path of 4,096 bytes could have 2,000, and exhaust a follower's stack."""


def _nothing() -> re.Pattern[str]:
    return re.compile(r"(?!)")


@dataclass(slots=True)
class Sieve:
    """Which names are admitted. The pure half of admission; safe to use from any thread."""

    match: Match
    suffixes: tuple[str, ...] = SUFFIXES
    _ignored: re.Pattern[str] = field(default_factory=_nothing)

    @classmethod
    def of(cls, match: Match, ignore: Iterable[str], suffixes: Iterable[str]) -> Sieve:
        """Compile ``inbox.ignore``: globs that are held against a file's or folder's own name."""
        globs = "|".join(fnmatch.translate(glob) for glob in ignore)
        return cls(match, tuple(suffixes), re.compile(globs) if globs else _nothing())

    def hides(self, name: str) -> bool:
        """Tell whether a single name, of a file or folder, is left alone without a word. ``.claimed`` is."""
        return name.startswith(".") or self._ignored.match(name) is not None

    def hides_path(self, name: str) -> bool:
        """Tell whether a path relative to the inbox, or a folder on its way, is left alone without a word."""
        return any(self.hides(part) for part in name.split("/"))

    def interesting(self, name: str) -> bool:
        """Tell whether something that happened to ``name`` is worth a look."""
        return not self.hides_path(name)


@dataclass(slots=True)
class Walk:
    """Looks at files and folders, and says once why something is left alone. Owned by the loop's thread."""

    root: str
    sieve: Sieve
    once: Once
    left_alone: int = 0

    def below(self, start: str) -> Iterator[Found]:
        """Yield every file of ours in the folder ``start`` (relative; ``""`` is the inbox) and below.

        Raises ``OSError`` if the inbox itself cannot be listed; a folder in it that cannot is only noticed. A
        stream: no list of a folder's entries is ever held. Symlinks are never followed.
        """
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(f"{self.root}/{folder}" if folder else self.root) as entries:
                    for entry in entries:
                        name = f"{folder}/{entry.name}" if folder else entry.name
                        if self.sieve.hides(entry.name):
                            continue
                        found = self._entry(name, entry, waiting)
                        if found is not None:
                            yield found
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
            except OSError as error:
                if not folder:
                    raise
                self.once.tell(FOLDER_UNREADABLE, folder, os.strerror(error.errno or 0))

    def one(self, name: str) -> Found | None:
        """Look at a single name; ``None`` if it is gone, or not ours."""
        if self.sieve.hides_path(name):
            return None
        try:
            found = os.lstat(f"{self.root}/{name}")
        except OSError:
            return None
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            self._leave(name, _what(found.st_mode))
            return None
        return self._admit(name, found)

    def _entry(self, name: str, entry: os.DirEntry[str], folders: list[str]) -> Found | None:
        """Sort one entry. One that cannot be looked at (a stale handle, a bad inode) must not hold up the others."""
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
                return None
            if not entry.is_file(follow_symlinks=False):
                self._leave(name, _what(entry.stat(follow_symlinks=False).st_mode))
                return None
            if not name.endswith(self.sieve.suffixes):
                self._leave(name, _NO_SUFFIX)
                return None
            return self._admit(name, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return None  # taken by somebody else meanwhile
        except OSError as error:
            self._leave(name, f"it cannot be looked at: {os.strerror(error.errno or 0)}")
            return None

    def _admit(self, name: str, found: os.stat_result) -> Found | None:
        if not name.endswith(self.sieve.suffixes):
            self._leave(name, _NO_SUFFIX)
            return None
        if name.count("/") > DEEPEST:
            self._leave(name, f"it is more than {DEEPEST} folders deep")
            return None
        feed = self.sieve.match(name)
        if feed is None:
            self._leave(name, "no feed matches it")
            return None
        return Found(found.st_mtime_ns, name, found.st_size, found.st_ctime_ns, found.st_dev, found.st_ino, feed)

    def _leave(self, name: str, reason: str) -> None:
        self.left_alone += 1
        self.once.tell(FILE_IGNORED, name, reason)


_NO_SUFFIX = "its name ends in none of .json, .ndjson, .jsonl, nor one of these with .gz or .zst"
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _what(mode: int) -> str:
    return f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; only regular files are taken"
