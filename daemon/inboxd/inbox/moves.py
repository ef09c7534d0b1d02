"""Renames that overwrite nothing, and folders made durable: the primitives under claim and archive."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import Final

_RENAMEAT2: Final = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
"""glibc 2.28, musl 1.2.6"""
_AT_FDCWD: Final = -100  # linux/fcntl.h
_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_NO_SUCH_CALL: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK})
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})


def rename_exclusively(source: str, target: str) -> None:
    """Rename, but never over something: raises ``FileExistsError``, or another ``OSError``.

    A filesystem without ``RENAME_NOREPLACE`` (NFS, some FUSE) gets a hard link and an unlink instead, and one without
    hard links an empty file made exclusively, which only we then replace.
    """
    if _renameat2(source, target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(source)
        return
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
    try:
        os.rename(source, target)
    except OSError:
        os.unlink(target)
        raise


def _renameat2(source: str, target: str) -> bool:
    """Rename without replacing; tell whether this kernel and filesystem can. Raises ``OSError``."""
    if _RENAMEAT2 is None:
        return False
    result = _RENAMEAT2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_CALL:
        return False
    raise OSError(number, os.strerror(number), source, None, target)


def sync_folder(path: str) -> None:
    """Make a folder's entries durable. A filesystem that cannot do that for folders is taken at its word."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """Make an open file or folder durable; raises ``OSError`` when the disk says no."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def make_folders(path: str) -> None:
    """Make a folder and what leads to it, each new one durable in its parent."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent not in {path, ""}:
        make_folders(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        sync_folder(parent or ".")
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def remove_empty(folder: str, top: str) -> None:
    """Remove ``folder`` and the folders above it, up to and with ``top``, as long as they are empty."""
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass  # a neighbour's recovery was quicker
        except OSError:
            return  # not empty, or not ours to remove: the next start looks again
        if folder == top or len(folder) <= len(top):
            return
        folder = os.path.dirname(folder)
