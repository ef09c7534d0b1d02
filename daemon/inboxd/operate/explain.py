"""``inboxd explain``: what became of a key, of a run, of a file, from the lineage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from inboxd.model import Feed, FieldType, LineageStep
from inboxd.operate.letters import Letter, letters_of_key
from inboxd.operate.target import canonical_key, row_of
from inboxd.store.base import Store
from inboxd.store.tables import LOADED, REJECTED, SKIPPED, STALE, etl_runs, lineage_records

MAX_LETTERS: Final = 100
"""Dead letters shown of one key; a key of so many has told its story."""
BLOCK: Final = 5_000
"""Runs looked through at a time: measured, 4 ms on SQLite and 20 ms on PostgreSQL."""
NEARBY: Final = 1_000
"""Runs before one that skipped a record, among which is most likely the one that had raised the watermark."""
CONTEXT: Final = 100
"""Records fetched beyond those shown: what the oldest of these lost to is most likely among them."""

STEPS: Final = {
    LOADED: (LineageStep.STAGE, LineageStep.LOAD),
    STALE: (LineageStep.STAGE, LineageStep.STALE),
    SKIPPED: (LineageStep.SKIP,),
    REJECTED: (LineageStep.REJECT,),
}


@dataclass(frozen=True, slots=True)
class Winner:
    """What a record lost to: a record of a run, or (without a record number) a run's watermark."""

    run_id: int
    file_name: str | None
    record_no: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Touch:
    """One record that had the key, or an undo that put the key's row back."""

    run_id: int
    kind: str
    """``file``, ``undo`` or ``replay``."""
    feed: str
    file_name: str | None
    record_no: int
    record_key: str
    steps: tuple[LineageStep, ...]
    at: str | None
    detail: str | None = None
    lost_to: Winner | None = None
    undo_of: int | None = None
    undone_by: int | None = None

    @property
    def outcome(self) -> LineageStep:
        """The last of its steps."""
        return self.steps[-1]


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
        shown = _touches_of_key(connection, key, feed.name)
    else:
        shown, beside, more = _look_back(connection, key, feed.name, look, look.limit)
        beside += _loaded_at(connection, key, feed.name, (look.before, more))
    skipping = {touch.run_id: touch for touch in shown if touch.outcome is LineageStep.SKIP}
    if look.limit is None:
        marks = _watermarks_met(connection, feed, {*skipping}) if skipping else {}
    else:
        marks = _watermarks_nearby(connection, feed, skipping.values())
    here = {(touch.run_id, touch.record_no) for touch in shown}
    told = _why_lost(_in_order({*beside, *shown}), marks)
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
    page = _touches(
        connection, records.run_id == run_id, records.record_no > after, order=(records.record_no,), limit=limit
    )
    feed = next((feed for feed in feeds if page and feed.name == page[0].feed), None)
    if feed is None:
        return page
    skips = any(touch.outcome is LineageStep.SKIP for touch in page)
    marks = _watermarks_met(connection, feed, {run_id}) if skips else {}
    return [_explained(connection, feed, touch, marks) for touch in page]


def _explained(connection: sa.Connection, feed: Feed, touch: Touch, marks: Mapping[int, Winner]) -> Touch:
    if touch.outcome is LineageStep.SKIP:
        return replace(touch, lost_to=marks.get(touch.run_id))
    if touch.outcome is not LineageStep.STALE:
        return touch
    history = _why_lost(_touches_of_key(connection, touch.record_key, feed.name), marks)
    mine = (touch.run_id, touch.record_no)
    return next((one for one in history if (one.run_id, one.record_no) == mine), touch)


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
        block = _touches_of_key(connection, key, feed, *where, limit=limit + CONTEXT)
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
    return [touch for run in cut for touch in _touches_of_key(connection, key, feed, etl_runs.c.id == run, loaded)]


def _touches_of_key(
    connection: sa.Connection, key: str, feed: str, *also: sa.ColumnElement[bool], limit: int | None = None
) -> list[Touch]:
    """Return the newest records of a key, in order of commit: the runs are walked, each a seek in the lineage.

    They are walked upwards, as the lineage lies on the disk, also where the newest are wanted: the kernel reads ahead.
    Measured on a disk that had to be read, 100,000 runs took 0.4 s upwards and 3 s downwards.
    """
    runs, records = etl_runs.c, lineage_records.c
    where = (runs.job_name == feed, runs.rows_in > 0, records.record_key == key, *also)
    order = ((runs.id + sa.literal_column("0")).desc(), records.record_no.desc())  # + 0: sorted after the walk
    return _in_order(_touches(connection, *where, order=order, limit=limit))


def _in_order(touches: Iterable[Touch]) -> list[Touch]:
    """Return records in the order in which they were committed; those of one run in file order."""
    return sorted(touches, key=lambda touch: (touch.at or "", touch.run_id, touch.record_no))


def _touches(
    connection: sa.Connection,
    *where: sa.ColumnElement[bool],
    order: tuple[sa.ColumnElement[object], ...],
    limit: int | None = None,
) -> list[Touch]:
    runs, records, undo = etl_runs.c, lineage_records.c, etl_runs.alias("undo")
    query = (
        sa.select(
            records.run_id,
            runs.job_name,
            runs.file_name,
            runs.content_sha256,
            runs.finished_at,
            runs.undo_of,
            undo.c.id.label("undone_by"),
            records.record_no,
            records.record_key,
            records.outcome,
            records.detail,
        )
        .select_from(etl_runs)
        .join(lineage_records, runs.id == records.run_id)
        .outerjoin(undo, sa.and_(undo.c.id == runs.superseded_by, undo.c.undo_of == runs.id))
        .where(*where)
        .order_by(*order)
        .limit(limit)
    )
    return [_touch(row) for row in connection.execute(query).mappings()]


def _touch(row: sa.RowMapping) -> Touch:
    kind = "undo" if row["undo_of"] is not None else "replay" if row["content_sha256"] is None else "file"
    return Touch(
        run_id=row["run_id"],
        kind=kind,
        feed=row["job_name"],
        file_name=row["file_name"],
        record_no=row["record_no"],
        record_key=row["record_key"],
        steps=STEPS[row["outcome"]],
        at=row["finished_at"],
        detail=row["detail"],
        undo_of=row["undo_of"],
        undone_by=row["undone_by"],
    )


def _why_lost(touches: list[Touch], marks: Mapping[int, Winner]) -> list[Touch]:
    """Give each loser of one key its winner. ``touches`` are all of the key's, in order of commit.

    ``marks`` has the run that had raised the watermark furthest, for each run that skipped something.
    """
    told: list[Touch] = []
    standing: list[Touch] = []
    for run_id, group in groupby(touches, key=lambda touch: touch.run_id):
        of_run = list(group)
        loaded = next((touch for touch in of_run if touch.outcome is LineageStep.LOAD), None)
        met = standing[-1] if standing else None
        for touch in of_run:
            if touch.outcome is LineageStep.STALE and touch.kind != "undo":
                told.append(replace(touch, lost_to=_winner(touch, loaded, met)))
            else:
                told.append(replace(touch, lost_to=marks.get(run_id) if touch.outcome is LineageStep.SKIP else None))
        if loaded is not None and loaded.kind == "undo":
            standing = [touch for touch in standing if touch.run_id != loaded.undo_of]
        elif loaded is not None:
            standing.append(loaded)
    return told


def _winner(loser: Touch, loaded: Touch | None, met: Touch | None) -> Winner | None:
    """Return what left no place for a stale record: a record of its own file, else the row that was there."""
    if loaded is not None:
        later = loaded.record_no > loser.record_no
        why = (
            "a later record of the same file is newer" if later else "not newer than an earlier record of the same file"
        )
        return Winner(loaded.run_id, loaded.file_name, loaded.record_no, why)
    if met is None:
        return None
    return Winner(met.run_id, met.file_name, met.record_no, "not newer than the row it met, which this record wrote")


def _watermarks_met(connection: sa.Connection, feed: Feed, run_ids: set[int]) -> dict[int, Winner]:
    """Return, for each run, the run that had raised the watermark furthest before it.

    The database walks the feed's runs, not Python: of 100,000 only the few that are asked for are handed over.
    """
    runs = etl_runs.c
    order = (runs.finished_at, runs.id)
    of_feed = sa.and_(runs.job_name == feed.name, runs.rows_in > 0, runs.finished_at.is_not(None))
    met = sa.func.max(_comparable(feed)).over(order_by=order, rows=(None, -1)).label("met")
    marked = sa.select(runs.id, met).where(of_feed).subquery()
    asked = sa.select(marked.c.id, marked.c.met).where(marked.c.id.in_(run_ids), marked.c.met.is_not(None))
    reached = {int(row.id): str(row.met) for row in connection.execute(asked)}
    raised = sa.select(runs.watermark, runs.id, runs.file_name).where(of_feed, runs.watermark.in_({*reached.values()}))
    first: dict[str, Winner] = {}
    for row in connection.execute(raised.order_by(*order)):
        first.setdefault(row.watermark, _raiser(*row))
    return {run_id: first[watermark] for run_id, watermark in reached.items()}


def _watermarks_nearby(connection: sa.Connection, feed: Feed, skipped: Iterable[Touch]) -> dict[int, Winner]:
    """Return the same from the runs shortly before each: a watermark only rises, unless somebody set it back."""
    runs = etl_runs.c
    found: dict[int, Winner] = {}
    for touch in skipped:
        near = sa.and_(runs.id > touch.run_id - NEARBY, runs.id < touch.run_id, runs.finished_at <= touch.at)
        query = (
            sa.select(runs.watermark, runs.id, runs.file_name)
            .where(near, runs.job_name == feed.name, runs.rows_in > 0, runs.watermark.is_not(None))
            .order_by(_comparable(feed).desc(), runs.finished_at, runs.id)
            .limit(1)
        )
        highest = connection.execute(query).one_or_none()
        if highest is not None:
            found[touch.run_id] = _raiser(*highest)
    return found


def _comparable(feed: Feed) -> sa.ColumnElement[object]:
    """Return the runs' watermarks, kept as text, as what they are compared as."""
    whole = feed.cursor_field.type is FieldType.INTEGER
    return sa.cast(etl_runs.c.watermark, sa.BigInteger) if whole else etl_runs.c.watermark


def _raiser(watermark: str, run_id: int, file_name: str | None) -> Winner:
    return Winner(run_id, file_name, None, f"at or below the watermark {watermark}")
