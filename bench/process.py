"""One whole process, measured: start-up included, nothing of it shared with the one before."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Broken(Exception):
    """A measured program did not do its work: the run of the bench is worth nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    seconds: float
    peak_mib: float
    """Peak resident memory. The kernel counts what the process had between fork and exec too, which is the
    runner's own: so the runner is kept small."""
    cpu_s: float

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.seconds:.2f} s, cpu {self.cpu_s:.2f} s, {self.peak_mib:.0f} MiB"


def run(command: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None) -> Usage:
    """Run a program to its end and return what it took; raises ``Broken`` unless it exits with 0."""
    return finish(start(command, folder=folder, env=env))


@dataclass(frozen=True, slots=True)
class Started:
    """A program on its way."""

    process: subprocess.Popen[bytes]
    began: float
    command: Sequence[str]
    output: Path


def start(command: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None) -> Started:
    """Start a program with the machine's buffers written out, so that it pays only for its own writes."""
    os.sync()
    output = folder / f"output-{time.monotonic_ns()}.txt"
    with output.open("wb") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**_environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    return Started(process, began, command, output)


def finish(started: Started, *, allowed: Sequence[int] = (0,)) -> Usage:
    """Wait for the end of a program."""
    _, status, usage = os.wait4(started.process.pid, 0)
    seconds = time.perf_counter() - started.began
    code = os.waitstatus_to_exitcode(status)
    started.process.returncode = code
    if code not in allowed:
        said = started.output.read_text(encoding="utf-8", errors="replace")[-2000:]
        msg = f"{' '.join(started.command)} ended with {code}:\n{said}"
        raise Broken(msg)
    return Usage(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def median(usages: Sequence[Usage]) -> Usage:
    """Return the median of each measure by itself."""
    return Usage(
        statistics.median(usage.seconds for usage in usages),
        statistics.median(usage.peak_mib for usage in usages),
        statistics.median(usage.cpu_s for usage in usages),
    )


def _environment() -> dict[str, str]:
    """Return this process's environment without what would change inboxd's settings or Python's habits."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INBOXD_") and name not in {"NOTIFY_SOCKET", "PYTHONMALLOC", "PYTHONDONTWRITEBYTECODE"}
    }
