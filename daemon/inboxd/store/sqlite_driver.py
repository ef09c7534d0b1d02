"""SQLite's driver and what its errors mean. The only module that looks at a SQLite error code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from inboxd.errors import EXIT_NOPERM, DatabaseFault, FileFault, InboxdError, OperatorFault

if TYPE_CHECKING:
    import sqlite3 as driver
else:
    try:
        from pysqlite3 import dbapi2 as driver
    except ImportError:  # a platform without its wheels: the standard library's may be new enough
        import sqlite3 as driver

__all__ = [
    "OLDEST",
    "SqliteFaults",
    "driver",
    "is_busy",
    "refuse_forbidden",
    "refuse_old_sqlite",
    "refuse_utf16",
    "translated",
]

OLDEST: Final = (3, 51, 3)
"""Earlier ones can corrupt a WAL database that is written through two connections (the WAL-reset bug)."""

PRIMARY_CODE: Final = 0xFF
"""An extended result code's low byte is the primary one (https://sqlite.org/rescode.html)."""
WORLD: Final = {
    5: ("database_locked", "another program holds the database; it is tried again"),
    6: ("database_locked", "another program holds the database; it is tried again"),
    7: ("out_of_memory", "free memory"),
    8: ("read_only", "give inboxd write permission on the database, its -wal and -shm, and their folder"),
    3: ("read_only", "give inboxd permission on the database, its -wal and -shm, and their folder"),
    10: ("io_error", "look at the disk and at the kernel's log"),
    11: ("database_corrupt", "stop inboxd and restore the database; sqlite3's .recover may help"),
    13: ("disk_full", "free space on the database's disk"),
    14: ("database_unavailable", "look at the path, its folder's permissions and the disk"),
    26: ("database_corrupt", "this file is no SQLite database: restore it, or name another"),
}
REFUSED_DATA: Final = frozenset({18, 19, 20, 25})
"""SQLITE_TOOBIG, CONSTRAINT, MISMATCH, RANGE: the data's doing, and the same next time."""
BUSY: Final = frozenset({5, 6})


def refuse_old_sqlite() -> None:
    """Raise unless the SQLite at hand may write."""
    if driver.sqlite_version_info < OLDEST:
        need = ".".join(map(str, OLDEST))
        message = (
            f"SQLite {driver.sqlite_version} can corrupt a database in WAL mode; {need} or later is needed to write"
        )
        raise OperatorFault("sqlite_too_old", message, "pip install pysqlite3")


def refuse_utf16(connection: driver.Connection) -> None:
    """Raise if the database keeps its text as UTF-16: that is not in the order of code points, which slices rely on."""
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if encoding != "UTF-8":
        message = f"the database keeps its text as {encoding}"
        raise OperatorFault("invalid_encoding", message, "copy it into one in UTF-8: sqlite3 OLD .dump | sqlite3 NEW")


def refuse_forbidden(path: Path) -> None:
    """Raise if this user may not write the database; a filesystem that is read-only for all is the world's fault."""
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK) and not os.statvfs(place).f_flag & os.ST_RDONLY:
            message = f"{place} may not be written by this user"
            hint = "run this as the user that the daemon runs as, such as sudo -u inboxd inboxd …"
            raise OperatorFault("permission_denied", message, hint, exit_code=EXIT_NOPERM)


def is_busy(error: driver.Error) -> bool:
    """Tell whether somebody else's lock is in the way."""
    return _code(error) in BUSY


def _code(error: BaseException) -> int:
    code: int = getattr(error, "sqlite_errorcode", None) or 1
    return code & PRIMARY_CODE


def translated(error: BaseException) -> InboxdError:
    """Return what a driver's error means for the file being worked on."""
    code = _code(error)
    if code in WORLD:
        name, hint = WORLD[code]
        return DatabaseFault(name, f"SQLite: {error}", hint)
    if code in REFUSED_DATA or isinstance(error, driver.IntegrityError | driver.DataError | driver.InterfaceError):
        return FileFault("internal_error", f"the database refused the data: {error}", "please report this")
    return DatabaseFault("database_error", f"SQLite: {error}", "was the database changed by hand? see `inboxd doctor`")


class SqliteFaults:
    """A ``with`` block that lets no driver error out, and the progress handler that may end a statement.

    SQLite swallows what a progress handler raises and reports ``interrupted``: it is kept here and raised instead.
    ``silence`` is to be told how many seconds there will be no tick.
    """

    __slots__ = ("_interruption", "_tick", "silence")

    def __init__(self, tick: Callable[[], None], silence: Callable[[float], object]) -> None:
        self._tick = tick
        self.silence = silence
        self._interruption: BaseException | None = None

    def on_progress(self) -> int:
        """Tick; a non-zero answer ends the statement."""
        try:
            self._tick()
        except BaseException as interruption:  # noqa: BLE001 - raised by __exit__, out of SQLite's reach
            self._interruption = interruption
            return 1
        return 0

    def __enter__(self) -> None:
        self._interruption = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, driver.Error):
            return
        if self._interruption is not None:
            interruption, self._interruption = self._interruption, None
            raise interruption
        raise translated(error) from error
