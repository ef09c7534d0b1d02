"""What belongs to one daemon, or to one database, alone: locks that the kernel drops with the process, never stale.

A SQLite database and its inbox are locked with ``flock``, for one host only: several hosts share PostgreSQL, where rows
are the locks. An archive is shared by the daemons of one database, see ``ArchiveLock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inboxd.errors import EXIT_NOPERM, EXIT_TEMPFAIL, OperatorFault

_FLOCK: Final = struct.Struct("hhqqi0q")
"""``struct flock`` of Linux with 64-bit offsets: type, whence, start, length, pid (fcntl(2))."""


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
        with contextlib.suppress(OSError):  # no filesystem for a database: then only who may write can tell
            _lock_bytes(fd, fcntl.F_WRLCK, 0, 0)  # what `running_pid` asks for: a flock can only be asked for by trying
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

    Asking takes no lock, so that a daemon that starts in this moment is not kept from it. Raises ``PermissionError``
    where the lock may not be read: then nothing can be told.
    """
    try:
        fd = os.open(lock_file(database), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        return _holder(fd) if _is_locked(fd, fcntl.F_RDLCK, 0, 0) else None
    finally:
        os.close(fd)


@dataclass(slots=True)
class ArchiveLock:
    """An archive and its state file, owned by one database.

    Each daemon, and each command that moves files there, locks in each folder the one byte whose number its database
    has, for reading, and is refused if any other byte is locked: so those of one database share, and no others. Nothing
    is written: a lock on a byte of a folder is a number in the kernel, and ends with the process. Whoever walks through
    an archive passes over folders below it that are locked: they are another one's (``is_archive``).
    """

    _fds: list[int] = field(default_factory=list)

    @classmethod
    def take(cls, folders: Iterable[Path], database: str, *, around: Iterable[Path] = ()) -> ArchiveLock:
        """Take the lock for a ``database``, as it is called everywhere; raises ``OperatorFault`` (75).

        Folders ``around`` them are not locked, but must not be another database's either.
        """
        lock = cls()
        byte = 1 + int.from_bytes(hashlib.sha256(database.encode()).digest()[:7])
        own, outer = dict.fromkeys(folders), dict.fromkeys(around)
        for folder in (*own, *outer):
            if not lock._share(folder, byte, lock_it=folder in own):
                lock.close()
                msg = f"a daemon or a command of another database works with {folder}"
                hint = "give each database an archive of its own; only daemons of one PostgreSQL database may share"
                raise OperatorFault("archive_taken", msg, hint, exit_code=EXIT_TEMPFAIL)
        return lock

    def _share(self, folder: Path, byte: int, *, lock_it: bool) -> bool:
        """Lock a byte of a folder; tell whether nobody has locked another. Where there are no locks, all share."""
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return True  # not there, or not ours to read: whoever works in it says so
        self._fds.append(fd)
        try:
            if lock_it:
                _lock_bytes(fd, fcntl.F_RDLCK, byte, 1)
            return not _is_locked(fd, fcntl.F_WRLCK, 0, byte) and not _is_locked(fd, fcntl.F_WRLCK, byte + 1, 0)
        except OSError:
            return True

    def close(self) -> None:
        """Give the lock back; may be called twice."""
        while self._fds:
            os.close(self._fds.pop())


def is_archive(fd: int) -> bool:
    """Tell whether somebody works with an open folder as one of his archive's."""
    try:
        return _is_locked(fd, fcntl.F_WRLCK, 0, 0)
    except OSError:  # where there are no locks, nobody can tell
        return False


def _lock_bytes(fd: int, kind: int, start: int, length: int) -> None:
    """Lock ``length`` bytes (0: up to the end) for an open file; raises ``OSError``."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def _is_locked(fd: int, kind: int, start: int, length: int) -> bool:
    """Tell whether somebody else has locked any of these bytes so that a lock of this kind would be refused."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


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
