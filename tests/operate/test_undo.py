"""``undo`` on real databases: what a run did is taken back, and nothing else."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import SystemClock
from inboxd.errors import OperatorFault
from inboxd.model import Feed, FieldType, Late, Scalar
from inboxd.operate.undo import plan, undo
from inboxd.operate.undo_plan import Undo
from inboxd.outcomes import Reject
from inboxd.store.database import Store
from stores import OpenEmpty, batches, examples, load, make_feed, query, row, sha256

pytestmark = pytest.mark.on_citus

FIELDS = (
    ("text", FieldType.TEXT),
    ("number", FieldType.INTEGER),
    ("real", FieldType.REAL),
    ("truth", FieldType.BOOLEAN),
    ("day", FieldType.DATE),
    ("moment", FieldType.TIMESTAMP),
    ("tree", FieldType.JSON),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES: tuple[st.SearchStrategy[Scalar], ...] = (
    TEXTS | st.none(),
    st.integers(-(2**63), 2**63 - 1) | st.none(),
    st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    st.booleans() | st.none(),
    st.dates().map(lambda day: day.isoformat()) | st.none(),
    st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z") | st.none(),
    st.sampled_from(['{"a":[1,"ü\\n",null]}', "[]", '"x"', "1.5"]) | st.none(),
)
CURSORS = st.integers(0, 20).map(lambda minute: f"2026-01-15T10:{minute:02}:00.000000Z")
TOUCHED = ("events", "etl_runs", "before_images", "watermarks")
KEYS = st.sampled_from(["a", "b", "ü", "💡", 'q"uo\\te', "line\nbreak", " "])
FILE = st.lists(st.tuples(KEYS, st.tuples(*VALUES), CURSORS), max_size=8)


def undone(store: Store, feed: Feed, run_id: int) -> Undo:
    """Undo a run."""
    return undo(store, (feed,), run_id, clock=SystemClock(), host="here")


def table(store: Store, feed: Feed) -> list[tuple[object, ...]]:
    """Return every byte of a feed's table that a question can see."""
    columns = [*feed.columns, "run_id", "updated_at"]
    names = ", ".join(f'CAST("{name}" AS TEXT)' for name in columns)
    exact = ", ".join(f'"{name}"' for name in columns)
    order = ", ".join(f'"{feed.table}"."{name}"' for name in feed.key)
    return query(store, f'SELECT {names}, {exact} FROM "{feed.table}" ORDER BY {order}')


def bare(content: Sequence[tuple[Scalar, Sequence[Scalar], str]], feed: Feed) -> list[Any]:  # Any: rows of any feed
    """Return a file's records as the decoder lays them out, numbered from 1."""
    return [row(feed, place, (key,), values, cursor) for place, (key, values, cursor) in enumerate(content, start=1)]


@pytest.fixture
def feed(open_empty: OpenEmpty) -> Feed:
    """Return a feed with a field of every type, and undo."""
    return make_feed(undo=True, late=Late.MERGE, more=FIELDS)


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=FILE, second=FILE)
def test_load_a_load_b_undo_b_is_load_a_byte_for_byte(
    open_empty: OpenEmpty,
    first: list[tuple[str, tuple[Scalar, ...], str]],
    second: list[tuple[str, tuple[Scalar, ...], str]],
) -> None:
    """Whatever B held, undoing it leaves the table as A had left it, to the byte, and the watermark where A had it."""
    name = f"t{random.getrandbits(64):x}"
    feed = make_feed(name, undo=True, late=Late.MERGE, more=FIELDS)
    store = open_empty(feed)
    load(store, feed, batches(bare(first, feed)))
    before = table(store, feed)
    marks = query(store, f"SELECT value, run_id FROM watermarks WHERE name = '{name}'")
    run_id, counts = load(store, feed, batches(bare(second, feed)))
    found = undone(store, feed, run_id)
    assert table(store, feed) == before
    assert query(store, f"SELECT value, run_id FROM watermarks WHERE name = '{name}'") == marks
    assert (found.considered, found.restored, found.left) == (counts.rows_out, counts.rows_out, 0)
    assert query(store, f"SELECT COUNT(*) FROM before_images WHERE run_id = {run_id}") == [(0,)]
    store.close()


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(FILE, min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_undoing_every_run_in_any_order_leaves_an_empty_table(
    open_empty: OpenEmpty, files: list[list[tuple[str, tuple[Scalar, ...], str]]], order: random.Random
) -> None:
    """An image handed down to a later run brings nothing back that was undone, in whatever order runs are undone."""
    name = f"t{order.getrandbits(64):x}{os.urandom(4).hex()}"
    feed = make_feed(name, undo=True, late=Late.MERGE, more=FIELDS)
    store = open_empty(feed)
    runs = [load(store, feed, batches(bare(content, feed)))[0] for content in files]
    order.shuffle(runs)
    for run_id in runs:
        undone(store, feed, run_id)
    assert table(store, feed) == []
    assert query(store, f"SELECT * FROM before_images WHERE table_name = '{name}'") == []
    assert query(store, f"SELECT * FROM watermarks WHERE name = '{name}'") == []
    store.close()


def at(minute: int) -> str:
    """Return a cursor."""
    return f"2026-01-15T10:{minute:02}:00.000000Z"


def simple(feed: Feed, *records: tuple[str, int, int], rejects: Sequence[Reject] = ()) -> Any:  # Any: batches
    """Return a file of (key, value, minute)."""
    rows = [row(feed, place, (key,), (value,), at(minute)) for place, (key, value, minute) in enumerate(records, 1)]
    return batches(rows, rejects)


def test_a_key_that_a_later_run_changed_is_left_and_never_gets_the_bad_row_back(open_empty: OpenEmpty) -> None:
    """Undo B, then C, which had changed one of B's rows: A's row is there, and B's never again."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    load(store, feed, simple(feed, ("x", 1, 0), ("y", 1, 0)))
    before = table(store, feed)
    bad, _ = load(store, feed, simple(feed, ("x", 666, 1), ("y", 666, 1), ("z", 666, 1)))
    later, _ = load(store, feed, simple(feed, ("x", 3, 2)))
    found = undone(store, feed, bad)
    assert (found.considered, found.restored, found.left) == (3, 2, 1)
    assert [(key.record_key, key.run_id) for key in found.left_keys] == [("x", later)]
    assert query(store, "SELECT k0, value FROM events ORDER BY k0") == [("x", 3), ("y", 1)]
    undone(store, feed, later)
    assert table(store, feed) == before


def test_an_undo_is_a_run_with_counts_and_lineage(open_empty: OpenEmpty) -> None:
    """The undo's row says what it undid and how many keys it put back or left; the undone run is superseded by it."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    bad, _ = load(store, feed, simple(feed, ("x", 1, 0), ("y", 1, 0)))
    load(store, feed, simple(feed, ("x", 2, 1)))
    own = undone(store, feed, bad).run_id
    columns = "status, rows_in, rows_out, rows_rejected, rows_skipped, rows_stale, file_name, content_sha256, undo_of"
    assert query(store, f"SELECT {columns} FROM etl_runs WHERE id = {own}") == [
        ("success", 2, 1, 0, 0, 1, None, None, bad)
    ]
    assert query(store, f"SELECT superseded_by FROM etl_runs WHERE id = {bad}") == [(own,)]
    lineage = query(store, f"SELECT record_key, step FROM lineage WHERE run_id = {own} ORDER BY id")
    assert lineage == [("x", "stage"), ("x", "stale"), ("y", "stage"), ("y", "load")]


def test_the_content_of_an_undone_run_may_be_loaded_again(open_empty: OpenEmpty) -> None:
    """The same bytes are no duplicate after the undo."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    content = sha256("the file")
    bad, _ = load(store, feed, simple(feed, ("x", 1, 0)), content)
    undone(store, feed, bad)
    again, counts = load(store, feed, simple(feed, ("x", 1, 0)), content)
    assert counts.rows_out == 1
    assert query(store, "SELECT k0, run_id FROM events") == [("x", again)]


def test_the_watermark_is_what_the_remaining_runs_reached(open_empty: OpenEmpty) -> None:
    """After an undo the largest cursor of the runs that still stand is the watermark; one set by hand is kept."""
    feed = make_feed(undo=True)
    store = open_empty(feed)
    first, _ = load(store, feed, simple(feed, ("x", 1, 1)))
    second, _ = load(store, feed, simple(feed, ("y", 1, 5)))
    third, _ = load(store, feed, simple(feed, ("z", 1, 9)))
    assert undone(store, feed, second).watermark_after == at(9)
    assert undone(store, feed, third).watermark_after == at(1)
    assert query(store, "SELECT value, run_id FROM watermarks") == [(at(1), first)]
    store.set_watermark(feed.name, at(30), at(30))
    assert undone(store, feed, first).watermark_after == at(30)


def test_files_whose_records_lost_to_the_undone_run_are_listed(open_empty: OpenEmpty) -> None:
    """A file with records stale or skipped because of the bad run is named; one that lost to another run is not."""
    merge = make_feed("merge", undo=True, late=Late.MERGE)
    skip = make_feed("skip", undo=True)
    store = open_empty(merge, skip)
    bad, _ = load(store, merge, simple(merge, ("x", 666, 30), ("y", 666, 30)))
    lost, _ = load(store, merge, simple(merge, ("x", 2, 10), ("q", 1, 1)))
    load(store, merge, simple(merge, ("y", 3, 40)))
    load(store, merge, simple(merge, ("y", 4, 35)))
    assert [(one.run_id, one.stale, one.skipped) for one in undone(store, merge, bad).reload] == [(lost, 1, 0)]
    load(store, skip, simple(skip, ("a", 1, 1)))
    far, _ = load(store, skip, simple(skip, ("a", 666, 30)))
    passed, _ = load(store, skip, simple(skip, ("b", 1, 10), ("c", 1, 31)))
    found = undone(store, skip, far)
    assert [(one.run_id, one.stale, one.skipped) for one in found.reload] == [(passed, 0, 1)]


def test_a_column_newer_than_the_image_becomes_null(open_empty: OpenEmpty) -> None:
    """A field that was added between A and B is NULL again in the rows that come back."""
    old = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(old)
    load(store, old, simple(old, ("x", 1, 0)))
    new = make_feed(undo=True, late=Late.MERGE, more=(("value", FieldType.INTEGER), ('co"l: é', FieldType.TEXT)))
    store.prepare([new])
    bad, _ = load(store, new, batches([row(new, 1, ("x",), (2, "bad"), at(1))]))
    undone(store, new, bad)
    assert query(store, 'SELECT k0, value, "co""l: é" FROM events') == [("x", 1, None)]


@pytest.mark.parametrize(
    "kinds",
    [
        (FieldType.INTEGER,),
        (FieldType.REAL,),
        (FieldType.TIMESTAMP,),
        (FieldType.DATE,),
        (FieldType.BOOLEAN,),
        (FieldType.TEXT, FieldType.INTEGER, FieldType.DATE),
    ],
)
def test_keys_of_every_type_find_their_rows_again(open_empty: OpenEmpty, kinds: tuple[FieldType, ...]) -> None:
    """A key need not be one text: numbers, moments, days and keys of several columns are undone alike."""
    examples: dict[FieldType, list[Scalar]] = {
        FieldType.INTEGER: [2**63 - 1, -5],
        FieldType.REAL: [0.1, -1e300],
        FieldType.TIMESTAMP: [at(3), "1999-12-31T23:59:59.999999Z"],
        FieldType.DATE: ["2026-01-15", "1999-12-31"],
        FieldType.BOOLEAN: [True, False],
        FieldType.TEXT: ['a"b', "ü,"],
    }
    feed = make_feed(undo=True, late=Late.MERGE, key=kinds)
    store = open_empty(feed)
    keys = [tuple(examples[kind][place] for kind in kinds) for place in (0, 1)]
    texts = [canonical(key) for key in keys]

    def file(value: int, minute: int, chosen: Sequence[int]) -> Any:  # Any: batches
        places = enumerate(chosen, start=1)
        return batches([(*keys[at_], value, at(minute), texts[at_], number) for number, at_ in places])

    load(store, feed, file(1, 0, [0]))
    before = table(store, feed)
    bad, _ = load(store, feed, file(2, 1, [0, 1]))
    assert undone(store, feed, bad).restored == 2
    assert table(store, feed) == before


def canonical(key: Sequence[Scalar]) -> str:
    """Return a key's text as the records room writes it."""
    if len(key) > 1:
        return json.dumps(list(key), ensure_ascii=False, separators=(",", ":"))
    return key[0] if isinstance(key[0], str) else json.dumps(key[0])


def test_a_dry_run_tells_the_same_and_changes_nothing(open_empty: OpenEmpty) -> None:
    """What ``--dry-run`` says is what the undo then does."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    bad, _ = load(store, feed, simple(feed, ("x", 1, 0), ("y", 1, 9)))
    load(store, feed, simple(feed, ("x", 2, 1), ("y", 2, 2)))
    before = [sorted(query(store, f"SELECT * FROM {name}"), key=repr) for name in TOUCHED]
    planned = plan(store, (feed,), bad)
    after = [sorted(query(store, f"SELECT * FROM {name}"), key=repr) for name in TOUCHED]
    assert before == after
    done = undone(store, feed, bad)
    assert (planned.restored, planned.left, planned.left_keys, planned.watermark_after, planned.reload) == (
        done.restored,
        done.left,
        done.left_keys,
        done.watermark_after,
        done.reload,
    )


def test_what_cannot_be_undone_is_refused_with_a_remedy(open_empty: OpenEmpty) -> None:
    """A run without images, one that is unknown, undone, or an undo itself: each is told apart, nothing is changed."""
    plain, undoing = make_feed("plain"), make_feed("undoing", undo=True)
    store = open_empty(plain, undoing)
    imageless, _ = load(store, plain, simple(plain, ("x", 1, 0)))
    fine, _ = load(store, undoing, simple(undoing, ("x", 1, 0)))
    own = undone(store, undoing, fine).run_id
    assert own is not None
    for run_id, words in ((imageless, "no before-images"), (10**6, "no run"), (fine, "was undone"), (own, "an undo")):
        with pytest.raises(OperatorFault, match=words) as refusal:
            undo(store, (plain, undoing), run_id, clock=SystemClock(), host="here")
        assert refusal.value.exit_code == 1
        assert refusal.value.hint


def test_the_dead_letters_of_an_undone_run_are_resolved(open_empty: OpenEmpty) -> None:
    """Its file is to come again, mended or not: its dead letters are no longer open, and none is deleted."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    reject = Reject(2, '{"k0":"y"}', "y", None, "missing_at", "at: missing_at (absent)")
    bad, _ = load(store, feed, simple(feed, ("x", 1, 0), rejects=[reject]))
    own = undone(store, feed, bad).run_id
    assert query(store, "SELECT record_key, resolved_by FROM dead_letters") == [("y", own)]
