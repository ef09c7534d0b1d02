"""What a record lost to: a later or an earlier record of its file, the row that it met, or a watermark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from inboxd.operate.history import BLOCK, HistoryEntry, Winner, entries_where, in_order
from inboxd.outcomes import LineageStep
from inboxd.store.cursors import from_run
from inboxd.store.tables import ABSENT, DELETED, LOADED, etl_runs, lineage_records, watermarks

NEARBY: Final = 1_000
"""Runs before one that skipped a record, among which is most likely the one that had raised the watermark."""
FIRST_LOOK: Final = 100
"""Runs looked through first for the rows that a run's records met; each further look is at twice as many."""
KEYS: Final = 500
"""Keys sought in one statement: a page may be as long as a person asks for, a statement takes 32,766 values."""


APPLIED: Final = (LineageStep.LOAD, LineageStep.DELETE)
"""What a record does that others can lose to."""


def why_lost(touches: list[HistoryEntry], marks: Mapping[int, Winner]) -> list[HistoryEntry]:
    """Give each loser of one key its winner. ``touches`` are all of the key's, in order of commit.

    ``marks`` has the run that had raised the watermark furthest, for each run that skipped something.
    """
    explained: list[HistoryEntry] = []
    standing: list[HistoryEntry] = []
    for run_id, group in groupby(touches, key=lambda entry: entry.run_id):
        of_run = list(group)
        loaded = next((entry for entry in reversed(of_run) if entry.outcome in APPLIED), None)
        met = standing[-1] if standing else None
        for entry in of_run:
            if entry.outcome is LineageStep.STALE and entry.kind != "undo":
                explained.append(replace(entry, lost_to=_winner(entry, loaded, met)))
            else:
                explained.append(
                    replace(entry, lost_to=marks.get(run_id) if entry.outcome is LineageStep.SKIP else None)
                )
        if loaded is not None:
            standing = _standing(standing, loaded)
    return explained


def _standing(before: list[HistoryEntry], loaded: HistoryEntry) -> list[HistoryEntry]:
    """Return what a key's row came from: the last of these, or one before it where that is undone one day."""
    if loaded.kind == "undo":
        return [entry for entry in before if entry.run_id != loaded.undo_of]
    before.append(loaded)
    return before


def _winner(loser: HistoryEntry, loaded: HistoryEntry | None, met: HistoryEntry | None) -> Winner | None:
    """Return what left no place for a stale record: a record of its own file, else the row that was there."""
    if loaded is not None:
        later = loaded.record_no > loser.record_no
        why = (
            "a later record of the same file is newer" if later else "not newer than an earlier record of the same file"
        )
        return Winner(loaded.run_id, loaded.file_name, loaded.record_no, why)
    if met is None:
        return None
    why = "not newer than the row it met, which this record wrote"
    if met.outcome is LineageStep.DELETE:
        why = "not newer than the deletion of its key by this record"
    return Winner(met.run_id, met.file_name, met.record_no, why)


def with_winners(
    connection: sa.Connection, of_table: sa.ColumnElement[bool], page: Sequence[HistoryEntry]
) -> list[HistoryEntry]:
    """Give each loser of a page of one run's records its winner, of its table. A page has one record at least."""
    run = page[0]
    skips = any(entry.outcome is LineageStep.SKIP for entry in page)
    marks = watermarks_met(connection, run.feed, {run.run_id}) if skips else {}
    keys = sorted({entry.record_key for entry in page if _is_stale(entry)}) if run.commit_no else []
    loaded: dict[str, list[HistoryEntry]] = {}
    for start in range(0, len(keys), KEYS):
        loaded |= _loaded_until(connection, of_table, run, keys[start : start + KEYS])
    return [
        replace(entry, lost_to=_winner(entry, *_own_and_met(loaded.get(entry.record_key, ()), run.run_id)))
        if _is_stale(entry)
        else replace(entry, lost_to=marks.get(run.run_id) if entry.outcome is LineageStep.SKIP else None)
        for entry in page
    ]


def _is_stale(entry: HistoryEntry) -> bool:
    return entry.outcome is LineageStep.STALE and entry.kind != "undo"


def _loaded_until(
    connection: sa.Connection, of_table: sa.ColumnElement[bool], run: HistoryEntry, keys: Sequence[str]
) -> dict[str, list[HistoryEntry]]:
    """Return what was loaded of each key by a run's end, as far back as it takes to tell which row the run met.

    Runs are walked downwards by number, but what counts is the order of commit: a run that waited, or another host's,
    has a lower id than some that were committed before it. So a key is done with when it has a row that no run
    further down was committed after. All keys are sought in one walk: 100 of them take as long as a few, one by one.
    """
    runs, records = etl_runs.c, lineage_records.c
    of_feed = sa.and_(of_table, runs.rows_in > 0)
    by_then = runs.commit_no <= run.commit_no
    loaded: dict[str, list[HistoryEntry]] = {key: [] for key in keys}
    sought = set(keys)
    first = connection.execute(sa.select(sa.func.min(records.run_id))).scalar_one()
    last, size = run.run_id, FIRST_LOOK
    # Said of both: PostgreSQL does not conclude it from the join, and would read all of the lineage for each block.
    numbered = sa.and_(runs.id > last - size, records.run_id > last - size)
    while sought and last >= first:
        where = (
            of_feed,
            by_then,
            numbered,
            records.record_key.in_(sought),
            records.outcome.in_((LOADED, DELETED, ABSENT)),
        )
        for entry in entries_where(connection, *where, order=()):
            loaded[entry.record_key].append(entry)
        last, size = last - size, min(2 * size, BLOCK)
        if any(loaded[key] for key in sought):
            newest = sa.select(sa.func.max(runs.commit_no)).where(of_feed, by_then, runs.id <= last)
            below = int(connection.execute(newest).scalar() or 0)
            sought = {key for key in sought if not _is_settled(loaded[key], run.run_id, below)}
        numbered = sa.and_(*(number.between(last - size + 1, last) for number in (runs.id, records.run_id)))
    return loaded


def _is_settled(loaded: Iterable[HistoryEntry], run_id: int, below: int) -> bool:
    """Tell whether the row is known that a run met, where those not looked at were committed until ``below``."""
    own, met = _own_and_met(loaded, run_id)
    return own is not None or (met is not None and met.commit_no >= below)


def _own_and_met(loaded: Iterable[HistoryEntry], run_id: int) -> tuple[HistoryEntry | None, HistoryEntry | None]:
    """Return what a run itself has loaded of a key, and what the row came from that it met."""
    own: HistoryEntry | None = None
    standing: list[HistoryEntry] = []
    for entry in in_order(loaded):
        if entry.run_id == run_id:
            own = entry
        else:
            standing = _standing(standing, entry)
    return own, standing[-1] if standing else None


def watermarks_met(connection: sa.Connection, feed: str, run_ids: set[int]) -> dict[int, Winner]:
    """Return, for each run, the run that had raised the watermark furthest before it.

    The database walks the feed's runs, not Python: of 100,000 only the few that are asked for are handed over.
    Snapshots of several scopes have a watermark for each, and the ledger does not say which scope a run was of.
    """
    if _has_scopes(connection, feed):
        return {}
    runs = etl_runs.c
    of_feed = sa.and_(runs.job_name == feed, runs.rows_in > 0, runs.commit_no.is_not(None))
    met = sa.func.max(_comparable(connection, feed)).over(order_by=runs.commit_no, rows=(None, -1)).label("met")
    marked = sa.select(runs.id, met).where(of_feed).subquery()
    asked = sa.select(marked.c.id, marked.c.met).where(marked.c.id.in_(run_ids), marked.c.met.is_not(None))
    reached = {int(row.id): str(row.met) for row in connection.execute(asked)}
    raised = sa.select(runs.watermark, runs.id, runs.file_name).where(of_feed, runs.watermark.in_({*reached.values()}))
    first: dict[str, Winner] = {}
    for row in connection.execute(raised.order_by(runs.commit_no)):
        first.setdefault(row.watermark, _raiser(*row))
    return {run_id: first[watermark] for run_id, watermark in reached.items()}


def watermarks_nearby(connection: sa.Connection, feed: str, skipped: Iterable[HistoryEntry]) -> dict[int, Winner]:
    """Return the same from the runs shortly before each: a watermark only rises, unless somebody set it back."""
    runs = etl_runs.c
    found: dict[int, Winner] = {}
    if _has_scopes(connection, feed):
        return found
    value = _comparable(connection, feed)
    for entry in skipped:
        near = sa.and_(runs.id > entry.run_id - NEARBY, runs.id < entry.run_id, runs.commit_no < entry.commit_no)
        query = (
            sa.select(runs.watermark, runs.id, runs.file_name)
            .where(near, runs.job_name == feed, runs.rows_in > 0, runs.watermark.is_not(None))
            .order_by(value.desc(), runs.commit_no)
            .limit(1)
        )
        highest = connection.execute(query).one_or_none()
        if highest is not None:
            found[entry.run_id] = _raiser(*highest)
    return found


def _has_scopes(connection: sa.Connection, feed: str) -> bool:
    name = watermarks.c.name
    scoped = sa.select(name).where(name.startswith(f"{feed} [", autoescape=True), name != f"{feed} []")
    return connection.execute(scoped.limit(1)).first() is not None


def _comparable(connection: sa.Connection, feed: str) -> sa.ColumnElement[object]:
    """Return a feed's watermarks, kept as text, as what they are compared as. The feed may have left the config."""
    runs = etl_runs.c
    some = sa.select(runs.watermark).where(runs.job_name == feed, runs.watermark.is_not(None)).limit(1)
    whole = isinstance(from_run(connection.execute(some).scalar()), int)
    return sa.cast(runs.watermark, sa.BigInteger) if whole else runs.watermark


def _raiser(watermark: str, run_id: int, file_name: str | None) -> Winner:
    return Winner(run_id, file_name, None, f"at or below the watermark {watermark}")
