"""The order of commits is counted, not timed: a clock that is set back, or another host's, changes no answer."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from inboxd.clock import SystemClock
from inboxd.model import Feed, Late
from inboxd.operate.explain import explain
from inboxd.operate.undo import undo
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs
from stores import OpenEmpty, batches, failed, load, make_feed, query, row, start

pytestmark = pytest.mark.on_citus

FEED = make_feed(late=Late.MERGE, undo=True)


def load_day(store: Store, day: int, *, ended: str, feed: Feed = FEED) -> int:
    """Load a record of key x, and let the clock say that the run ended then."""
    run_id, _ = load(store, feed, batches([row(feed, 1, ("x",), (day,), f"2026-01-{day:02}T00:00:00.000000Z")]))
    with store.writing() as connection:
        connection.execute(sa.update(etl_runs).where(etl_runs.c.id == run_id).values(finished_at=ended))
    return run_id


@pytest.fixture
def back(open_empty: OpenEmpty) -> tuple[Store, int, int]:
    """Return a store in which a second run has replaced the first one's row, an hour earlier by the clock."""
    store = open_empty(FEED)
    first = load_day(store, 1, ended="2026-03-01T10:00:00.000000Z")
    return store, first, load_day(store, 2, ended="2026-03-01T09:00:00.000000Z")


def test_runs_are_undone_in_the_order_of_their_commits(back: tuple[Store, int, int]) -> None:
    """The first run's undo hands its image down to the second, whose undo then leaves no row."""
    store, first, second = back
    clock = SystemClock()
    assert undo(store, (FEED,), first, clock=clock, host="here").left == 1
    assert undo(store, (FEED,), second, clock=clock, host="here").restored == 1
    assert query(store, "SELECT * FROM events") == []


def test_a_history_is_in_the_order_of_commits(back: tuple[Store, int, int]) -> None:
    """``explain`` lists the first run first, and what was stale lost to the row that was there."""
    store, first, second = back
    stale = load_day(store, 1, ended="2026-03-01T08:00:00.000000Z")
    [history] = explain(store, [FEED], "x").feeds
    assert [one.run_id for one in history.touches] == [first, second, stale]
    assert [one.lost_to and one.lost_to.run_id for one in history.touches] == [None, None, second]


def test_every_run_that_ends_has_a_number_above_those_before_it(back: tuple[Store, int, int]) -> None:
    """Loads, failures and undos are numbered as they commit; a run that has only begun is not."""
    store, first, second = back
    broken = store.begin(start(FEED))
    store.fail(broken, failed(broken, FEED))
    own = undo(store, (FEED,), second, clock=SystemClock(), host="here").run_id
    running = store.begin(start(FEED))
    numbers = query(store, "SELECT id, commit_no FROM etl_runs ORDER BY id")
    assert numbers == [(first, 1), (second, 2), (broken, 3), (own, 4), (running, None)]


def test_the_clock_is_held_against_the_last_commit(back: tuple[Store, int, int]) -> None:
    """The run that committed last says when the last run ended, whichever began last."""
    store, _, _ = back
    early, late = store.begin(start(FEED, claim="early")), store.begin(start(FEED, claim="late"))
    store.fail(late, failed(late, FEED))
    store.fail(early, failed(early, FEED))
    with store.writing() as connection:
        ended = sa.update(etl_runs).where(etl_runs.c.id == early).values(finished_at="2026-05-01T00:00:00.000000Z")
        connection.execute(ended)
    run_id = store.begin(start(FEED))
    with store.transaction(run_id, FEED) as tx:
        tx.lock()
        assert tx.last_finished_at() == "2026-05-01T00:00:00.000000Z"
