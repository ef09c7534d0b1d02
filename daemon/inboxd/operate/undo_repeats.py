"""Undoing a run of a feed whose last record wins, where the next later run has said the same again.

That run's record was stale, as it equalled the row; without the undone run it would have made the row. So it takes the
undone run's place: as the writer of the row, or of what a still later run has replaced, and as the owner of the image.
The row then has what it would have from that run's file, too: name, path and time of the file, and the record's number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from inboxd.model import Feed, Field, Scalar
from inboxd.operate.target import target_of
from inboxd.operate.undo_sql import computed, writer_of
from inboxd.records.checks import Fault, Scope
from inboxd.records.fields import compile_feed
from inboxd.records.surroundings import FileFacts, Surroundings, file_values
from inboxd.records.validate import seek
from inboxd.store.changes import NUMBER, of_file_alone
from inboxd.store.feed_tables import marks
from inboxd.store.tables import DELETED, LOADED, STALE, before_images, etl_runs, lineage_records

if TYPE_CHECKING:
    from inboxd.operate.undo_plan import Scene


def said_again(scene: Scene) -> sa.CTE:
    """Return the keys of which the next later run has said the same once more, each with that run and its record.

    Its record was stale, as it equalled the row. A run that has the image of a key has changed it, whatever its
    lineage says: the image was handed to it when a run before it was undone.
    """
    told, images, runs = lineage_records.c, before_images.alias("theirs"), etl_runs.c
    later = scene.standing_runs(of_table=True).where(scene.is_later()).order_by(None).subquery()
    changes = sa.func.max(sa.case((told.outcome == STALE, 0), else_=1)).label("changes")
    touching = (
        sa.select(told.record_key, told.run_id, changes, sa.func.max(told.record_no).label("record_no"))
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
            touching.c.record_no,
            sa.case((changed, 1), else_=0).label("changed"),
            place.label("place"),
        )
        .select_from(touching.join(etl_runs, runs.id == touching.c.run_id).outerjoin(images, of_key))
        .where(sa.or_(changed, runs.content_sha256.is_not(None)))  # a replay's record may be stale for its age
        .subquery()
    )
    first = sa.select(ranked.c.record_key, ranked.c.run_id, ranked.c.record_no).where(
        ranked.c.place == 1, ranked.c.changed == 0
    )
    return first.cte("again")


def hand_over(scene: Scene) -> None:
    """Let the runs that have said the same again take the undone run's place, key by key."""
    connection, feed, dialect, run_id = scene.connection, scene.feed, scene.dialect, scene.run["id"]
    again = dialect.gathered(connection, sa.select(said_again(scene)), "said_again")
    target, images = target_of(scene.feed), before_images.c
    written_by = feed.own_columns.run_id
    said = dialect.inner(sa.literal(_as_images(scene, again)), sa.cast(again.c.run_id, sa.Text))
    number, numbered = sa.cast(again.c.record_no, sa.Text), _numbered(feed)
    names = [*_from_file(feed), *(field.name for field in numbered)]
    said_values = [dialect.value(feed, said, name) for name in _from_file(feed)]
    said_values += [dialect.typed(number, field.type) for field in numbered]
    by_run = [dialect.value(feed, said, written_by)]
    keys, [by_whom], found = computed(again, dialect.key(feed, again), by_run, said_values)
    same = [target.c[name] == key for name, key in zip(feed.key, keys, strict=True)]
    writer: dict[str, sa.ColumnElement[Any]] = {written_by: by_whom}
    values: dict[str, sa.ColumnElement[Any]] = dict(zip(names, found, strict=True))
    if marks(feed):  # of a row that is marked they are still those of its upsert
        lives = target.c[feed.own_columns.deleted_at].is_(None)
        values = {name: sa.case((lives, value), else_=target.c[name]) for name, value in values.items()}
    connection.execute(sa.update(target).values(writer | values).where(target.c[written_by] == run_id, *same))
    writer = {written_by: dialect.part(said, written_by)}
    values = {name: dialect.part(said, name) for name in _from_file(feed)}
    values |= {field.name: dialect.as_part(number, field.type) for field in numbered}
    if marks(feed):
        lives = dialect.value(feed, images.image, feed.own_columns.deleted_at).is_(None)
        values = {
            name: sa.case((lives, value), else_=dialect.part(images.image, name)) for name, value in values.items()
        }
    of_key = sa.and_(images.table_name == feed.table, images.record_key == again.c.record_key)
    of_later = sa.update(before_images).values(image=dialect.overlaid(images.image, writer | values))
    by_it = images.image.is_not(None), writer_of(feed, dialect) == run_id
    connection.execute(of_later.where(of_key, images.run_id != run_id, *by_it))
    connection.execute(sa.update(before_images).values(run_id=again.c.run_id).where(of_key, images.run_id == run_id))


def _numbered(feed: Feed) -> list[Field]:
    return [field for field in of_file_alone(feed) if field.path == NUMBER]


def _from_file(feed: Feed) -> list[str]:
    return [field.name for field in of_file_alone(feed) if field.path != NUMBER]


def _as_images(scene: Scene, again: sa.FromClause) -> str:
    """Return, as a JSON object by run, what the runs that take over say of their rows without looking at records."""
    runs = etl_runs.c
    query = sa.select(runs.id, runs.file_name, runs.file_mtime).where(runs.id.in_(sa.select(again.c.run_id)))
    return json.dumps(
        {
            str(run.id): {
                scene.feed.own_columns.run_id: run.id,
                **_values_of_file(scene.feed, FileFacts(run.file_name or "", run.file_mtime or "")),
            }
            for run in scene.connection.execute(query)
        }
    )


def _values_of_file(feed: Feed, facts: FileFacts) -> dict[str, Scalar]:
    """Return the columns that a file alone gives, as its records were read."""
    compiled, around = compile_feed(feed), Surroundings(file_values(feed.paths, facts))
    found: dict[str, Scalar] = {}
    for name in _from_file(feed):
        index = compiled.names.index(name)
        check, ways = compiled.checks[index], compiled.ways[index]
        outcome = check.one(seek(check, ways, [None] * len(ways), 0, around), Scope(None))
        found[name] = outcome.readable if isinstance(outcome, Fault) else outcome  # a bound may be another one by now
    return found
