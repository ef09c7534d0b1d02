"""SQLite's driver and what its errors mean. The only module that looks at a SQLite error code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from inboxd.errors import EXIT_NOPERM, DatabaseFault, FileFault, InboxdError, OperatorFault
from inboxd.store.base import CONTROL_TABLES, refused

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
TRANSIENT: Final = {
    5: ("database_locked", "another program holds the database: let it finish, or end it"),
    6: ("database_locked", "another program holds the database: let it finish, or end it"),
    7: ("out_of_memory", "free memory"),
    8: ("read_only", "give inboxd write permission on the database, its -wal and -shm, and their folder"),
    3: ("read_only", "give inboxd permission on the database, its -wal and -shm, and their folder"),
    10: ("io_error", "look at the disk and at the kernel's log"),
    11: ("database_corrupt", "stop inboxd and restore the database; sqlite3's .recover may help"),
    13: ("disk_full", "free space on the database's disk"),
    14: ("database_unavailable", "look at the path, its folder's permissions and the disk"),
    26: ("database_corrupt", "this file is not an SQLite database: restore it, or name another"),
}
REFUSED_DATA: Final = frozenset({18, 19, 20, 25})
"""SQLITE_TOOBIG, CONSTRAINT, MISMATCH, RANGE: the data's doing, and the same next time."""
CONSTRAINT: Final = 19
CONSTRAINED: Final = re.compile(r"(?P<kind>[A-Z ]+) constraint failed: (?P<what>.+)", re.DOTALL)
"""SQLite's own words; others are a trigger's, from its RAISE. (The driver keeps the extended code to itself.)"""
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
    """Raise if this user may not write the database; a filesystem that is read-only for all is a transient fault."""
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


def translated(error: BaseException, connection: driver.Connection | None = None) -> InboxdError:
    """Return what a driver's error means for the file being worked on; ``connection`` is asked for a rule's name."""
    code = _code(error)
    if code in TRANSIENT:
        name, hint = TRANSIENT[code]
        return DatabaseFault(name, f"SQLite: {error}", hint)
    rule = _rule(error, connection) if code == CONSTRAINT else None
    if rule is not None:
        return refused(rule, str(error))
    if code in REFUSED_DATA or isinstance(error, driver.IntegrityError | driver.DataError | driver.InterfaceError):
        return FileFault("internal_error", f"the database refused the data: {error}", "please report this")
    return DatabaseFault("database_error", f"SQLite: {error}", "was the database changed by hand? see `inboxd doctor`")


def _rule(error: BaseException, connection: driver.Connection | None) -> str | None:
    """Return which rule of a table that inboxd did not make refused the data, ``None`` if it is one of inboxd's."""
    match = CONSTRAINED.fullmatch(str(error))
    if match is None:
        return "a trigger"
    kind, what = match["kind"], match["what"]
    if kind == "CHECK":
        return None if _is_ours(what, connection) else f"the check {what}"
    columns = what.split(", ")
    table = columns[0].rpartition(".")[0]
    if table in CONTROL_TABLES:
        return None
    if kind == "UNIQUE" and not what.startswith("index "):
        names = tuple(column.rpartition(".")[2] for column in columns)
        index = None if connection is None else _index_over(connection, table, names)
        return f"{index or 'UNIQUE'} of table {table}"
    return f"NOT NULL of column {columns[0].rpartition('.')[2]} of table {table}" if kind == "NOT NULL" else what


def _is_ours(check: str, connection: driver.Connection | None) -> bool:
    if connection is None:
        return False
    query = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND instr(sql, ?)"
    return any(name in CONTROL_TABLES for (name,) in connection.execute(query, (check,)))


def _index_over(connection: driver.Connection, table: str, columns: tuple[str, ...]) -> str | None:
    """Return the unique index over these columns, in this order."""
    query = (
        "SELECT l.name, i.name FROM pragma_index_list(?, 'main') AS l, pragma_index_info(l.name, 'main') AS i "
        'WHERE l."unique" ORDER BY l.name, i.seqno'
    )
    found: dict[str, list[str]] = {}
    for index, column in connection.execute(query, (table,)):
        found.setdefault(index, []).append(column)
    return next((index for index, names in found.items() if tuple(names) == columns), None)


class SqliteFaults:
    """A ``with`` block that lets no driver error out, and the progress handler that may end a statement.

    SQLite swallows what a progress handler raises and reports ``interrupted``: it is kept here and raised instead.
    ``silence`` is to be told how many seconds there will be no tick.
    """

    __slots__ = ("_interruption", "_tick", "connection", "silence")

    def __init__(self, tick: Callable[[], None], silence: Callable[[float], object]) -> None:
        self._tick = tick
        self.silence = silence
        self._interruption: BaseException | None = None
        self.connection: driver.Connection | None = None
        """Whose errors these are, once it is open."""

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
        raise translated(error, self.connection) from error
