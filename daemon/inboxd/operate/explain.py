"""``inboxd explain``: what became of a key, of a run, of a file, from the lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from inboxd.model import Cursor, Feed, LineageStep
from inboxd.operate.cursors import above, cursor_of
from inboxd.operate.letters import Letter, letters_of_key
from inboxd.operate.target import canonical_key, row_of
from inboxd.store.base import Store
from inboxd.store.tables import LOADED, REJECTED, SKIPPED, STALE, etl_runs, lineage_records

MAX_LETTERS: Final = 100
"""Dead letters shown of one key; a key of so many has told its story."""

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
    chosen = [one for one in feeds if feed is None or one.name == feed]
    found: list[KeyHistory] = []
    with store.reading() as connection:
        for one in chosen:
            text = canonical_key(one, key)
            touches = _touches_of_key(connection, text, one.name)
            skipping = {touch.run_id for touch in touches if touch.outcome is LineageStep.SKIP}
            touches = _why_lost(touches, _watermarks_met(connection, one, skipping) if skipping else {})
            row = row_of(connection, one, text)
            refused = letters_of_key(connection, text, one.name, MAX_LETTERS)
            if touches or row is not None or refused:
                found.append(KeyHistory(one.name, one.table, row, touches, refused))
    return Explanation(key, found)


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


def _touches_of_key(connection: sa.Connection, key: str, feed: str) -> list[Touch]:
    """Return the records of a key in order of commit: the runs are walked, each a seek in the lineage's own order."""
    runs = sa.select(etl_runs.c.id).where(etl_runs.c.job_name == feed, etl_runs.c.rows_in > 0)
    order = (etl_runs.c.finished_at, etl_runs.c.id, lineage_records.c.record_no)
    return _touches(connection, lineage_records.c.run_id.in_(runs), lineage_records.c.record_key == key, order=order)


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
        .select_from(lineage_records)
        .join(etl_runs, runs.id == records.run_id)
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
    """Return, for each run, the run that had raised the watermark furthest before it."""
    runs = etl_runs.c
    query = (
        sa.select(runs.id, runs.watermark, runs.file_name)
        .where(runs.job_name == feed.name, runs.rows_in > 0, runs.finished_at.is_not(None))
        .order_by(runs.finished_at, runs.id)
    )
    highest: Winner | None = None
    reached: Cursor | None = None
    met: dict[int, Winner] = {}
    for run_id, watermark, file_name in connection.execute(query):
        if run_id in run_ids and highest is not None:
            met[run_id] = highest
        if watermark is None:
            continue
        value = cursor_of(feed, watermark)
        if reached is None or above(value, reached):
            reached, highest = value, Winner(run_id, file_name, None, f"at or below the watermark {watermark}")
    return met
