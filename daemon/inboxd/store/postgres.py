"""The store on PostgreSQL: any number of daemons, on any number of hosts.

A daemon holds a session's advisory lock for each of its claims, from before its run begins until its file is moved, and
inside the file's transaction the run's row too. Both go with the session, so that another daemon can tell the dead from
the living, and takes a claim over only if it can have both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

from inboxd.clock import SystemClock, stamp
from inboxd.errors import RUN_TAKEN, DatabaseFault, InboxdError, TransientFault
from inboxd.model import Feed
from inboxd.outcomes import RunStart
from inboxd.store.base import ANNOUNCED_LENGTH, RunEnd, RunRow, Turn, Work
from inboxd.store.database import Store
from inboxd.store.dialects import POSTGRES, quoted
from inboxd.store.ledger import failure_values, notice_values, run_row
from inboxd.store.postgres_citus import SIDE_BY_SIDE, WITH_CITUS, await_commits
from inboxd.store.postgres_claims import CLAIM_LOCK, INTERRUPT, OF_CLAIM, OF_NOBODY, RUNNING, Claims
from inboxd.store.postgres_driver import APPLICATION, TickingConnection, connect
from inboxd.store.postgres_faults import PostgresFaults, translated
from inboxd.store.postgres_file import LEDGER, PostgresFile, feed_sql
from inboxd.store.postgres_import import PostgresImport
from inboxd.store.postgres_sql import FeedSql

if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEMA_LOCK: Final = 0x696E626F7864
"""The advisory lock under which tables are made and changed: "inboxd" in ASCII."""

TURN: Final = "hashtextextended('inboxd turn ' || %s, 0)"
AWAIT_TURN: Final = f"SELECT pg_advisory_lock({TURN})"
TAKE_TURN: Final = f"SELECT pg_try_advisory_lock({TURN})"
END_TURN: Final = f"SELECT pg_advisory_unlock({TURN})"
BEGIN_RUN: Final = (
    "INSERT INTO etl_runs (job_name, status, started_at, file_name, file_size, claim, host, file_mtime, variant) "
    "SELECT %(job)s, 'running', %(started_at)s::timestamptz, %(file_name)s, %(file_size)s::bigint, "
    "%(claim)s, %(host)s, %(file_mtime)s::timestamptz, %(variant)s "
    "WHERE set_config('synchronous_commit', 'off', TRUE) = 'off' "  # of this statement: its row need not be durable
    "AND (%(ours)s OR %(claim)s::text IS NULL OR pg_try_advisory_lock("
    + CLAIM_LOCK.format(claim="%(claim)s::text")
    + ")) "
    "ON CONFLICT (claim) WHERE status = 'running' DO UPDATE SET host = EXCLUDED.host, job_name = EXCLUDED.job_name, "
    "variant = EXCLUDED.variant RETURNING id, " + CLAIM_LOCK.format(claim="claim")
)
DAEMON: Final = APPLICATION + "@"
"""With its host's name after it the name of a daemon's session, which every session of the server may see."""
IDENTIFIES: Final = "pg_control_system()"
"""The function that knows the cluster's number; some servers do not let everybody ask."""
ANNOUNCED: Final = (
    f"SELECT substr(application_name, {len(DAEMON) + 1}) FROM pg_stat_activity "
    f"WHERE datname = current_database() AND starts_with(application_name, '{DAEMON}')"
)
SHAPE: Final = (
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod), array_position(i.indkey::int2[], a.attnum), "
    "a.attnotnull "
    "FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary "
    "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
INDEXED: Final = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum"


class PostgresStore(Store):
    """One PostgreSQL database. The writing connection is owned by one thread; ``reading`` may be called from any."""

    _dialect = POSTGRES
    _shape_query = SHAPE
    _index_query = INDEXED

    def __init__(self, url: str, *, readonly: bool, tick: Callable[[], None], turn: Turn | None) -> None:
        self._url = url
        self.readonly = readonly
        self._tick = tick
        self._turn = turn
        self._faults = PostgresFaults(self._leave_standby)
        clock = SystemClock()
        self._now = lambda: stamp(clock.now())
        self._open: TickingConnection | None = None
        self._slots: dict[str, FeedSql] = {}
        self._created: set[FeedSql] = set()
        self._feeds_met = 0
        self._with_citus = False
        self._claims = Claims()
        self._turns: set[str] = set()
        with self._faults:
            self._connected()

    def close(self) -> None:
        """Let go of the database. May be called twice."""
        self._dispose_engine()
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    # Connections

    def _connected(self) -> TickingConnection:
        """Return the connection; after a loss a new one, on which there are no temporary tables."""
        if self._open is None or self._open.closed:
            self._created.clear()
            try:
                self._open = connect(self._url, readonly=self.readonly, tick=self._tick, turn=self._turn)
            except psycopg.OperationalError as error:
                fault = translated(error)
                code = "database_unavailable" if fault.code == "connection_lost" else fault.code
                raise DatabaseFault(code, fault.message, fault.hint) from error
            if not self.readonly:
                self._with_citus = self._open.execute(WITH_CITUS).fetchone() == (True,)
                if self._with_citus:
                    self._open.execute(SIDE_BY_SIDE)
                self._name_session(self._open)
                self._claims.reconnected(self._open)
                self._turns.clear()
        return self._open

    def announce(self, host: str) -> None:
        """Let everybody see that a daemon of this host is up, unless the URL gives its sessions another name."""
        super().announce(host)
        with self._faults:
            self._name_session(self._connected())

    def identity(self) -> str:
        """Return the cluster's number, which ``initdb`` gave it and its standbys have too, and the database's name."""
        with self._faults:
            connection = self._connected()
            row = connection.execute("SELECT current_database(), has_function_privilege(%s, 'EXECUTE')", (IDENTIFIES,))
            name, allowed = row.fetchone() or ("", False)
            if not allowed:
                return f"postgresql {connection.info.host}:{connection.info.port}/{name}"
            (number,) = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone() or (0,)
        return f"postgresql {number}/{name}"

    def _name_session(self, connection: TickingConnection) -> None:
        if self._host is not None and connection.info.get_parameters().get("application_name") == APPLICATION:
            name = DAEMON + self._host[:ANNOUNCED_LENGTH]
            connection.execute("SELECT set_config('application_name', %s, FALSE)", (name,))

    def announced(self) -> frozenset[str]:
        """Return the hosts whose daemons are up: those that have a session here."""
        return frozenset(str(host) for (host,) in self._rows(ANNOUNCED))

    def _leave_standby(self) -> None:
        """Give a session up on a server that takes no writes: the next connection may lead to the one that does."""
        if not self.readonly and self._open is not None:
            with suppress(psycopg.Error):
                self._open.close()

    @contextmanager
    def _durably(self) -> Iterator[TickingConnection]:
        """Run statements of the ledger in one durable transaction."""
        with self._faults:
            connection = self._connected()
            connection.execute(self._claims.unlocking() + "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    # The schema

    @contextmanager
    def _changing_schema(self) -> Iterator[None]:
        with self._durably() as connection:
            connection.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
            yield

    def _named(self, table: str) -> str:
        return quoted(table)

    def _any_row(self, query: str) -> bool:
        if self._with_citus:
            with self._faults:
                await_commits(self._connected())
        return super()._any_row(query)

    # A file's way

    def begin(self, start: RunStart, *, small: bool = False) -> int:
        """Commit the ``running`` row, not durably: other daemons tell by it that the claim is in good hands."""
        del small
        values = {
            "job": start.feed,
            "started_at": start.started_at,
            "file_name": start.file_name,
            "file_size": start.file_size,
            "claim": start.claim,
            "host": start.host,
            "file_mtime": start.file_mtime,
            "variant": start.variant,
            "ours": False,
        }
        with self._faults:
            connection = self._connected()
            values["ours"] = start.claim in self._claims
            row = connection.execute(BEGIN_RUN, values).fetchone()
        if row is None:
            raise _taken(f"claim {start.claim}")
        if start.claim is not None:
            self._claims.note(start.claim, row[1])
        return int(row[0])

    @contextmanager
    def transaction(
        self, run_id: int, feed: Feed, *, force: bool = False, variant: str = "", start: RunStart | None = None
    ) -> Iterator[PostgresFile]:
        """Open a file's transaction; whatever ends the block but ``commit`` rolls it back."""
        del start
        with self._faults:
            connection = self._connected()
            sql = self._statements(connection, feed)
            connection.execute(self._claims.unlocking() + "BEGIN")
        try:
            work = Work(run_id, feed, force, variant)
            file = PostgresFile(connection, sql, work, now=self._now, counts_hold=not self._with_citus)
            yield file
        except BaseException:
            _roll_back(connection)
            raise
        if not file.committed:
            _roll_back(connection)

    def _statements(self, connection: TickingConnection, feed: Feed) -> FeedSql:
        sql = self._slots.get(feed.name)
        if sql is None or sql.feed != feed:  # a changed config: a changed feed gets tables of its own
            self._feeds_met += 1
            sql = self._slots[feed.name] = feed_sql(feed, self._feeds_met)
        if sql not in self._created:
            try:
                connection.execute(sql.create_temporary())
            except psycopg.errors.InsufficientPrivilege as error:
                hint = f"GRANT TEMPORARY ON DATABASE {quoted(connection.info.dbname)} TO {quoted(connection.info.user)}"
                raise DatabaseFault("access_denied", f"PostgreSQL: {error}", hint) from error
            self._created.add(sql)
        return sql

    def fail(self, run_id: int, end: RunEnd) -> None:
        """Turn the run's row from running to failure, durably: its file is moved next."""
        with self._durably() as connection:
            if connection.execute(LEDGER.fail, (*failure_values(end), run_id)).rowcount != 1:
                raise _taken(f"run {run_id}")
            for notice in notice_values(end):
                connection.execute(LEDGER.notice, notice)

    def _own(self, connection: TickingConnection, claim: str) -> None:
        if not self._claims.keep(connection, claim):
            raise _taken(f"claim {claim}")

    # What a crash left

    def interrupt_abandoned(self, finished_at: str) -> list[RunRow]:
        """Turn the ``running`` rows of claims whose daemon's session is gone into failures."""
        return self._interrupt(OF_NOBODY, finished_at, None)

    def take_over(self, claim: str, finished_at: str) -> bool:
        """Make ours a claim that no living daemon holds, and tell whether it was so."""
        with self._faults:
            connection = self._connected()
            if claim not in self._claims and not self._claims.may_take_over():
                return False
            if not self._claims.keep(connection, claim):
                return False
        self._interrupt(OF_CLAIM, finished_at, claim)
        with self._faults:
            free = connection.execute(RUNNING, (claim,)).fetchone() is None
        if not free:  # its row is locked: somebody is at work in the file's transaction
            self._claims.let_go(claim)
        return free

    def keep(self, claim: str) -> bool:
        """Tell whether a claim is still ours; a lost connection may have given it to another daemon."""
        with self._faults:
            return self._claims.keep(self._connected(), claim)

    def take_turn(self, feed: str) -> bool:
        """Make it this session's turn to claim files of an ordered feed; it ends with the session at the latest."""
        with self._faults:
            connection = self._connected()
            if feed not in self._turns and connection.execute(TAKE_TURN, (feed,)).fetchone() == (True,):
                self._turns.add(feed)
        return feed in self._turns

    def _await_turn(self, feed: str) -> None:
        with self._faults:
            connection = self._connected()
            try:
                if feed not in self._turns:
                    connection.execute(AWAIT_TURN, (feed,))
            except psycopg.errors.LockNotAvailable as error:
                message = f"another host holds the turn of feed {feed!r}, whose files are applied one after another"
                hint = "let its files be done first; `inboxd status` there tells which of them wait, and why"
                raise DatabaseFault("database_locked", message, hint) from error
            self._turns.add(feed)

    def end_turn(self, feed: str) -> None:
        """Let others have their turn."""
        with self._faults:
            connection = self._connected()
            if feed in self._turns:
                self._turns.discard(feed)
                connection.execute(END_TURN, (feed,))

    def let_go(self, claim: str) -> None:
        """Give a claim up: its file was moved to where it belongs."""
        self._claims.let_go(claim)

    def _interrupt(self, which: str, finished_at: str, claim: str | None) -> list[RunRow]:
        with self._durably() as connection:
            values = {"finished_at": finished_at, "claim": claim}
            rows = connection.execute(INTERRUPT.format(ids=which), values).fetchall()
        return [run_row(row) for row in rows]

    # SQLAlchemy's connections, for questions and repairs

    def _make_engine(self) -> sa.Engine:
        import sqlalchemy as sa  # noqa: PLC0415 - 0.1 s that a start does not need

        def session() -> psycopg.Connection[Any]:
            # Whoever only asks may bound the time; a repair is not to be ended in the middle.
            tick = self._tick if self.readonly else None
            connection = connect(self._url, readonly=self.readonly, tick=tick, turn=self._turn)
            connection.autocommit = False
            return connection

        return sa.create_engine("postgresql+psycopg://", creator=session, pool_pre_ping=True)

    def await_commits(self, connection: sa.Connection) -> None:
        """Return once what was committed can be seen on every node; ``DatabaseFault`` if that lasts."""
        lent = connection.connection.driver_connection
        if self._with_citus and isinstance(lent, TickingConnection):
            with self._faults:
                await_commits(lent)

    def _lending(self, *, write: bool) -> dict[str, Any]:
        """Questions get one snapshot; a repair takes row locks, and must see what others have just committed."""
        if write:
            return {"isolation_level": "READ COMMITTED"}
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def _translated(self, error: BaseException) -> InboxdError:
        return translated(error)

    @contextmanager
    def importing(self) -> Iterator[PostgresImport]:
        """Begin a durable transaction to fill empty tables in; committed at the block's end or not at all."""
        with self._durably() as connection:
            yield PostgresImport(connection)

    # Reads without SQLAlchemy: those that the daemon's start and `load` need

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._faults:
            found = self._connected().execute(statement.encode(), values or None)
            return found.fetchall() if found.description else []


def _taken(what: str) -> TransientFault:
    return TransientFault(RUN_TAKEN, f"{what} is another daemon's", "it works on this file")


def _roll_back(connection: TickingConnection) -> None:
    """Undo after an error, which is the one to be told: a second one, of a lost connection, would only hide it."""
    with suppress(psycopg.Error):
        if not connection.closed:
            connection.execute("ROLLBACK")
