"""One file carried from folder to folder, over nothing: renamed, or copied whole, verified and only then removed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from typing import Final

from inboxd.inbox.tree import Folder, is_same, sync

_CHUNK: Final = 1 << 20
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


def carry(
    source: Folder,
    name: str,
    target: Folder,
    names: Iterable[str],
    *,
    part: str,
    tick: Callable[[], None],
    copy: bool = False,
) -> str:
    """Move a file to the first of ``names`` that is free in ``target``, and return that.

    It is renamed; across filesystems, and with ``copy``, it is copied to the hidden name ``part`` first. May be called
    again after a crash or an ``OSError`` at any point, as long as the file is in ``source``.
    """
    if copy:
        return _copy(source, name, target, names, part, tick)
    for new in names:
        try:
            source.move(name, target, new)
        except FileExistsError:
            if is_same(source.look(name), target.look(new)):  # a crash came between the link and the unlink
                source.unlink(name)
                return new
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _copy(source, name, target, names, part, tick)
        else:
            return new
    raise _taken(target, names)


def _copy(source: Folder, name: str, target: Folder, names: Iterable[str], part: str, tick: Callable[[], None]) -> str:
    """Copy to a hidden name, fsync, verify, publish under a free name, then remove the original.

    The hidden name stays until the original is gone: as a second link to the published file it tells, after a crash,
    that the copy is published and under which name.
    """
    new = _published(target, part, names)
    if new is None:
        _copy_whole(source, name, target, part, tick)
        new = _publish(target, part, names)
    target.sync()
    source.unlink(name)
    with contextlib.suppress(OSError):  # the file is in its place: nothing that fails now may say otherwise
        source.sync()
        target.unlink(part)
    return new


def _published(target: Folder, part: str, names: Iterable[str]) -> str | None:
    """Return the name under which an earlier call has published the copy; clear away a copy that is not."""
    try:
        copied = target.look(part)
    except FileNotFoundError:
        return None
    if copied.st_nlink > 1:
        for new in names:
            with contextlib.suppress(FileNotFoundError):
                if is_same(copied, target.look(new)):
                    return new
    target.unlink(part)  # a crash came in the middle of the copying
    return None


def _publish(target: Folder, part: str, names: Iterable[str]) -> str:
    for new in names:
        try:
            target.link(part, target, new)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:  # a filesystem without hard links
                target.move(part, target, new)
            except FileExistsError:
                continue
        return new
    raise _taken(target, names)


def _taken(target: Folder, names: Iterable[str]) -> OSError:
    return OSError(errno.EEXIST, os.strerror(errno.EEXIST), f"{target.path}/{next(iter(names))}")


def _copy_whole(source: Folder, name: str, target: Folder, part: str, tick: Callable[[], None]) -> None:
    """Copy bytes, mode (without set-id bits) and times; read the copy back from the disk and compare.

    Its name is durable, too: a cut that left a published name without it would leave a copy that nobody knows.
    """
    reading = source.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(reading)
        writing = target.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            wanted = hashlib.sha256()
            while chunk := os.read(reading, _CHUNK):
                wanted.update(chunk)
                write_all(writing, chunk)
                tick()
            os.fchmod(writing, stat.S_IMODE(found.st_mode) & 0o777)
            os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
            sync(writing)
            os.posix_fadvise(writing, 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk, not from memory
            if _hash(writing, tick) != wanted.digest():
                raise OSError(errno.EIO, "the copy differs from the original", part)
        finally:
            os.close(writing)
        target.sync()
    finally:
        os.close(reading)


def _hash(fd: int, tick: Callable[[], None]) -> bytes:
    found = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    while chunk := os.read(fd, _CHUNK):
        found.update(chunk)
        tick()
    return found.digest()


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however often the kernel takes less; raises ``OSError``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
