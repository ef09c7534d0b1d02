"""Which daemon is there: one lock that dies with its process, and one file that says what the daemon is doing.

The lock is ``flock`` on a file beside the SQLite database and on the inbox folder itself, so it is never stale: the
kernel drops it with the process. It is for one host only; several hosts share PostgreSQL, where rows are the locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from inboxd.errors import EXIT_NOPERM, EXIT_TEMPFAIL, OperatorFault

STATE_FILE: Final = "inboxd.state.json"
MAX_LISTED: Final = 100
"""How many waiting files the state file names; the counts are exact."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that waits, and why."""

    file: str
    code: str
    since: str
    message: str = ""
    attempts: int = 0
    retry_at: str | None = None
    feed: str | None = None


class Refused(msgspec.Struct, frozen=True):
    """A config that was on disk when the daemon was asked to load it anew, and why it was not taken."""

    code: str
    message: str
    hint: str
    at: str


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
    deferred: list[Waiting] = []
    unsettled: list[Waiting] = []


@dataclass(slots=True)
class Published:
    """What the daemon's thread lets others in its process see.

    Written by that thread only, read by any: each value is whole and immutable, and one assignment replaces it.
    """

    state: DaemonState | None = None
    beat: float = float("-inf")
    """When (monotonic seconds) there was last proof that the loop, or the work on a file, goes on."""
    inbox_lost: bool = False


@dataclass(slots=True)
class DaemonLock:
    """The locks one daemon holds. Owned by the main thread; ``release`` may be called twice."""

    _fds: list[int] = field(default_factory=list)

    def acquire_database(self, database: Path) -> None:
        """Take the lock of a SQLite database; raises ``OperatorFault`` (75) with the pid of its holder."""
        path = lock_file(database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            msg = f"cannot write {path}: {error.strerror}"
            hint = "run inboxd as the user that owns the folder, on a filesystem that can be written"
            raise OperatorFault("permission_denied", msg, hint, exit_code=EXIT_NOPERM) from error
        self._lock(fd, f"the database {database}")
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def acquire_inbox(self, inbox: Path) -> None:
        """Take the lock of an inbox; raises ``OperatorFault`` (75, or 77 where it may not be listed)."""
        try:
            fd = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            msg = f"cannot list the inbox {inbox}: {error.strerror}"
            hint = "give inboxd's user read, write and search permission on it"
            raise OperatorFault("permission_denied", msg, hint, exit_code=EXIT_NOPERM) from error
        self._lock(fd, f"the inbox {inbox}")

    def _lock(self, fd: int, what: str) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            msg = f"another inboxd{f' (pid {holder})' if holder else ''} holds {what}"
            hint = "stop it first, or give this one a database and an inbox of its own"
            raise OperatorFault("already_running", msg, hint, exit_code=EXIT_TEMPFAIL) from None
        self._fds.append(fd)

    def release(self) -> None:
        """Give the locks back."""
        while self._fds:
            os.close(self._fds.pop())


def lock_file(database: Path) -> Path:
    """Return the lock file's path, beside the database."""
    return database.with_name(database.name + ".lock")


def running_pid(database: Path) -> int | None:
    """Return the pid of the daemon that holds the database's lock; ``None`` if nobody does, 0 if its pid is not known.

    Raises ``PermissionError`` where the lock may not be read: then nothing can be told.
    """
    try:
        fd = os.open(lock_file(database), os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(fd)
    else:
        return None
    finally:
        os.close(fd)


def _holder(fd: int) -> int:
    """Return the pid that locked the file: written inside it, or as the kernel lists it; 0 if neither tells."""
    with contextlib.suppress(OSError, ValueError):
        return int(os.pread(fd, 32, 0))
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            columns = line.split()  # 1: FLOCK ADVISORY WRITE 4242 fe:00:393220 0 EOF
            if columns[1] == "FLOCK" and columns[5].rpartition(":")[2] == str(inode):
                return int(columns[4])
    return 0


def write_state(path: Path, state: DaemonState) -> None:
    """Replace the state file. A full disk is no reason to stop: the log says the same."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.write_bytes(msgspec.json.encode(state))
        temporary.replace(path)


def read_state(path: Path) -> DaemonState | None:
    """Return what the daemon last said of itself, or ``None`` where there is nothing readable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DaemonState)
    except (OSError, msgspec.MsgspecError):
        return None
