"""What both stores answer alike: questions to the ledger, and connections for those who have questions of their own."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, astuple, fields, is_dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

from inboxd.errors import FileFault, InboxdError
from inboxd.model import Counts, Cursor, Feed, RunStatus
from inboxd.store.base import NoticeRow, RunEnd, RunRow, TableCounts, WatermarkRow
from inboxd.store.dialects import Dialect, quoted
from inboxd.store.feed_tables import MADE, TableShape, Wanted, made_columns, missing, wanted_tables
from inboxd.store.schema import is_current, upgrade

if TYPE_CHECKING:
    import sqlalchemy as sa

RUN_COLUMNS: Final = ", ".join(field.name for field in fields(RunRow))

NOTICE_COLUMNS: Final = tuple(field.name for field in fields(NoticeRow))
HAVE_ONE_LINE: Final = (
    "SELECT COUNT(*) FROM etl_runs r JOIN lineage_records l ON l.run_id = r.id "
    "WHERE r.rows_rejected + r.rows_skipped + r.rows_deleted > 0 AND l.outcome IN (2, 3, 5)"
)
"""Skipped or rejected records, and keys absent from a snapshot. Few runs have any; only their lineage is looked at."""


def canonical(value: object) -> str | None:
    """Return a moment as canonical text, whichever of the databases it comes from."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    return None if value is None else str(value)


def success_values(end: RunEnd, feed: Feed) -> tuple[object, ...]:
    """Return what a success writes: counts, duration, finished_at, size, hash, watermark, duplicate_of, table."""
    verdict, counts = end.verdict, end.verdict.counts
    watermark = None if verdict.watermark is None else str(verdict.watermark)
    return (
        counts.rows_in,
        counts.rows_out,
        counts.rows_rejected,
        counts.rows_skipped,
        counts.rows_stale,
        counts.rows_filtered,
        counts.rows_deleted,
        verdict.duration_ms,
        end.finished_at,
        verdict.size,
        verdict.sha256,
        watermark,
        verdict.duplicate_of,
        feed.table,
    )


def skipped_counts(records: int, filtered: int) -> Counts:
    """Return the counts of a file of which everything was skipped that is the feed's."""
    return Counts(rows_in=records + filtered, rows_skipped=records, rows_filtered=filtered)


def refuse_replayed(run_id: int, replay: int | None) -> None:
    """Refuse to take a run's rows away while a replay of its dead letters stands: they would be there twice."""
    if replay is not None:
        message = f"dead letters of run {run_id} were replayed by run {replay}, whose rows stand beside its own"
        raise FileFault("replay_stands", message, f"undo the replay first: inboxd undo {replay}")


def failure_values(end: RunEnd) -> tuple[object, ...]:
    """Return what a failure writes: duration, finished_at, size, hash, code, message, the rest of the report."""
    verdict = end.verdict
    code, message = verdict.error_code or "internal_error", verdict.error or ""
    rest = {"hint": verdict.hint, "place": verdict.place, "details": verdict.details}
    report = json.dumps(rest, default=_plain)  # all ASCII: a detail may hold what no database's text can
    return (verdict.duration_ms, end.finished_at, verdict.size or None, verdict.sha256, code, message, report)


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def notice_values(end: RunEnd) -> list[tuple[object, ...]]:
    """Return the notices of a run in the order of ``NOTICE_COLUMNS``."""
    return [astuple(notice) for notice in end.notices]


def run_row(values: Sequence[object]) -> RunRow:
    """Return a row of ``RUN_COLUMNS`` as what it is."""
    named = dict(zip(RunRow.__slots__, values, strict=True))
    named |= {name: canonical(named[name]) for name in ("started_at", "finished_at", "file_mtime", "file_removed")}
    named["status"] = RunStatus(str(named["status"]))
    return RunRow(**named)  # type: ignore[arg-type]  # the columns are declared as RunRow's fields say


class Ledger(ABC):
    """What is the same of both stores. SQLAlchemy is imported when the first question needs it."""

    _dialect: Dialect
    _shape_query: str
    """Finds a table's columns: name, type, place in the primary key, and whether they take no NULL."""
    _index_query: str
    """Finds the columns of an index, in order."""
    _engine: sa.Engine | None = None
    _host: str | None = None

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
        """Migrate the control tables; returns whether anything was to do."""
        if self.schema_current():
            return False
        with self._changing_schema():
            return upgrade(self._rows, self._dialect)

    def prepare(self, feeds: Sequence[Feed]) -> None:
        """Create the feeds' tables and add the columns of new fields, or refuse and change nothing."""
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

    # The runs

    def drop(self, run_id: int) -> None:
        """Delete a ``running`` row."""
        with self._durably():
            self._rows(f"DELETE FROM etl_runs WHERE id = {self._dialect.mark} AND status = 'running'", run_id)

    def drop_claim(self, claim: str) -> None:
        """Delete the claim's ``running`` row, if it has one."""
        with self._durably() as connection:
            self._own(connection, claim)
            self._rows(f"DELETE FROM etl_runs WHERE claim = {self._dialect.mark} AND status = 'running'", claim)

    def _own(self, connection: Any, claim: str) -> None:  # noqa: B027, ANN401 - either driver's; PostgreSQL must look
        """Make sure that a claim is ours: beside a SQLite file the daemon's lock does so."""

    def runs_of_claim(self, claim: str) -> list[RunRow]:
        """Return the runs of a claim, oldest first."""
        query = f"SELECT {RUN_COLUMNS} FROM etl_runs WHERE claim = {self._dialect.mark} ORDER BY id"
        return [run_row(row) for row in self._rows(query, claim)]

    def set_watermark(self, name: str, value: Cursor | None, updated_at: str) -> None:
        """Put a watermark where the operator wants it; ``None`` removes it."""
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
        """Lend a connection with one consistent view of the database."""
        with self._lent(write=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Lend a connection in one durable write transaction."""
        with self._lent(write=True) as connection:
            yield connection

    def await_commits(self, connection: sa.Connection) -> None:
        """Return at once: a database on one node shows what was committed."""
        del connection

    def _dispose_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def announce(self, host: str) -> None:
        """Let everybody see that a daemon of this host is up; beside a SQLite file a lock says so already."""
        self._host = host

    def announced(self) -> frozenset[str] | None:
        """Return the hosts whose daemons are up, if the database can tell."""
        return None

    @contextmanager
    def turn(self, feed: Feed) -> Iterator[None]:
        """Hold the turn of an ordered feed; of another feed files are loaded side by side."""
        if not feed.ordered:
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
        """Tell that it is this daemon's turn: beside a SQLite file there is no other."""
        del feed
        return True

    def end_turn(self, feed: str) -> None:  # noqa: B027 - PostgreSQL has something to do
        """Do nothing: there is nobody who could want the turn."""

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
        """Count exactly. Each record has a second line of lineage if it was loaded or stale."""
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
