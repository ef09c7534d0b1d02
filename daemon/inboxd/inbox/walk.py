"""What is in the inbox, and which of it is ours: every regular file with a suffix of ours that a feed matches."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from inboxd.inbox.names import CLAIMED, PRIVATE, is_taken, suffixes_of
from inboxd.inbox.notices import FILE_IGNORED, FOLDER_UNREADABLE, Once
from inboxd.inbox.settle import Found
from inboxd.inbox.tree import DEEPEST, Folder, identity_of, walk

Match = Callable[[str], str | None]
"""Which feed, if any, takes a file of this name (relative to the inbox)."""


LONGEST: Final = 3_800
"""Bytes in a path relative to the inbox. With descriptors any length could be taken, but no other program could name
where it is claimed and archived: a path has 4,096 bytes at most (``PATH_MAX`` of limits.h)."""


def _nothing() -> re.Pattern[str]:
    return re.compile(r"(?!)")


@dataclass(slots=True)
class Sieve:
    """Which names are admitted. The pure half of admission; safe to use from any thread."""

    match: Match
    endings: tuple[str, ...] = ()
    reason: str = ""
    """Why a name with none of them is left alone."""
    _ignored: re.Pattern[str] = field(default_factory=_nothing)

    @classmethod
    def of(cls, match: Match, ignore: Iterable[str], suffixes: Sequence[str]) -> Sieve:
        """Compile ``inbox.ignore`` (globs for a file's or folder's own name) and ``inbox.suffixes``."""
        globs = "|".join(fnmatch.translate(glob) for glob in ignore)
        reason = f"its name ends in none of {', '.join(suffixes)}, nor one of these with .gz or .zst (inbox.suffixes)"
        return cls(match, suffixes_of(suffixes), reason, re.compile(globs) if globs else _nothing())

    def takes(self, name: str) -> bool:
        """Tell whether a name has one of the suffixes."""
        return is_taken(name, self.endings)

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
    """Looks at files and folders, and says once why something is left alone. Owned by the loop's thread.

    ``foreign`` are folders that are not entered: the archive's, should they be met in the inbox by another path. They
    are told by device and inode, asked for each time: a folder that is removed gives its inode to the next one made.
    Nor is what another inboxd has for its inbox.
    """

    sieve: Sieve
    once: Once
    foreign: tuple[str, ...] = ()
    left_alone: int = 0

    def below(self, inbox: Folder, start: str = "") -> Iterator[Found]:
        """Yield every file of ours in the folder ``start`` (relative; ``""`` is the inbox) and below.

        Raises ``OSError`` if the inbox itself cannot be listed; a folder in it that cannot is only noticed. A
        stream: no list of a folder's entries is ever held. Symlinks are never followed.
        """
        if start and not self._leads(inbox, start):
            return
        hides = self.sieve.hides
        for name, entry in walk(inbox, start=start, enter=self._enter, skip=hides, closed=self._closed):
            found = self._entry(name, entry)
            if found is not None:
                yield found

    def one(self, inbox: Folder, name: str) -> Found | None:
        """Look at a single name; ``None`` if it is gone, or not ours."""
        if self.sieve.hides_path(name) or name.count("/") > DEEPEST:
            return None
        try:
            found = self._look(inbox, name)
        except OSError:
            return None
        if found is None or stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            self._leave(name, _what(found.st_mode))
            return None
        return self._admit(name, found)

    def _look(self, inbox: Folder, name: str) -> os.stat_result | None:
        """Look at a name, unless a folder on its way is not to be entered."""
        below, _, base = name.rpartition("/")
        if not below:
            return inbox.look(base)
        if not self._leads(inbox, below):
            return None
        with inbox.reach(below) as folder:
            return folder.look(base)

    def _leads(self, inbox: Folder, below: str) -> bool:
        """Tell whether the way to a folder leads through folders that may be entered."""
        shut = False

        def step(here: Folder, part: str) -> Folder:
            nonlocal shut
            there = here.into(part)
            shut = shut or bool(self._why_shut(there))
            return there

        try:
            inbox.reach(below, step).close()
        except OSError:
            return False
        return not shut

    def _enter(self, name: str, folder: Folder) -> bool:
        reason = self._why_shut(folder)
        if reason:
            self._leave(name, reason)
        return not reason

    def _why_shut(self, folder: Folder) -> str:
        """Return why a folder is not to be entered, or ``""``."""
        if self.foreign and folder.identity() in identities_of(*self.foreign):
            return "it is a folder of the archive: what is in it was loaded before"
        return "it is the inbox of another inboxd" if is_an_inbox(folder) else ""

    def _closed(self, name: str, error: OSError) -> None:
        deep = error.errno == errno.ENAMETOOLONG
        reason = f"it is more than {DEEPEST} folders deep" if deep else os.strerror(error.errno or 0)
        self.once.tell(FOLDER_UNREADABLE, name, reason)

    def _entry(self, name: str, entry: os.DirEntry[str]) -> Found | None:
        """Sort one entry. One that cannot be looked at (a stale handle, a bad inode) must not hold up the others."""
        try:
            if not entry.is_file(follow_symlinks=False):
                self._leave(name, _what(entry.stat(follow_symlinks=False).st_mode))
                return None
            if not self.sieve.takes(name):
                self._leave(name, self.sieve.reason)
                return None
            return self._admit(name, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return None  # taken by somebody else meanwhile
        except OSError as error:
            self._leave(name, f"it cannot be looked at: {os.strerror(error.errno or 0)}")
            return None

    def _admit(self, name: str, found: os.stat_result) -> Found | None:
        if not self.sieve.takes(name):
            self._leave(name, self.sieve.reason)
            return None
        if len(name) > LONGEST // 4 and len(os.fsencode(name)) > LONGEST:
            self._leave(name, f"its path has more than {LONGEST} bytes")
            return None
        feed = self.sieve.match(name)
        if feed is None:
            self._leave(name, "no feed matches it")
            return None
        return Found(found.st_mtime_ns, name, found.st_size, found.st_ctime_ns, found.st_dev, found.st_ino, feed)

    def _leave(self, name: str, reason: str) -> None:
        self.left_alone += 1
        self.once.tell(FILE_IGNORED, name, reason)


def identities_of(*paths: str | os.PathLike[str]) -> frozenset[tuple[int, int]]:
    """Return device and inode of those folders that are there."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.add(identity_of(path))
    return frozenset(found)


def is_an_inbox(folder: Folder) -> bool:
    """Tell whether an inboxd of this user, or of root, takes files from a folder: no other can make ``.claimed``."""
    try:
        found = folder.look(CLAIMED)
    except OSError:
        return False
    ours = found.st_uid in {0, os.geteuid()} and stat.S_IMODE(found.st_mode) == PRIVATE
    return ours and stat.S_ISDIR(found.st_mode)


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _what(mode: int) -> str:
    return f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; only regular files are taken"
