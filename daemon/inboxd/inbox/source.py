"""Reading a file: the bytes hashed are the bytes parsed, or nothing is committed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Final, Self

from inboxd.errors import FileFault, TransientFault
from inboxd.inbox.faults import CHANGED_WHILE_READING, GONE, transient_fault
from inboxd.inbox.lease import Lease, lease_of
from inboxd.inbox.tree import Folder, begin_sync, sync
from inboxd.model import printable

_CHUNK: Final = 1 << 20
_AT_ONCE: Final = 64 << 10
"""A file of so many bytes at most is read before a disk has begun anything."""
Ahead = Callable[[], os.stat_result | None]
"""Gives what a look at the file said just before its content was made durable ahead; ``None`` if that is not done."""


class Source:
    """One file opened for one attempt. Everything that ``read`` gives is hashed, and nothing else is.

    A context manager. ``folder`` gives the open folder in which the file is; without it ``path`` is a user's own, of a
    file that stays where it is (``load``): a symlink is followed, and a writer that has the file open does no harm
    unless it writes. ``tick`` is called whenever bytes were read. ``name`` is what people call the file, where it is
    not ``path``. ``ahead`` tells of its content being made durable meanwhile.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_size: int | None = None,
        tick: Callable[[], None] | None = None,
        folder: Callable[[], Folder] | None = None,
        name: str | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._name = name
        self.size = 0
        self._max_size = max_size
        self.tick = tick
        self._folder = folder
        self._fd = -1
        self._opened: os.stat_result | None = None
        self._offset = 0
        self._hash = hashlib.sha256()
        self._ahead = ahead

    def __enter__(self) -> Self:
        """Open the file; raises ``FileFault`` (``unreadable``, ``file_too_large``) or ``TransientFault``."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags) if self._folder is None else self._folder().open(self.path, flags)
        except OSError as error:
            raise self._not_opened(error) from error
        try:
            self._opened = found = os.fstat(self._fd)
            self.size = found.st_size
            self._refuse(found)
        except BaseException:
            self.close()
            raise
        if self._ahead is None and self.size > _AT_ONCE:
            begin_sync(self._fd)  # the disk works while the file is read; the seal waits for what is left
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def offset(self) -> int:
        """How many bytes were read."""
        return self._offset

    @property
    def _shown(self) -> str:
        return printable(self.path if self._name is None else self._name)

    def close(self) -> None:
        """Close the file; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, ``b""`` at the end the file had when it was opened."""
        wanted = min(size, self.size - self._offset)
        if wanted <= 0:
            return b""
        try:
            data = os.read(self._fd, wanted)
        except OSError as error:
            raise transient_fault(error, f"reading {self._shown}", self.path) from error
        self._hash.update(data)
        self._offset += len(data)
        if self.tick is not None:
            self.tick()
        return data

    def again(self) -> Again:
        """Return the same content from its beginning, to be read beside ``read``; what is read there is not hashed."""
        return Again(self._fd, self.size, self._shown, self.tick)

    def seal(self) -> str:
        """Prove that nobody changed the file since it was opened, make it durable, and return its SHA-256 (hex).

        Raises ``TransientFault`` ``changed_while_reading`` when somebody did, or has it open for writing.
        """
        try:
            if not self._is_durable():
                sync(self._fd)  # a producer that renames without fsync leaves an empty file after a power cut
        except OSError as error:
            raise transient_fault(error, f"making {self._shown} durable", self.path) from error
        self._verify()  # last: making a large file durable takes its time
        if self._offset != self.size:
            msg = f"{self.path}: sealed after {self._offset} of {self.size} bytes; all must be parsed that is hashed"
            raise RuntimeError(msg)
        return self._hash.hexdigest()

    def _is_durable(self) -> bool:
        """Tell whether what was read was made durable ahead. Raises ``OSError`` where that failed."""
        found = self._ahead() if self._ahead is not None else None
        return found is not None and self._opened is not None and _same(found, self._opened)

    def drain(self) -> str:
        """Read what is left, then as ``seal``: a fault found in a file that changed meanwhile says nothing about it."""
        while self.read(_CHUNK):
            pass
        return self.seal()

    def rewind(self) -> None:
        """Begin again: what is read, and hashed, from here on is the file from its beginning."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._offset, self._hash = 0, hashlib.sha256()

    def _refuse(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise FileFault("unreadable", f"{self._shown} is not a regular file", "only regular files are read")
        if self._max_size is not None and found.st_size > self._max_size:
            message = f"{self._shown} has {found.st_size} bytes, more than inbox.max_file_size ({self._max_size})"
            raise FileFault("file_too_large", message, "raise inbox.max_file_size, or split the file, and retry it")

    def _not_opened(self, error: OSError) -> FileFault | TransientFault:
        reason = os.strerror(error.errno or 0)
        if error.errno in {errno.EACCES, errno.EPERM}:
            hint = "give inboxd's user read permission on the file, then retry it"
            return FileFault("unreadable", f"{self._shown} cannot be read: {reason}", hint)
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return FileFault("unreadable", f"{self._shown} is not a regular file", "only regular files are read")
        return transient_fault(error, f"opening {self._shown}", self.path)

    def _verify(self) -> None:
        """Compare what the file is with what it was; a read lease tells whether a writer has it open."""
        try:
            now = os.fstat(self._fd)
            there = os.stat(self.path) if self._folder is None else self._folder().look(self.path)
            lease = Lease.FORBIDDEN if self._folder is None else lease_of(self._fd)
        except FileNotFoundError as error:
            message = f"{self._shown} was moved or removed while it was read"
            raise TransientFault(GONE, message, "leave what is in .claimed to inboxd") from error
        except OSError as error:
            raise transient_fault(error, f"reading {self._shown}", self.path) from error
        same = self._opened is not None and _same(self._opened, now) and os.path.samestat(now, there)
        if not same or lease is Lease.OPEN:
            what = "changed while it was read" if not same else "is still open for writing"
            hint = "write under another name and rename when it is complete"
            raise TransientFault(CHANGED_WHILE_READING, f"{self._shown} {what}", hint)


class Again:
    """The content of an open file once more, beside the reading of it."""

    def __init__(self, fd: int, size: int, shown: str, tick: Callable[[], None] | None) -> None:
        self._fd = fd
        self._size = size
        self._shown = shown
        self._tick = tick
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, ``b""`` at the end the file had when it was opened."""
        wanted = min(size, self._size - self._offset)
        if wanted <= 0:
            return b""
        try:
            data = os.pread(self._fd, wanted, self._offset)
        except OSError as error:
            raise transient_fault(error, f"reading {self._shown}", self._shown) from error
        self._offset += len(data)
        if self._tick is not None:
            self._tick()
        return data


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)
