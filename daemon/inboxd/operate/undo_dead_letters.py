"""Undoing what a run did to dead letters, its own and those that it had resolved."""

from __future__ import annotations

import sqlalchemy as sa

from inboxd.model import Mode
from inboxd.operate.undo_plan import Scene
from inboxd.outcomes import UNREADABLE_KEY
from inboxd.store.tables import DELETED, LOADED, before_images, dead_letters, etl_runs, lineage_records


def settle_dead_letters(scene: Scene, undo_id: int) -> None:
    """Resolve the run's own dead letters by the undo, for its file is to come again.

    What the run had resolved is resolved by the next run that applied the key, as without the run; else it is open. But
    a dead letter of a run that does not stand is never opened: its record comes again with its file, and would be there
    twice. It is resolved by what took its run's place, or, if that is undone here, by the undo.
    """
    columns, run_id = dead_letters.c, scene.run["id"]
    settled = sa.update(dead_letters).where(columns.run_id == run_id, columns.resolved_by.is_(None))
    scene.connection.execute(settled.values(resolved_by=undo_id))
    place_taken_by = sa.select(etl_runs.c.superseded_by).where(etl_runs.c.id == columns.run_id).scalar_subquery()
    closed = sa.update(dead_letters).where(columns.resolved_by == run_id, place_taken_by.is_not(None))
    resolver = sa.case((place_taken_by == run_id, undo_id), else_=place_taken_by)
    scene.connection.execute(closed.values(resolved_by=resolver))
    if scene.feed.mode is not Mode.APPEND:
        others = scene.dialect.gathered(scene.connection, _other_resolvers(scene), "other_resolvers")
        passed_on = sa.update(dead_letters).where(columns.id == others.c.id)
        scene.connection.execute(passed_on.values(resolved_by=others.c.run_id))
    opened = sa.update(dead_letters).where(columns.resolved_by == run_id)
    scene.connection.execute(opened.values(resolved_by=None))


def _other_resolvers(scene: Scene) -> sa.Select[tuple[int, int]]:
    """Return the dead letters that the run had resolved, each with the next later run that applied its key."""
    letters, told, images = dead_letters.c, lineage_records.c, before_images.c
    had_resolved = sa.and_(letters.resolved_by == scene.run["id"], letters.record_key != UNREADABLE_KEY)
    keys = sa.select(letters.record_key).where(had_resolved)
    later = sa.select(scene.standing_runs().where(scene.is_later()).order_by(None).subquery().c.id)
    by_lineage = sa.select(told.record_key, told.run_id).where(
        told.run_id.in_(later), told.record_key.in_(keys), told.outcome.in_((LOADED, DELETED))
    )
    # A stale record may have taken an undone one's place, and lineage may be kept for a shorter time.
    by_image = sa.select(images.record_key, images.run_id).where(
        images.table_name == scene.feed.table, images.run_id.in_(later), images.record_key.in_(keys)
    )
    by_run = sa.union_all(by_lineage, by_image).cte("applied").prefix_with("MATERIALIZED", dialect="postgresql")
    place = sa.func.row_number().over(partition_by=letters.id, order_by=etl_runs.c.commit_no).label("place")
    ranked = (
        sa.select(letters.id, by_run.c.run_id, place)
        .select_from(dead_letters)
        .join(by_run, by_run.c.record_key == letters.record_key)
        .join(etl_runs, etl_runs.c.id == by_run.c.run_id)
        .where(had_resolved)
        .subquery()
    )
    return sa.select(ranked.c.id, ranked.c.run_id).where(ranked.c.place == 1)
