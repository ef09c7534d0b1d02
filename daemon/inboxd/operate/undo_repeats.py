"""Undoing a run of a feed whose last record wins, where the next later run has said the same again.

That run's record was stale, as it equalled the row; without the undone run it would have made the row. So it takes the
undone run's place: as the writer of the row, or of what a still later run has replaced, and as the owner of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from inboxd.operate.target import target_of
from inboxd.operate.undo_sql import writer_of
from inboxd.store.tables import DELETED, LOADED, STALE, before_images, etl_runs, lineage_records

if TYPE_CHECKING:
    from inboxd.operate.undo_plan import Scene


def said_again(scene: Scene) -> sa.CTE:
    """Return the keys of which the next later run has said the same once more, each with that run.

    Its record was stale, as it equalled the row. A run that has the image of a key has changed it, whatever its
    lineage says: the image was handed to it when a run before it was undone.
    """
    told, images, runs = lineage_records.c, before_images.alias("theirs"), etl_runs.c
    later = scene.standing_runs(of_table=True).where(scene.is_later()).order_by(None).subquery()
    changes = sa.func.max(sa.case((told.outcome == STALE, 0), else_=1)).label("changes")
    touching = (
        sa.select(told.record_key, told.run_id, changes)
        .where(
            told.run_id.in_(sa.select(later.c.id)),
            told.record_key.in_(sa.select(before_images.c.record_key).where(scene.of_run())),
            told.outcome.in_((LOADED, STALE, DELETED)),
        )
        .group_by(told.record_key, told.run_id)
        .cte("touching")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    changed = sa.or_(touching.c.changes == 1, images.c.run_id.is_not(None))
    of_key = sa.and_(
        images.c.run_id == touching.c.run_id,
        images.c.table_name == scene.feed.table,
        images.c.record_key == touching.c.record_key,
    )
    place = sa.func.row_number().over(partition_by=touching.c.record_key, order_by=runs.commit_no)
    ranked = (
        sa.select(
            touching.c.record_key,
            touching.c.run_id,
            sa.case((changed, 1), else_=0).label("changed"),
            place.label("place"),
        )
        .select_from(touching.join(etl_runs, runs.id == touching.c.run_id).outerjoin(images, of_key))
        .where(sa.or_(changed, runs.content_sha256.is_not(None)))  # a replay's record may be stale for its age
        .subquery()
    )
    first = sa.select(ranked.c.record_key, ranked.c.run_id).where(ranked.c.place == 1, ranked.c.changed == 0)
    return first.cte("again")


def hand_over(scene: Scene) -> None:
    """Let the runs that have said the same again take the undone run's place, key by key."""
    connection, feed, run_id = scene.connection, scene.feed, scene.run["id"]
    again, target, images = said_again(scene), target_of(scene.feed), before_images.c
    written_by = feed.own_columns.run_id
    keys = scene.dialect.key(feed, again)
    same = [target.c[name] == key for name, key in zip(feed.key, keys, strict=True)]
    rows = sa.update(target).values({written_by: again.c.run_id}).where(target.c[written_by] == run_id, *same)
    connection.execute(rows)
    of_key = sa.and_(images.table_name == feed.table, images.record_key == again.c.record_key)
    named = scene.dialect.with_number(images.image, written_by, again.c.run_id)
    of_later = sa.update(before_images).values(image=named)
    by_it = images.image.is_not(None), writer_of(feed, scene.dialect) == run_id
    connection.execute(of_later.where(of_key, images.run_id != run_id, *by_it))
    connection.execute(sa.update(before_images).values(run_id=again.c.run_id).where(of_key, images.run_id == run_id))
