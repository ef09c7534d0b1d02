"""Each mode of a feed, and deletions, on both databases, compared with a model that applies the records one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.model import (
    Extra,
    Feed,
    FieldType,
    Gone,
    Limit,
    Mode,
)
from inboxd.store import sqlite_staging
from inboxd.store.changes import enough_live
from inboxd.store.ledger import canonical
from mode_feeds import (
    Record,
    Value,
    as_batches,
    feed_of,
    opened,
    records_of_feed,
    rows_of,
)
from mode_model import KINDS, Model
from stores import OpenEmpty, batches, examples, load, make_feed, query

pytestmark = pytest.mark.every_version


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mode_ends_as_if_its_records_were_applied_one_by_one(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch, kind: str, chunks: int, data: st.DataObject
) -> None:
    """Table, tombstones, counts and lineage are what the contract gives, record by record, file by file."""
    if chunks > 1:  # go the way of a file of millions of records
        monkeypatch.setattr(sqlite_staging, "SAMPLE_RECORDS", 2)
        monkeypatch.setattr(sqlite_staging, "SAMPLES", 1)
        monkeypatch.setattr(sqlite_staging, "READ_AT_ONCE", 2)
        monkeypatch.setattr(sqlite_staging, "KEYS_AT_ONCE", 1)
    feed = feed_of(**KINDS[kind], undo=data.draw(st.booleans()))  # type: ignore[arg-type]
    with opened(open_empty, feed) as store:
        model = Model(feed)
        one_cursor = bool(KINDS[kind].get("of_file"))
        for _ in range(data.draw(st.integers(1, 3))):
            records = data.draw(records_of_feed(deletions=feed.deletes is not None, one_cursor=one_cursor))
            parts = as_batches(feed, records, chunks)
            with store.transaction(0, feed) as tx:
                for batch in parts:
                    tx.stage(batch)
                foreseen = tx.classify(None)
            run, counts = load(store, feed, parts)
            fate, gone = model.load(run, records)
            found = rows_of(store, feed)
            if feed.cursor is None:  # at is no cursor here: the model's is of the record
                found = {
                    key: replace(row, cursor=model.table[key].cursor)
                    for key, row in found.items()
                    if key in model.table
                }
            assert found == model.table
            dead = query(store, f"SELECT record_key, cursor FROM tombstones WHERE table_name = '{feed.table}'")
            assert {str(key): int(str(cursor)) for key, cursor in dead} == model.tombstones
            assert (counts.rows_in, counts.rows_out, counts.rows_stale) == (
                len(records),
                len(fate),
                len(records) - len(fate),
            )
            assert counts.rows_deleted == gone == foreseen.deleted
            assert foreseen.inserted + foreseen.changed == Counter(fate.values())["load"]
            assert foreseen.deletions == Counter(fate.values())["delete"]
            steps = query(store, f"SELECT record_no, step FROM lineage WHERE run_id = {run} AND step <> 'stage'")
            assert {int(str(number)): str(step) for number, step in steps} == {
                number: fate.get(number - 1, "stale") for number in range(1, len(records) + 1)
            }


@pytest.mark.parametrize("then", Gone)
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_deletions_end_the_same_in_every_order_of_files(open_empty: OpenEmpty, then: Gone, data: st.DataObject) -> None:
    """Any split, order and repetition of the same records gives the table that their order of cursors gives."""
    feed = feed_of(cursor=True, deletes=then)
    records = data.draw(records_of_feed(deletions=True))
    only = {(record.key, record.cursor): record for record in records if not record.deletion}
    records = [*only.values(), *(record for record in records if record.deletion)]
    end: dict[str, tuple[Value, bool]] = {}
    for record in sorted(records, key=lambda record: (record.cursor, record.deletion)):
        if not record.deletion:
            end[record.key] = (record.value, False)
        elif record.key in end:
            end[record.key] = (end[record.key][0], True)
    if then is Gone.REMOVE:
        end = {key: row for key, row in end.items() if not row[1]}
    dealt = data.draw(
        st.permutations([*records, *data.draw(st.lists(st.sampled_from(records), max_size=3))] if records else [])
    )
    with opened(open_empty, feed) as store:
        while dealt:
            size = data.draw(st.integers(1, len(dealt)))
            load(store, feed, as_batches(feed, dealt[:size]))
            dealt = dealt[size:]
        assert {key: (row.value, row.marked) for key, row in rows_of(store, feed).items()} == end


def test_appended_records_are_each_a_row_of_its_own(open_empty: OpenEmpty) -> None:
    """Every record counts as loaded, equal ones too; its row is known by its run and its number."""
    made = make_feed(more=(("value", FieldType.INTEGER),), extra=Extra.KEEP)
    for feed in (replace(made, mode=Mode.APPEND, cursor=None), replace(made, mode=Mode.APPEND, cursor=None, key=())):
        feed = replace(feed, name=f"facts_{len(feed.key)}", table=f"facts_{len(feed.key)}")  # noqa: PLW2901
        store = open_empty(feed)
        key = () if feed.key else ("#1",)
        at = "2026-01-01T00:00:00.000000Z"
        rows = [("a", 1, at, None, *key, 1), ("a", 1, at, None, *(("#7",) if key else ()), 7)]
        run, counts = load(store, feed, batches(rows))
        again, _ = load(store, feed, batches(rows, chunks=2))
        assert (counts.rows_in, counts.rows_out, counts.rows_stale) == (2, 2, 0)
        found = query(store, f"SELECT run_id, record_no, k0 FROM {feed.table} ORDER BY 1, 2")
        assert found == [(run, 1, "a"), (run, 7, "a"), (again, 1, "a"), (again, 7, "a")]
        names = query(store, f"SELECT record_key FROM lineage_records WHERE run_id = {run} ORDER BY record_no")
        assert names == ([("a",), ("a",)] if feed.key else [("#1",), ("#7",)])


def test_a_forced_load_of_facts_takes_the_place_of_the_one_before(open_empty: OpenEmpty) -> None:
    """The rows of the run that had loaded the content go with it, in the same transaction."""
    feed = replace(make_feed("facts"), mode=Mode.APPEND, cursor=None)
    store = open_empty(feed)
    rows = [("a", 1, "2026-01-01T00:00:00.000000Z", 1)]
    content = "0" * 64
    first, _ = load(store, feed, batches(rows), content)
    second, _ = load(store, feed, batches(rows), content, force=True)
    assert query(store, "SELECT run_id FROM facts") == [(second,)]
    superseding = store.run(first)
    assert superseding is not None
    assert superseding.superseded_by == second


def test_equal_json_is_equal_however_it_is_written(open_empty: OpenEmpty) -> None:
    """Members in another order, spaces and 1.0 for 1 change no row of a feed whose last record wins."""
    feed = feed_of(cursor=False)
    store = open_empty(feed)
    first, _ = load(store, feed, as_batches(feed, [Record("a", (1, '{"b": [1.0, 1e2], "a": "é"}'), 1, deletion=False)]))
    _, counts = load(
        store, feed, as_batches(feed, [Record("a", (1, '{"a":"\\u00e9","b":[1, 100]}'), 5, deletion=False)])
    )
    assert counts.rows_stale == 1
    assert query(store, f"SELECT run_id FROM {feed.table}") == [(first,)]
    assert canonical(query(store, f"SELECT updated_at FROM {feed.table}")[0][0]) is not None


def snapshot_of(*, then: Gone, scope: tuple[str, ...] = (), undo: bool = False) -> Feed:
    """Return a snapshot feed of a table of its own; its values are the integer and the JSON of upsert feeds."""
    made = feed_of(cursor=False, undo=undo)
    return replace(made, mode=Mode.SNAPSHOT, absent=then, scope=scope)


def test_the_rows_that_live_are_counted_as_far_as_a_share_of_them_needs() -> None:
    """Exactly: of 101 rows 7 % are 8, rounded up, though seven hundredths times a hundred is seven and a bit."""
    feed = snapshot_of(then=Gone.REMOVE)
    for percent in range(1, 101):
        limited = replace(feed, max_deleted=Limit(share=percent / 100))
        for deleted in range(1, 40):
            enough = enough_live(limited, deleted)
            assert limited.max_deleted.most(enough) >= deleted
            assert enough == deleted or limited.max_deleted.most(enough - 1) < deleted


@pytest.mark.parametrize("then", Gone)
@pytest.mark.parametrize("chunks", [1, 3])
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_snapshot_gives_exactly_its_rows(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch, then: Gone, chunks: int, data: st.DataObject
) -> None:
    """After any history the rows that live are those of the last snapshot, and what did not change kept its run."""
    if chunks > 1:
        monkeypatch.setattr(sqlite_staging, "SAMPLE_RECORDS", 2)
        monkeypatch.setattr(sqlite_staging, "SAMPLES", 1)
        monkeypatch.setattr(sqlite_staging, "KEYS_AT_ONCE", 1)
    feed = snapshot_of(then=then, undo=data.draw(st.booleans()))
    with opened(open_empty, feed) as store:
        live: dict[str, tuple[Value, int]] = {}
        for _ in range(data.draw(st.integers(1, 4))):
            records = data.draw(records_of_feed(deletions=False))
            before = dict(live)
            run, counts = load(store, feed, as_batches(feed, records, chunks))
            last = {record.key: record.value for record in records}
            live = {
                key: (value, before[key][1] if key in before and before[key][0] == value else run)
                for key, value in last.items()
            }
            alive = " WHERE deleted_at IS NULL" if then is Gone.MARK else ""
            found = query(store, f"SELECT k0, value, CAST(doc AS TEXT), run_id FROM {feed.table}{alive}")
            assert {
                str(key): ((value, None if doc is None else str(doc).replace(" ", "")), run_id)
                for key, value, doc, run_id in found
            } == live
            absent = sorted(before.keys() - last.keys())
            assert counts.rows_deleted == len(absent)
            lineage = query(
                store, f"SELECT record_key, record_no FROM lineage WHERE run_id = {run} AND step = 'delete' ORDER BY 2"
            )
            assert lineage == [(key, len(records) + place) for place, key in enumerate(absent, 1)]
