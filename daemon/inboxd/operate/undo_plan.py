"""What an undo is about to do, told by reading only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.errors import EXIT_FAILED, OperatorFault
from inboxd.model import Cursor, Feed, Mode
from inboxd.operate.target import FilledTable, target_of
from inboxd.operate.undo_append import count_rows, refuse_replayed
from inboxd.operate.undo_reload import Passed, passed, skipped_snapshots
from inboxd.operate.undo_repeats import said_again
from inboxd.operate.undo_sql import Dialect
from inboxd.outcomes import RunStatus
from inboxd.store.changes import keeps_marks, says_again
from inboxd.store.cursors import at_or_below, from_text
from inboxd.store.tables import (
    ABSENT,
    DELETED,
    LOADED,
    before_images,
    etl_runs,
    lineage_records,
    tombstones,
    watermarks,
)
from inboxd.words import counted

LISTED: Final = 1_000
"""Keys named of those that are left; their number is exact."""


@dataclass(frozen=True, slots=True)
class LeftKey:
    """A key that a later run has changed (``None``: its row is gone): the undo leaves it as it is."""

    record_key: str
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Undo:
    """What an undo did, or (``run_id`` is ``None``) would do."""

    run_id: int | None
    undo_of: int
    feed: str
    file_name: str | None
    claim: str | None
    considered: int
    restored: int
    left: int
    left_keys: tuple[LeftKey, ...]
    watermark_before: str | None
    watermark_after: str | None
    reload: tuple[Passed, ...]


def undoable(connection: sa.Connection, feeds: tuple[Feed, ...], run_id: int) -> tuple[sa.RowMapping, Feed]:
    """Return the run and its feed, or say why it cannot be undone."""
    run = connection.execute(sa.select(etl_runs).where(etl_runs.c.id == run_id)).mappings().one_or_none()
    if run is None:
        raise _refused(f"there is no run {run_id}", "`inboxd runs list` lists the runs")
    if run["rows_rejected"] is None:
        raise _refused(f"run {run_id} was imported: inboxd did not load it", "only inboxd's own runs can be undone")
    if run["status"] != RunStatus.SUCCESS.value:
        raise _refused(f"run {run_id} is a {run['status']}: it has loaded nothing", "there is nothing to undo")
    if run["duplicate_of"] is not None:
        hint = f"inboxd undo {run['duplicate_of']}"
        raise _refused(f"run {run_id} is a duplicate of run {run['duplicate_of']}: it has loaded nothing", hint)
    if run["undo_of"] is not None:
        hint = "load the file again: `inboxd retry` with its name"
        raise _refused(f"run {run_id} is itself an undo, of run {run['undo_of']}", hint)
    later = connection.execute(sa.select(etl_runs.c.id).where(etl_runs.c.undo_of == run_id)).scalar()
    if later is not None:
        raise _refused(f"run {run_id} was undone by run {later}", "there is nothing left to undo")
    named = [feed for feed in feeds if feed.name == run["job_name"]]
    feed = next(iter(named or [feed for feed in feeds if feed.table == run["table_name"]]), None)
    if feed is None:
        raise _refused(f"feed {run['job_name']!r} is no longer in the config", "put it back, then undo the run")
    if feed.mode is Mode.APPEND:
        refuse_replayed(connection, run_id)
    else:
        _check_images(connection, feed, run)
        if feed.mode is Mode.SNAPSHOT:
            _refuse_an_earlier_snapshot(connection, run)
    return run, feed


def _refuse_an_earlier_snapshot(connection: sa.Connection, run: sa.RowMapping) -> None:
    """Refuse all but the last applied snapshot of a scope: what there was without an earlier one, no image holds."""
    if connection.execute(sa.select(watermarks.c.name).where(watermarks.c.run_id == run["id"])).first() is None:
        hint = "load the snapshot that is right: it gives exactly its rows"
        raise _refused(f"run {run['id']} is not the last snapshot of its scope", hint)


def _check_images(connection: sa.Connection, feed: Feed, run: sa.RowMapping) -> None:
    images = before_images.c
    tables = (feed.table, tombstones.name) if keeps_marks(feed) else (feed.table,)
    query = sa.select(sa.func.count()).where(images.run_id == run["id"], images.table_name.in_(tables))
    found = int(connection.execute(query).scalar_one())
    changed = int(run["rows_out"]) + (int(run["rows_deleted"]) if feed.mode is Mode.SNAPSHOT else 0)
    if found >= changed:  # it may have those of an undone run before it, whose values it had said again
        return
    if found:
        msg = f"run {run['id']} changed {counted(changed, 'row')}, but has only {counted(found, 'before-image')} left"
        raise _refused(msg, "raise retention.images, so that images are kept as long as a run may be undone")
    msg = f"run {run['id']} has no before-images: what was there before its {counted(changed, 'row')} is not known"
    hint = f"set `undo = true` in [feeds.{feed.name}] for the runs to come; for this one load a good file with --force"
    if feed.undo:
        hint = "retention.images let them go, or undo = true came after the run; load a good file with --force"
    raise _refused(msg, hint)


def _refused(message: str, hint: str) -> OperatorFault:
    return OperatorFault("not_undoable", message, hint, exit_code=EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class Scene:
    """One run that is to be undone, on one connection."""

    connection: sa.Connection
    feed: Feed
    run: sa.RowMapping
    dialect: Dialect

    def look(self) -> Undo:
        """Tell what is to be done, while nothing is done yet."""
        if self.feed.mode is Mode.APPEND:
            number = count_rows(self.connection, self.feed, self.run["id"])
            return self._plan(number, number, (), (None, None), ())
        holders = self.holders()
        mine = sa.func.coalesce(sa.func.sum(sa.case((holders.c.run_id == self.run["id"], 1), else_=0)), 0)
        considered, restored = map(
            int, self.connection.execute(sa.select(sa.func.count(), mine).select_from(holders)).one()
        )
        left = self._left(holders) if considered != restored else ()
        if self.feed.mode is Mode.SNAPSHOT:
            return self._plan(considered, restored, left, self._snapshot_marks(), skipped_snapshots(self))
        return self._plan(considered, restored, left, self._watermarks(), passed(self, holders))

    def _snapshot_marks(self) -> tuple[str | None, str | None]:
        """Return the watermark of the snapshot's scope as it is, and as its before-image has it."""
        now = self.connection.execute(sa.select(watermarks.c.value).where(watermarks.c.run_id == self.run["id"]))
        kept = sa.select(before_images.c.image).where(
            before_images.c.run_id == self.run["id"], before_images.c.table_name == watermarks.name
        )
        image = self.connection.execute(kept).scalar()
        return now.scalar(), None if image is None else str(json.loads(image)["value"])

    def _plan(
        self,
        considered: int,
        restored: int,
        left: tuple[LeftKey, ...],
        marks: tuple[str | None, str | None],
        passed: tuple[Passed, ...],
    ) -> Undo:
        return Undo(
            run_id=None,
            undo_of=self.run["id"],
            feed=self.run["job_name"],
            file_name=self.run["file_name"],
            claim=self.run["claim"],
            considered=considered,
            restored=restored,
            left=considered - restored,
            left_keys=left,
            watermark_before=marks[0],
            watermark_after=marks[1],
            reload=passed,
        )

    def holders(self) -> sa.CTE:
        """Return the keys that the run has changed, each with the run that was the last to change it.

        That run wrote the row, or took it out: then it is this one, unless a later run has changed the key. Where the
        last one applied wins, a later run that has said the same again holds the key as well.
        """
        held = self._held_rows()
        gone = self._held_gone(held)
        images = before_images.c
        holder: sa.ColumnElement[int] = sa.case((held.c.record_key.is_not(None), held.c.run_id), else_=gone.c.run_id)
        joined = before_images.outerjoin(held, held.c.record_key == images.record_key).outerjoin(
            gone, gone.c.record_key == images.record_key
        )
        if says_again(self.feed):
            again = said_again(self)
            joined = joined.outerjoin(again, again.c.record_key == images.record_key)
            holder = sa.func.coalesce(again.c.run_id, holder)
        keys: sa.SelectBase = (
            sa.select(images.record_key, holder.label("run_id")).select_from(joined).where(self.of_run())
        )
        if keeps_marks(self.feed):
            keys = sa.union_all(keys, self._held_tombstones())
        return keys.cte("holders")

    def _held_rows(self) -> sa.CTE:
        """Return the rows that the images' keys have now: the key, and the run that was the last to write it.

        They are gathered first, on PostgreSQL: Citus would fetch all of a distributed table for an outer join, and
        refuses to join two that are not distributed alike.
        """
        target = target_of(self.feed)
        rows = sa.select(before_images.c.record_key, target.c[self.feed.own_columns.run_id].label("run_id"))
        joined = rows.where(self.of_run()).select_from(before_images.join(target, self.same_key(target)))
        return joined.cte("held").prefix_with("MATERIALIZED", dialect="postgresql")

    def _held_gone(self, held: sa.CTE) -> sa.CTE:
        """Return the keys whose rows this run took out, and that no later run has changed.

        Lineage is read by one run or some runs at a time, and never joined with itself: it may be distributed.
        """
        lineage, images = lineage_records.c, before_images.c
        later = self.standing_runs(of_table=True, empty=True).where(self.is_later()).order_by(None).subquery()
        written = sa.select(lineage.record_key).where(lineage.run_id == self.run["id"], lineage.outcome == LOADED)
        taken_out = sa.select(images.record_key, images.run_id).where(
            self.of_run(), images.record_key.not_in(sa.select(held.c.record_key)), images.record_key.not_in(written)
        )
        mine = taken_out.cte("mine").prefix_with("MATERIALIZED", dialect="postgresql")
        changed_since = sa.select(lineage.record_key).where(
            lineage.run_id.in_(sa.select(later.c.id)),
            lineage.record_key.in_(sa.select(mine.c.record_key)),
            lineage.outcome.in_((LOADED, DELETED, ABSENT)),
        )
        theirs = changed_since.cte("theirs").prefix_with("MATERIALIZED", dialect="postgresql")
        handed = before_images.alias("handed")
        theirs_by_image = sa.select(handed.c.record_key).where(
            handed.c.run_id.in_(sa.select(later.c.id)), handed.c.table_name == self.feed.table
        )
        kept = sa.select(mine.c.record_key, mine.c.run_id).where(
            mine.c.record_key.not_in(sa.select(theirs.c.record_key)), mine.c.record_key.not_in(theirs_by_image)
        )
        return kept.cte("gone")

    def _held_tombstones(self) -> sa.Select[tuple[str, int]]:
        """Return the keys of which the run has changed the tombstone alone: the row is still that of its upsert."""
        kept, rows = before_images.alias("kept"), before_images.alias("of_rows")
        there = tombstones.c
        same = sa.and_(there.table_name == self.feed.table, there.record_key == kept.c.record_key)
        imaged = sa.select(rows.c.record_key).where(
            rows.c.run_id == self.run["id"], rows.c.table_name == self.feed.table
        )
        return (
            sa.select(kept.c.record_key, there.run_id)
            .select_from(kept.outerjoin(tombstones, same))
            .where(
                kept.c.run_id == self.run["id"],
                kept.c.table_name == tombstones.name,
                kept.c.record_key.not_in(imaged),
            )
        )

    def same_key(self, target: sa.TableClause) -> sa.ColumnElement[bool]:
        """Join an image to the row that has its key."""
        keys = self.dialect.key(self.feed, before_images)
        return sa.and_(*(target.c[name] == key for name, key in zip(self.feed.key, keys, strict=True)))

    def of_run(self) -> sa.ColumnElement[bool]:
        """Tell this run's images."""
        columns = before_images.c
        return sa.and_(columns.run_id == self.run["id"], columns.table_name == self.feed.table)

    def _left(self, holders: sa.CTE) -> tuple[LeftKey, ...]:
        keys = holders.c
        query = sa.select(keys.record_key, keys.run_id).where(keys.run_id.is_distinct_from(self.run["id"]))
        found = self.connection.execute(query.order_by(keys.record_key).limit(LISTED))
        return tuple(LeftKey(key, run_id) for key, run_id in found)

    def standing_runs(self, *, of_table: bool = False, empty: bool = False) -> sa.Select[tuple[object, ...]]:
        """Return the other runs of the feed, or of its table, that loaded something and stand, in order of commit.

        ``empty``: those of files without records, too; such a snapshot may have removed rows.
        """
        runs, undoing = etl_runs.c, etl_runs.alias("undoing")
        return (
            sa.select(
                runs.id, runs.job_name, runs.commit_no, runs.watermark, runs.rows_skipped, runs.file_name, runs.claim
            )
            .select_from(etl_runs.outerjoin(undoing, undoing.c.id == runs.superseded_by))
            .where(
                self.of_table() if of_table else runs.job_name == self.run["job_name"],
                runs.status == RunStatus.SUCCESS.value,
                sa.true() if empty else runs.rows_in > 0,
                runs.rows_stale.is_not(None),
                runs.undo_of.is_(None),
                runs.id != self.run["id"],
                undoing.c.undo_of.is_distinct_from(runs.id),
            )
            .order_by(runs.commit_no)
        )

    def of_table(self) -> sa.ColumnElement[bool]:
        """Tell the runs that may have touched the table's rows."""
        return FilledTable(self.feed.table, {}, (), feeds=(self.feed.name, self.run["job_name"])).of_table()

    def is_later(self) -> sa.ColumnElement[bool]:
        """Tell the runs that were committed after the one to be undone."""
        return etl_runs.c.commit_no > int(self.run["commit_no"])

    def _watermarks(self) -> tuple[str | None, str | None]:
        """Return the watermark as it is, and as the remaining runs leave it. One set by hand stays; none is raised."""
        columns = watermarks.c
        name = self.run["job_name"]  # the feed may have another one by now
        now = self.connection.execute(sa.select(columns.value, columns.run_id).where(columns.name == name))
        row = now.one_or_none()
        if row is None or row.run_id is None:
            return (None, None) if row is None else (row.value, row.value)
        left: Cursor | None = None
        for run in self.connection.execute(self.standing_runs().where(etl_runs.c.watermark.is_not(None))):
            value = from_text(self.feed, run.watermark)
            left = value if left is None or not at_or_below(value, left) else left
        if left is not None and not at_or_below(left, from_text(self.feed, row.value)):
            return row.value, row.value
        return row.value, None if left is None else str(left)
