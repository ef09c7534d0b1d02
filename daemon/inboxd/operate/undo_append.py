"""Undoing a run of an append feed: its rows are its own, and go. No before-images are needed."""

from __future__ import annotations

import sqlalchemy as sa

from inboxd.errors import EXIT_FAILED, OperatorFault
from inboxd.model import Feed
from inboxd.operate.target import target_of
from inboxd.store.tables import LOADED, dead_letters, etl_runs, lineage_records


def refuse_replayed(connection: sa.Connection, run_id: int) -> None:
    """Refuse where a replay of the run's dead letters stands: loading the file again would make their rows twice."""
    refused, replays = dead_letters.c, etl_runs.alias("replays")
    standing = (
        sa.select(sa.func.min(refused.resolved_by))
        .select_from(dead_letters.join(replays, replays.c.id == refused.resolved_by))
        .where(
            refused.run_id == run_id,
            replays.c.superseded_by.is_(None),
            replays.c.undo_of.is_(None),
            replays.c.content_sha256.is_(None),  # else it is the run that took this one's place
        )
    )
    replay = connection.execute(standing).scalar()
    if replay is not None:
        message = f"dead letters of run {run_id} were replayed by run {replay}, whose rows stand beside its own"
        raise OperatorFault(
            "not_undoable", message, f"undo the replay first: inboxd undo {replay}", exit_code=EXIT_FAILED
        )


def count_rows(connection: sa.Connection, feed: Feed, run_id: int) -> int:
    """Count the rows that a run has made."""
    target = target_of(feed)
    query = sa.select(sa.func.count()).select_from(target).where(target.c[feed.own_columns.run_id] == run_id)
    return int(connection.execute(query).scalar_one())


def take_away(connection: sa.Connection, feed: Feed, run_id: int, own_id: int) -> None:
    """Remove the rows that a run has made, and write the undo's lineage."""
    records = lineage_records.c
    rows = sa.select(sa.literal(own_id, sa.BigInteger), records.record_key, records.record_no, records.outcome)
    of_run = rows.where(records.run_id == run_id, records.outcome == LOADED)
    names = ["run_id", "record_key", "record_no", "outcome"]
    connection.execute(sa.insert(lineage_records).from_select(names, of_run))
    target = target_of(feed)
    connection.execute(sa.delete(target).where(target.c[feed.own_columns.run_id] == run_id))
    if count_rows(connection, feed, run_id):
        raise kept_by_a_rule(feed, run_id)


def kept_by_a_rule(feed: Feed, run_id: int) -> OperatorFault:
    """Return the fault of an undo of which the table's own trigger or rule left a change out without an error."""
    message = f"a trigger or rule of table {feed.table!r} keeps rows as run {run_id} made them: nothing is undone"
    hint = "`inboxd doctor` names it: take it away, undo the run, then put it back"
    return OperatorFault("not_undoable", message, hint, exit_code=EXIT_FAILED)
