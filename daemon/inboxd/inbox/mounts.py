"""What a folder's filesystem does with it: some tell nothing of what other hosts do there, some take no changes."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")
_FLAGS: Final = struct.Struct("l")
_GET_FLAGS: Final = (2 << 30) | (_FLAGS.size << 16) | (ord("f") << 8) | 1
"""FS_IOC_GETFLAGS, linux/fs.h; see ioctl_iflags(2)."""
_UNCHANGING: Final = 0x30
"""FS_IMMUTABLE_FL and FS_APPEND_FL"""

_REMOTE: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "coda", "9p", "virtiofs", "vboxsf", "vmhgfs"),
        *("prl_fs", "drvfs", "fakeowner", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "orangefs", "pvfs2"),
        *("gfs2", "ocfs2", "fuse", "fuseblk"),
    }
)
"""Filesystems whose files may change without this kernel knowing (mountinfo's names), so inotify is silent about it.

Network and cluster filesystems, folders shared into a virtual machine, and FUSE, which may be any of them.
"""


def is_remote(path: str) -> bool:
    """Tell whether ``path`` is on a filesystem that others may change unseen. False for a path that is not there."""
    kind = filesystem_of(path)
    return kind in _REMOTE or kind.startswith("fuse.")


def filesystem_of(path: str) -> str:
    """Return the type of the filesystem that holds ``path`` (``ext4``, ``nfs4``, ``fuse.sshfs``), or ``""``."""
    try:
        device = os.stat(path).st_dev
        mounts = MOUNTINFO.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    by_device = by_path = ""
    longest = -1
    place = os.path.realpath(path)
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ", 1)[0]
        if fields[2] == wanted:
            by_device = kind
        point = _unescape(fields[4])
        if len(point) >= longest and (place + "/").startswith(point.rstrip("/") + "/"):
            longest, by_path = len(point), kind
    return by_device or by_path  # a btrfs subvolume's device is not the one mountinfo names


def _unescape(point: str) -> str:
    """Return a mount point as it is: mountinfo writes space, tab, newline and backslash in octal (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)


def immutable(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder that the operator named takes no changes, whoever asks: ``chattr +i``, or ``+a``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(fd, _GET_FLAGS, bytes(_FLAGS.size)))
    except OSError:  # a filesystem without such flags
        return False
    finally:
        os.close(fd)
    return bool(flags & _UNCHANGING)
