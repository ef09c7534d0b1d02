"""Rules that somebody added to a feed's table: what they refuse fails its file, by name, alike on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from inboxd.clock import SystemClock
from inboxd.errors import DatabaseFault, FileFault, OperatorFault
from inboxd.model import Deletes, Feed, FieldType, Gone, Late, Mode, Row
from inboxd.operate.undo import undo
from inboxd.store.database import Store
from mode_feeds import CONDITIONS
from stores import OpenEmpty, batches, load, make_feed, query, row, sha256

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


MERGE: Final = replace(FEED, late=Late.MERGE)
SILENT: Final = {
    "insert": (
        "CREATE TRIGGER no BEFORE INSERT ON events WHEN NEW.value = 13 BEGIN SELECT RAISE(IGNORE); END",
        TRIGGER.format(how="").replace("RAISE EXCEPTION 'no luck'", "RETURN NULL"),
    ),
    "update": (
        "CREATE TRIGGER no BEFORE UPDATE ON events WHEN NEW.value = 13 BEGIN SELECT RAISE(IGNORE); END",
        TRIGGER.format(how="").replace("RAISE EXCEPTION 'no luck'", "RETURN NULL").replace("INSERT OR ", ""),
    ),
    "delete": (
        "CREATE TRIGGER no BEFORE DELETE ON events WHEN OLD.value = 13 BEGIN SELECT RAISE(IGNORE); END",
        TRIGGER.format(how="")
        .replace("RAISE EXCEPTION 'no luck'", "RETURN NULL")
        .replace("INSERT OR UPDATE", "DELETE")
        .replace("NEW.value", "OLD.value")
        .replace("RETURN NEW", "RETURN OLD"),
    ),
}
"""Triggers that leave a row out without an error."""
KINDS: Final = {
    "newest": MERGE,
    "with undo": replace(MERGE, undo=True),
    "the last one wins": replace(MERGE, cursor=None),
    "deletes": replace(MERGE, deletes=Deletes(CONDITIONS, Gone.REMOVE)),
    "snapshot": replace(MERGE, cursor=None, mode=Mode.SNAPSHOT, absent=Gone.MARK),
    "append": replace(MERGE, cursor=None, mode=Mode.APPEND),
}


def add_silent(store: Store, which: str) -> None:
    """Add such a trigger to the table."""
    with store.writing() as connection:
        connection.exec_driver_sql(SILENT[which][connection.dialect.name != "sqlite"])


def one(feed: Feed, number: int, key: str, value: int, day: int, *, gone: bool = False) -> Row:
    """Return a staged record."""
    told = row(feed, number, (key,), (value, "x"), f"2026-01-{day:02}T00:00:00.000000Z")
    return told if feed.deletes is None else (*told[:-1], gone, number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_a_trigger_leaves_out_fails_its_file(open_empty: OpenEmpty, kind: str) -> None:
    """It is not newer than nothing: nothing of the file is loaded, and its key is told. Others go on."""
    feed = KINDS[kind]
    store = open_empty(feed)
    add_silent(store, "insert")
    load(store, feed, batches([one(feed, 1, "a", 1, 1), one(feed, 2, "b", 2, 3)]))
    with pytest.raises(FileFault, match=r"the row with the key c$") as caught:
        load(store, feed, batches([one(feed, 1, "a", 2, 2), one(feed, 2, "b", 3, 2), one(feed, 3, "c", BAD, 2)]))
    assert caught.value.code == "refused_by_database"
    assert query(store, "SELECT SUM(value) FROM events") == [(3,)]
    _, counts = load(store, feed, batches([one(feed, 1, "a", 3, 2), one(feed, 2, "a", 4, 2), one(feed, 3, "b", 2, 3)]))
    assert counts.rows_stale == (0 if kind == "append" else 2)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "append"])
def test_a_change_that_a_trigger_leaves_out_fails_its_file(open_empty: OpenEmpty, kind: str) -> None:
    """The row that is there is older, so the record is not stale; two records of one key in the file hide nothing."""
    feed = KINDS[kind]
    store = open_empty(feed)
    add_silent(store, "update")
    load(store, feed, batches([one(feed, 1, "a", 1, 1)]))
    for changes in ([(2, BAD)], [(2, 2), (3, BAD)]):
        rows = [one(feed, place, "a", value, day) for place, (day, value) in enumerate(changes, 1)]
        with pytest.raises(FileFault, match=r"the row with the key a$"):
            load(store, feed, batches(rows))
    assert query(store, "SELECT value FROM events") == [(1,)]
    load(store, feed, batches([one(feed, 1, "a", 2, 2), one(feed, 2, "a", 3, 4)]))
    if feed.cursor is not None:
        assert load(store, feed, batches([one(feed, 1, "a", BAD, 3)]))[1].rows_stale == 1
        with pytest.raises(FileFault, match=r"the row with the key a$"):
            load(store, feed, batches([one(feed, 1, "a", BAD, 4)]), force=True)


@pytest.mark.parametrize("kind", ["newest", "the last one wins", "append"])
def test_a_record_that_a_rule_leaves_out_fails_its_file(open_empty: OpenEmpty, kind: str) -> None:
    """PostgreSQL's CREATE RULE, and a constraint of SQLite that was made to ignore what it refuses."""
    feed = KINDS[kind]
    store = open_empty(feed)
    with store.writing() as connection:
        if connection.dialect.name == "sqlite":
            made = query(store, "SELECT sql FROM sqlite_schema WHERE name = 'events'")[0][0]
            connection.exec_driver_sql("DROP TABLE events")
            own = ", one_of_each INTEGER AS (value / 13 * 13), UNIQUE (one_of_each) ON CONFLICT IGNORE, PRIMARY KEY"
            connection.exec_driver_sql(str(made).replace(", PRIMARY KEY", own))
        else:
            rule = "CREATE RULE no AS ON INSERT TO events WHERE NEW.value = 26 DO INSTEAD NOTHING"
            connection.exec_driver_sql(rule)
    load(store, feed, batches([one(feed, 1, "a", 2 * BAD + 1, 1)]))
    with pytest.raises(FileFault, match=r"the row with the key c$"):
        load(store, feed, batches([one(feed, 1, "b", 3 * BAD, 2), one(feed, 2, "c", 2 * BAD, 2)]))
    assert query(store, "SELECT COUNT(*) FROM events") == [(1,)]


def test_a_table_that_takes_no_upserts_lets_its_files_wait(open_empty: OpenEmpty) -> None:
    """PostgreSQL refuses upserts of a table with rules that do more, whatever the file holds: what to drop is said."""
    store = open_empty(FEED)
    with store.writing() as connection:
        if connection.dialect.name == "sqlite":  # which has no rules
            return
        connection.exec_driver_sql("CREATE RULE no AS ON INSERT TO events DO ALSO DELETE FROM watermarks")
    with pytest.raises(DatabaseFault) as caught:
        load(store, FEED, batches([one(FEED, 1, "a", 1, 1)]))
    assert caught.value.code == "not_supported"
    assert "drop the table's rules" in caught.value.hint


def test_a_deletion_that_a_trigger_leaves_out_fails_its_file(open_empty: OpenEmpty) -> None:
    """A row that should be gone is not said to be."""
    feed = KINDS["deletes"]
    store = open_empty(feed)
    add_silent(store, "delete")
    load(store, feed, batches([one(feed, 1, "a", BAD, 1), one(feed, 2, "b", 2, 1)]))
    with pytest.raises(FileFault, match=r"the row with the key a$"):
        load(store, feed, batches([one(feed, 1, "a", 0, 2, gone=True), one(feed, 2, "b", 0, 2, gone=True)]))
    assert query(store, "SELECT COUNT(*) FROM events") == [(2,)]
    load(store, feed, batches([one(feed, 1, "b", 0, 2, gone=True)]))
    assert query(store, "SELECT k0 FROM events") == [("a",)]


def test_a_mark_that_a_trigger_leaves_out_fails_its_file(open_empty: OpenEmpty) -> None:
    """It is asked for also where other rows of the file had a mark already."""
    feed = replace(MERGE, deletes=Deletes(CONDITIONS, Gone.MARK))
    store = open_empty(feed)
    load(store, feed, batches([one(feed, 1, "a", BAD, 1), one(feed, 2, "b", 2, 1)]))
    load(store, feed, batches([one(feed, 1, "b", 0, 2, gone=True)]))
    add_silent(store, "update")
    with pytest.raises(FileFault, match=r"the row with the key a$"):
        load(store, feed, batches([one(feed, 1, "a", 0, 3, gone=True), one(feed, 2, "b", 0, 3, gone=True)]))


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


@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.APPEND])
@pytest.mark.parametrize("which", ["delete", "update"])
def test_an_undo_of_which_a_trigger_leaves_a_row_out_undoes_nothing(
    open_empty: OpenEmpty, mode: Mode, which: str
) -> None:
    """No undo is told of that was none."""
    if mode is Mode.APPEND and which == "update":  # its rows are only removed
        return
    feed = replace(KINDS["with undo" if mode is Mode.UPSERT else "append"], undo=True)
    store = open_empty(feed)
    run_id, _ = load(store, feed, batches([one(feed, 1, "a", BAD, 1), one(feed, 2, "b", 2, 1)]))
    if which == "update":
        run_id, _ = load(store, feed, batches([one(feed, 1, "a", 2, 2), one(feed, 2, "c", 2, 2)]))
    add_silent(store, "delete" if which == "delete" else "insert")
    before = query(store, "SELECT k0, value, run_id FROM events ORDER BY 1")
    with pytest.raises(OperatorFault, match="keeps rows as run") as caught:
        undo(store, (feed,), run_id, clock=SystemClock(), host="here")
    assert caught.value.code == "not_undoable"
    assert query(store, "SELECT k0, value, run_id FROM events ORDER BY 1") == before


def test_rows_that_a_trigger_keeps_are_not_superseded(open_empty: OpenEmpty) -> None:
    """Loaded again by force, an append feed's records would be there twice."""
    feed = KINDS["append"]
    store = open_empty(feed)
    add_silent(store, "delete")
    records = batches([one(feed, 1, "a", BAD, 1)])
    load(store, feed, records, sha256("the same"))
    with pytest.raises(FileFault, match="left out the removal of the rows of run 1"):
        load(store, feed, records, sha256("the same"), force=True)
    assert query(store, "SELECT COUNT(*) FROM events") == [(1,)]
