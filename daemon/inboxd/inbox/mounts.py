"""What kind of filesystem a folder is on: some tell nothing of what other hosts do there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")

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
