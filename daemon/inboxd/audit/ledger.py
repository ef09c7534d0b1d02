"""What the database says, by reading only: runs, dead letters, lineage, and the rows of a feed's table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from inboxd.audit.values import canonical
from inboxd.model import Feed, FieldType, Mode, Scalar
from inboxd.outcomes import LineageStep, RunStatus
from inboxd.store.base import RunRow, WatermarkRow
from inboxd.store.database import Store
from inboxd.store.ledger import run_row
from inboxd.store.tables import (
    ABSENT,
    DELETED,
    LOADED,
    REJECTED,
    SKIPPED,
    STALE,
    Stamp,
    dead_letters,
    etl_runs,
    lineage_records,
    tombstones,
    watermarks,
)

_PAGE: Final = 1_000
_STEPS: Final = {
    LOADED: LineageStep.LOAD,
    STALE: LineageStep.STALE,
    SKIPPED: LineageStep.SKIP,
    REJECTED: LineageStep.REJECT,
    DELETED: LineageStep.DELETE,
    ABSENT: LineageStep.DELETE,
}


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """One dead letter as the database has it."""

    id: int
    run_id: int
    feed: str
    record_no: int
    record_key: str
    error: str
    raw: str
    context: str | None
    resolved_by: int | None


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a feed's table: its values by column, in the canonical forms of ``inboxd.model``."""

    run: int
    number: int
    """In an append feed the record's number."""
    marked: bool
    values: dict[str, Scalar]


class Ledger:
    """Questions to one database; each is asked on the view that is held, or on one of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: sa.Connection | None = None

    def hold(self, connection: sa.Connection) -> None:
        """Ask everything from here on of one consistent view."""
        self._held = connection

    def _rows(self, query: sa.Select[Any]) -> Iterator[sa.RowMapping]:
        """Yield the rows of an answer, a page at a time."""
        if self._held is not None:
            yield from self._held.execution_options(yield_per=_PAGE).execute(query).mappings()
            return
        with self._store.reading() as connection:
            yield from connection.execution_options(yield_per=_PAGE).execute(query).mappings()

    def _page(self, query: sa.Select[Any]) -> list[sa.RowMapping]:
        return list(self._rows(query))

    def _of_table(self, feeds: Sequence[Feed]) -> sa.ColumnElement[bool]:
        runs = etl_runs.c
        of_feeds = runs.job_name.in_([feed.name for feed in feeds])
        return sa.or_(runs.table_name == feeds[0].table, sa.and_(runs.table_name.is_(None), of_feeds))

    def runs(self, feeds: Sequence[Feed], after: int) -> Iterator[RunRow]:
        """Yield the runs of a table that succeeded, in the order of commits, above a commit number."""
        runs = etl_runs.c
        query = (
            sa.select(etl_runs)
            .where(self._of_table(feeds), runs.status == RunStatus.SUCCESS.value, runs.rows_rejected.is_not(None))
            .order_by(runs.commit_no)
            .limit(_PAGE)
        )
        last = after
        while page := self._page(query.where(runs.commit_no > last)):
            for row in page:
                yield run_row(tuple(row.values()))
            last = page[-1]["commit_no"]

    def run(self, run_id: int) -> RunRow | None:
        """Return one run."""
        found = self._page(sa.select(etl_runs).where(etl_runs.c.id == run_id))
        return run_row(tuple(found[0].values())) if found else None

    def has_undo(self, feeds: Sequence[Feed]) -> bool:
        """Tell whether any run of a table was undone."""
        query = sa.select(etl_runs.c.id).where(self._of_table(feeds), etl_runs.c.undo_of.is_not(None)).limit(1)
        return bool(self._page(query))

    def size(self, feeds: Sequence[Feed]) -> int:
        """Return how many records the runs of a table had."""
        found = self._page(sa.select(sa.func.sum(etl_runs.c.rows_in).label("n")).where(self._of_table(feeds)))
        return int(found[0]["n"] or 0)

    def is_reload(self, run: RunRow) -> bool:
        """Tell whether a run has taken the place of another one, as only a forced load does."""
        return bool(self._page(sa.select(etl_runs.c.id).where(etl_runs.c.superseded_by == run.id).limit(1)))

    def same_content(self, run: RunRow) -> list[int]:
        """Return the runs before one that had loaded its content; no two of them stand."""
        runs = etl_runs.c
        same = (runs.job_name == run.job_name, runs.content_sha256 == run.content_sha256, runs.variant == run.variant)
        before = (runs.commit_no < run.commit_no, runs.duplicate_of.is_(None))
        return [row["id"] for row in self._page(sa.select(runs.id).where(*same, *before))]

    def lineage(self, run_id: int) -> Iterator[tuple[int, str, LineageStep]]:
        """Yield number, key and last step of each record of a run."""
        records = lineage_records.c
        query = sa.select(records.record_no, records.record_key, records.outcome).where(records.run_id == run_id)
        for row in self._rows(query):
            yield row["record_no"], row["record_key"], _STEPS[row["outcome"]]

    def dead_letters(self, *, run: int | None = None, resolved_by: int | None = None) -> Iterator[DeadLetterRow]:
        """Yield the dead letters of a run, or those that one has resolved, in the order in which they were written."""
        letter = dead_letters.c
        columns = [letter[name] for name in DeadLetterRow.__slots__]
        query = sa.select(*columns).order_by(letter.id).limit(_PAGE)
        query = query.where(letter.run_id == run) if run is not None else query.where(letter.resolved_by == resolved_by)
        last = 0
        while page := self._page(query.where(letter.id > last)):
            for row in page:
                yield DeadLetterRow(**row)
            last = page[-1]["id"]

    def all_dead_letters(self, feeds: Sequence[Feed]) -> Iterator[tuple[int, int, str, int | None]]:
        """Yield run, number, key and resolver of each dead letter of a table's feeds."""
        letter = dead_letters.c
        query = sa.select(letter.run_id, letter.record_no, letter.record_key, letter.resolved_by)
        for row in self._rows(query.where(letter.feed.in_([feed.name for feed in feeds]))):
            yield row["run_id"], row["record_no"], row["record_key"], row["resolved_by"]

    def watermarks(self) -> list[WatermarkRow]:
        """Return every watermark."""
        return [WatermarkRow(**row) for row in self._page(sa.select(watermarks))]

    def tombstones(self, table: str) -> Iterator[tuple[str, str, int]]:
        """Yield key, cursor and run of each tombstone of a table."""
        grave = tombstones.c
        query = sa.select(grave.record_key, grave.cursor, grave.run_id).where(grave.table_name == table)
        for row in self._rows(query):
            yield row["record_key"], row["cursor"], row["run_id"]

    def table_rows(self, feeds: Sequence[Feed]) -> Iterator[TableRow]:
        """Yield the rows of the table that feeds fill; none where there is no table yet."""
        if self._held is None:
            msg = "rows are compared on one view of the database"
            raise RuntimeError(msg)
        feed, own = feeds[0], feeds[0].own_columns
        there = {column["name"] for column in _columns(self._held, feed.table)}
        kinds = {each.name: each.type for one in feeds for each in one.fields}
        kinds |= dict.fromkeys({name for one in feeds for name in one.columns} - kinds.keys(), FieldType.JSON)
        kinds |= {own.run_id: FieldType.INTEGER, own.record_no: FieldType.INTEGER, own.deleted_at: FieldType.TIMESTAMP}
        postgres = self._held.dialect.name == "postgresql"
        chosen = [_column(name, kind, postgres=postgres) for name, kind in kinds.items() if name in there]
        if not chosen:
            return
        marks = own.deleted_at in there
        for row in self._rows(sa.select(*chosen).select_from(sa.table(feed.table))):
            values = {name: _plain(value, kinds[name]) for name, value in row.items()}
            run, number = values.pop(own.run_id), 0
            if feed.mode is Mode.APPEND:
                number = int(str(values.pop(own.record_no)))
            marked = marks and values.pop(own.deleted_at) is not None
            yield TableRow(int(str(run)), number, marked, values)


def _columns(connection: sa.Connection, table: str) -> list[dict[str, str]]:
    inspector = sa.inspect(connection)
    return [{"name": column["name"]} for column in inspector.get_columns(table)] if inspector.has_table(table) else []


def _column(name: str, kind: FieldType, *, postgres: bool) -> sa.ColumnElement[Any]:  # Any: of any type
    """Return a column as it is asked for: on PostgreSQL as text where the driver would make something else of it."""
    column: sa.ColumnElement[Any] = sa.column(name)
    if postgres and kind is FieldType.TIMESTAMP:
        return sa.column(name, Stamp)
    if postgres and kind in {FieldType.DATE, FieldType.DECIMAL, FieldType.JSON}:
        return sa.cast(column, sa.Text).label(name)
    return column


def _plain(value: object, kind: FieldType) -> Scalar:
    """Return a value of the database in the form that values of its type have."""
    if value is None:
        return None
    if kind is FieldType.JSON:
        return canonical(str(value))
    if kind is FieldType.BOOLEAN:
        return bool(value)
    if isinstance(value, float | int):
        return float(value) if kind is FieldType.REAL else value
    return str(value)
