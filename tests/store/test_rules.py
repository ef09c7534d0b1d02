"""Rules that somebody added to a feed's table: what they refuse fails its file, by name, alike on both databases."""

from __future__ import annotations

from typing import Final

import pytest

from inboxd.errors import FileFault
from inboxd.model import FieldType
from inboxd.store.database import Store
from stores import OpenEmpty, batches, load, make_feed, query, row

FEED: Final = make_feed(more=(("value", FieldType.INTEGER), ("name", FieldType.TEXT)))
BAD: Final = 13
TRIGGER: Final = """
CREATE FUNCTION no_luck() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.value = 13 THEN RAISE EXCEPTION 'no luck'{how}; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER no_luck BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION no_luck();
"""
RULES: Final = {
    "unique": (
        "CREATE UNIQUE INDEX one_of_each ON events (value)",
        "CREATE UNIQUE INDEX one_of_each ON events (value)",
        "one_of_each",
    ),
    "expression": (
        "CREATE UNIQUE INDEX one_of_each ON events (abs(value))",
        "CREATE UNIQUE INDEX one_of_each ON events (abs(value))",
        "one_of_each",
    ),
    "trigger": (
        "CREATE TRIGGER no_luck BEFORE INSERT ON events WHEN NEW.value = 13 BEGIN SELECT RAISE(ABORT, 'no luck'); END",
        TRIGGER.format(how=""),
        "no luck",
    ),
    "trigger-with-a-code-of-its-own": (
        "CREATE TRIGGER no BEFORE INSERT ON events WHEN NEW.value = 13 BEGIN SELECT RAISE(ROLLBACK, 'no luck'); END",
        TRIGGER.format(how=" USING ERRCODE = 'ZL001'"),
        "no luck",
    ),
}


def make_rule(store: Store, rule: str) -> str:
    """Add a rule to the table; return what an error is to name."""
    on_sqlite, on_postgres, named = RULES[rule]
    with store.writing() as connection:
        connection.exec_driver_sql(on_sqlite if connection.dialect.name == "sqlite" else on_postgres)
    return named


@pytest.mark.parametrize("rule", RULES)
def test_what_a_rule_of_the_users_own_refuses_is_told_as_that(open_empty: OpenEmpty, rule: str) -> None:
    """``refused_by_database`` with the rule's name, nothing loaded, and the next file goes on."""
    store = open_empty(FEED)
    named = make_rule(store, rule)
    load(store, FEED, batches([row(FEED, 1, ("a",), (-BAD, "x"), "2026-01-01T00:00:00.000000Z")]))
    taken = [row(FEED, 1, ("b",), (1, "x"), "2026-01-02T00:00:00.000000Z")]
    value = -BAD if rule == "unique" else BAD
    bad = [*taken, row(FEED, 2, ("c",), (value, "x"), "2026-01-02T00:00:00.000000Z")]
    with pytest.raises(FileFault) as caught:
        load(store, FEED, batches(bad))
    assert caught.value.code == "refused_by_database"
    assert named in caught.value.message
    assert "your table" in caught.value.hint
    assert query(store, "SELECT COUNT(*) FROM events") == [(1,)]
    load(store, FEED, batches(taken))


def test_a_column_that_takes_no_null_is_told_as_that(open_empty: OpenEmpty) -> None:
    """NOT NULL added by hand to a column that records may leave out fails the file on both databases."""
    store = open_empty()
    with store.writing() as connection:
        kinds = (
            "value INTEGER, name TEXT NOT NULL, at TIMESTAMP TEXT NOT NULL, run_id INTEGER, updated_at TIMESTAMP TEXT"
        )
        if connection.dialect.name == "postgresql":
            kinds = kinds.replace("INTEGER", "bigint").replace("TIMESTAMP TEXT", "timestamptz")
        connection.exec_driver_sql(f"CREATE TABLE events (k0 TEXT NOT NULL PRIMARY KEY, {kinds})")
    store.prepare([FEED])
    with pytest.raises(FileFault, match="NOT NULL of column name of table events") as caught:
        load(store, FEED, batches([row(FEED, 1, ("a",), (1, None), "2026-01-01T00:00:00.000000Z")]))
    assert caught.value.code == "refused_by_database"


def test_what_a_table_of_inboxds_own_refuses_is_a_fault_of_inboxd(open_empty: OpenEmpty) -> None:
    """A control table's CHECK is none of the user's rules: ``internal_error``, to be reported."""
    store = open_empty(FEED)
    run_id, _ = load(store, FEED, batches([row(FEED, 1, ("a",), (1, "x"), "2026-01-01T00:00:00.000000Z")]))
    with pytest.raises(FileFault) as caught, store.writing() as connection:
        connection.exec_driver_sql(f"UPDATE etl_runs SET rows_in = 7 WHERE id = {run_id}")
    assert caught.value.code == "internal_error"
