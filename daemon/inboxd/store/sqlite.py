"""The store on SQLite: one writer, in WAL mode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from inboxd.clock import SystemClock, stamp
from inboxd.errors import (
    DATABASE_MISSING,
    EXIT_CONFIG,
    EXIT_UNAVAILABLE,
    INTERRUPTED,
    INTERRUPTED_MESSAGE,
    DatabaseFault,
    InboxdError,
    OperatorFault,
)
from inboxd.model import Feed
from inboxd.outcomes import RunStart
from inboxd.store.base import RunEnd, RunRow, Turn, Work
from inboxd.store.database import Store
from inboxd.store.dialects import SQLITE
from inboxd.store.ledger import RUN_COLUMNS, failure_values, notice_values, run_row
from inboxd.store.sqlite_driver import (
    SqliteFaults,
    driver,
    is_busy,
    refuse_forbidden,
    refuse_old_sqlite,
    refuse_utf16,
    translated,
)
from inboxd.store.sqlite_file import LEDGER, SqliteFile, begin_run
from inboxd.store.sqlite_parts import Parts
from inboxd.store.sqlite_scratch import Scratch

if TYPE_CHECKING:
    import sqlalchemy as sa

PRAGMAS: Final = {
    "synchronous": "FULL",
    "cache_size": -32_768,  # KiB; large files walk the tables in key order and need less, small ones meet keys anywhere
    "wal_autocheckpoint": 4_000,  # pages; the few that every small file touches are written back a quarter as often
    "journal_size_limit": 64 << 20,  # bytes; what a large file made of the log is given back
}
BUSY_TIMEOUT_S: Final = 0.05
"""SQLite's own wait for a lock; between two of them the caller's tick runs."""
PATIENCE_S: Final = 5.0
"""How long a lock is waited for in all, before the file is put off."""
TICK_EVERY: Final = 100_000
"""Virtual machine instructions between two ticks of a long statement: some 5 ms."""
STATEMENTS_KEPT: Final = 256

SHAPE: Final = 'SELECT name, type, NULLIF(pk, 0), "notnull" FROM pragma_table_info(?)'
INDEXED: Final = "SELECT name FROM pragma_index_info(?) ORDER BY seqno"
ANY_ABANDONED: Final = "SELECT 1 FROM etl_runs WHERE status = 'running' AND claim IS NOT NULL"
INTERRUPT: Final = (
    f"UPDATE etl_runs SET status = 'failure', finished_at = ?, error_code = '{INTERRUPTED}', "
    f"error = '{INTERRUPTED_MESSAGE}' WHERE status = 'running' AND "
)

Answer = TypeVar("Answer")


class SqliteStore(Store):
    """One SQLite database. The writing connection is owned by one thread; ``reading`` may be called from any."""

    _dialect = SQLITE
    _shape_query = SHAPE
    _index_query = INDEXED

    def __init__(
        self,
        url: str,
        *,
        readonly: bool,
        tick: Callable[[], None],
        silence: Callable[[float], object],
        turn: Turn | None,
    ) -> None:
        self.path = _path_of(url)
        self._file = os.fspath(self.path)  # asked for twice a file, and `os` answers three times as fast as `pathlib`
        self.readonly = readonly
        self._tick = tick
        self._turn = turn or Turn(PATIENCE_S, lambda: None)
        self._faults = SqliteFaults(tick, silence)
        clock = SystemClock()
        self._now = lambda: stamp(clock.now())
        if not readonly:
            refuse_old_sqlite()
        self._parts: Parts | None = None
        with self._faults:
            self._connection = self._connect_to_read() if readonly else self._connect_to_write()
        self._faults.connection = self._connection
        self._scratch = Scratch(self._connection, self.path.parent if os.access(self.path.parent, os.W_OK) else None)
        self._synchronous = "FULL"
        self._closed = False

    def identity(self) -> str:
        """Return device and inode of the database's file; its path where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return f"sqlite {self.path}"
        return f"sqlite {found.st_dev}:{found.st_ino}"

    def close(self) -> None:
        """Let go of the database. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._dispose_engine()
        with self._faults:
            self._connection.close()

    # Connections

    def _connect_to_write(self) -> driver.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the folder of {self.path}: {error.strerror}"
            raise DatabaseFault("database_unavailable", message, "look at its permissions and the disk") from error
        refuse_forbidden(self.path)
        connection = self._ticking(_connect(str(self.path), uri=False))
        self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
        refuse_utf16(connection)
        for pragma, value in PRAGMAS.items():
            connection.execute(f"PRAGMA {pragma} = {value}")
        self._parts = Parts(self._file, connection)
        return connection

    def _connect_to_read(self) -> driver.Connection:
        return self._ticking(_connect(self._reading_uri, uri=True))

    @cached_property
    def _reading_uri(self) -> str:
        """How to open the database for reading alone.

        In WAL mode that needs the -shm file, which only a writer can make: with no writer about, and nothing left in
        the log, the file is complete as it lies and may be read as immutable.
        """
        if not self.path.exists():
            message = f"there is no database at {self.path} yet"
            raise OperatorFault(
                DATABASE_MISSING, message, "inboxd run, load or db upgrade make it", exit_code=EXIT_UNAVAILABLE
            )
        uri = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro"
        try:
            probe = _connect(uri, uri=True)
            try:
                probe.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
            finally:
                probe.close()
        except driver.OperationalError:
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
            return f"{uri}&immutable=1"
        return uri

    def _ticking(self, connection: driver.Connection) -> driver.Connection:
        connection.set_progress_handler(self._faults.on_progress, TICK_EVERY)
        return connection

    def _patiently(self, work: Callable[[], Answer]) -> Answer:
        """Do what may meet another program's lock, again and again, ticking in between."""
        deadline = time.monotonic() + self._turn.wait_s
        while True:
            try:
                return work()
            except driver.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            self._turn.waiting()
            self._tick()

    def _refuse_another_file(self) -> None:
        if self._parts is not None:
            self._parts.refuse_others()

    def _begin_writing(self) -> None:
        self._refuse_another_file()
        self._set_synchronous("FULL")
        self._patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))

    def _set_synchronous(self, mode: str) -> None:
        """FULL waits for the disk at COMMIT. NORMAL does not, and is enough for what may be lost in a power cut."""
        if self._synchronous != mode:
            self._connection.execute(f"PRAGMA main.synchronous = {mode}")
            self._synchronous = mode

    @contextmanager
    def _durably(self) -> Iterator[driver.Connection]:
        """Run statements of the ledger in one durable transaction."""
        with self._faults:
            self._begin_writing()
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    # A file's way

    def begin(self, start: RunStart, *, small: bool = False) -> int:
        """Commit the ``running`` row, not durably; that of a small file would cost as much as all its other work."""
        if small:
            return 0
        self._refuse_another_file()
        with self._faults:
            self._set_synchronous("NORMAL")
            return self._patiently(lambda: begin_run(self._connection, start))

    def transaction(
        self, run_id: int, feed: Feed, *, force: bool = False, variant: str = "", start: RunStart | None = None
    ) -> SqliteFile:
        """Open a file's transaction; whatever ends its block but ``commit`` rolls it back."""
        work = Work(run_id, feed, force, variant, start)
        return SqliteFile(self._connection, self._scratch, self._faults, self._begin_writing, work, now=self._now)

    def fail(self, run_id: int, end: RunEnd) -> None:
        """Turn the run's row from running to failure, durably: its file is moved next."""
        with self._durably() as connection:
            connection.execute(LEDGER.fail, (*failure_values(end), run_id))
            if end.notices:
                connection.executemany(LEDGER.notice, notice_values(end))

    # What a crash left

    def interrupt_abandoned(self, finished_at: str) -> list[RunRow]:
        """Turn every ``running`` row with a claim into an interrupted one: the caller holds the daemon's lock."""
        with self._faults:
            if self._connection.execute(ANY_ABANDONED).fetchone() is None:
                return []
        with self._durably() as connection:
            rows = connection.execute(
                f"{INTERRUPT} claim IS NOT NULL RETURNING {RUN_COLUMNS}", (finished_at,)
            ).fetchall()
        return [run_row(row) for row in rows]

    def take_over(self, claim: str, finished_at: str) -> bool:
        """Turn the claim's ``running`` row into an interrupted one: on SQLite no other daemon can be at work."""
        with self._durably() as connection:
            connection.execute(f"{INTERRUPT} claim = ?", (finished_at, claim))
        return True

    def keep(self, claim: str) -> bool:
        """Tell that the claim is still ours: the daemon's lock sees to it."""
        del claim
        return True

    def let_go(self, claim: str) -> None:
        """Do nothing: there is nobody who could want the claim."""

    # SQLAlchemy's connections, for questions and repairs

    def _make_engine(self) -> sa.Engine:
        import sqlalchemy as sa  # noqa: PLC0415 - 0.1 s that a start does not need

        def connect() -> driver.Connection:
            if not self.readonly:
                return _connect(str(self.path), uri=False)
            connection = _connect(self._reading_uri, uri=True, timeout=PATIENCE_S)
            connection.set_progress_handler(self._faults.on_progress, TICK_EVERY)  # whoever asks may bound the time
            return connection

        engine = sa.create_engine("sqlite+pysqlite://", module=driver, creator=connect, poolclass=sa.QueuePool)

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            if not connection.get_execution_options().get("inboxd_write", False):
                connection.exec_driver_sql("BEGIN")
                return
            with self._faults:
                self._patiently(lambda: connection.connection.cursor().execute("BEGIN IMMEDIATE"))

        return engine

    def _lending(self, *, write: bool) -> dict[str, Any]:
        return {"inboxd_write": write}

    def _translated(self, error: BaseException) -> InboxdError:
        return translated(error, self._connection)

    # Reads without SQLAlchemy: those that the daemon's start and `load` need

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._faults:
            return self._connection.execute(statement, values).fetchall()


def _connect(database: str, *, uri: bool, timeout: float = BUSY_TIMEOUT_S) -> driver.Connection:
    """Open a connection that leaves transactions to us."""
    return driver.connect(
        database,
        uri=uri,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )


def _path_of(url: str) -> Path:
    """Return the file that ``sqlite:///relative`` or ``sqlite:////absolute`` names."""
    _, found, path = url.partition(":///")
    if not found or not path or path.startswith((":memory:", "?", "file:")):
        message = f"database.url {url!r} names no file"
        raise OperatorFault("invalid_database_url", message, "write sqlite:///data/inboxd.db", exit_code=EXIT_CONFIG)
    return Path(path)
