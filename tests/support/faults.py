"""Real faults for tests: small disks, mounts that come and go, calls that the kernel refuses, other users."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from daemons import Home, files_in
from requirements import missing, tool

QUICK = '[inbox]\nsettle = "0ms"\nsettle_unproven = "0ms"\nrescan = "1s"\n'
"""A config for tests that wait on conditions of another kind."""


RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100  # linux/fcntl.h


def exchange(one: Path, other: Path) -> None:
    """Swap two names, as renameat2(2) does with RENAME_EXCHANGE: there is no moment without either."""
    call = ctypes.CDLL(None, use_errno=True).renameat2
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def swapping(folder: Path, target: Path) -> Iterator[None]:
    """Be a sender who swaps his folder in the inbox for a link to another place, and back, as fast as he can."""
    trap = folder.parent.parent / "trap"
    trap.symlink_to(target)
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(0.0002):  # so that the others on the machine come to do something, too
            exchange(folder, trap)

    sender = threading.Thread(target=swap)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
        if folder.is_symlink():
            exchange(folder, trap)
        trap.unlink()


def mount(*arguments: str | Path) -> None:
    """Mount; where that is not allowed the test is skipped, or fails in CI."""
    tool("umount", "mount")
    done = subprocess.run([tool("mount", "mount"), *map(str, arguments)], check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"the right to mount: {done.stderr.strip()}")


def umount(place: Path) -> None:
    """Unmount, also if somebody still looks at it."""
    subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


@contextmanager
def small_disk(place: Path, size: str = "4m") -> Iterator[Path]:
    """A filesystem of its own, as small as asked for."""
    place.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "none", place)
    try:
        yield place
    finally:
        umount(place)


def fill(place: Path) -> Path:
    """Fill a disk to its last byte; removing what is returned makes room again."""
    ballast = place / ".ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue
    return ballast


def deferred(home: Home, file: str, code: str) -> Callable[[], bool]:
    """Return the condition that a file waits for a fault of this code."""
    return lambda: any(line["file"] == file and line["error_code"] == code for line in home.lines("file_deferred"))


def is_whole(home: Home, name: str, content: bytes) -> bool:
    """Tell whether a file is in ``processed/`` as it was dropped, and nowhere else."""
    elsewhere = [*files_in(home.inbox), *files_in(home.failed)]
    return (home.processed / name).read_bytes() == content and not elsewhere


def loaded_once(home: Home, name: str) -> bool:
    """Tell whether one run, and only one, loaded a file, and nothing is left running."""
    sql = "SELECT status, error_code FROM etl_runs WHERE file_name = ?"
    return home.query(sql, name) == [("success", None)] and len(home.verdicts(name)) == 1


def rss_kib(home: Home) -> int:
    """Return the daemon's peak of resident memory in KiB."""
    assert home.process is not None
    status = Path(f"/proc/{home.process.pid}/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
