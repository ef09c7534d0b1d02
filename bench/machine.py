"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

FSYNCS: Final = 200


def fsync_p50_us(folder: Path) -> float:
    """Return the median time of one 4 KiB write and its fsync on the filesystem of ``folder``, in microseconds."""
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"\0" * 4096, 0)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def facts(folder: Path) -> dict[str, str]:
    """Return the machine's facts, as the report lists them."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{_processor()}, {cores} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "filesystem": _filesystem(folder),
        "fsync of 4 KiB, p50": f"{fsync_p50_us(folder):.0f} µs",
        "Python": platform.python_version(),
        "load average": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the mount that holds ``folder``: the longest mount point that leads to it."""
    found = ("", "?")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]
