"""Undoing a run where rows are marked and the last record wins: a mark keeps the values of the row that it met.

So where the run had made that row, the marked one must have what was there before it; and if nothing was, the deletion
met nothing, and there is no row. A run that has marked the row stays the one that did so, even if the row that it meets
now was marked before: it would mark it, if that earlier run were not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from inboxd.model import Feed, Gone
from inboxd.operate.target import target_of
from inboxd.operate.undo_sql import computed, writer_of
from inboxd.store.feed_tables import own_types
from inboxd.store.tables import STALE, before_images, etl_runs, lineage_records

if TYPE_CHECKING:
    from inboxd.operate.undo_plan import Scene


def keeps_values(feed: Feed) -> bool:
    """Tell whether a mark leaves a row the values that it had, and is the last word on it."""
    return feed.cursor is None and feed.deletes is not None and feed.deletes.then is Gone.MARK


def mark_anew(scene: Scene, own_id: int) -> None:
    """Let what later runs have marked be marked as what they meet now, from the first of these runs on.

    The keys are those that the undo has left: its own lineage tells them.
    """
    told, images, runs = lineage_records.c, before_images.c, etl_runs.c
    left = sa.select(told.record_key).where(told.run_id == own_id, told.outcome == STALE)
    of_key = sa.select(scene.dialect.gathered(scene.connection, left, "left_keys").c.record_key)
    of_keys = images.table_name == scene.feed.table, images.record_key.in_(of_key)
    deleting = (
        sa.select(runs.id)
        .select_from(before_images.join(etl_runs, runs.id == images.run_id))
        .where(*of_keys, scene.is_later(), sa.or_(runs.rows_deleted > 0, runs.rows_stale > 0))  # it may have taken over
        .group_by(runs.id, runs.commit_no)
        .order_by(runs.commit_no)
    )
    kept = before_images.alias("kept")
    for run_id in scene.connection.execute(deleting).scalars().all():
        of_run = kept.c.run_id == run_id, kept.c.table_name == scene.feed.table, kept.c.record_key.in_(of_key)
        found = sa.select(kept.c.record_key, kept.c.image).where(*of_run).cte("met")
        met = found.prefix_with("MATERIALIZED", dialect="postgresql")
        _mark_rows(scene, run_id, met)
        _mark_images(scene, run_id, met)


def _mark_rows(scene: Scene, run_id: int, met: sa.CTE) -> None:
    feed, dialect, target = scene.feed, scene.dialect, target_of(scene.feed)
    beside = [field.name for field in feed.beside]
    names = [name for name in (*feed.columns, *beside) if name not in feed.key]
    said = [dialect.value(feed, met.c.image, name) for name in names]
    had = [dialect.has(met.c.image, name) for name in beside]
    keys, values, known, [image] = computed(met, dialect.key(feed, met), said, had, [met.c.image])
    for place, there in enumerate(known, len(names) - len(beside)):
        values[place] = sa.case((there, values[place]), else_=target.c[names[place]])
    marked = target.c[feed.own_columns.run_id] == run_id, target.c[feed.own_columns.deleted_at].is_not(None)
    same = [target.c[name] == key for name, key in zip(feed.key, keys, strict=True)]
    if values:
        anew = sa.update(target).values(dict(zip(names, values, strict=True)))
        scene.connection.execute(anew.where(*marked, *same, image.is_not(None)))
    nothing = sa.select(*keys).where(image.is_(None))
    columns = [target.c[name] for name in feed.key]
    gone = columns[0].in_(nothing) if len(columns) == 1 else sa.tuple_(*columns).in_(nothing)
    scene.connection.execute(sa.delete(target).where(*marked, gone))


def _mark_images(scene: Scene, run_id: int, met: sa.CTE) -> None:
    feed, dialect, images = scene.feed, scene.dialect, before_images.c
    own = {name: dialect.part(images.image, name) for name in own_types(feed)}
    marked = dialect.value(feed, images.image, feed.own_columns.deleted_at).is_not(None)
    anew = sa.case((met.c.image.is_not(None), dialect.overlaid(met.c.image, own)), else_=sa.null())
    by_it = images.image.is_not(None), writer_of(feed, dialect) == run_id, marked
    scene.connection.execute(
        sa.update(before_images)
        .values(image=anew)
        .where(images.table_name == feed.table, images.record_key == met.c.record_key, *by_it)
    )
