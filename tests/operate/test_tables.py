"""What touched a row is asked by table: feeds that share one, were renamed, or have left the config; keys as typed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from inboxd.clock import SystemClock
from inboxd.model import Feed, FieldType, Late
from inboxd.operate.explain import KeyHistory, Look, explain, explain_run, history_pages
from inboxd.operate.undo import undo
from inboxd.outcomes import Reject
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs
from stores import OpenEmpty, batches, load, make_feed, query, row

pytestmark = pytest.mark.on_citus

ONE = make_feed("one", table="shared", late=Late.MERGE)
TWO = make_feed("two", table="shared", late=Late.MERGE)
PAIR = make_feed("pair", key=(FieldType.TEXT, FieldType.TIMESTAMP), late=Late.MERGE)


def put(store: Store, feed: Feed, day: int, *, rejected: bool = False) -> int:
    """Load key x of a day, perhaps with a record that was rejected; return the run."""
    rejects = [Reject(2, "{}", "x", None, "invalid_value", "bad")] if rejected else []
    return load(store, feed, batches([row(feed, 1, ("x",), (day,), f"2026-01-{day:02}T00:00:00.000000Z")], rejects))[0]


def history(store: Store, feeds: list[Feed], key: str = "x", feed: str | None = None) -> KeyHistory:
    """Return the one history that there is of a key."""
    [found] = explain(store, feeds, key, feed=feed).feeds
    return found


def test_feeds_that_share_a_table_have_one_history_of_a_row(open_empty: OpenEmpty) -> None:
    """A record lost to another feed's, by its name, in each way of asking; the row is told once."""
    store = open_empty(ONE, TWO)
    newer, older = put(store, ONE, 2, rejected=True), put(store, TWO, 1)
    found = history(store, [ONE, TWO])
    assert (found.feed, found.table, found.row and found.row["run_id"]) == ("one, two", "shared", newer)
    assert [(one.run_id, one.feed) for one in found.touches if one.detail is None] == [(newer, "one"), (older, "two")]
    assert [dead_letter.run_id for dead_letter in found.dead_letters] == [newer]
    assert [one.lost_to and one.lost_to.run_id for one in found.touches][-1] == newer
    run = explain_run(store, [ONE, TWO], older)
    assert run is not None
    assert [one.lost_to and one.lost_to.run_id for one in run.records] == [newer]
    assert history(store, [ONE, TWO], feed="two") == found


def test_a_renamed_feed_keeps_its_history(open_empty: OpenEmpty) -> None:
    """The run that wrote the row is told, though its feed has another name by now."""
    store = open_empty(ONE)
    first = put(store, ONE, 1)
    renamed = replace(ONE, name="renamed")
    second = put(store, renamed, 2)
    assert [one.run_id for one in history(store, [renamed]).touches] == [first, second]
    pages = history_pages(store, [renamed], "x", look=Look(None, 10, 60.0))
    assert [one.run_id for one in pages[0].history.touches] == [first, second]
    assert history(store, [renamed], feed="one").table == "shared"


def test_a_renamed_feed_of_the_first_version_keeps_the_run_that_wrote_the_row(open_empty: OpenEmpty) -> None:
    """Its runs do not say their table: the row's own run leads to the old name."""
    store = open_empty(ONE)
    first = put(store, ONE, 1)
    with store.writing() as connection:
        connection.execute(sa.update(etl_runs).values(table_name=None))
    found = history(store, [replace(ONE, name="renamed")])
    assert ([one.run_id for one in found.touches], found.feed) == ([first], "renamed, one")


def test_a_feed_that_left_the_config_still_has_its_rows_explained(open_empty: OpenEmpty) -> None:
    """The row is in the database, and so is all that is known of it."""
    store = open_empty(PAIR, ONE)
    run_id, _ = load(
        store, PAIR, batches([row(PAIR, 1, ("a", "2026-01-15T10:30:00.000000Z"), (1,), "2026-01-16T00:00:00.000000Z")])
    )
    found = history(store, [ONE], '["a", "2026-01-15T11:30:00+01:00"]')
    assert found.row is not None
    assert (found.feed, found.row["value"], [one.run_id for one in found.touches]) == ("pair", 1, [run_id])


@pytest.mark.parametrize("typed", ['["a","2026-01-15 10:30"]', '[ "a", "2026-01-15t10:30:00z" ]'])
def test_the_parts_of_a_key_are_read_as_their_types(open_empty: OpenEmpty, typed: str) -> None:
    """A moment may be typed as records write it."""
    store = open_empty(PAIR)
    key = ("a", "2026-01-15T10:30:00.000000Z")
    load(store, PAIR, batches([row(PAIR, 1, key, (1,), "2026-01-16T00:00:00.000000Z")]))
    assert history(store, [PAIR], typed).row is not None


@pytest.mark.parametrize("typed", ["a", '["a"]', '["a", "b", "c"]', '{"a": 1}', "[" * 2_000])
def test_a_wrong_number_of_parts_is_said_with_the_keys_columns(open_empty: OpenEmpty, typed: str) -> None:
    """What is no key of a table is told as that, not as a key of which nothing is known."""
    store = open_empty(PAIR)
    found = explain(store, [PAIR], typed)
    assert found.feeds == []
    assert found.unfit == ["the key of table pair is (k0, k1): write its 2 values as a JSON array"]
    assert explain(store, [PAIR], '["a", "never"]').unfit == [
        "k1 of table pair must be a timestamp, such as 2026-01-15T10:30:00Z"
    ]


def test_an_undo_asks_by_table_what_came_later(open_empty: OpenEmpty) -> None:
    """A record of another feed that lost to the undone run is told; a renamed feed's run can be undone."""
    one = replace(ONE, undo=True)
    store = open_empty(one, TWO)
    first, lost = put(store, one, 2), put(store, TWO, 1)
    renamed = replace(one, name="renamed")
    done = undo(store, (renamed, TWO), first, clock=SystemClock(), host="here")
    assert (done.feed, done.restored, [(one.run_id, one.stale) for one in done.reload]) == ("one", 1, [(lost, 1)])
    assert query(store, "SELECT * FROM shared") == []
    assert query(store, "SELECT name FROM watermarks") == []
