"""``inboxd explain``: what became of a key, of a run, of a file, from the lineage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.model import OWN_PREFIX, Feed
from inboxd.operate.dead_letters import DeadLetter, dead_letters_of_key
from inboxd.operate.history import BLOCK, STEPS, HistoryEntry, Winner, entries_of_key, entries_where, in_order
from inboxd.operate.target import FilledTable, canonical_key, filled_tables, row_at, row_of
from inboxd.operate.winners import watermarks_met, watermarks_nearby, why_lost, with_winners
from inboxd.outcomes import LineageStep
from inboxd.store.database import Store
from inboxd.store.tables import ABSENT, DELETED, LOADED, etl_runs, lineage_records, tombstones

__all__ = [
    "STEPS",
    "Explanation",
    "FileExplanation",
    "HistoryEntry",
    "HistoryPage",
    "KeyHistory",
    "Look",
    "RunExplanation",
    "Tombstone",
    "Winner",
    "explain",
    "explain_file",
    "explain_run",
    "history_pages",
]

MAX_DEAD_LETTERS: Final = 100
"""Dead letters shown of one key; a key of so many has told its story."""
CONTEXT: Final = 100
"""Records fetched beyond those shown: what the oldest of these lost to is most likely among them."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The deletion of a key with the highest cursor; it is remembered when row and lineage are gone."""

    run_id: int
    file_name: str | None
    cursor: str
    deleted_at: str


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """A key in one table: its row now, its deletion, every record of it in order of commit, its dead letters."""

    feed: str
    """The names of the feeds that fill the table, or of those that did, with a comma between them."""
    table: str
    row: dict[str, object] | None
    tombstone: Tombstone | None
    touches: list[HistoryEntry]
    dead_letters: list[DeadLetter]


@dataclass(frozen=True, slots=True)
class Look:
    """How a look back at a key's records is bounded: from a place on, so many records, so many seconds."""

    before: tuple[int, int] | None = None
    """A run and a record number in it; ``None`` is from the newest on."""
    limit: int | None = None
    patience_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """What a look at a key's history found; ``more`` is the place before which another one goes on."""

    history: KeyHistory
    more: tuple[int, int] | None
    full: bool
    """Whether the look ended because it had found enough; else its time was over, or there was nothing further."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A key in every table that knows it; ``unfit`` says, where none does, why it is no key of some."""

    key: str
    feeds: list[KeyHistory]
    unfit: list[str]


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """A run and a page of its records, in file order."""

    run: dict[str, object]
    records: list[HistoryEntry]


@dataclass(frozen=True, slots=True)
class FileExplanation:
    """The runs of a file's name, newest first, and a page of the records of the last one that loaded something."""

    file_name: str
    runs: list[dict[str, object]]
    records: list[HistoryEntry]


def explain(store: Store, feeds: Sequence[Feed], key: str, *, feed: str | None = None) -> Explanation:
    """Tell everything that is known of a key, in the table of one feed or in all."""
    with store.reading() as connection:
        tables = _tables(connection, feeds, feed)
        found = _pages(connection, tables, key, Look())
        unfit = [why for table in tables if (why := canonical_key(table, key)[1]) is not None]
    return Explanation(key, [page.history for page in found], [] if found else unfit)


def history_pages(
    store: Store, feeds: Sequence[Feed], key: str, *, feed: str | None = None, look: Look
) -> list[HistoryPage]:
    """Tell what a look finds of a key, in the table of one feed or in all that know it, or may know it further back."""
    with store.reading() as connection:
        return _pages(connection, _tables(connection, feeds, feed), key, look)


def _tables(connection: sa.Connection, feeds: Sequence[Feed], feed: str | None) -> list[FilledTable]:
    """Return the tables to look into: all, or that of a feed, which may have left the config."""
    tables = filled_tables(connection, feeds)
    if feed is None:
        return tables
    runs = etl_runs.c
    filled = sa.select(runs.table_name).where(runs.job_name == feed, runs.table_name.is_not(None)).distinct()
    once = {table.name for table in tables if feed in table.feeds}
    wanted = once or set(connection.execute(filled).scalars())
    return [table for table in tables if table.name in wanted]


def _pages(connection: sa.Connection, tables: Sequence[FilledTable], key: str, look: Look) -> list[HistoryPage]:
    found: list[HistoryPage] = []
    for table in tables:
        page = _history_page(connection, table, canonical_key(table, key)[0], look)
        known = page.history
        if any((known.touches, known.row is not None, known.tombstone, known.dead_letters, page.more is not None)):
            found.append(page)
    return found


def _history_page(connection: sa.Connection, table: FilledTable, key: str, look: Look) -> HistoryPage:
    row = row_of(connection, table, key)
    of_table = table.of_table(_writers(connection, row))
    dead_letters_found = dead_letters_of_key(connection, key, of_table, MAX_DEAD_LETTERS)
    beside: list[HistoryEntry] = []
    more = None
    if look.limit is None:
        shown = entries_of_key(connection, key, of_table)
    else:
        shown, beside, more = _look_back(connection, key, of_table, look, look.limit)
        beside += _loaded_at(connection, key, of_table, (look.before, more))
    marks = _marks(connection, shown, whole=look.limit is None)
    here = {(entry.run_id, entry.record_no) for entry in shown}
    explained = why_lost(in_order({*beside, *shown}), marks)
    touches = [entry for entry in explained if (entry.run_id, entry.record_no) in here]
    if row is None and table.newest and not table.key:
        loaded = (entry for entry in reversed(touches) if entry.outcome is LineageStep.LOAD)
        there = (row_at(connection, table, entry.run_id, entry.record_no) for entry in loaded)
        row = next((one for one in there if one is not None), None)
    feeds = dict.fromkeys((*table.feeds, *(one.feed for one in touches), *(one.feed for one in dead_letters_found)))
    grave = _tombstone(connection, table, key)
    history = KeyHistory(", ".join(feeds) or table.name, table.name, row, grave, touches, dead_letters_found)
    return HistoryPage(history, more, full=len(touches) == look.limit)


def _tombstone(connection: sa.Connection, table: FilledTable, key: str) -> Tombstone | None:
    there, runs = tombstones.c, etl_runs.c
    query = (
        sa.select(there.run_id, runs.file_name, there.cursor, there.deleted_at)
        .select_from(tombstones.outerjoin(etl_runs, runs.id == there.run_id))
        .where(there.table_name == table.name, there.record_key == key)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else Tombstone(*found)


def _writers(connection: sa.Connection, row: Mapping[str, object] | None) -> list[str]:
    """Return the name of the feed whose run wrote a row, by which runs of the first version are found."""
    run_id = None if row is None else row.get(OWN_PREFIX + "run_id", row.get("run_id"))
    query = sa.select(etl_runs.c.job_name).where(etl_runs.c.id == run_id)
    return [] if run_id is None else list(connection.execute(query).scalars())


def _marks(connection: sa.Connection, shown: Sequence[HistoryEntry], *, whole: bool) -> dict[int, Winner]:
    """Return the run that had raised its feed's watermark furthest, for each run that skipped something."""
    skipping = {entry.run_id: entry for entry in shown if entry.outcome is LineageStep.SKIP}
    found: dict[int, Winner] = {}
    for feed in {entry.feed for entry in skipping.values()}:
        of_feed = [entry for entry in skipping.values() if entry.feed == feed]
        if whole:
            found |= watermarks_met(connection, feed, {entry.run_id for entry in of_feed})
        else:
            found |= watermarks_nearby(connection, feed, of_feed)
    return found


def explain_run(
    store: Store, feeds: Sequence[Feed], run_id: int, limit: int = 100, after: int = 0
) -> RunExplanation | None:
    """Tell what a run did: its row, and its records with a number above ``after``; ``None`` if there is no such run."""
    with store.reading() as connection:
        run = connection.execute(sa.select(etl_runs).where(etl_runs.c.id == run_id)).mappings().one_or_none()
        return None if run is None else RunExplanation(dict(run), _records(connection, feeds, run_id, limit, after))


def explain_file(
    store: Store, feeds: Sequence[Feed], name: str, limit: int = 100, after: int = 0
) -> FileExplanation | None:
    """Tell what became of the files of a name (a path in the inbox, or its end); ``None`` if none was ever seen."""
    column = etl_runs.c.file_name
    same = sa.or_(column == name, column.endswith(f"/{name}", autoescape=True))
    with store.reading() as connection:
        query = sa.select(etl_runs).where(same).order_by(etl_runs.c.id.desc()).limit(limit)
        runs = [dict(row) for row in connection.execute(query).mappings()]
        if not runs:
            return None
        loaded = [run for run in runs if run["status"] == "success" and run["duplicate_of"] is None]
        records = _records(connection, feeds, int(str(loaded[0]["id"])), limit, after) if loaded else []
    return FileExplanation(name, runs, records)


def _records(
    connection: sa.Connection, feeds: Sequence[Feed], run_id: int, limit: int, after: int
) -> list[HistoryEntry]:
    """Return a page of a run's records, each loser with what it lost to."""
    records = lineage_records.c
    page = entries_where(
        connection, records.run_id == run_id, records.record_no > after, order=(records.record_no,), limit=limit
    )
    if not page:
        return page
    named = next((feed.table for feed in feeds if feed.name == page[0].feed), None)
    table = page[0].table or named
    runs = etl_runs.c
    of_table = runs.job_name == page[0].feed  # a run of the first version, whose feed has left the config
    if table is not None:
        names = (page[0].feed, *(feed.name for feed in feeds if feed.table == table))
        of_table = FilledTable(table, {}, (), feeds=names).of_table()
    return with_winners(connection, of_table, page)


def _look_back(
    connection: sa.Connection, key: str, of_table: sa.ColumnElement[bool], look: Look, limit: int
) -> tuple[list[HistoryEntry], list[HistoryEntry], tuple[int, int] | None]:
    """Return the newest records of a key, some of those before them, and where to go on; from block to block of runs.

    So a key that is in every file is as quick as one that is in few, and one that is in none ends with the patience.
    """
    runs, records = etl_runs.c, lineage_records.c
    until = time.monotonic() + look.patience_s
    newest = int(connection.execute(sa.select(sa.func.max(runs.id))).scalar() or 0)
    last, number = look.before or (newest, None)
    if last > newest:
        last, number = newest, None
    if number == 0:  # nothing of that run
        last, number = last - 1, None
    found: list[HistoryEntry] = []
    while last > 0:
        where = [runs.id > last - BLOCK, runs.id <= last]
        if number is not None:
            where.append(sa.or_(runs.id < last, records.record_no < number))
        block = entries_of_key(connection, key, of_table, *where, limit=limit + CONTEXT)
        # By run, as the place to go on is: a run that waited, or another host's, is committed after later ones.
        found = sorted(block, key=lambda entry: (entry.run_id, entry.record_no)) + found
        if len(found) > limit:
            oldest = found[-limit]
            return found[-limit:], found[:-limit], (oldest.run_id, oldest.record_no)
        last, number = last - BLOCK, None
        if time.monotonic() > until and last > 0:
            return found, [], (last + 1, 0)
    return found, [], None


def _loaded_at(
    connection: sa.Connection, key: str, of_table: sa.ColumnElement[bool], edges: Iterable[tuple[int, int] | None]
) -> list[HistoryEntry]:
    """Return what the runs have loaded of a key in which a look begins and ends: others of their records lost to it."""
    cut = [edge[0] for edge in edges if edge is not None]
    loaded = lineage_records.c.outcome.in_((LOADED, DELETED, ABSENT))
    return [entry for run in cut for entry in entries_of_key(connection, key, of_table, etl_runs.c.id == run, loaded)]
