"""Undoing deletions: tombstones are put back from their own before-images, and rows marked as they then must be.

An image of a tombstone stands in ``before_images`` under the name ``tombstones``, that of a snapshot's watermark under
``watermarks``.
"""

from __future__ import annotations

import sqlalchemy as sa

from inboxd.model import Feed
from inboxd.operate.target import column_type, target_of
from inboxd.operate.undo_sql import Dialect, member
from inboxd.store.changes import keeps_marks
from inboxd.store.tables import Stamp, before_images, tombstones


def put_tombstones_back(connection: sa.Connection, feed: Feed, run_id: int) -> None:
    """Give each tombstone that the run was the last to write what was before; later images get what this run's hold."""
    mine, there = before_images.alias("mine"), tombstones.c
    of_run = sa.and_(mine.c.run_id == run_id, mine.c.table_name == tombstones.name)
    writer = sa.cast(member(connection, before_images.c.image, "run_id"), sa.BigInteger)
    handed = (
        sa.update(before_images)
        .values(image=mine.c.image)
        .where(
            before_images.c.table_name == tombstones.name,
            before_images.c.run_id != run_id,
            before_images.c.record_key == mine.c.record_key,
            of_run,
            before_images.c.image.is_not(None),
            writer == run_id,
        )
    )
    connection.execute(handed)
    held = sa.and_(there.table_name == feed.table, there.run_id == run_id)
    new = sa.select(mine.c.record_key).where(of_run, mine.c.image.is_(None))
    connection.execute(sa.delete(tombstones).where(held, there.record_key.in_(new)))
    deleted_at = member(connection, mine.c.image, "deleted_at")
    before = {
        "cursor": member(connection, mine.c.image, "cursor"),
        "run_id": sa.cast(member(connection, mine.c.image, "run_id"), sa.BigInteger),
        "deleted_at": sa.cast(deleted_at, Stamp()) if connection.dialect.name == "postgresql" else deleted_at,
    }
    back = sa.update(tombstones).values(before)
    connection.execute(back.where(held, of_run, mine.c.record_key == there.record_key, mine.c.image.is_not(None)))


def mark_again(connection: sa.Connection, feed: Feed, run_id: int, dialect: Dialect) -> None:
    """Mark the rows of the run's keys that are at or below their tombstone, and no others."""
    if not keeps_marks(feed):
        return
    target, own = target_of(feed), feed.own_columns
    kept, there = before_images.alias("kept"), tombstones.c
    of_run = sa.and_(kept.c.run_id == run_id, kept.c.table_name.in_((feed.table, tombstones.name)))
    keys = [key.label(f"k{place}") for place, key in enumerate(dialect.key(feed, kept))]
    found = (
        sa.select(*keys, there.cursor, there.deleted_at)
        .select_from(
            kept.outerjoin(tombstones, sa.and_(there.table_name == feed.table, there.record_key == kept.c.record_key))
        )
        .where(of_run)
        .distinct()
        .cte("marked")
    )
    kind = column_type(feed, feed.cursor_name)
    cursor = dialect.typed(found.c.cursor, kind)
    deleted_at = sa.case((cursor >= target.c[feed.cursor_name], found.c.deleted_at), else_=sa.null())
    same = [target.c[name] == found.c[f"k{place}"] for place, name in enumerate(feed.key)]
    connection.execute(sa.update(target).values({own.deleted_at: deleted_at}).where(*same))
