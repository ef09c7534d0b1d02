"""``inboxd dead-letters replay``: what was refused, judged again by today's config, and loaded if it passes.

Rows, lineage, watermark, the run and the mark on each dead letter commit in one transaction. The watermark
does not skip replayed records, and a row that is newer stays: then the dead letter is resolved all the same, its record
being stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from inboxd.clock import Clock, stamp
from inboxd.errors import EXIT_FAILED, FileFault, OperatorFault, TransientFault
from inboxd.model import Cursor, Feed, Mode, Row
from inboxd.operate.dead_letters import DeadLetter, Filter, dead_letter_pages, of_feed, settle_ended
from inboxd.outcomes import Batch, Counts, Outcome, Reject, RunStart, Verdict
from inboxd.records.validate import judge
from inboxd.store.base import RunEnd
from inboxd.store.database import Store
from inboxd.store.file import FileTransaction
from inboxd.store.tables import dead_letters

LISTED: Final = 100
"""How many dead letters that failed again are named; the counts are exact."""
DROP_TRIES: Final = 2
"""Each waits as long as a command does for the database. A row that stays all the same is told by ``doctor``."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A dead letter that was refused again, and why."""

    id: int
    record_key: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did for one feed. ``run_id`` is ``None`` when nothing was resolved: then no run was written."""

    feed: str
    run_id: int | None
    considered: int
    loaded: int
    stale: int
    failed: int
    failures: tuple[Failure, ...] = ()


@dataclass(slots=True)
class _Tally:
    """What the judging has found so far. Owned by the one thread that replays."""

    good: list[int] = field(default_factory=list)
    origins: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Of each record that passes: its key and number, and the run and the number that it had."""
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def refuse(self, dead_letter: DeadLetter, reject: Reject) -> None:
        self.failed += 1
        if len(self.failures) < LISTED:
            self.failures.append(Failure(dead_letter.id, dead_letter.record_key, reject.code, reject.detail))


def replay(
    store: Store,
    feed: Feed,
    wanted: Filter,
    *,
    clock: Clock,
    host: str,
    limit: Cursor | None,
    edited: Mapping[int, str] | None = None,
) -> Replay:
    """Replay the open dead letters of one feed, not of snapshots. ``limit`` is how far the watermark may go.

    ``edited`` are mended records by their dead letters; no others are replayed then.

    Raises ``TransientFault`` when the database must be waited for, and ``letters_taken`` when another replay was
    quicker; nothing has been changed then but the codes of dead letters that failed again.
    """
    if feed.mode is Mode.SNAPSHOT:  # whose other rows would count as absent
        message = f"feed {feed.name!r} has snapshots: single records are not replayed into its table"
        raise OperatorFault("not_replayable", message, "the next snapshot says what there is", exit_code=EXIT_FAILED)
    settle_ended(store, feed.name)
    started, began = clock.now(), clock.monotonic()
    tally = _Tally()
    batches = _judged(store, feed, of_feed(wanted, feed.name), started, tally, edited)
    first = next(batches, None)
    if first is None:
        return Replay(feed.name, None, tally.failed, 0, 0, tally.failed, tuple(tally.failures))
    start, run_id = RunStart(feed.name, stamp(started), host), 0
    try:
        run_id = store.begin(start)
        with store.turn(feed), store.transaction(run_id, feed) as tx:
            counts = _load(tx, feed, first, batches, tally)
            watermark = tx.advance(limit) if feed.cursor is not None else None
            verdict = Verdict(
                outcome=Outcome.LOADED,
                run_id=run_id,
                feed=feed.name,
                file_name="",
                counts=counts,
                duration_ms=round((clock.monotonic() - began) * 1000),
                watermark=watermark,
            )
            tx.record(RunEnd(verdict, stamp(clock.now())))
            tx.commit()
    except BaseException as error:
        if run_id or not isinstance(error, Exception):  # a signal may come when there is a row, and no number of it yet
            _drop(store, start)
        raise
    return Replay(
        feed=feed.name,
        run_id=run_id,
        considered=counts.rows_in,
        loaded=counts.rows_out,
        stale=counts.rows_stale,
        failed=tally.failed,
        failures=tuple(tally.failures),
    )


def _drop(store: Store, start: RunStart) -> None:
    """Take the ``running`` row away again, even if it takes some waits for the lock that was in the way."""
    for _ in range(DROP_TRIES):
        with suppress(TransientFault):
            store.drop(start)
            return


def _load(tx: FileTransaction, feed: Feed, first: Batch, rest: Iterator[Batch], tally: _Tally) -> Counts:
    tx.stage(first)
    for batch in rest:
        tx.stage(batch)
    tx.lock()
    if feed.ordered:
        tx.outdate(tally.origins)
    counts = tx.upsert(None)
    if tx.resolve(tally.good) != len(tally.good):
        msg = "another replay has resolved some of these dead letters meanwhile"
        raise TransientFault("letters_taken", msg, "replay again: what is left will be replayed")
    return replace(counts, rows_in=counts.rows_in + tally.failed, rows_rejected=tally.failed)


def _judged(
    store: Store, feed: Feed, wanted: Filter, now: datetime, tally: _Tally, edited: Mapping[int, str] | None
) -> Iterator[Batch]:
    """Yield what passes, numbered from 1 in the dead letters' order; write down why the others fail again."""
    key = feed.row_columns.index(feed.record_key_column)
    for page in dead_letter_pages(store, wanted):
        rows: list[Row] = []
        again: list[tuple[DeadLetter, Reject]] = []
        size = filtered = 0
        for dead_letter in page if edited is None else [one for one in page if one.id in edited]:
            raw = dead_letter.raw if edited is None else edited[dead_letter.id]
            number = len(tally.good) + 1
            found = _judge(raw, dead_letter, number, feed, now)
            if isinstance(found, Reject):
                tally.refuse(dead_letter, found)
                again.append((dead_letter, found))
                continue
            tally.good.append(dead_letter.id)
            size += len(raw)
            if found is None:  # `where` leaves it out now: it is none of the feed's
                filtered += 1
            else:
                rows.append(found)
                tally.origins.append((str(found[key]), number, dead_letter.run_id, dead_letter.record_no))
        if edited is None:  # else it is the edit that failed, and the dead letter is as it was
            _rewrite(store, again)
        if rows or filtered:
            yield Batch(list(zip(*rows, strict=True)), [], size, filtered)


def _judge(raw: str, dead_letter: DeadLetter, record_no: int, feed: Feed, now: datetime) -> Row | Reject | None:
    try:
        return judge(raw.encode(), record_no, feed, now=now, context=dead_letter.context)
    except FileFault as fault:  # the dead letter was edited by hand
        return Reject(record_no, raw, dead_letter.record_key, None, fault.code, fault.message)


def _rewrite(store: Store, again: list[tuple[DeadLetter, Reject]]) -> None:
    """Give dead letters that failed otherwise than before their new code and detail."""
    changed = [
        {"letter": dead_letter.id, "new_code": reject.code, "new_detail": reject.detail}
        for dead_letter, reject in again
        if (dead_letter.code, dead_letter.detail) != (reject.code, reject.detail)
    ]
    if not changed:
        return
    statement = (
        sa.update(dead_letters)
        .where(dead_letters.c.id == sa.bindparam("letter"), dead_letters.c.resolved_by.is_(None))
        .values(error=sa.bindparam("new_code"), detail=sa.bindparam("new_detail"))
    )
    with store.writing() as connection:
        connection.execute(statement, changed)
