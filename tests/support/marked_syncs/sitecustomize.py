"""Python runs this first where its folder is on the path: each sync then names, to a tracer, the code that asks for it.

``access`` of a path that is not there changes nothing, and strace shows it.
"""

from __future__ import annotations

import linecache
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

HANDS = {"marked", "sync", "sync_folder", "Folder.sync"}
"""Functions that do it for whoever calls them."""
MARK = "/the sync of "
ASKED = "INBOXD_MARK_SYNCS"
"""Is in the environment of a program whose syncs are to be named."""
_fsync = os.fsync


def place_of(file: str, function: str, line: str) -> str:
    """Return what a place in the code is called."""
    return f"{file.rpartition('/inboxd/')[2]} {function}: {line.partition('#')[0].strip()}"


def marked(fd: FileDescriptorLike) -> None:
    """Name the place in the code, then sync."""
    frame = sys._getframe()
    while frame.f_code.co_qualname in HANDS and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno)
    os.access(MARK + place_of(code.co_filename, code.co_qualname, line), os.F_OK)
    _fsync(fd)


if ASKED in os.environ:
    os.fsync = marked
