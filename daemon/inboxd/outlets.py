"""Where lines go: a file, or whatever standard output is. None of them can hold up whoever writes.

A line is whole or not there: what a full disk or a full pipe cut short is taken back, or finished before another line.
Each ``write`` tells whether the line is out; the caller counts those that are not.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import queue
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

PIPE_BYTES: Final = 1 << 20
"""What a reader may be behind before lines are dropped: as much as the kernel gives a pipe of an ordinary user."""
RELAYED: Final = 1_000
"""Lines that wait for an output which can only be written to by waiting."""
LEAVE_S: Final = 1.0
"""How long the last lines may take at the end."""
_NONBLOCKING: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_APPENDING: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TAIL: Final = 1 << 16


class Outlet(Protocol):
    """Something that takes whole lines."""

    def write(self, line: bytes) -> bool:
        """Write one line, newline included; tell whether it is out, now or as the next thing that gets out."""
        ...


class Stream:
    """A pipe, a terminal, a socket or a redirected file, written to without ever waiting for its reader."""

    def __init__(self, send: Callable[[bytes], int]) -> None:
        self._send = send
        self._rest = b""
        """The end of a line of which the beginning is out."""

    def write(self, line: bytes) -> bool:
        """Write one line; one that could only be begun is finished first when there is room again."""
        if self._rest and not self._finish():
            return False
        self._rest = line
        self._finish()
        taken = len(self._rest) < len(line)
        if not taken:
            self._rest = b""
        return taken

    def end(self) -> None:
        """Finish what is begun, if there is room."""
        self._finish()

    def _finish(self) -> bool:
        with contextlib.suppress(OSError):  # full, or gone: neither may stop the loading of files
            while self._rest:
                self._rest = self._rest[self._send(self._rest) :]
        return not self._rest


class Relay:
    """An output that cannot be had without waiting: a thread of its own waits for it, and for nobody else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(RELAYED)
        self._thread = threading.Thread(target=self._run, name="inboxd-output", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> bool:
        """Hand the line over, if there is room."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(self._fd, line) :]

    def end(self) -> None:
        """Give the last lines a moment; a reader that does not read is not waited for, nor is the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=LEAVE_S)
        self._thread.join(LEAVE_S)


def standard_stream(fd: int) -> Outlet | None:
    """Return the outlet that a standard descriptor is; ``None`` if it is closed.

    ``O_NONBLOCK`` cannot be set on the descriptor itself: it belongs to what was opened, which a shell and its other
    programs share. So what stands behind it is opened once more, or told with each call not to wait.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return _to_the_end(Stream(lambda data: os.write(fd, data)))
    if stat.S_ISSOCK(mode):
        line = socket.socket(fileno=os.dup(fd))
        return _to_the_end(Stream(lambda data: line.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)))
    try:
        own = os.open(f"/proc/self/fd/{fd}", _NONBLOCKING)
    except OSError:  # another user's terminal or pipe, as under `sudo -u`
        return _to_the_end(Relay(fd))
    with contextlib.suppress(OSError):
        fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return _to_the_end(Stream(lambda data: os.write(own, data)))


def _to_the_end(stream: Stream | Relay) -> Outlet:
    """Let it last as long as the process, and what is begun be finished at its end."""
    atexit.register(stream.end)
    return stream


def is_journal(fd: int, stream: str) -> bool:
    """Tell whether a descriptor leads to systemd's journal; ``stream`` is ``$JOURNAL_STREAM`` (systemd.exec(5))."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


PRIORITIES: Final = {"error": b"<3>", "warning": b"<4>"}
"""sd-daemon(3). A line of another level has none: it gets what the unit's ``SyslogLevel=`` says."""


class LogFile:
    """A file of lines, safe to rotate: opened for appending, opened again when its name leads elsewhere."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)  # asked for at each line, and `os` answers three times as fast as `pathlib`
        self._fd = -1
        self._identity = (0, 0)
        self._torn = False
        """The file ends in a piece of a line that could not be taken back."""

    def write(self, line: bytes) -> bool:
        """Append one line in one ``write``, so that lines of several processes never mix."""
        try:
            if not self._current():
                self._reopen()
            data = b"\n" + line if self._torn else line
            written = os.write(self._fd, data)
        except OSError:
            return False
        if written < len(data):
            self._take_back(written)
            return False
        self._torn = False
        return True

    def _take_back(self, written: int) -> None:
        """Cut off what a full disk left of a line, unless another process has written behind it."""
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)
                return
        except OSError:
            pass
        self._torn = True

    def _current(self) -> bool:
        if self._fd < 0:
            return False
        try:
            found = os.stat(self._path)  # noqa: PTH116 - see __init__
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _reopen(self) -> None:
        self.close()
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, _APPENDING, 0o640)
        opened = os.fstat(self._fd)
        self._identity = (opened.st_dev, opened.st_ino)
        self._torn = stat.S_ISREG(opened.st_mode) and opened.st_size > 0 and not self._end_whole(opened.st_size)

    def _end_whole(self, size: int) -> bool:
        """Cut off the piece of a line that a crash has left; tell whether the file ends with a whole line then."""
        begin = max(0, size - _TAIL)
        tail = os.pread(self._fd, size - begin, begin)
        whole = tail.rfind(b"\n") + 1
        if whole == len(tail):
            return True
        if whole == 0 and begin > 0:  # where that line begins would have to be searched for
            return False
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, begin + whole)
            return True
        return False

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
