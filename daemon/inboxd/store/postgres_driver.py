"""PostgreSQL's driver: a connection that ticks while it waits, and what the server's errors mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors, waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from inboxd.errors import DatabaseFault, FileFault, InboxdError

Answer = TypeVar("Answer")

TICK_S: Final = 0.1
"""How often a waiting connection ticks."""
CANCEL_TIMEOUT_S: Final = 3.0
PROBE_EVERY_S: Final = 10.0
"""After so long a silence the server is asked whether it is at work, and again each time."""
PROBE_TIMEOUT_S: Final = 2
PROBES: Final = 2
WORKING: Final = frozenset({"active", "fastpath function call", "disabled", None})
"""``pg_stat_activity.state`` of a session at work, or of one that hides it (``track_activities`` is off)."""

APPLICATION: Final = "inboxd"
CONNECT_TIMEOUT_S: Final = 4
"""For all hosts of the URL together: a stop may take ten seconds, and may meet servers out of reach twice."""
SHORTEST_CONNECT_TIMEOUT_S: Final = 2
"""libpq takes none that is shorter."""
CONNECT: Final[dict[str, str | int]] = {
    "keepalives_idle": 10,  # these four end a connection within 25 s of the peer's silence
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": APPLICATION,
}
"""What every connection is made with, in libpq's words, unless the URL says otherwise."""

SESSION: Final = {
    "timezone": "UTC",
    "datestyle": "ISO",
    # What is decided under a lock is read after it was got: an administrator's default of "serializable" would show
    # each file the database as it was before its locks, and two daemons would fail each other with 40001 for ever.
    "default_transaction_isolation": "read committed",
    "work_mem": "64MB",  # the sort of a file's staged records; 4 MB, the default, goes to disk with a small file
    "tcp_keepalives_idle": "10",  # the five below free a dead host's locks within 25 s, a dead process's within 5
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "client_connection_check_interval": "5000",
    "idle_in_transaction_session_timeout": "300000",
}

LOST: Final = ("connection_lost", "it is tried again; after a COMMIT the ledger tells whether it counted")
BY_CLASS: Final = {  # https://www.postgresql.org/docs/current/errcodes-appendix.html
    "08": LOST,
    "28": ("access_denied", "look at the user, the password and pg_hba.conf"),
    "3D": ("database_missing", "create the database: inboxd makes its own tables, not the database"),
    "53": ("database_unavailable", "the server is short of connections or memory"),
    "57": ("database_unavailable", "the server is stopping or starting, or ended the statement"),
    "58": ("io_error", "look at the server's disk and log"),
    "XX": ("database_error", "look at the server's log"),
}
BY_STATE: Final = {
    "25006": ("read_only", "this server is a standby, or was set read-only"),
    "40001": ("serialization", "two transactions met; it is tried again"),
    "40P01": ("serialization", "two transactions met; it is tried again"),
    "42501": ("access_denied", "grant inboxd's user what it needs on the schema"),
    "53100": ("disk_full", "free space on the server's disk"),
    "55P03": ("database_locked", "another session holds the lock; it is tried again"),
    "25P03": LOST,
    "57P01": LOST,
    "57P02": LOST,
    "XX001": ("database_corrupt", "restore the database from a backup"),
    "XX002": ("database_corrupt", "reindex, or restore the database from a backup"),
}
DATA_CLASSES: Final = frozenset({"21", "22", "23", "54"})
"""The server refused the data, and would the next time."""
RACES: Final = frozenset({"etl_runs_loaded_once", "etl_runs_running_claim"})
"""Unique indexes that are violated only when two daemons do the same at once: the second try sees the first's row."""


def translated(error: BaseException) -> InboxdError:
    """Return what a driver's error means for the file being worked on."""
    if not isinstance(error, psycopg.Error):
        return DatabaseFault("database_error", f"PostgreSQL: {error}")
    message = f"PostgreSQL: {str(error).strip() or type(error).__name__}"
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return DatabaseFault(LOST[0], message, LOST[1])
        return FileFault("internal_error", f"the driver refused the data: {error}", "please report this")
    if error.diag.constraint_name in RACES:
        return DatabaseFault(
            "serialization", message, "another daemon was faster with the same content; it is tried again"
        )
    if state[:2] in DATA_CLASSES:
        return FileFault("internal_error", f"the database refused the data: {error}", "please report this")
    fallback = ("database_error", "was the database changed by hand? see `inboxd doctor`")
    code, hint = BY_STATE.get(state) or BY_CLASS.get(state[:2]) or fallback
    return DatabaseFault(code, message, hint)


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


class Probe:
    """Asks the server, on a connection of its own, whether a silent session is at work there.

    A proxy or a balancer in between may keep a connection open that leads nowhere; TCP's own means do not notice.
    """

    def __init__(self, conninfo: str, pid: int) -> None:
        self._conninfo = conninfo
        self._pid = pid
        self._idle = 0

    def is_gone(self) -> bool:
        """Tell whether it was found not at work twice in a row: the first time its answer may be on its way."""
        try:
            with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=PROBE_TIMEOUT_S) as connection:
                row = connection.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (self._pid,)).fetchone()
        except psycopg.Error:
            return False  # that connection has time-outs of its own
        self._idle = 0 if row is not None and row[0] in WORKING else self._idle + 1
        return self._idle >= PROBES


class TickingConnection(psycopg.Connection[tuple[Any, ...]]):
    """Calls ``tick`` while it waits for the server; what that raises cancels the statement, and is raised."""

    tick: Callable[[], None] | None = None
    probe: Probe | None = None

    def wait(self, gen: PQGen[Answer], interval: float = TICK_S, timeout: float | None = None) -> Answer:
        """Wait for the server."""
        if self.tick is None:
            return super().wait(gen, interval, timeout)
        ticking = _Ticking(self.tick, self.probe)
        try:
            return super().wait(ticking.around(gen), interval, timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # it never came from the server: what comes now would be a late answer
                self.close()
            raise
        except BaseException:
            if ticking.raised and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                # The server is still at it: stop it there, and read its answer, or the connection is of no more use.
                self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
                with suppress(errors.QueryCanceled):
                    waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=CANCEL_TIMEOUT_S)
            raise


class _Ticking:
    """Passes a generator of psycopg's on, ticking whenever an interval passed in which the server said nothing."""

    def __init__(self, tick: Callable[[], None], probe: Probe | None) -> None:
        self._tick = tick
        self._probe = probe
        self._next_probe = time.monotonic() + PROBE_EVERY_S
        self.raised = False

    def around(self, gen: PQGen[Answer]) -> Generator[Any, Any, Answer]:
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready:
                    self._call()
                state = gen.send(ready)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    def _call(self) -> None:
        try:
            self._tick()
        except BaseException:
            self.raised = True
            raise
        if self._probe is not None and time.monotonic() > self._next_probe:
            if self._probe.is_gone():
                raise psycopg.OperationalError("the server no longer works on this statement")
            self._next_probe = time.monotonic() + PROBE_EVERY_S


def connect(url: str, *, readonly: bool, tick: Callable[[], None] | None = None) -> TickingConnection:
    """Connect with a session set up as every part of inboxd expects it."""
    settings = SESSION | ({"default_transaction_read_only": "on"} if readonly else {})
    conninfo = "postgresql:" + url.partition(":")[2]
    given = conninfo_to_dict(conninfo)
    hosts = 1 + str(given.get("host") or given.get("hostaddr") or "").count(",")
    timeout = max(SHORTEST_CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S // hosts)
    defaults = CONNECT | {"connect_timeout": timeout}
    full = make_conninfo(conninfo, **{name: value for name, value in defaults.items() if name not in given})
    connection = TickingConnection.connect(full, autocommit=True)
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
    if tick is not None:
        connection.tick = tick
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()  # a proxy makes up the one that libpq is told
        connection.probe = Probe(_same_server(full, connection), int(pid[0])) if pid else None
    return connection


def _same_server(conninfo: str, connection: TickingConnection) -> str:
    """Return what leads to the server of a connection, of the several that a URL may name."""
    given, info = conninfo_to_dict(conninfo), connection.info
    there: dict[str, str | int] = {"port": info.port}
    if "host" in given:
        there["host"] = info.host
    if "hostaddr" in given:
        there["hostaddr"] = info.hostaddr
    return make_conninfo(conninfo, **there)
