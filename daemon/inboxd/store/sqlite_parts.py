"""The files of an open SQLite database: what is written goes to these, wherever their names lead."""

from __future__ import annotations

import os
from typing import Final

from inboxd.errors import DatabaseFault
from inboxd.store.sqlite_driver import driver

REPLACED: Final = "database_replaced"
BESIDE: Final = ("-wal", "-shm")
"""Beside the database while it is open: what was committed last is in the first of them, and in no other file."""


class Parts:
    """Knows the database, its -wal and its -shm from others of their names. Owned by the connection's thread."""

    def __init__(self, path: str, connection: driver.Connection) -> None:
        """Take note of the files."""
        self._paths = (path, *(path + name for name in BESIDE))
        self._connection = connection
        connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()  # the first that is read makes the others
        self._known = [_identity(path) for path in self._paths]

    def refuse_others(self) -> None:
        """Raise ``DatabaseFault`` once a name leads elsewhere: what is written would be lost with the file behind it.

        Where the -wal was only removed, what is in it is first written back to the database: the connection has it
        open still. Not where there is another one by now, which the old must not be mixed with.
        """
        found = [_identity(path) for path in self._paths]
        if found == self._known:
            return
        if found[0] != self._known[0]:
            message = f"the database {self._paths[0]} was replaced or removed while inboxd had it open"
            raise DatabaseFault(REPLACED, message, "put it back, or restart inboxd to use what is there now")
        if found[1] is None:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        gone = [path for path, now, then in zip(self._paths, found, self._known, strict=True) if now != then]
        message = f"{' and '.join(gone)}, a part of the database, was replaced or removed while inboxd had it open"
        raise DatabaseFault(REPLACED, message, "restart inboxd, then compare the ledger with the disk: inboxd doctor")


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells one file from another, ``None`` if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for at each file, and `os` answers three times as fast
    except OSError:
        return None
    return found.st_dev, found.st_ino
