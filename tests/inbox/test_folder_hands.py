"""Who reaches into folders that others may change: one module, by descriptors, and nobody else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from places import PACKAGE

HANDS = "inbox/tree.py"
"""The one that may."""
NAMED_BY_THE_OPERATOR = {
    "inbox/source.py": {"os.open", "os.stat"},  # a file that `load` was told to read, where it lies
    "inbox/watch.py": {"os.path.realpath"},  # the inbox itself
    "inbox/mounts.py": {"os.open", "os.stat", "os.path.realpath", "read_text"},  # the inbox itself, and /proc
    "operate/archived.py": {"os.path.realpath"},  # which folder a user's path means
    "operate/doctor.py": {"stat"},  # the database
    "operate/doctor_folders.py": {
        "os.access",
        "os.path.lexists",
        "os.statvfs",
        "is_dir",
        "stat",
        "shutil.disk_usage",
    },  # the folders of the config
}
"""Calls on paths that the operator gave: the roots, and files outside of inbox and archive."""
ON_PATHS = {
    *("open", "rename", "renames", "replace", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "link"),
    *("symlink", "readlink", "stat", "lstat", "scandir", "listdir", "walk", "fwalk", "access", "chmod", "chown"),
    *("lchown", "truncate", "mkfifo", "mknod", "exists", "lexists", "isfile", "isdir", "islink", "ismount", "getsize"),
    *("getmtime", "getctime", "getatime", "realpath", "samefile", "statvfs", "setxattr", "getxattr"),
}
"""What ``os`` and ``os.path`` do with a path."""
OF_A_PATH = {
    *("exists", "is_file", "is_dir", "is_symlink", "stat", "lstat", "iterdir", "glob", "rglob", "read_bytes", "walk"),
    *("read_text", "write_bytes", "write_text", "touch", "samefile", "hardlink_to", "symlink_to", "chmod"),
}
"""What ``pathlib`` does with one, as far as no method of ``Folder`` has that name."""
ALSO_OF_A_FOLDER = {"open", "unlink", "rename", "replace", "mkdir", "rmdir"}
ROOMS = ("inbox/*.py", "pending.py", "attempts.py", "daemon.py", "recovery.py", "operate/*.py", "cli/retry.py")
"""Where files of the inbox and the archive are dealt with."""


def modules() -> list[Path]:
    """Return the modules that deal with files of the inbox and the archive, but the one that may."""
    found = (path for room in ROOMS for path in sorted(PACKAGE.glob(room)))
    return [path for path in found if str(path.relative_to(PACKAGE)) != HANDS]


def calls_on_paths(source: str) -> set[str]:
    """Return the calls in a module that give a path to the kernel."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
        if not isinstance(node, ast.Attribute):
            continue
        place = ast.unparse(node.value)
        if place in {"os", "os.path"} and node.attr in ON_PATHS:
            found.add(f"{place}.{node.attr}")
        elif place == "shutil":
            found.add(f"shutil.{node.attr}")
        elif place.startswith("Path(") and node.attr in ALSO_OF_A_FOLDER:
            found.add(f"Path().{node.attr}")
        elif place not in {"entry", "sa"} and node.attr in OF_A_PATH:
            found.add(node.attr)
    return found


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_else_has_a_path_into_inbox_or_archive(module: Path) -> None:
    """No module but one gives the kernel a path that leads through folders of the inbox or the archive."""
    name = str(module.relative_to(PACKAGE))
    allowed = NAMED_BY_THE_OPERATOR.get(name, set())
    found = calls_on_paths(module.read_text(encoding="utf-8"))
    assert found - allowed == set(), f"{name} must go through inbox/tree.py"
    assert allowed - found == set(), f"{name} need no longer be allowed this"


def test_the_reader_of_calls_misses_none() -> None:
    """Each way of naming a path to the kernel is noticed, and what is done by descriptors is not."""
    source = (
        "import os, shutil\nfrom pathlib import Path\n"
        "os.rename(a, b)\nos.path.exists(a)\nshutil.move(a, b)\nPath(a).unlink()\npath.is_file()\nopen(a)\n"
        "folder.unlink(name)\nentry.stat()\nos.fstat(fd)\nos.path.splitext(a)\nwalk(top)\n"
    )
    assert calls_on_paths(source) == {"os.rename", "os.path.exists", "shutil.move", "Path().unlink", "is_file", "open"}
