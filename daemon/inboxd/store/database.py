"""A database: the verbs that a file's way needs, in the order in which they are used, and the questions.

All methods raise ``TransientFault`` when the database is locked, gone, full or broken, and ``FileFault`` when it
refuses the data: ``refused_by_database`` where a rule of the user's own does, else ``internal_error``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from inboxd.errors import InboxdError
from inboxd.model import Cursor, Feed
from inboxd.outcomes import RunStart, RunStatus
from inboxd.store.base import RunEnd, RunRow, TableCounts, WatermarkRow
from inboxd.store.dialects import Dialect, quoted
from inboxd.store.feed_tables import MADE, TableShape, Wanted, made_columns, missing, wanted_tables
from inboxd.store.ledger import RUN_COLUMNS, canonical, run_row
from inboxd.store.schema import is_current, upgrade

if TYPE_CHECKING:  # SQLAlchemy costs 0.1 s to import: only code that reads with it pays
    import sqlalchemy as sa

    from inboxd.store.file import FileTransaction

HAVE_ONE_LINE: Final = (
    "SELECT COUNT(*) FROM etl_runs r JOIN lineage_records l ON l.run_id = r.id "
    "WHERE r.rows_rejected + r.rows_skipped + r.rows_deleted > 0 AND l.outcome IN (2, 3, 5)"
)
"""Skipped or rejected records, and keys absent from a snapshot. Few runs have any; only their lineage is looked at."""


class Store(ABC):
    """One database. Its writing half is owned by one thread; the reads may be called from any.

    SQLAlchemy is imported when the first question needs it.
    """

    _dialect: Dialect
    _shape_query: str
    """Finds a table's columns: name, type, place in the primary key, and whether they take no NULL."""
    _index_query: str
    """Finds the columns of an index, in order."""
    _engine: sa.Engine | None = None
    _host: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the database. May be called twice."""

    # What each database does in its own way

    @abstractmethod
    def _make_engine(self) -> sa.Engine: ...

    @abstractmethod
    def _lending(self, *, write: bool) -> dict[str, Any]:
        """Return SQLAlchemy's execution options for a connection that is lent."""

    @abstractmethod
    def _translated(self, error: BaseException) -> InboxdError: ...

    @abstractmethod
    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement on the store's own connection; return its rows, if it has any."""

    @abstractmethod
    def _durably(self) -> AbstractContextManager[Any]:
        """Run statements of the ledger in one durable transaction, on the connection that is lent."""

    # The schema

    def schema_current(self) -> bool:
        """Tell whether the control tables are of this version of inboxd; raises if they are of a later one."""
        return is_current(self._rows, self._dialect)

    def upgrade(self) -> bool:
        """Migrate the control tables; returns whether anything was to do. ``OperatorFault`` if they are newer."""
        if self.schema_current():
            return False
        with self._changing_schema():
            return upgrade(self._rows, self._dialect)

    def prepare(self, feeds: Sequence[Feed]) -> None:
        """Create the feeds' tables and add the columns of new fields.

        Raises ``OperatorFault`` ``schema_mismatch`` with every difference that would drop or retype a column or
        change a key, having changed nothing.
        """
        tables = wanted_tables(feeds, self._dialect)
        if not self._missing(tables):
            return
        with self._changing_schema():
            for statement in self._missing(tables):
                self._rows(statement)

    def _changing_schema(self) -> AbstractContextManager[Any]:
        return self._durably()

    def _missing(self, tables: Mapping[str, Wanted]) -> list[str]:
        made = made_columns(self._rows(MADE))
        return missing(tables, self._shape, self._indexed, self._any_row, made, self._dialect)

    def _named(self, table: str) -> str:
        """Return a table's or index's name as the queries take it."""
        return table

    def _shape(self, table: str) -> TableShape | None:
        rows = self._rows(self._shape_query, self._named(table))
        if not rows:
            return None
        key = sorted((place, name) for name, _, place, _ in rows if place is not None)
        required = frozenset(name for name, _, _, takes_no_null in rows if takes_no_null)
        return TableShape({name: kind for name, kind, _, _ in rows}, tuple(name for _, name in key), required)

    def _indexed(self, index: str) -> tuple[str, ...]:
        return tuple(name for (name,) in self._rows(self._index_query, self._named(index)))

    def _any_row(self, query: str) -> bool:
        return bool(self._rows(query))

    # A file's way

    @abstractmethod
    def begin(self, start: RunStart, *, small: bool = False) -> int:
        """Commit the ``running`` row, not durably, and return its id; a claim's own running row is used again.

        A ``small`` file's run may begin with its transaction instead: then there is none yet, and this returns 0.
        """

    @abstractmethod
    def transaction(
        self, run_id: int, feed: Feed, *, force: bool = False, variant: str = "", start: RunStart | None = None
    ) -> AbstractContextManager[FileTransaction]:
        """Open a file's transaction. ``force``: an equal cursor is applied too, and the content's run is superseded.

        ``variant`` is what of the file's name and path makes its content another one, as in ``RunStart``. Whatever
        ends the block but ``commit`` rolls it back.
        """

    @abstractmethod
    def fail(self, run_id: int, end: RunEnd) -> None:
        """Turn the run's row from running to failure, with zero counts, durably: its file is moved next."""

    def drop(self, start: RunStart) -> None:
        """Delete the ``running`` row that began so, if there is one: an orderly stop.

        It is not named by its id: a signal may come when the row is committed, and before anybody has that. And it is
        looked for first, which waits for nobody.
        """
        mark = self._dialect.mark
        began = f"job_name = {mark} AND started_at = {mark} AND host = {mark} AND COALESCE(claim, '') = {mark}"
        values = (start.feed, start.started_at, start.host, start.claim or "")
        for (run_id,) in self._rows(f"SELECT id FROM etl_runs WHERE {began} AND status = 'running'", *values):
            with self._durably():
                self._rows(f"DELETE FROM etl_runs WHERE id = {mark} AND status = 'running'", run_id)

    def drop_claim(self, claim: str) -> None:
        """Delete the claim's ``running`` row, if it has one: an orderly stop, or a file that settles again.

        Raises ``TransientFault`` ``run_taken`` when the claim is another daemon's by now.
        """
        with self._durably() as connection:
            self._own(connection, claim)
            self._rows(f"DELETE FROM etl_runs WHERE claim = {self._dialect.mark} AND status = 'running'", claim)

    def _own(self, connection: Any, claim: str) -> None:  # noqa: B027, ANN401 - either driver's; PostgreSQL must look
        """Make sure that a claim is ours: beside a SQLite file the daemon's lock does so."""

    # What a crash left

    @abstractmethod
    def interrupt_abandoned(self, finished_at: str) -> list[RunRow]:
        """Turn ``running`` rows of files whose daemon is gone into failures with code ``interrupted``; return them.

        SQLite: all rows with a claim, because the caller holds the daemon's lock. PostgreSQL: those whose daemon's
        session is gone.
        """

    @abstractmethod
    def take_over(self, claim: str, finished_at: str) -> bool:
        """Make ours a claim that no living daemon holds, and tell whether it was so.

        Its ``running`` row, if any, becomes ``interrupted``. Until ``let_go`` no other daemon gets it.
        """

    @abstractmethod
    def keep(self, claim: str) -> bool:
        """Tell whether a claim is still ours; a lost connection may have given it to another daemon."""

    @abstractmethod
    def let_go(self, claim: str) -> None:
        """Give a claim up: its file was moved to where it belongs."""

    def runs_of_claim(self, claim: str) -> list[RunRow]:
        """Return the runs of a claim, oldest first."""
        query = f"SELECT {RUN_COLUMNS} FROM etl_runs WHERE claim = {self._dialect.mark} ORDER BY id"
        return [run_row(row) for row in self._rows(query, claim)]

    def set_watermark(self, name: str, value: Cursor | None, updated_at: str) -> None:
        """Put a watermark (see ``cursors.watermark_name``) where the operator wants it; ``None`` removes it."""
        mark, moment = self._dialect.mark, self._dialect.moment
        with self._durably():
            self._rows(f"DELETE FROM watermarks WHERE name = {mark}", name)
            if value is not None:
                insert = f"INSERT INTO watermarks (name, value, updated_at) VALUES ({mark}, {mark}, {moment})"
                self._rows(insert, name, str(value), updated_at)

    # Connections for those who have questions of their own

    @contextmanager
    def _lent(self, *, write: bool) -> Iterator[sa.Connection]:
        from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - 0.1 s that a start does not need

        if self._engine is None:
            self._engine = self._make_engine()
        try:
            with (
                self._engine.connect().execution_options(**self._lending(write=write)) as connection,
                connection.begin(),
            ):
                yield connection
        except DBAPIError as error:
            raise self._translated(error.orig or error) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Lend a SQLAlchemy connection with one consistent view of the database, for questions."""
        with self._lent(write=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Lend a SQLAlchemy connection in one durable write transaction, committed at the block's end or not at all."""
        with self._lent(write=True) as connection:
            yield connection

    def await_commits(self, connection: sa.Connection) -> None:
        """Return once what was committed can be seen on every node of the database; ``DatabaseFault`` if that lasts."""
        del connection  # a database on one node shows what was committed

    def _dispose_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # Who is there

    @abstractmethod
    def identity(self) -> str:
        """Return what tells this database from every other one, whatever URL leads to it."""

    def announce(self, host: str) -> None:
        """Let everybody see that a daemon of this host is up, for as long as its session lasts. Call it once."""
        self._host = host  # beside a SQLite file a lock says so already

    def announced(self) -> frozenset[str] | None:
        """Return the hosts whose daemons are up, by ``ANNOUNCED_LENGTH`` of their names; ``None``: unknown."""
        return None

    @contextmanager
    def turn(self, feed: Feed) -> Iterator[None]:
        """Hold the turn of an ordered feed while a command works on its file; waits until no daemon has one at work."""
        if not feed.ordered:  # of another feed files are loaded side by side
            yield
            return
        self._await_turn(feed.name)
        try:
            yield
        finally:
            with suppress(InboxdError):  # it ends with the session at the latest
                self.end_turn(feed.name)

    def _await_turn(self, feed: str) -> None:  # noqa: B027 - PostgreSQL has something to do
        """Go on at once: beside a SQLite file there is nobody to be waited for."""

    def take_turn(self, feed: str) -> bool:
        """Make it this daemon's turn to claim files of an ordered feed; ``False`` while it is another's."""
        del feed
        return True  # beside a SQLite file there is no other daemon

    def end_turn(self, feed: str) -> None:  # noqa: B027 - PostgreSQL has something to do
        """Let others have their turn."""

    def run(self, run_id: int) -> RunRow | None:
        """Return one run."""
        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - SQLAlchemy, as above

        with self.reading() as connection:
            row = connection.execute(etl_runs.select().where(etl_runs.c.id == run_id)).one_or_none()
        return None if row is None else run_row(row)

    def runs(
        self,
        *,
        job: str | None = None,
        status: RunStatus | None = None,
        before: int | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> list[RunRow]:
        """Return runs, newest first: of a job, a status, with an id below ``before``, begun at ``since`` or later."""
        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - SQLAlchemy, as above

        query = etl_runs.select().order_by(etl_runs.c.id.desc()).limit(limit)
        if job is not None:
            query = query.where(etl_runs.c.job_name == job)
        if status is not None:
            query = query.where(etl_runs.c.status == status.value)
        if before is not None:
            query = query.where(etl_runs.c.id < before)
        if since is not None:
            query = query.where(etl_runs.c.started_at >= since)
        with self.reading() as connection:
            return [run_row(row) for row in connection.execute(query)]

    def table_counts(self, feeds: Sequence[Feed]) -> TableCounts:
        """Count the rows of the feeds' tables, the dead letters and the lineage, exactly.

        Each record has a second line of lineage if it was loaded or stale.
        """
        tables = sorted({feed.table for feed in feeds})
        targets = sum(self._count(f"SELECT COUNT(*) FROM {quoted(table)}") for table in tables)
        lineage = 2 * self._count("SELECT COUNT(*) FROM lineage_records") - self._count(HAVE_ONE_LINE)
        return TableCounts(targets, self._count("SELECT COUNT(*) FROM dead_letters"), lineage)

    def _count(self, statement: str) -> int:
        return int(str(self._rows(statement)[0][0]))

    def watermarks(self) -> list[WatermarkRow]:
        """Return every feed's watermark, by name."""
        rows = self._rows("SELECT name, value, run_id, updated_at FROM watermarks ORDER BY name")
        return [
            WatermarkRow(
                str(name), str(value), None if run_id is None else int(str(run_id)), canonical(updated_at) or ""
            )
            for name, value, run_id, updated_at in rows
        ]
