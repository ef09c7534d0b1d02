"""Dead letters that a later file answers, and those that a person puts aside."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from inboxd.clock import SystemClock
from inboxd.model import Feed, Late, Mode
from inboxd.operate.dead_letters import Filter, dismiss
from inboxd.operate.replay import replay
from inboxd.operate.undo import undo
from inboxd.outcomes import Reject
from inboxd.store.database import Store
from inboxd.store.tables import lineage_records
from stores import OpenEmpty, batches, load, make_feed, query, row, sha256

pytestmark = pytest.mark.on_citus

FEED = make_feed(late=Late.MERGE, undo=True)
OTHER = make_feed("other", late=Late.MERGE)
OTHER_OF_TABLE = replace(FEED, name="beside")


def refuse(store: Store, *keys: str, feed: Feed = FEED) -> int:
    """Load a file all of whose records are refused; return its run."""
    rejects = [Reject(place, "{}", key, None, "invalid_value", "bad") for place, key in enumerate(keys, 1)]
    return load(store, feed, batches([], rejects))[0]


def apply(store: Store, *keys: str, feed: Feed = FEED, day: int = 2) -> int:
    """Load a file with these keys; return its run."""
    moment = f"2026-01-{day:02}T00:00:00.000000Z"
    return load(store, feed, batches([row(feed, place, (key,), (1,), moment) for place, key in enumerate(keys, 1)]))[0]


def resolvers(store: Store) -> list[tuple[object, ...]]:
    """Return each dead letter's key and who has resolved it."""
    return query(store, "SELECT record_key, resolved_by FROM dead_letters ORDER BY id")


@pytest.mark.parametrize("others", [0, 50], ids=["few records", "few dead letters"])
def test_a_later_file_that_applies_a_record_resolves_its_dead_letter(open_empty: OpenEmpty, others: int) -> None:
    """Exported, mended, dropped again: the dead letter is resolved by that run, whichever way it was looked for."""
    store = open_empty(FEED, OTHER)
    refuse(store, "a", "b", "a", "?")
    refuse(store, "a", feed=OTHER)
    run_id = apply(store, "a", "?", *(f"x{number}" for number in range(others)))
    assert resolvers(store) == [("a", run_id), ("b", None), ("a", run_id), ("?", None), ("a", None)]


def test_a_record_that_was_not_applied_resolves_nothing(open_empty: OpenEmpty) -> None:
    """A stale one leaves the dead letter open, and so does one of the same file."""
    store = open_empty(FEED)
    apply(store, "a", day=9)
    rejects = [Reject(2, "{}", "b", None, "invalid_value", "bad")]
    refuse(store, "a")
    load(store, FEED, batches([row(FEED, 1, ("b",), (1,), "2026-01-01T00:00:00.000000Z")], rejects))
    apply(store, "a", day=1)
    assert resolvers(store) == [("a", None), ("b", None)]


def test_an_undo_opens_again_what_the_run_had_resolved(open_empty: OpenEmpty) -> None:
    """The record that had answered the dead letter is gone."""
    store = open_empty(FEED)
    refuse(store, "a")
    run_id = apply(store, "a")
    assert resolvers(store) == [("a", run_id)]
    undo(store, (FEED,), run_id, clock=SystemClock(), host="here")
    assert resolvers(store) == [("a", None)]


def test_an_append_feed_resolves_no_letter(open_empty: OpenEmpty) -> None:
    """Its records are facts of their own: another one with the key mends nothing."""
    feed = replace(make_feed("facts", late=Late.MERGE), mode=Mode.APPEND, cursor=None)
    store = open_empty(feed)
    refuse(store, "a", feed=feed)
    load(store, feed, batches([row(feed, 1, ("a",), (1,), "2026-01-02T00:00:00.000000Z")]))
    assert resolvers(store) == [("a", None)]


@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.APPEND])
def test_the_run_that_takes_another_ones_place_resolves_what_that_had_refused(
    open_empty: OpenEmpty, mode: Mode
) -> None:
    """The same records were judged again: they are not open twice, and what was resolved before stays so."""
    feed = replace(FEED, mode=mode, cursor=FEED.cursor if mode is Mode.UPSERT else None)
    store = open_empty(feed)
    for run_id, force in ((1, False), (2, True), (3, True)):
        assert refused_again(store, feed, force=force) == run_id
        if run_id == 1:
            dismiss(store, Filter(ids=(2,)))
    assert resolvers(store) == [("a", 2), ("b", 0), ("a", 3), ("b", 3), ("a", None), ("b", None)]


@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.APPEND])
def test_an_undo_opens_no_dead_letter_of_a_run_that_does_not_stand(open_empty: OpenEmpty, mode: Mode) -> None:
    """Its record comes again with its file: replayed as well, it would be there twice."""
    feed = replace(FEED, mode=mode, cursor=FEED.cursor if mode is Mode.UPSERT else None)
    store = open_empty(feed)
    refused_again(store, feed, force=False)
    refused_again(store, feed, force=True)
    undone = undo(store, (feed,), 2, clock=SystemClock(), host="here").run_id
    assert resolvers(store) == [("a", undone), ("b", undone), ("a", undone), ("b", undone)]
    again = refused_again(store, feed, force=False)
    assert [by for _, by in resolvers(store)] == [undone] * 4 + [None] * 2
    undo(store, (feed,), 1, clock=SystemClock(), host="here")  # superseded long ago: nothing is changed by that
    assert refused_again(store, feed, force=True) == again + 2
    assert [by for _, by in resolvers(store)] == [undone] * 4 + [again + 2] * 2 + [None] * 2


def test_an_undone_answer_opens_no_dead_letter_of_a_superseded_run(open_empty: OpenEmpty) -> None:
    """It is the run that took the other one's place which has refused the record, and has the open dead letter."""
    store = open_empty(FEED)
    refused_again(store, FEED, force=False)
    answer = apply(store, "a")
    again = refused_again(store, FEED, force=True)
    undo(store, (FEED,), answer, clock=SystemClock(), host="here")
    assert resolvers(store) == [("a", again), ("b", again), ("a", None), ("b", None)]


@pytest.mark.parametrize("undone", [False, True])
def test_a_replay_resolves_what_an_earlier_version_left_open(
    open_empty: OpenEmpty,
    undone: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The dead letters of a run that was superseded are none to be replayed, whoever left them open."""
    feed = replace(FEED, mode=Mode.APPEND, cursor=None)
    store = open_empty(feed)
    refused_again(store, feed, force=False)
    by = refused_again(store, feed, force=True)
    if undone:
        by = undo(store, (feed,), by, clock=SystemClock(), host="here").run_id or 0
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE dead_letters SET resolved_by = NULL WHERE run_id = 1")
    replay(store, feed, Filter(), clock=SystemClock(), host="here", limit=None)
    assert resolvers(store)[:2] == [("a", by), ("b", by)]


def refused_again(store: Store, feed: Feed, *, force: bool) -> int:
    """Load always the same content, all of which is refused; return its run."""
    rejects = [Reject(place, "{}", key, None, "invalid_value", "bad") for place, key in enumerate("ab", 1)]
    return load(store, feed, batches([], rejects), sha256("the same"), force=force)[0]


def test_a_dismissed_letter_is_resolved_by_nobody(open_empty: OpenEmpty) -> None:
    """``dismiss`` puts aside the open ones that are meant, and no later run takes them over."""
    store = open_empty(FEED)
    refuse(store, "a", "b")
    assert dismiss(store, Filter(ids=(1,))) == 1
    assert dismiss(store, Filter(ids=(1,))) == 0
    run_id = apply(store, "a", "b")
    assert resolvers(store) == [("a", 0), ("b", run_id)]


@pytest.mark.parametrize("thinned", [False, True], ids=["lineage", "lineage is gone"])
def test_what_an_undone_run_had_resolved_is_resolved_by_the_next_run_that_applied_its_key(
    open_empty: OpenEmpty,
    thinned: bool,  # noqa: FBT001 - a parameter
) -> None:
    """As if the undone run had never been: its own dead letters apart, and those of no key that can be read."""
    store = open_empty(FEED)
    refuse(store, "a", "b", "c", "?")
    first = apply(store, "a", "b", "c", day=2)
    apply(store, "a", feed=OTHER_OF_TABLE, day=3)  # of the same table, but of another feed
    undone = apply(store, "b", day=4)
    stands = apply(store, "a", "b", "?", day=5)
    apply(store, "a", day=6)
    apply(store, "c", day=1)  # stale
    undo(store, (FEED,), undone, clock=SystemClock(), host="here")
    assert resolvers(store) == [("a", first), ("b", first), ("c", first), ("?", None)]
    if thinned:  # as `[retention] lineage` does, which may be shorter than `images`
        with store.writing() as connection:
            connection.execute(sa.delete(lineage_records))
    undo(store, (FEED,), first, clock=SystemClock(), host="here")
    assert resolvers(store) == [("a", stands), ("b", stands), ("c", None), ("?", None)]
