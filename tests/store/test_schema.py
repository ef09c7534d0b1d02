"""The tables: migrated, created and grown, never shrunk, on both databases."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy as sa

from inboxd.config.names import wrong_table
from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.model import Extra, FieldType, Late, Mode
from inboxd.store import open_store
from inboxd.store.base import RunRow
from inboxd.store.database import Store
from inboxd.store.feed_tables import key_index, own_types
from inboxd.store.shapes import indexes
from inboxd.store.tables import etl_runs, lineage, metadata
from stores import OLDER, MakeUrl, OpenEmpty, batches, load, make_feed, query, row

pytestmark = pytest.mark.every_version

FEED = make_feed()


def column_names(store: Store, name: str) -> list[str]:
    """Return a table's or view's columns."""
    with store.reading() as connection:
        return [column["name"] for column in sa.inspect(connection).get_columns(name)]


def test_the_tables_have_the_columns_that_users_scripts_rely_on(open_empty: OpenEmpty) -> None:
    """Names and order of the control tables' columns are the documented ones."""
    store = open_empty(FEED)
    documented = {
        "etl_runs": "id job_name status rows_in rows_out rows_rejected rows_skipped rows_stale duration_ms started_at "
        "finished_at file_name file_size content_sha256 watermark error_code error duplicate_of superseded_by undo_of "
        "claim host rows_filtered rows_deleted commit_no file_mtime variant report file_removed table_name",
        "dead_letters": "id raw error created run_id feed record_no record_key detail resolved_by context",
        "lineage": "id record_key step detail created run_id record_no",
        "watermarks": "name value run_id updated_at",
        "run_log": "id status staged loaded rejected duration_ms created",
        "before_images": "run_id table_name record_key image",
        "tombstones": "table_name record_key cursor run_id deleted_at",
        "notices": "number id target event created run_id feed body delivered_at attempts dropped_at",
        "expectations": "feed setting since late_at",
        "feed_columns": "table_name column_name",
        "events": "k0 value at run_id updated_at",
    }
    assert {name: " ".join(column_names(store, name)) for name in documented} == documented


def test_the_script_makes_what_the_code_asks_for(open_empty: OpenEmpty) -> None:
    """The tables that questions are written against are those of the database: columns, keys, what takes no NULL."""
    store = open_empty()
    with store.reading() as connection:
        there = sa.inspect(connection)
        for table in set(metadata.tables.values()) - {lineage}:
            columns = {column["name"]: column["nullable"] for column in there.get_columns(table.name)}
            assert columns == {column.name: column.nullable for column in table.columns}, table.name
            key = there.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key], table.name
        assert set(there.get_table_names()) >= {*metadata.tables, "alembic_version"} - {"lineage"}
    assert column_names(store, "lineage") == list(lineage.columns.keys())
    assert tuple(RunRow.__slots__) == tuple(etl_runs.columns.keys())


def test_upgrade_says_whether_it_did_anything(make_url: MakeUrl) -> None:
    """``db upgrade`` migrates an empty database once."""
    with open_store(make_url()) as store:
        assert not store.schema_current()
        assert store.upgrade()
        assert store.schema_current()
        assert not store.upgrade()


def test_daemons_that_start_together_migrate_once(make_url: MakeUrl) -> None:
    """Two daemons on one empty database both come up: one migrates, the other finds it done."""
    url = make_url()
    answers: list[bool] = []
    failures: list[BaseException] = []
    gate = threading.Barrier(2)

    def come_up() -> None:
        try:
            with open_store(url) as store:
                gate.wait(10)
                answers.append(store.upgrade())
                store.prepare([FEED])
        except BaseException as failure:  # noqa: BLE001 - told by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=come_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(answers) == [False, True]


def test_a_newer_schema_is_refused(open_empty: OpenEmpty) -> None:
    """A database that a later inboxd made is left alone."""
    store = open_empty(FEED)
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorFault) as caught:
        store.upgrade()
    assert (caught.value.code, caught.value.exit_code) == ("schema_newer", EXIT_CONFIG)


def test_a_new_field_becomes_a_column(open_empty: OpenEmpty) -> None:
    """A config that adds fields adds columns, empty in the rows that are there, and files fill them."""
    store = open_empty(FEED)
    load(store, FEED, batches([row(FEED, 1, ("a",), (1,), "2026-01-01T00:00:00.000000Z")]))
    grown = make_feed(more=(("value", FieldType.INTEGER), ("note", FieldType.TEXT)), extra=Extra.KEEP)
    store.prepare([grown])
    store.prepare([grown])
    record = ("b", 2, "new", "2026-01-02T00:00:00.000000Z", '{"x": 1}', 1)
    load(store, grown, batches([record]))
    assert query(store, "SELECT k0, value, note FROM events ORDER BY k0") == [("a", 1, None), ("b", 2, "new")]
    assert "extra" in column_names(store, "events")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (make_feed(more=()), "value"),
        (make_feed(more=(("value", FieldType.TEXT),)), "value"),
        (make_feed(cursor=FieldType.DATE), "at"),
        (make_feed(key=(FieldType.TEXT, FieldType.TEXT)), "key"),
    ],
    ids=["dropped", "retyped", "cursor", "key"],
)
def test_what_would_drop_or_retype_is_refused_by_name(open_empty: OpenEmpty, changed: object, said: str) -> None:
    """A config that does not fit the table is refused with the difference, and nothing is changed."""
    store = open_empty(FEED)
    before = column_names(store, "events")
    with pytest.raises(OperatorFault) as caught:
        store.prepare([changed, make_feed("innocent")])  # type: ignore[list-item]  # a parameter is an object to mypy
    assert (caught.value.code, caught.value.exit_code) == ("schema_mismatch", EXIT_CONFIG)
    assert said in caught.value.message
    assert column_names(store, "events") == before
    with store.reading() as connection:
        assert not sa.inspect(connection).has_table("innocent")


def test_no_config_gives_a_feed_what_is_ours(open_empty: OpenEmpty) -> None:
    """The config refuses every table and view that inboxd makes of its own accord; its columns step aside."""
    store = open_empty(FEED)
    with store.reading() as connection:
        there = sa.inspect(connection)
        control = {*there.get_table_names(), *there.get_view_names()} - {FEED.table}
    columns = set(column_names(store, FEED.table)) - set(FEED.columns)
    assert control >= {*metadata.tables, "alembic_version"}
    theirs = {name for name in control if name.startswith("citus_")}  # views that Citus keeps there
    assert [name for name in control - theirs if wrong_table(name) is None] == []
    assert columns == set(own_types(FEED))


def test_every_difference_is_told_at_once(open_empty: OpenEmpty) -> None:
    """An operator mends a config in one go."""
    store = open_empty(make_feed(more=(("one", FieldType.TEXT), ("two", FieldType.REAL))))
    with pytest.raises(OperatorFault) as caught:
        store.prepare([make_feed(more=(("one", FieldType.JSON),))])
    assert "'one'" in caught.value.message
    assert "'two'" in caught.value.message


def test_feeds_may_share_a_table_that_suits_both(open_empty: OpenEmpty) -> None:
    """Two feeds fill one table, each with columns of its own; a newer row of one beats an older one of the other."""
    one = make_feed("one", table="shared", more=(("left_side", FieldType.TEXT),), late=Late.MERGE)
    two = make_feed("two", table="shared", more=(("right_side", FieldType.REAL),), late=Late.MERGE)
    store = open_empty(one, two)
    load(store, one, batches([row(one, 1, ("a",), ("x",), "2026-01-01T00:00:00.000000Z")]))
    load(store, two, batches([row(two, 1, ("a",), (0.5,), "2026-01-02T00:00:00.000000Z")]))
    assert query(store, "SELECT left_side, right_side FROM shared") == [("x", 0.5)]
    assert store.table_counts([one, two]).target_rows == 1
    with pytest.raises(OperatorFault):
        store.prepare([one, make_feed("three", table="shared", key=(FieldType.INTEGER,))])
    with pytest.raises(OperatorFault):
        store.prepare([one, make_feed("three", table="shared", more=(("left_side", FieldType.REAL),))])


def test_any_name_will_do_for_tables_and_columns(open_empty: OpenEmpty) -> None:
    """Names with quotes, per cent signs, spaces, keywords and accents are names like others."""
    name = 'select "größe" 100%s; --'
    feed = make_feed("odd", table=name, more=((name, FieldType.TEXT), ("order", FieldType.TEXT)), undo=True)
    store = open_empty(feed)
    for value, cursor in (("x", "2026-01-01T00:00:00.000000Z"), ("y", "2026-01-02T00:00:00.000000Z")):
        rows = [row(feed, 1, ("a",), (value, "z"), cursor), row(feed, 2, ("a",), (value, "z"), cursor)]
        load(store, feed, batches(rows))
    assert store.table_counts([feed]).target_rows == 1
    assert query(store, "SELECT COUNT(*) FROM before_images") == [(2,)]


def test_every_type_of_field_comes_back_as_it_went_in(open_empty: OpenEmpty) -> None:
    """Values of every type are stored exactly, at the ends of their ranges too."""
    kinds = (
        ("flag", FieldType.BOOLEAN),
        ("whole", FieldType.INTEGER),
        ("part", FieldType.REAL),
        ("day", FieldType.DATE),
        ("doc", FieldType.JSON),
        ("text", FieldType.TEXT),
    )
    feed = make_feed("kinds", more=kinds)
    store = open_empty(feed)
    values = (True, -(2**63), 5e-324, "0001-01-01", '{"a": [1, null]}', "tab\tnew\nline \\N \\. ☃ \U0001f600")
    rows = [
        row(feed, 1, ("a",), values, "9999-12-31T23:59:59.999999Z"),
        row(feed, 2, ("b",), (None,) * 6, "0001-01-01T00:00:00.000000Z"),
        row(feed, 3, ("c",), (False, 2**63 - 1, 1.7e308, "9999-12-31", "null", ""), "2026-01-01T00:00:00.000000Z"),
    ]
    load(store, feed, batches(rows))
    names = "flag, whole, part, CAST(day AS TEXT), text"
    found = query(store, f"SELECT {names} FROM kinds ORDER BY k0")
    assert found[0] == (*values[:4], values[5])
    assert found[1] == (None,) * 5
    assert found[2] == (False, 2**63 - 1, 1.7e308, "9999-12-31", "")
    assert [mark.value for mark in store.watermarks()] == ["9999-12-31T23:59:59.999999Z"]


def test_the_versions_are_those_that_are_promised(make_url: MakeUrl, request: pytest.FixtureRequest) -> None:
    """What both stores must pass runs on PostgreSQL 18, 16 and that of the system's packages: 15 or later."""
    url, name = make_url(), request.node.callspec.id
    if name == "sqlite":
        assert url.startswith("sqlite:")
        return
    with psycopg.connect(url) as connection:
        version = connection.info.server_version // 10_000
    wheels = int(os.environ.get("PGSERVER_POSTGRES_VERSION", "18"))
    assert version >= 15
    assert version == {"postgres": wheels, f"postgres-{OLDER}": OLDER}.get(name, version)


@pytest.mark.parametrize("table", ["facts", "f" * 63])
def test_an_append_feeds_key_has_its_index_whenever_it_is_named(open_empty: OpenEmpty, table: str) -> None:
    """Made with the table, made for a table that is there, made anew for another key, and taken away with the key."""
    made = replace(make_feed(table), mode=Mode.APPEND, cursor=None, key=())
    store = open_empty(made)

    def indexed() -> tuple[str, ...] | None:
        with store.reading() as connection:
            found = indexes(connection).get(key_index(table))
        return None if found is None else found.columns

    keys: tuple[tuple[str, ...], ...] = ((), ("k0",), ("value", "k0"), ("value", "k0"), ())
    for key in keys:
        store.prepare([replace(made, key=key)])
        assert indexed() == (key or None)
    other = replace(make_feed(f"{table[:-1]}x"), mode=Mode.APPEND, cursor=None)
    store.prepare([made, other])
    assert key_index(other.table) != key_index(table)
