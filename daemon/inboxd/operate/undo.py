"""``inboxd undo``: what a run did to its feed's table, taken back from its before-images.

A key whose row the run was the last to write gets back what was there before. A key that a later run has changed since
keeps its row, and the later run's image takes over what this run's image holds, so that undoing the later one does not
bring the undone row back. Everything happens in one transaction, which is a run of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from inboxd.clock import Clock, stamp
from inboxd.model import Feed, Late, Mode
from inboxd.operate.target import target_of
from inboxd.operate.undo_append import kept_by_a_rule, take_away
from inboxd.operate.undo_dead_letters import settle_dead_letters
from inboxd.operate.undo_deletions import mark_again, put_tombstones_back
from inboxd.operate.undo_marks import keeps_values, mark_anew
from inboxd.operate.undo_plan import Scene, Undo, undoable
from inboxd.operate.undo_repeats import hand_over
from inboxd.operate.undo_sql import dialect_of, writer_of
from inboxd.outcomes import RunStatus
from inboxd.store.changes import says_again
from inboxd.store.database import Store
from inboxd.store.dialects import dialect_of as store_dialect_of
from inboxd.store.feed_tables import own_types
from inboxd.store.tables import (
    LOADED,
    STALE,
    before_images,
    etl_runs,
    lineage_records,
    next_commit,
    watermarks,
)

CACHE_KIB: Final = 65_536
"""SQLite's own 2 MiB would read the table's pages again and again."""
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('inboxd ' || :what, 0))"
"""The locks under which files are let through one by one on PostgreSQL (see ``PostgresFile.lock``)."""


def undo(store: Store, feeds: tuple[Feed, ...], run_id: int, *, clock: Clock, host: str) -> Undo:
    """Undo a run; raises ``OperatorFault`` (exit 1) if it cannot be, ``TransientFault`` if the database is busy."""
    started, began = clock.now(), clock.monotonic()
    with store.writing() as connection:
        _lock(store, connection, undoable(connection, feeds, run_id)[1])
        run, feed = undoable(connection, feeds, run_id)  # again: another undo, or a snapshot, may have had the lock
        scene = Scene(connection, feed, run, dialect_of(connection))
        found = scene.look()
        work = _Work(scene)
        own_id = work.begin(started, host)
        if feed.mode is Mode.APPEND:
            take_away(connection, feed, run_id, own_id)
        else:
            work.classify(own_id)
            work.put_back(own_id)
            if says_again(feed):
                hand_over(scene)
            if found.left:
                work.hand_down(own_id)
            if keeps_values(feed):
                mark_anew(scene, own_id)
            if feed.deletes is not None and feed.cursor is not None:
                put_tombstones_back(connection, feed, run_id)
                mark_again(connection, feed, run_id, scene.dialect)
            if feed.mode is Mode.SNAPSHOT:
                work.put_snapshot_mark_back()
            else:
                work.set_watermark(found.watermark_after, clock.now())
            work.forget()
        settle_dead_letters(scene, own_id)
        work.end(own_id, found, clock.now(), round((clock.monotonic() - began) * 1000))
    return replace(found, run_id=own_id)


def plan(store: Store, feeds: tuple[Feed, ...], run_id: int) -> Undo:
    """Tell what ``undo`` would do, by reading only."""
    with store.reading() as connection:
        run, feed = undoable(connection, feeds, run_id)
        return Scene(connection, feed, run, dialect_of(connection)).look()


def _lock(store: Store, connection: sa.Connection, feed: Feed) -> None:
    """Keep files of this table and feed out until the undo is committed; SQLite lets only one write anyway."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
        return
    connection.execute(sa.text(LOCK), {"what": f"table {feed.table}"})
    if feed.late is Late.SKIP and feed.cursor is not None:
        connection.execute(sa.text(LOCK), {"what": f"feed {feed.name}"})
    store.await_commits(connection)


@dataclass(frozen=True, slots=True)
class _Work:
    """The steps of one undo, in order: each wants those before it done."""

    scene: Scene

    def begin(self, started: datetime, host: str) -> int:
        """Write the undo's own run."""
        values = {
            "job_name": self.scene.run["job_name"],
            "status": RunStatus.SUCCESS.value,
            "rows_in": 0,
            "rows_out": 0,
            "duration_ms": 0,
            "started_at": stamp(started),
            "finished_at": stamp(started),
            "undo_of": self.scene.run["id"],
            "table_name": self.scene.feed.table,
            "host": host,
        }
        statement = sa.insert(etl_runs).values(values).returning(etl_runs.c.id)
        return int(self.scene.connection.execute(statement).scalar_one())

    def classify(self, own_id: int) -> None:
        """Write the undo's lineage: ``load`` for a key that is put back, ``stale`` for one that is left."""
        holders = self.scene.holders()
        key = holders.c.record_key
        outcome = sa.case((holders.c.run_id == self.scene.run["id"], LOADED), else_=STALE)
        number = sa.func.row_number().over(order_by=key)
        rows = sa.select(sa.literal(own_id, sa.BigInteger), key, number, outcome)
        names = ["run_id", "record_key", "record_no", "outcome"]
        self.scene.connection.execute(sa.insert(lineage_records).from_select(names, rows))

    def _to_put_back(self, own_id: int) -> sa.ColumnElement[bool]:
        lineage = lineage_records.c
        return sa.and_(
            self.scene.of_run(),
            lineage.run_id == own_id,
            lineage.record_key == before_images.c.record_key,
            lineage.outcome == LOADED,
        )

    def put_back(self, own_id: int) -> None:
        """Give each key its image, or take its row away where there was none. A newer column becomes NULL."""
        target = target_of(self.scene.feed)
        images = before_images.c
        chosen = self._to_put_back(own_id)
        keys = [target.c[name] for name in self.scene.feed.key]
        inserted = sa.select(*self.scene.dialect.key(self.scene.feed, before_images)).where(
            chosen, images.image.is_(None)
        )
        same = keys[0].in_(inserted) if len(keys) == 1 else sa.tuple_(*keys).in_(inserted)
        self.scene.connection.execute(sa.delete(target).where(same))
        for names, there in _columns_of_images(self.scene):
            values = [self.scene.dialect.value(self.scene.feed, images.image, name) for name in names]
            rows = sa.select(*values).where(chosen, images.image.is_not(None), there)
            back = self.scene.dialect.insert_or_replace(target, names, rows, self.scene.feed.key)
            self.scene.connection.execute(back)
        self._refuse_what_was_kept(target, keys, same)

    def _refuse_what_was_kept(
        self, target: sa.TableClause, keys: list[sa.ColumnClause[Any]], gone: sa.ColumnElement[bool]
    ) -> None:
        """Refuse if a trigger or rule of the table has kept a row that was to go, or to be as it was before."""
        scene = self.scene
        leaves_out = store_dialect_of(scene.connection.dialect.name).leaves_out
        if not scene.connection.exec_driver_sql(leaves_out, {"table": scene.feed.table}).scalar():
            return
        kept = sa.select(*scene.dialect.key(scene.feed, before_images)).where(scene.of_run())
        imaged = keys[0].in_(kept) if len(keys) == 1 else sa.tuple_(*keys).in_(kept)
        changed = sa.and_(imaged, target.c[scene.feed.own_columns.run_id] == scene.run["id"])
        query = sa.select(sa.literal(1)).select_from(target).where(sa.or_(gone, changed)).limit(1)
        if scene.connection.execute(query).first() is not None:
            raise kept_by_a_rule(scene.feed, scene.run["id"])

    @staticmethod
    def _told(run_id: int, outcome: int) -> sa.Select[tuple[str]]:
        """Return the keys of which a run's lineage says so. Never joined: it may be distributed, images are not."""
        lineage = lineage_records.c
        return sa.select(lineage.record_key).where(lineage.run_id == run_id, lineage.outcome == outcome)

    def hand_down(self, own_id: int) -> None:
        """Give this run's image of each key that is left to the run that replaced this run's row."""
        mine = before_images.alias("mine")
        statement = (
            sa.update(before_images)
            .values(image=mine.c.image)
            .where(
                before_images.c.run_id == etl_runs.c.id,
                self.scene.is_later(),
                before_images.c.run_id != self.scene.run["id"],
                before_images.c.table_name == self.scene.feed.table,
                before_images.c.image.is_not(None),
                mine.c.run_id == self.scene.run["id"],
                mine.c.table_name == self.scene.feed.table,
                mine.c.record_key == before_images.c.record_key,
                mine.c.record_key.in_(self._told(own_id, STALE)),
                writer_of(self.scene.feed, self.scene.dialect) == self.scene.run["id"],
            )
        )
        self.scene.connection.execute(statement)
        if self.scene.feed.deletes is not None or self.scene.feed.mode is Mode.SNAPSHOT:
            self._hand_down_what_was_gone(own_id)

    def _hand_down_what_was_gone(self, own_id: int) -> None:
        """Give this run's image of a row that it took out to the first later run of that key, which found no row."""
        mine, theirs = before_images.alias("mine"), before_images.alias("theirs")
        first = (
            sa.select(theirs.c.run_id)
            .select_from(theirs.join(etl_runs, etl_runs.c.id == theirs.c.run_id))
            .where(
                theirs.c.table_name == self.scene.feed.table,
                theirs.c.record_key == before_images.c.record_key,
                self.scene.is_later(),
            )
            .order_by(etl_runs.c.commit_no)
            .limit(1)
            .scalar_subquery()
        )
        statement = (
            sa.update(before_images)
            .values(image=mine.c.image)
            .where(
                before_images.c.table_name == self.scene.feed.table,
                before_images.c.image.is_(None),
                before_images.c.run_id == first,
                mine.c.run_id == self.scene.run["id"],
                mine.c.table_name == self.scene.feed.table,
                mine.c.record_key == before_images.c.record_key,
                mine.c.image.is_not(None),
                mine.c.record_key.in_(self._told(own_id, STALE)),
                mine.c.record_key.not_in(self._told(self.scene.run["id"], LOADED)),
            )
        )
        self.scene.connection.execute(statement)

    def put_snapshot_mark_back(self) -> None:
        """Give the watermark of a snapshot's scope back what it was before."""
        connection, images = self.scene.connection, before_images.c
        kept = sa.select(images.record_key, images.image).where(
            images.run_id == self.scene.run["id"], images.table_name == watermarks.name
        )
        for name, image in connection.execute(kept).all():
            same = watermarks.c.name == name
            if image is None:
                connection.execute(sa.delete(watermarks).where(same))
            else:
                connection.execute(sa.update(watermarks).where(same).values(json.loads(image)))

    def forget(self) -> None:
        """Remove the images that were put back or handed down."""
        self.scene.connection.execute(sa.delete(before_images).where(before_images.c.run_id == self.scene.run["id"]))

    def set_watermark(self, value: str | None, now: datetime) -> None:
        """Put the watermark where the remaining runs leave it, in the name of the run that got it there."""
        mark = watermarks.c
        if value is None:
            self.scene.connection.execute(
                sa.delete(watermarks).where(mark.name == self.scene.run["job_name"], mark.run_id.is_not(None))
            )
            return
        runs = self.scene.standing_runs().where(etl_runs.c.watermark == value).limit(1)
        first = self.scene.connection.execute(runs).first()
        if first is None:
            return
        values = {"value": value, "run_id": first.id, "updated_at": stamp(now)}
        moved = sa.or_(mark.value != value, mark.run_id == self.scene.run["id"])
        changed = sa.update(watermarks).where(mark.name == self.scene.run["job_name"], moved, mark.run_id.is_not(None))
        self.scene.connection.execute(changed.values(values))

    def end(self, own_id: int, found: Undo, now: datetime, duration_ms: int) -> None:
        """Write the counts, and release the content."""
        counts = {"rows_in": found.considered, "rows_out": found.restored, "rows_stale": found.left}
        number = next_commit(self.scene.connection)
        values = {**counts, "duration_ms": duration_ms, "finished_at": stamp(now), "commit_no": number}
        self.scene.connection.execute(sa.update(etl_runs).where(etl_runs.c.id == own_id).values(values))
        released = sa.update(etl_runs).where(etl_runs.c.id == self.scene.run["id"]).values(superseded_by=own_id)
        self.scene.connection.execute(released)


def _columns_of_images(scene: Scene) -> list[tuple[list[str], sa.ColumnElement[bool]]]:
    """Return which columns an image gives back, and which images those are.

    One that was kept before another feed filled columns of the table does not know of these: they stay as they are.
    """
    names, beside = [*scene.feed.columns, *own_types(scene.feed)], [field.name for field in scene.feed.beside]
    if not beside:
        return [(names, sa.true())]
    whole = sa.and_(*(scene.dialect.has(before_images.c.image, name) for name in beside))
    return [([*names, *beside], whole), (names, sa.not_(whole))]
