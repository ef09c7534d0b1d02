"""``undo`` in the modes of feeds, and of deletions: what there would be without the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import SystemClock
from inboxd.errors import OperatorFault
from inboxd.model import Feed, Gone, Mode
from inboxd.operate.undo import plan, undo
from inboxd.operate.undo_plan import Undo
from inboxd.store.database import Store
from mode_feeds import Record, as_batches, emptied, feed_of, opened, records_of_feed, rows_of
from stores import OpenEmpty, batches, examples, load, make_feed, query

pytestmark = pytest.mark.on_citus

MOMENT = "2026-01-15T10:30:00.000000Z"


def undone(store: Store, feed: Feed, run_id: int) -> Undo:
    """Undo a run."""
    return undo(store, (feed,), run_id, clock=SystemClock(), host="here")


def seen(store: Store, feed: Feed) -> dict[str, object]:
    """Return what the table says, whichever run says it."""
    return {key: (row.value, row.cursor, row.marked) for key, row in rows_of(store, feed).items()}


@pytest.mark.parametrize("then", Gone)
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_undoing_any_run_gives_what_was_there_without_it(
    open_empty: OpenEmpty, then: Gone, data: st.DataObject
) -> None:
    """Rows, marks and tombstones are as if the file had never come, once what had lost to it was loaded again."""
    feed = feed_of(cursor=True, deletes=then, undo=True)
    files = data.draw(st.lists(records_of_feed(deletions=True), min_size=1, max_size=4))
    upserts: dict[tuple[str, int], Record] = {}
    files = [
        [one if one.deletion else upserts.setdefault((one.key, one.cursor), one) for one in content]
        for content in files
    ]
    chosen = data.draw(st.sampled_from(range(len(files))))
    with opened(open_empty, feed) as store, opened(open_empty, other := replace(feed, name="other", table="other")):
        runs = [load(store, feed, as_batches(feed, content))[0] for content in files]
        foreseen = plan(store, (feed,), runs[chosen])
        found = undone(store, feed, runs[chosen])
        assert replace(found, run_id=None) == foreseen
        for passed in found.reload:
            load(store, feed, as_batches(feed, files[runs.index(passed.run_id)]), force=True)
        with store.writing() as connection:
            connection.exec_driver_sql("DELETE FROM other")
            connection.exec_driver_sql("DELETE FROM tombstones WHERE table_name = 'other'")
        for content in (each for place, each in enumerate(files) if place != chosen):
            load(store, other, as_batches(other, content))
        assert seen(store, feed) == seen(store, other)
        with store.writing() as connection:
            connection.exec_driver_sql("DELETE FROM before_images")


def alone(feed: Feed) -> Feed:
    """Return the same feed with a table that is filled by some of the files alone."""
    return replace(feed, name="alone", table="alone")


def live(store: Store, feed: Feed) -> dict[str, object]:
    """Return the rows that are not marked, but for the records' numbers: those are not compared."""
    return {key: row.value for key, row in rows_of(store, feed).items() if not row.marked}


@pytest.mark.parametrize("deletes", [None, *Gone])
def test_undoing_any_runs_leaves_what_the_last_ones_of_the_others_say(
    open_empty: OpenEmpty, deletes: Gone | None
) -> None:
    """Without a cursor, too: the rows that live are as if the files had never come, and nothing has to come again.

    A later file that has said the same as an undone one was stale; now its word counts.
    """
    feed = feed_of(cursor=False, deletes=deletes, undo=True)
    other = alone(feed)
    store = open_empty(feed, other)

    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def undo_some(data: st.DataObject) -> None:
        emptied(store, feed, other)
        files = data.draw(st.lists(records_of_feed(deletions=deletes is not None), min_size=1, max_size=5))
        chosen = data.draw(st.lists(st.sampled_from(range(len(files))), min_size=1, max_size=3, unique=True))
        runs = [load(store, feed, as_batches(feed, content))[0] for content in files]
        for place in chosen:
            foreseen = plan(store, (feed,), runs[place])
            found = undone(store, feed, runs[place])
            assert (replace(found, run_id=None), found.reload) == (foreseen, ())
        kept = [place for place in range(len(files)) if place not in chosen]
        for place in kept:
            load(store, other, as_batches(other, files[place]))
        assert live(store, feed) == live(store, other)

    undo_some()


def test_an_appended_run_is_undone_without_images(open_empty: OpenEmpty) -> None:
    """The run's rows go, those of others stay, and the content may be loaded again."""
    feed = replace(make_feed("facts"), mode=Mode.APPEND, cursor=None)
    store = open_empty(feed)
    rows = [("a", 1, MOMENT, 1), ("a", 1, MOMENT, 2)]
    first, _ = load(store, feed, batches(rows))
    second, _ = load(store, feed, batches(rows))
    found = undone(store, feed, first)
    assert (found.considered, found.restored, found.left, found.reload) == (2, 2, 0, ())
    assert query(store, "SELECT run_id, record_no FROM facts ORDER BY 2") == [(second, 1), (second, 2)]
    run = store.run(first)
    assert run is not None
    assert run.superseded_by == found.run_id
    with pytest.raises(OperatorFault):
        undone(store, feed, first)


def test_an_appended_run_is_not_undone_while_a_replay_of_its_dead_letters_stands(open_empty: OpenEmpty) -> None:
    """Its file would be loaded again, and the replayed records would be there twice."""
    feed = replace(make_feed("facts"), mode=Mode.APPEND, cursor=None)
    store = open_empty(feed)
    first, _ = load(store, feed, batches([("a", 1, MOMENT, 1)]))
    replayed, _ = load(store, feed, batches([("b", 1, MOMENT, 1)]))
    with store.writing() as connection:
        connection.exec_driver_sql(f"UPDATE etl_runs SET content_sha256 = NULL WHERE id = {replayed}")  # as a replay's
        connection.exec_driver_sql(
            "INSERT INTO dead_letters (raw, error, created, run_id, feed, record_no, record_key, resolved_by) "
            f"VALUES ('{{}}', 'x', '{MOMENT}', {first}, 'facts', 2, '?', {replayed})"
        )
    with pytest.raises(OperatorFault) as caught:
        undone(store, feed, first)
    assert (caught.value.code, caught.value.hint) == ("not_undoable", f"undo the replay first: inboxd undo {replayed}")
    undone(store, feed, replayed)
    undone(store, feed, first)
    assert query(store, "SELECT COUNT(*) FROM facts") == [(0,)]


@pytest.mark.parametrize("deletes", [None, *Gone])
def test_the_last_one_that_won_is_undone(open_empty: OpenEmpty, deletes: Gone | None) -> None:
    """Without a cursor, too, a run's changes are taken back from its images, deletions included."""
    feed = feed_of(cursor=False, deletes=deletes, undo=True)
    store = open_empty(feed)
    load(store, feed, as_batches(feed, [Record("a", (1, None), 1, False), Record("b", (1, None), 2, False)]))
    before = seen(store, feed)
    gone = deletes is not None
    run, _ = load(store, feed, as_batches(feed, [Record("a", (2, None), 1, False), Record("b", (1, None), 2, gone)]))
    assert seen(store, feed) != before
    found = undone(store, feed, run)
    assert found.left == 0
    assert seen(store, feed) == before
