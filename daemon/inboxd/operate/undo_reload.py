"""Which files must be loaded again after an undo: those with records that lost to what is undone, now or before.

A record that lost is kept nowhere but in its file. What it had lost to may have been undone while a later run held the
key; then it matters only when that run is undone, too. So all undone runs are looked at, each for as long as it stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from inboxd.model import Cursor
from inboxd.store.changes import keeps_marks, says_again
from inboxd.store.cursors import at_or_below, from_text
from inboxd.store.tables import DELETED, LOADED, STALE, etl_runs, lineage_records, tombstones

if TYPE_CHECKING:
    from inboxd.operate.undo_plan import Scene

APPLIED: Final = (LOADED, DELETED)


@dataclass(frozen=True, slots=True)
class Passed:
    """A file some of whose records lost to the undone run, or to one undone before: a reload brings them back.

    ``skipped`` counts all that the run skipped while the undone run's watermark stood in the way.
    """

    run_id: int
    feed: str
    file_name: str | None
    claim: str | None
    stale: int
    skipped: int


def passed(scene: Scene, holders: sa.CTE) -> tuple[Passed, ...]:
    """Return the files to be loaded again, in order of commit; ``holders`` are the keys of ``Scene.holders``."""
    stale = _lost_to_undone(scene, holders)
    found: list[Passed] = []
    for run, skipping in _skipping(scene):
        counts = stale.get(run.id, 0), int(run.rows_skipped or 0) if skipping else 0
        if any(counts):
            found.append(Passed(run.id, run.job_name, run.file_name, run.claim, *counts))
    return tuple(found)


def skipped_snapshots(scene: Scene) -> tuple[Passed, ...]:
    """Return the snapshots that were skipped whole since, in order of commit: of whichever scope they are."""
    columns, undone = etl_runs.c, _undone(scene).subquery()
    while_it_stood = sa.exists().where(
        undone.c.since < columns.commit_no, undone.c.until > columns.commit_no, undone.c.watermark.is_not(None)
    )
    skipped = scene.standing_runs(empty=True).where(
        sa.or_(scene.is_later(), while_it_stood),
        columns.watermark.is_(None),
        columns.duplicate_of.is_(None),
        _counts(scene),
    )
    return tuple(
        Passed(run.id, run.job_name, run.file_name, run.claim, 0, int(run.rows_skipped or 0))
        for run in scene.connection.execute(skipped)
    )


def _undone(scene: Scene) -> sa.Select[tuple[object, ...]]:
    """Return the table's runs that were undone before, each with the commits between which it stood."""
    runs, undoing = etl_runs.c, etl_runs.alias("undoing")
    return (
        sa.select(runs.id, runs.watermark, runs.commit_no.label("since"), undoing.c.commit_no.label("until"))
        .select_from(etl_runs.join(undoing, undoing.c.id == runs.superseded_by))
        .where(scene.of_table(), undoing.c.undo_of == runs.id)
    )


def _counts(scene: Scene) -> sa.ColumnElement[bool]:
    """Tell the runs whose file was not loaded again since, by a run that stands."""
    by, undoing = etl_runs.alias("reload"), etl_runs.alias("of_reload")
    undone = sa.exists().where(undoing.c.id == by.c.superseded_by, undoing.c.undo_of == by.c.id)
    return ~sa.exists().where(
        by.c.id == etl_runs.c.superseded_by, by.c.undo_of.is_(None), by.c.id != scene.run["id"], ~undone
    )


def _lost_to_undone(scene: Scene, holders: sa.CTE) -> dict[int, int]:
    """Count, by run, the stale records of the keys that this run still holds, if what they lost to is undone.

    Of the later runs that is so of all: nothing but this run can have beaten them, or one that was undone before. Of
    the earlier ones it is so where a run that is undone by now had beaten them, and none since that stands.
    """
    told = _in_order(scene, holders).c
    found = (
        sa.func.max(told.until)
        .over(partition_by=(told.record_key, told.place, told.standing), order_by=told.commit_no, rows=(None, 0))
        .label("until")
    )
    marked = sa.select(told.record_key, told.run_id, told.commit_no, told.records, found).subquery()
    lost = (
        sa.select(marked.c.record_key, marked.c.run_id, sa.func.max(marked.c.records).label("records"))
        .where(
            marked.c.records.is_not(None),
            sa.or_(marked.c.commit_no > int(scene.run["commit_no"]), marked.c.until > marked.c.commit_no),
        )
        .group_by(marked.c.record_key, marked.c.run_id)
        .subquery()
    )
    query = sa.select(lost.c.run_id, sa.func.sum(lost.c.records)).group_by(lost.c.run_id)
    return {int(run_id): int(count) for run_id, count in scene.connection.execute(query)}


def _in_order(scene: Scene, holders: sa.CTE) -> sa.Subquery:
    """Return what became of the held keys: lost records, and what undone and standing runs applied.

    ``standing`` counts, in order of commit, how often runs that stand have applied the key so far: what was undone
    matters to a lost record where that number is the same. ``place`` is 0, or where a marked row and its tombstone have
    each their own, the outcome: the lost record is in both. It is one sorted pass: joined, many keys would be compared
    with each other, as PostgreSQL does not know how many there are.
    """
    held = _held(scene, holders)
    undone = _undone_applied(scene, held)
    lost = _lost(scene, held, undone)
    standing = _standing_applied(scene, lost)
    kinds = APPLIED if keeps_marks(scene.feed) else (0,)
    nothing = sa.cast(sa.null(), sa.BigInteger)
    columns = ("record_key", "place", "commit_no", "run_id", "records", "until", "stands")

    def events(*values: sa.ColumnElement[Any]) -> sa.Select[tuple[object, ...]]:
        return sa.select(*(value.label(name) for name, value in zip(columns, values, strict=True)))

    def place(applied: sa.CTE) -> sa.ColumnElement[int]:
        return applied.c.outcome if keeps_marks(scene.feed) else sa.literal(0, sa.SmallInteger)

    none, one = sa.literal(0, sa.SmallInteger), sa.literal(1, sa.SmallInteger)
    key = lost.c.record_key
    told = sa.union_all(
        events(undone.c.record_key, place(undone), undone.c.since, nothing, nothing, undone.c.until, none),
        events(standing.c.record_key, place(standing), standing.c.commit_no, nothing, nothing, nothing, one),
        *(
            events(
                key,
                sa.literal(kind, sa.SmallInteger),
                etl_runs.c.commit_no,
                lost.c.run_id,
                lost.c.records,
                nothing,
                none,
            ).select_from(lost.join(etl_runs, etl_runs.c.id == lost.c.run_id))
            for kind in kinds
        ),
    ).subquery()
    so_far = sa.func.sum(told.c.stands).over(
        partition_by=(told.c.record_key, told.c.place), order_by=told.c.commit_no, rows=(None, 0)
    )
    return sa.select(*told.c, so_far.label("standing")).subquery()


def _held(scene: Scene, holders: sa.CTE) -> sa.CTE:
    """Return the keys that this run holds; where rows are marked also those of which it holds the tombstone alone."""
    there = tombstones.c
    mine = sa.select(holders.c.record_key).where(holders.c.run_id == scene.run["id"])
    of_run = there.table_name == scene.feed.table, there.run_id == scene.run["id"]
    buried = sa.select(there.record_key).where(*of_run, sa.true() if keeps_marks(scene.feed) else sa.false())
    return mine.union(buried).cte("still_held").prefix_with("MATERIALIZED", dialect="postgresql")


def _undone_applied(scene: Scene, held: sa.CTE) -> sa.CTE:
    """Return what runs that were undone before had made of the keys that this run holds."""
    told, undone = lineage_records.c, _undone(scene).subquery()
    return (
        sa.select(told.record_key, told.outcome, undone.c.since, undone.c.until)
        .select_from(lineage_records.join(undone, undone.c.id == told.run_id))
        .where(told.outcome.in_(APPLIED), told.record_key.in_(sa.select(held.c.record_key)))
        .cte("undone_applied")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _lost(scene: Scene, held: sa.CTE, undone: sa.CTE) -> sa.CTE:
    """Return the keys that this run holds of which other runs' records are stale, and how many records these are.

    Not those beaten by a record of their own file, if the outcome tells so: where rows are marked, a key's upsert and
    its deletion have each a place of their own, the row and the tombstone. Nor those of files where a stale record is
    one that says the same again, which needs no reload.
    """
    lost, won = lineage_records.alias("lost"), lineage_records.alias("won")
    first = sa.select(sa.func.min(undone.c.since)).scalar_subquery()
    standing = scene.standing_runs(of_table=True).where(
        sa.or_(scene.is_later(), etl_runs.c.commit_no > first),
        etl_runs.c.rows_stale > 0,
        _counts(scene),
        etl_runs.c.content_sha256.is_(None) if says_again(scene.feed) else sa.true(),
    )
    runs = standing.order_by(None).subquery()
    beaten_at_home = sa.exists().where(
        won.c.run_id == lost.c.run_id, won.c.record_key == lost.c.record_key, won.c.outcome.in_(APPLIED)
    )
    return (
        sa.select(lost.c.record_key, lost.c.run_id, sa.func.count().label("records"))
        .where(
            lost.c.run_id.in_(sa.select(runs.c.id)),
            lost.c.record_key.in_(sa.select(held.c.record_key)),
            lost.c.outcome == STALE,
            sa.true() if keeps_marks(scene.feed) else ~beaten_at_home,
        )
        .group_by(lost.c.record_key, lost.c.run_id)
        .cte("lost")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _standing_applied(scene: Scene, lost: sa.CTE) -> sa.CTE:
    """Return what runs that stand have made of the keys of records that lost."""
    told = lineage_records.c
    runs = scene.standing_runs(of_table=True).order_by(None).subquery()
    return (
        sa.select(told.record_key, told.outcome, runs.c.commit_no)
        .select_from(lineage_records.join(runs, runs.c.id == told.run_id))
        .where(told.outcome.in_(APPLIED), told.record_key.in_(sa.select(lost.c.record_key)))
        .cte("standing_applied")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _skipping(scene: Scene) -> Iterator[tuple[sa.Row[tuple[object, ...]], bool]]:
    """Yield the other runs, and whether this run's watermark was the one they met."""
    text = scene.run["watermark"]
    mine = None if text is None else from_text(scene.feed, text)
    reached: Cursor | None = None
    for run in scene.connection.execute(scene.standing_runs(of_table=True).add_columns(_counts(scene).label("counts"))):
        of_feed = run.job_name == scene.run["job_name"]
        met = of_feed and mine is not None and (reached is None or not at_or_below(mine, reached))
        yield run, met and run.counts and run.commit_no > scene.run["commit_no"]
        if of_feed and run.watermark is not None:
            value = from_text(scene.feed, run.watermark)
            reached = value if reached is None or not at_or_below(value, reached) else reached
