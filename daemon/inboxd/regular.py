"""Files that an operator names, opened so that nobody ever waits for them: a pipe without a writer says nothing."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO, Final

PIPE_S: Final = 8.0
"""How long a pipe that a command was given may say nothing; a daemon that is told to stop has 10 s (``TERM``)."""
_READING: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK: Final = 1 << 16
_NULL: Final = os.makedev(1, 3)
"""Linux's number of ``/dev/null`` (null(4))."""
_KINDS: Final = {
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFDIR: "it is a folder",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def kind_of(found: os.stat_result) -> str | None:
    """Say what a look found if that is no regular file; ``None`` if it is one, or ``/dev/null``, the empty one."""
    mode = found.st_mode
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and found.st_rdev == _NULL):
        return None
    return f"{_KINDS[stat.S_IFMT(mode)]}, not a regular file"


def kind_at(path: str | os.PathLike[str]) -> str | None:
    """Say the same of what a path leads to; ``None``, too, where nothing is to be seen."""
    try:
        return kind_of(Path(path).stat())
    except (OSError, ValueError):  # ValueError: U+0000
        return None


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; raises ``OSError``, at once, for whatever else is there."""
    fd = _opened(path)
    kind = kind_of(os.fstat(fd))
    if kind is None:
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise OSError(errno.EINVAL, kind, os.fspath(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return what is in a regular file; raises ``OSError``, at once, for whatever else is there."""
    with open_regular(path) as file:
        return file.read()


def read_given(path: str | os.PathLike[str]) -> bytes:
    """Return what is in a file that a person named for this one command: a pipe, too, such as ``/dev/stdin``.

    Raises ``OSError`` where it cannot be read, or where a pipe says nothing for ``PIPE_S``.
    """
    fd = _opened(path)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        return _to_the_end(fd, path)
    finally:
        os.close(fd)


def _opened(path: str | os.PathLike[str]) -> int:
    try:
        return os.open(path, _READING)
    except OSError as error:
        if error.errno == errno.ENXIO:  # open(2): what a socket says, and a device that is not there
            raise OSError(errno.ENXIO, "it is a socket or a device, not a regular file", os.fspath(path)) from None
        raise


def _to_the_end(fd: int, path: str | os.PathLike[str]) -> bytes:
    """Read all of an open file, waiting for each part of it no longer than ``PIPE_S``.

    A pipe whose writer has not come yet is not at its end, as a read would have it: so it is asked first.
    """
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    parts: list[bytes] = []
    while True:
        if not asked.poll(PIPE_S * 1000):
            raise OSError(errno.ETIMEDOUT, f"nobody wrote to it for {PIPE_S:g} s", os.fspath(path))
        try:
            part = os.read(fd, _BLOCK)
        except BlockingIOError:  # another reader was quicker
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)
