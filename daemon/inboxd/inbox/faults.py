"""Errors of the operating system, told apart by what happens next. The one place that knows errno."""

from __future__ import annotations

import errno
import os
from typing import Final

from inboxd.errors import TransientFault
from inboxd.model import printable

DISK_FULL: Final = "disk_full"
IO_ERROR: Final = "io_error"
READ_ONLY: Final = "read_only"
PERMISSION: Final = "permission"
STALE: Final = "stale"
NO_RESOURCES: Final = "no_resources"
NOT_MOVABLE: Final = "not_movable"
CHANGED_WHILE_READING: Final = "changed_while_reading"
GONE: Final = "gone"

IN_THE_WAY: Final = "something that is no folder stands in the place of one, at {place} or below: move it away"
NOT_PERMITTED: Final = (
    "let inboxd's user own {place}, if that is sticky: only the owner may rename there;"
    " make it mutable (`chattr -i`), if it is immutable"
)
_KINDS: Final[dict[int, tuple[str, str]]] = {
    errno.ENOSPC: (DISK_FULL, "make room on the filesystem of {place}"),
    errno.EDQUOT: (DISK_FULL, "raise the quota of inboxd's user on the filesystem of {place}, or make room there"),
    errno.EFBIG: (DISK_FULL, "the filesystem of {place}, or a limit of the process, does not allow a file this large"),
    errno.EIO: (IO_ERROR, "look at the kernel's log (dmesg) for the disk under {place}"),
    errno.EROFS: (READ_ONLY, "mount the filesystem of {place} for writing (ext4 turns read-only after an error)"),
    errno.EACCES: (PERMISSION, "give inboxd's user write and search permission on {place}"),
    errno.EPERM: (PERMISSION, NOT_PERMITTED),
    errno.ESTALE: (STALE, "the network filesystem of {place} was exported again; mount it again"),
    errno.ENOTCONN: (STALE, "the filesystem of {place} is not connected; mount it again"),
    errno.EHOSTDOWN: (STALE, "the server of the filesystem of {place} does not answer"),
    errno.ETIMEDOUT: (STALE, "the server of the filesystem of {place} does not answer"),
    errno.EMFILE: (NO_RESOURCES, "raise the limit of open files (LimitNOFILE=)"),
    errno.ENFILE: (NO_RESOURCES, "raise fs.file-max: the machine has no file handles left"),
    errno.ENOMEM: (NO_RESOURCES, "the machine has no memory left"),
    errno.ENOENT: (GONE, "somebody moved or removed something below {place}"),
    errno.ENOTDIR: (GONE, IN_THE_WAY),
    errno.ELOOP: (GONE, IN_THE_WAY),
}


def transient_fault(error: OSError, doing: str, place: str | os.PathLike[str]) -> TransientFault:
    """Return the transient fault for an error that the kernel gave while ``doing`` something at ``place``."""
    number = error.errno or 0
    code, hint = _KINDS.get(number, (IO_ERROR, "look at the filesystem of {place}"))
    shown = printable(os.fspath(place))
    reason = os.strerror(number) if number else str(error)
    return TransientFault(code, f"{doing}: {reason}", hint.format(place=shown))
