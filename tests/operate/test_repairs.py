"""A ledger that time has disturbed, on both databases: a history out of order, and ``doctor --mend``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from inboxd.clock import stamp
from inboxd.model import Late
from inboxd.operate.doctor import Mended, mend
from inboxd.operate.explain import Look, explain, history_pages
from inboxd.store.tables import etl_runs
from stores import OpenEmpty, batches, load, make_feed, query, row, sha256, start, work

pytestmark = pytest.mark.on_citus

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_a_history_in_parts_tells_every_run_once_though_they_ended_out_of_order(
    open_empty: OpenEmpty, limit: int
) -> None:
    """A run that had to wait, or another host's, ends after runs that began later: the parts lose and double none."""
    feed = make_feed(late=Late.MERGE)
    store = open_empty(feed)
    begun = [store.begin(start(feed, claim=f"claim-{number}")) for number in range(1, 8)]
    for run in (1, 2, 4, 5, 6, 3, 7):
        rows = [row(feed, 1, ("x",), (run,), f"2026-01-15T10:{run:02}:00.000000Z")]
        with store.transaction(begun[run - 1], feed) as tx:
            work(tx, run, feed, batches(rows), sha256(run), watermark=None)
            tx.commit()
    [whole] = explain(store, [feed], "x").feeds
    assert [touch.run_id for touch in whole.touches] == [1, 2, 4, 5, 6, 3, 7]
    met: list[int] = []
    before: tuple[int, int] | None = (2**62, 1)  # typed by hand: past the newest run
    while before is not None:
        [page] = history_pages(store, [feed], "x", look=Look(before, limit, 60.0))
        met += [touch.run_id for touch in page.history.touches]
        before = page.more
    assert sorted(met) == [1, 2, 3, 4, 5, 6, 7]


def test_mend_ends_what_was_killed_and_dates_back_what_is_ahead(open_empty: OpenEmpty) -> None:
    """Only runs that no daemon has at hand, and only those that lie far enough off; what is right stays as it is."""
    feed = make_feed()
    store = open_empty(feed)
    killed, fresh = store.begin(start(feed)), store.begin(start(feed))
    claimed = store.begin(start(feed, claim="a-claim"))
    ahead, right = (
        load(store, feed, batches([row(feed, 1, (key,), (1,), "2026-01-15T10:00:00.000000Z")]))[0] for key in "ab"
    )
    moments = {
        killed: (NOW - timedelta(days=2), None),
        fresh: (NOW, None),
        claimed: (NOW - timedelta(days=2), None),
        ahead: (NOW + timedelta(days=365), NOW + timedelta(days=366)),
        right: (NOW - timedelta(hours=1), NOW + timedelta(seconds=1)),
    }
    with store.writing() as connection:
        for run, (began, ended) in moments.items():
            values = {"started_at": stamp(began), "finished_at": ended and stamp(ended)}
            connection.execute(sa.update(etl_runs).where(etl_runs.c.id == run).values(**values))
    assert mend(store, now=NOW) == Mended(killed=1, ahead=1)
    found = {
        run_id: (status, began, ended)
        for run_id, status, began, ended in query(
            store, "SELECT id, status, started_at, finished_at FROM etl_runs ORDER BY id"
        )
    }
    assert {run: status for run, (status, _, _) in found.items()} == {
        killed: "failure",
        fresh: "running",
        claimed: "running",
        ahead: "success",
        right: "success",
    }
    with store.reading() as connection:
        rows = connection.execute(
            sa.select(etl_runs.c.started_at, etl_runs.c.finished_at).where(etl_runs.c.id == ahead)
        )
        assert [tuple(one) for one in rows] == [(stamp(NOW), stamp(NOW))]
    assert mend(store, now=NOW) == Mended(killed=0, ahead=0)
