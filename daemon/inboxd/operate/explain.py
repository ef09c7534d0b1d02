"""``inboxd explain``: what became of a key, of a run, of a file, from the lineage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.model import Feed, LineageStep
from inboxd.operate.letters import Letter, letters_of_key
from inboxd.operate.target import canonical_key, row_of
from inboxd.operate.touches import BLOCK, STEPS, Touch, Winner, in_order, touches_of_key, touches_where
from inboxd.operate.winners import told_of_run, watermarks_met, watermarks_nearby, why_lost
from inboxd.store.base import Store
from inboxd.store.tables import LOADED, etl_runs, lineage_records

__all__ = [
    "STEPS",
    "Explanation",
    "FileExplanation",
    "HistoryPage",
    "KeyHistory",
    "Look",
    "RunExplanation",
    "Touch",
    "Winner",
    "explain",
    "explain_file",
    "explain_run",
    "history_pages",
]

MAX_LETTERS: Final = 100
"""Dead letters shown of one key; a key of so many has told its story."""
CONTEXT: Final = 100
"""Records fetched beyond those shown: what the oldest of these lost to is most likely among them."""


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """A key in one feed: its row now, every record that had the key in order of commit, its dead letters."""

    feed: str
    table: str | None
    row: dict[str, object] | None
    touches: list[Touch]
    dead_letters: list[Letter]


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
    """A key in every feed that knows it."""

    key: str
    feeds: list[KeyHistory]


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """A run and a page of its records, in file order."""

    run: dict[str, object]
    records: list[Touch]


@dataclass(frozen=True, slots=True)
class FileExplanation:
    """The runs of a file's name, newest first, and a page of the records of the last one that loaded something."""

    file_name: str
    runs: list[dict[str, object]]
    records: list[Touch]


def explain(store: Store, feeds: Sequence[Feed], key: str, *, feed: str | None = None) -> Explanation:
    """Tell everything that is known of a key, in one feed or in all."""
    return Explanation(key, [page.history for page in history_pages(store, feeds, key, feed=feed, look=Look())])


def history_pages(
    store: Store, feeds: Sequence[Feed], key: str, *, feed: str | None = None, look: Look
) -> list[HistoryPage]:
    """Tell what a look finds of a key, in one feed or in all: of those that know it, or may know it further back."""
    found: list[HistoryPage] = []
    with store.reading() as connection:
        for one in feeds:
            if feed is None or one.name == feed:
                page = _history_page(connection, one, canonical_key(one, key), look)
                known = page.history
                if known.touches or known.row is not None or known.dead_letters or page.more is not None:
                    found.append(page)
    return found


def _history_page(connection: sa.Connection, feed: Feed, key: str, look: Look) -> HistoryPage:
    row = row_of(connection, feed, key)
    letters = letters_of_key(connection, key, feed.name, MAX_LETTERS)
    beside: list[Touch] = []
    more = None
    if look.limit is None:
        shown = touches_of_key(connection, key, feed.name)
    else:
        shown, beside, more = _look_back(connection, key, feed.name, look, look.limit)
        beside += _loaded_at(connection, key, feed.name, (look.before, more))
    skipping = {touch.run_id: touch for touch in shown if touch.outcome is LineageStep.SKIP}
    if look.limit is None:
        marks = watermarks_met(connection, feed, {*skipping}) if skipping else {}
    else:
        marks = watermarks_nearby(connection, feed, skipping.values())
    here = {(touch.run_id, touch.record_no) for touch in shown}
    told = why_lost(in_order({*beside, *shown}), marks)
    touches = [touch for touch in told if (touch.run_id, touch.record_no) in here]
    history = KeyHistory(feed.name, feed.table, row, touches, letters)
    return HistoryPage(history, more, full=len(touches) == look.limit)


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


def _records(connection: sa.Connection, feeds: Sequence[Feed], run_id: int, limit: int, after: int) -> list[Touch]:
    """Return a page of a run's records, each loser with what it lost to."""
    records = lineage_records.c
    page = touches_where(
        connection, records.run_id == run_id, records.record_no > after, order=(records.record_no,), limit=limit
    )
    feed = next((feed for feed in feeds if page and feed.name == page[0].feed), None)
    return page if feed is None else told_of_run(connection, feed, page)


def _look_back(
    connection: sa.Connection, key: str, feed: str, look: Look, limit: int
) -> tuple[list[Touch], list[Touch], tuple[int, int] | None]:
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
    found: list[Touch] = []
    while last > 0:
        where = [runs.id > last - BLOCK, runs.id <= last]
        if number is not None:
            where.append(sa.or_(runs.id < last, records.record_no < number))
        block = touches_of_key(connection, key, feed, *where, limit=limit + CONTEXT)
        # By run, as the place to go on is: a run that waited, or another host's, is committed after later ones.
        found = sorted(block, key=lambda touch: (touch.run_id, touch.record_no)) + found
        if len(found) > limit:
            oldest = found[-limit]
            return found[-limit:], found[:-limit], (oldest.run_id, oldest.record_no)
        last, number = last - BLOCK, None
        if time.monotonic() > until and last > 0:
            return found, [], (last + 1, 0)
    return found, [], None


def _loaded_at(connection: sa.Connection, key: str, feed: str, edges: Iterable[tuple[int, int] | None]) -> list[Touch]:
    """Return what the runs have loaded of a key in which a look begins and ends: others of their records lost to it."""
    cut = [edge[0] for edge in edges if edge is not None]
    loaded = lineage_records.c.outcome == LOADED
    return [touch for run in cut for touch in touches_of_key(connection, key, feed, etl_runs.c.id == run, loaded)]
