"""``doctor`` compares the database's tables with what they should be, and leaves alone what somebody added."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inboxd.errors import OperatorFault
from inboxd.model import Field, FieldType
from inboxd.operate.doctor_schema import compared
from inboxd.operate.findings import Finding, Health
from inboxd.store.database import Store
from stores import OpenEmpty, batches, load, make_feed, query, row

FEED = make_feed()
WRONG = {
    "DROP TABLE notices": "table notices is gone",
    "ALTER TABLE dead_letters DROP COLUMN detail": "table dead_letters has lost detail",
    "DROP INDEX dead_letters_key": "index dead_letters_key of dead_letters is gone",
    "DROP INDEX etl_runs_loaded_once; CREATE INDEX etl_runs_loaded_once ON etl_runs (job_name)": (
        "index etl_runs_loaded_once of etl_runs is not as inboxd made it"
    ),
    "DROP VIEW run_log": "view run_log is gone",
    "DROP VIEW run_log; CREATE VIEW run_log AS SELECT id FROM etl_runs": "view run_log is not as inboxd made it",
    "DROP TABLE events": "not there: table events",
    "ALTER TABLE events DROP COLUMN value": 'not there: "events" ADD COLUMN "value"',
}


def change(store: Store, statements: str) -> None:
    """Do what somebody does by hand."""
    with store.writing() as connection:
        for statement in statements.split("; "):
            connection.exec_driver_sql(statement)


def wrong(store: Store) -> list[Finding]:
    """Return what is wrong."""
    return [one for one in compared(store, [FEED]) if one.status is Health.WRONG]


def test_a_database_as_inboxd_made_it_is_as_it_should_be(open_empty: OpenEmpty) -> None:
    """Nothing is wrong, and nothing is anybody's own."""
    store = open_empty(FEED)
    assert [one.message for one in compared(store, [FEED])] == ["the tables are of this version of inboxd"]


@pytest.mark.parametrize("statements", WRONG)
def test_what_was_changed_by_hand_is_named_with_what_mends_it(open_empty: OpenEmpty, statements: str) -> None:
    """Each table, column, index and view counts; what is said to mend an index or view does."""
    store = open_empty(FEED)
    change(store, statements)
    [finding] = wrong(store)
    assert finding.message.startswith(WRONG[statements])
    assert finding.remedy
    if "INDEX" in statements or "VIEW" in statements:
        change(store, finding.remedy)
    elif "events" in statements:
        store.prepare([FEED])
    else:
        return
    assert wrong(store) == []


def test_what_somebody_added_is_tolerated_at_start_and_named(open_empty: OpenEmpty) -> None:
    """Own columns that take NULL, indexes and triggers: files load, and doctor says that they are there."""
    store = open_empty(FEED)
    change(store, "ALTER TABLE events ADD COLUMN note TEXT; CREATE INDEX mine ON events (value)")
    with store.reading() as connection:
        postgres = connection.dialect.name == "postgresql"
    trigger = "CREATE TRIGGER seen AFTER INSERT ON events BEGIN SELECT 1; END"
    if postgres:
        trigger = "CREATE TRIGGER seen BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION "
        trigger += "suppress_redundant_updates_trigger()"
    with store.writing() as connection:
        connection.exec_driver_sql(trigger)
    store.prepare([FEED])
    load(store, FEED, batches([row(FEED, 1, ("a",), (1,), "2026-01-01T00:00:00.000000Z")]))
    assert query(store, "SELECT k0, note FROM events") == [("a", None)]
    named = "your own, left as they are: column note of events, index mine of events, trigger seen of events"
    if postgres:
        change(store, "CREATE RULE quiet AS ON DELETE TO events DO ALSO NOTHING")
        named += ", rule quiet of events"
    assert [one.message for one in compared(store, [FEED])][1:] == [named]


def test_a_column_of_a_former_field_is_none_of_your_own(open_empty: OpenEmpty) -> None:
    """A field that left the config is refused at start, as it always was, and doctor says so."""
    more = replace(FEED, fields=(*FEED.fields, Field("extra_one", FieldType.TEXT, ("extra_one",), "extra_one")))
    store = open_empty(more)
    with pytest.raises(OperatorFault, match=r"'extra_one'.* no longer names"):
        store.prepare([FEED])
    assert "no longer names" in wrong(store)[0].message


def test_a_column_of_your_own_that_takes_no_null_is_refused_at_start(open_empty: OpenEmpty) -> None:
    """No file could be loaded: better said at once, by name."""
    store = open_empty(FEED)
    change(store, "ALTER TABLE events ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    with pytest.raises(OperatorFault, match="'note', that does not accept NULL"):
        store.prepare([FEED])
