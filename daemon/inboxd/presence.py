"""What a daemon says of itself: one file, for those who ask what it is doing."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from inboxd.config import Settings
from inboxd.outcomes import Step
from inboxd.regular import read_regular

LONGEST_WAIT_S: Final = 20.0
"""The loop comes round at least this often; more often where the service manager's watchdog asks for it."""
SETTLING: Final = "settling"
"""The code of a file that is not complete yet: the same word everywhere."""
LEFT_AFTER_S: Final = 60.0
"""Writing the state file takes milliseconds; what is so old was left by a daemon that was killed."""
MAX_LISTED: Final = 100
"""How many waiting files the state file names; the counts are exact."""


class UnfinishedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that waits, and why."""

    file: str
    code: str
    since: str
    message: str = ""
    attempts: int = 0
    retry_at: str | None = None
    feed: str | None = None
    hint: str = ""


class Refused(msgspec.Struct, frozen=True):
    """A config that was on disk when the daemon was asked to load it anew, and why it was not taken."""

    code: str
    message: str
    hint: str
    at: str


class LeftAlone(msgspec.Struct, frozen=True):
    """A file in the inbox that is not taken, and why."""

    file: str
    reason: str


class Phase(StrEnum):
    """What is being done to a file. Reading (and staging) is measured in bytes, the others by the time they take."""

    READING = "reading"
    WRITING = "writing"
    COMMITTING = "committing"
    MOVING = "moving"


PHASES: Final = {
    Step.BEGIN: Phase.READING,
    Step.LOCK: Phase.WRITING,
    Step.COMMIT: Phase.COMMITTING,
    Step.ARCHIVE: Phase.MOVING,
}
"""The step with which each phase begins."""


class Work(msgspec.Struct, frozen=True):
    """The file in work: its phase and since when, and how many of its ``size`` bytes were read."""

    claim: str
    file: str
    feed: str
    phase: Phase
    since: str
    done: int
    size: int

    @property
    def share(self) -> int:
        """How much was read, in per cent: 100 only once that is everything."""
        return 100 * self.done // self.size if self.size else 100


class ExpectedFeed(msgspec.Struct, frozen=True):
    """A feed whose files are expected: whether it is late, and the moment from which it is, or will be."""

    feed: str
    late: bool
    due: str | None
    last_arrival: str | None


class DaemonState(msgspec.Struct, frozen=True):
    """What a running daemon tells others about itself (``inboxd.state.json``)."""

    pid: int
    host: str
    version: str
    since: str
    updated: str
    inbox: str
    database: str
    config: str | None = None
    config_mtime_ns: int | None = None
    """The config file's mtime when it was read: a file that has another one now is not in force yet."""
    files_waiting: int = 0
    oldest_waiting: str | None = None
    files_ignored: int = 0
    files_deferred: int = 0
    config_refused: Refused | None = None
    """The config in force is older than the one on disk."""
    expected: list[ExpectedFeed] = []
    ignored: list[LeftAlone] = []
    deferred: list[UnfinishedFile] = []
    unsettled: list[UnfinishedFile] = []
    work: Work | None = None


@dataclass(slots=True)
class Published:
    """What the daemon's thread lets others in its process see.

    Written by that thread only, read by any: each value is whole and immutable, and one assignment replaces it.
    """

    settings: Settings
    """Those in force."""
    refused: Refused | None = None
    """The config on disk, where that is not the one in force."""
    state: DaemonState | None = None
    beat: float = float("-inf")
    """When (monotonic seconds) there was last proof that the loop, or the work on a file, goes on."""
    inbox_lost: bool = False
    work: Work | None = None


def write_state(path: Path, state: DaemonState) -> None:
    """Replace the state file. A full disk is no reason to stop: the log says the same."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.write_bytes(msgspec.json.encode(state))
        temporary.replace(path)


def clear_state(path: Path) -> None:
    """Remove what daemons that were killed have left of writing the state file."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{path.name}.*"):
            pid = left.name.rpartition(".")[2]
            old = time.time() - left.stat().st_mtime > LEFT_AFTER_S
            if pid.isdecimal() and (old or not Path(f"/proc/{pid}").exists()):
                left.unlink()


def remove_state(path: Path) -> None:
    """Remove the state file if this process wrote it: daemons on PostgreSQL may share an archive, and so the file."""
    found = read_state(path)
    if found is not None and (found.pid, found.host) == (os.getpid(), os.uname().nodename):
        with contextlib.suppress(OSError):  # a disk that became read-only does not keep the daemon from stopping
            path.unlink(missing_ok=True)


def read_state(path: Path) -> DaemonState | None:
    """Return what the daemon last said of itself, or ``None`` where there is nothing readable."""
    try:
        return msgspec.json.decode(read_regular(path), type=DaemonState)
    except (OSError, msgspec.MsgspecError):
        return None
