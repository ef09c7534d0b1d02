"""PostgreSQL's driver: a session set up as inboxd needs it, on a connection that ticks while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors, waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.store.base import Turn

Answer = TypeVar("Answer")

TICK_S: Final = 0.1
"""How often a waiting connection ticks."""
CANCEL_TIMEOUT_S: Final = 3.0
LOOK_AFTER_S: Final = 1.0
"""After so long a silence a command looks whether it waits for a lock, to say so."""
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
    # What results depend on, whatever a server, database, role or URL says. `tests/store/test_postgres_session.py` goes
    # through all settings of a server and holds that each of the others changes nothing.
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",  # a before-image holds each number in the shortest form that reads back as the same
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "xmloption": "content",
    "row_security": "off",  # a policy that would hide rows is an error, not a table with fewer rows
    # What is decided under a lock is read after it was got: an administrator's default of "serializable" would show
    # each file the database as it was before its locks, and two daemons would fail each other with 40001 for ever.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "work_mem": "64MB",  # the sort of a file's staged records; 4 MB, the default, goes to disk with a small file
    "tcp_keepalives_idle": "10",  # the five below free a dead host's locks within 25 s, a dead process's within 5
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "client_connection_check_interval": "5000",
    "idle_in_transaction_session_timeout": "300000",
}
DURABLE: Final = ("synchronous_commit", "off", "on")
"""A COMMIT after which a file is moved waits for a disk: of this setting the one value that does not is replaced."""
SET_UP: Final = (
    "SELECT set_config(name, value, FALSE) FROM unnest(%s::text[], %s::text[], %s::text[]) "
    "AS ours (name, value, replaced) WHERE replaced IN ('', current_setting(name))"
)


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
        row = self._ask("state")
        if row == ():
            return False  # that connection has time-outs of its own
        self._idle = 0 if row is not None and row[0] in WORKING else self._idle + 1
        return self._idle >= PROBES

    def waits_for_a_lock(self) -> bool:
        """Tell whether the session waits for what another one holds."""
        return self._ask("wait_event_type") == ("Lock",)

    def _ask(self, column: str) -> tuple[Any, ...] | None:
        """Return a column of the session's line, ``None`` if it has none, ``()`` where the server cannot be asked."""
        question = f"SELECT {column} FROM pg_stat_activity WHERE pid = %s"
        try:
            with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=PROBE_TIMEOUT_S) as connection:
                return connection.execute(question.encode(), (self._pid,)).fetchone()
        except psycopg.Error:
            return ()


class TickingConnection(psycopg.Connection[tuple[Any, ...]]):
    """Calls ``tick`` while it waits for the server; what that raises cancels the statement, and is raised."""

    tick: Callable[[], None] | None = None
    probe: Probe | None = None
    turn: Turn | None = None

    def wait(self, gen: PQGen[Answer], interval: float = TICK_S, timeout: float | None = None) -> Answer:
        """Wait for the server."""
        if self.tick is None:
            return super().wait(gen, interval, timeout)
        ticking = _Ticking(self.tick, self.probe, self.turn)
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

    def __init__(self, tick: Callable[[], None], probe: Probe | None, turn: Turn | None) -> None:
        self._tick = tick
        self._probe = probe
        self._turn = turn
        self._next_probe = time.monotonic() + PROBE_EVERY_S
        self._next_look = time.monotonic() + LOOK_AFTER_S
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
        if self._probe is None:
            return
        if self._turn is not None and time.monotonic() > self._next_look:
            if self._probe.waits_for_a_lock():
                self._turn.waiting()
            self._next_look = float("inf")
        if time.monotonic() > self._next_probe:
            if self._probe.is_gone():
                raise psycopg.OperationalError("the server no longer works on this statement")
            self._next_probe = time.monotonic() + PROBE_EVERY_S


def connect(
    url: str, *, readonly: bool, tick: Callable[[], None] | None = None, turn: Turn | None = None
) -> TickingConnection:
    """Connect with a session set up as every part of inboxd expects it.

    Raises ``OperatorFault`` where that can never be: the URL cannot be read, or the database's text is not UTF-8.
    """
    conninfo = _conninfo(url)
    connection = TickingConnection.connect(conninfo, autocommit=True)
    try:
        _refuse_encoding(connection)
        _set_up(connection, readonly=readonly, turn=turn)
        if tick is not None or turn is not None:
            connection.tick = tick or (lambda: None)
            connection.turn = turn
            pid = connection.execute("SELECT pg_backend_pid()").fetchone()  # a proxy makes up the one libpq is told
            connection.probe = Probe(_same_server(conninfo, connection), int(pid[0])) if pid else None
    except BaseException:
        connection.close()
        raise
    return connection


def _conninfo(url: str) -> str:
    """Return what libpq connects with. Its own words about a URL that it cannot read may hold the password."""
    conninfo = "postgresql:" + url.partition(":")[2]
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        message = "the database's URL is not one that libpq can read"
        hint = (
            "percent-encode what has a meaning in URLs: % is %25, @ is %40, / is %2F; an option is written name=value"
        )
        raise OperatorFault("invalid_database_url", message, hint, exit_code=EXIT_CONFIG) from None
    hosts = 1 + str(given.get("host") or given.get("hostaddr") or "").count(",")
    timeout = max(SHORTEST_CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S // hosts)
    defaults = CONNECT | {"connect_timeout": timeout}
    return make_conninfo(conninfo, **{name: value for name, value in defaults.items() if name not in given})


def _refuse_encoding(connection: TickingConnection) -> None:
    """Raise if the database cannot hold every character, or would hold bytes that are none."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = f"the database {connection.info.dbname} keeps its text as {encoding}; inboxd needs UTF8"
        hint = "make one with CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0"
        raise OperatorFault("invalid_encoding", message, hint, exit_code=EXIT_CONFIG)


def _set_up(connection: TickingConnection, *, readonly: bool, turn: Turn | None) -> None:
    settings = [(name, value, "") for name, value in SESSION.items()]
    settings.append((DURABLE[0], DURABLE[2], DURABLE[1]))
    if readonly:
        settings.append(("default_transaction_read_only", "on", ""))
    if turn is not None:
        settings.append(("lock_timeout", f"{round(turn.wait_s * 1000)}ms", "0"))
    names, values, replaced = map(list, zip(*settings, strict=True))
    connection.execute(SET_UP, (names, values, replaced))


def _same_server(conninfo: str, connection: TickingConnection) -> str:
    """Return what leads to the server of a connection, of the several that a URL may name."""
    given, info = conninfo_to_dict(conninfo), connection.info
    there: dict[str, str | int] = {"port": info.port}
    if "host" in given:
        there["host"] = info.host
    if "hostaddr" in given:
        there["hostaddr"] = info.hostaddr
    return make_conninfo(conninfo, **there)
