"""What the errors of PostgreSQL and its driver mean."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

import psycopg
from psycopg import errors

from inboxd.errors import DATABASE_MISSING, DatabaseFault, FileFault, InboxdError
from inboxd.store.base import CONTROL_TABLES, refused

LOST: Final = (
    "connection_lost",
    "look at the server and the network; after a COMMIT the ledger tells whether it counted",
)
BY_CLASS: Final = {  # https://www.postgresql.org/docs/current/errcodes-appendix.html
    "08": LOST,
    "28": ("access_denied", "look at the user, the password and pg_hba.conf"),
    "3D": (DATABASE_MISSING, "create the database: inboxd makes its own tables, not the database"),
    "53": ("database_unavailable", "the server is short of connections or memory"),
    "57": ("database_unavailable", "the server is stopping or starting, or ended the session"),
    "58": ("io_error", "look at the server's disk and log"),
    "XX": ("database_error", "look at the server's log"),
}
BY_STATE: Final = {
    "0A000": (
        "not_supported",
        "drop the table's rules (CREATE RULE), or make them triggers; of a table distributed by Citus, report it",
    ),
    "25006": ("read_only", "this server is a standby, or was set read-only"),
    "3F000": ("database_error", "create the schema that the role's search_path names first"),
    "40001": ("serialization", "two transactions conflicted: the file is tried again"),
    "40P01": ("serialization", "two transactions conflicted: the file is tried again"),
    "42501": ("access_denied", "grant inboxd's role the right that the message names"),
    "53100": ("disk_full", "free space on the server's disk"),
    "55P03": ("database_locked", "another session holds the lock; pg_locks and pg_stat_activity tell which"),
    "57014": ("database_unavailable", "raise the statement_timeout of inboxd's role, or see who ended the statement"),
    "25P03": LOST,
    "57P01": LOST,
    "57P02": LOST,
    "XX001": ("database_corrupt", "restore the database from a backup"),
    "XX002": ("database_corrupt", "reindex, or restore the database from a backup"),
}
LOST_WORKER: Final = "failure on connection marked as essential"
"""What Citus says, with the code of an internal error, where a worker is gone that was to be written to."""
DATA_CLASSES: Final = frozenset({"21", "22", "54"})
"""The server refused the data, and would the next time."""
RULE_CLASSES: Final = frozenset({"23", "44", "45", "P0"})
"""A constraint, a view's check option, and what triggers raise. They may raise codes of their own, too."""
SERVERS_CLASSES: Final = frozenset(
    f"{first}{second}"
    for first, seconds in {
        "0": "012389ABFLPZ",
        "1": "0",
        "2": "01245678BDF",
        "3": "489BDF",
        "4": "02",
        "5": "34578",
        "7": "2",
        "F": "0",
        "H": "V",
        "X": "X",
    }.items()
    for second in seconds
)
"""All others of PostgreSQL's own; a code of yet another class is one that a trigger made up."""
RACES: Final = frozenset({"etl_runs_loaded_once", "etl_runs_running_claim"})
"""Unique indexes that are violated only when two daemons do the same at once: the second try sees the first's row."""


def translated(error: BaseException) -> InboxdError:
    """Return what a driver's error means for the file being worked on."""
    if not isinstance(error, psycopg.Error):
        return DatabaseFault("database_error", f"PostgreSQL: {error}")
    said = ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
    message = f"PostgreSQL: {said or str(error).strip() or type(error).__name__}"
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return DatabaseFault(LOST[0], message, LOST[1])
        return FileFault("internal_error", f"the driver refused the data: {error}", "please report this")
    if error.diag.constraint_name in RACES:
        return DatabaseFault("serialization", message, "another daemon was faster with the same content")
    if state[:2] in DATA_CLASSES | RULE_CLASSES or state[:2] not in SERVERS_CLASSES:
        return _refused(error, state)
    fallback = ("database_error", "was the database changed by hand? see `inboxd doctor`")
    code, hint = (
        (LOST if LOST_WORKER in message else None) or BY_STATE.get(state) or BY_CLASS.get(state[:2]) or fallback
    )
    return DatabaseFault(code, message, hint)


def _refused(error: psycopg.Error, state: str) -> FileFault:
    """Tell data that a constraint or a trigger of the user's refused from what inboxd should not have sent."""
    diagnostics = error.diag
    of_server = state[:2] in DATA_CLASSES and diagnostics.context is None  # else it is in a trigger's function
    if of_server or diagnostics.table_name in CONTROL_TABLES:
        return FileFault("internal_error", f"the database refused the data: {error}", "please report this")
    rule = "a trigger"
    if diagnostics.constraint_name is not None:
        rule = f"{diagnostics.constraint_name} of table {diagnostics.table_name}"
    elif diagnostics.column_name is not None:
        rule = f"NOT NULL of column {diagnostics.column_name} of table {diagnostics.table_name}"
    return refused(rule, str(error))


class PostgresFaults:
    """A ``with`` block that lets no driver error out. ``refused`` is told of a server that takes no writes."""

    __slots__ = ("_refused",)

    def __init__(self, refused: Callable[[], None] = lambda: None) -> None:
        self._refused = refused

    def __enter__(self) -> None:
        """Enter; there is nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, errors.ReadOnlySqlTransaction):
            self._refused()
        if isinstance(error, psycopg.Error):
            raise translated(error) from error
