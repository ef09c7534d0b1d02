"""The kernel's answer to "has anybody this file open for writing?": a read lease, asked for and given back at once."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from enum import StrEnum
from typing import Final

from inboxd.inbox.tree import Folder


class Lease(StrEnum):
    """What the kernel said."""

    GRANTED = "granted"
    """Nobody has the file open for writing."""
    OPEN = "open"
    """Somebody has."""
    FORBIDDEN = "forbidden"
    """It will not tell us: neither owner nor CAP_LEASE, or a filesystem without leases."""


_FORBIDDING: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK})


class _Signals:
    """Whether SIGIO was seen to. Signal dispositions belong to the process, and so does this."""

    ignored = False


def lease_of(fd: int) -> Lease:
    """Ask about an open file (``O_RDONLY``).

    A writer that opens the file in the moment we hold the lease waits for us for some microseconds, and the kernel
    sends us SIGIO, which kills a process that does not ignore it.
    """
    if not _Signals.ignored and not _ignore_sigio():
        return Lease.FORBIDDEN
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return Lease.OPEN
        if error.errno in _FORBIDDING:
            return Lease.FORBIDDEN
        raise
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Lease.GRANTED


def lease_at(folder: Folder, name: str) -> Lease:
    """Ask about a file in a folder; raises ``FileNotFoundError`` if it is gone, ``OSError`` on a symlink."""
    try:
        fd = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return Lease.FORBIDDEN
    except BlockingIOError:  # somebody (a file server) holds a lease of its own for writing
        return Lease.OPEN
    try:
        return lease_of(fd)
    finally:
        os.close(fd)


def _ignore_sigio() -> bool:
    """Ignore SIGIO; tell whether it is ignored. Only the main thread may change that."""
    try:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    except ValueError:
        return signal.getsignal(signal.SIGIO) is signal.SIG_IGN
    _Signals.ignored = True
    return True
