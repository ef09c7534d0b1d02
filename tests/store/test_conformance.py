"""What both databases do alike, compared with a model that applies the records one by one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.model import Cursor, Feed, FieldType, Late, Row, Scalar
from inboxd.outcomes import UNREADABLE_KEY, Batch, Counts, Reject
from inboxd.store import sqlite_staging
from inboxd.store.base import Classified
from inboxd.store.database import Store
from inboxd.store.ledger import canonical
from inboxd.store.sqlite_staging import SAMPLE_RECORDS
from stores import OpenEmpty, batches, examples, load, make_feed, query, record_key, row

pytestmark = pytest.mark.every_version

NAMES = count(1)
CURSORS: dict[FieldType, list[Cursor]] = {
    FieldType.TIMESTAMP: [f"2026-01-{day:02}T23:59:59.99999{day}Z" for day in range(1, 6)],
    FieldType.DATE: [f"2026-01-{day:02}" for day in range(1, 6)],
    FieldType.INTEGER: [-5, 0, 9, 10, 2**62],
}
KEYS: dict[FieldType, list[Scalar]] = {
    FieldType.TEXT: ["a", "B", "ä", "a b", "\U0001f600", "a"],
    FieldType.INTEGER: [-1, 0, 9, 10],
    FieldType.DATE: ["2026-01-01", "2026-01-02"],
}


@dataclass(frozen=True)
class Record:
    """One record of a made-up file: valid, or rejected with or without a readable cursor."""

    key: tuple[Scalar, ...]
    value: int
    cursor: Cursor | None
    valid: bool


@dataclass
class Model:
    """The contract, record by record: what a table, a watermark and a file's lineage come to."""

    late: Late
    table: dict[tuple[Scalar, ...], tuple[Cursor, int, int]] = field(default_factory=dict)
    watermark: Cursor | None = None

    def load(self, run: int, records: list[Record], *, force: bool) -> tuple[Counts, list[str], Cursor | None]:
        """Apply a file; returns its counts, the last step of each record, and the largest cursor it committed."""
        limit = None if force or self.late is Late.MERGE else self.watermark
        fate: list[str] = []
        holder: dict[tuple[Scalar, ...], int] = {}
        for place, record in enumerate(records):
            fate.append(self._fate(record, limit))
            if fate[place] != "load":
                continue
            met = self.table.get(record.key)
            again = force and record.key not in holder
            if met is None or _above(record.cursor, met[0]) or (again and record.cursor == met[0]):
                if record.key in holder:
                    fate[holder[record.key]] = "stale"
                holder[record.key] = place
                assert record.cursor is not None
                self.table[record.key] = (record.cursor, record.value, run)
            else:
                fate[place] = "stale"
        committed = [self.table[key][0] for key in holder]
        reached = max(committed, key=_order) if committed else None
        if reached is not None and (self.watermark is None or _above(reached, self.watermark)):
            self.watermark = reached
        classified = Counter(fate)
        return (
            Counts(len(records), classified["load"], classified["reject"], classified["skip"], classified["stale"]),
            fate,
            reached,
        )

    @staticmethod
    def _fate(record: Record, limit: Cursor | None) -> str:
        if limit is not None and record.cursor is not None and not _above(record.cursor, limit):
            return "skip"
        return "load" if record.valid else "reject"


def _order(cursor: Cursor) -> tuple[int, str]:
    return (cursor, "") if isinstance(cursor, int) else (0, cursor)


def _above(cursor: Cursor | None, other: Cursor) -> bool:
    assert cursor is not None
    return _order(cursor) > _order(other)


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    """Return a feed of a table of its own."""
    key = draw(st.sampled_from([(FieldType.TEXT,), (FieldType.INTEGER,), (FieldType.TEXT, FieldType.DATE)]))
    return make_feed(
        f"feed_{next(NAMES)}",
        key=key,
        cursor=draw(st.sampled_from(sorted(CURSORS))),
        late=draw(st.sampled_from(Late)),
        undo=draw(st.booleans()),
    )


@st.composite
def files(draw: st.DrawFn, feed: Feed) -> list[Record]:
    """Return a file's records: few keys and few cursors, so that they meet."""
    cursors = CURSORS[feed.cursor_field.type]
    key = st.tuples(*(st.sampled_from(KEYS[feed.field(name).type]) for name in feed.key))
    valid = st.builds(Record, key, st.integers(0, 99), st.sampled_from(cursors), st.just(True))
    refused = st.builds(Record, key, st.integers(0, 99), st.sampled_from([None, *cursors]), st.just(False))
    return draw(st.lists(st.one_of(valid, valid, valid, refused), max_size=12))


def as_batches(feed: Feed, records: list[Record], chunks: int) -> list[Batch]:
    """Return made-up records as the decoder would."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    for number, record in enumerate(records, 1):
        if record.valid:
            assert record.cursor is not None
            rows.append(row(feed, number, record.key, (record.value,), record.cursor))
        else:
            rejects.append(Reject(number, '{"bad": 1}', UNREADABLE_KEY, record.cursor, "missing_k0", "k0 is missing"))
    return batches(rows, rejects, chunks=chunks)


def table_of(store: Store, feed: Feed) -> dict[tuple[Scalar, ...], tuple[Cursor, int, int]]:
    """Return the target as the model holds it."""
    names = ", ".join(feed.key)
    found: dict[tuple[Scalar, ...], tuple[Cursor, int, int]] = {}
    for *key, at, value, run in query(store, f"SELECT {names}, at, value, run_id FROM {feed.table}"):
        found[tuple(map(plain, key))] = (plain(at), int(str(value)), int(str(run)))
    return found


def plain(value: object) -> Cursor:
    """Return a database's value in the form it has everywhere else in inboxd."""
    return value if isinstance(value, int | str) else str(canonical(value))


@pytest.mark.parametrize(("chunks", "sample_records"), [(1, SAMPLE_RECORDS), (3, SAMPLE_RECORDS), (3, 2)])
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_end_as_if_their_records_were_applied_one_by_one(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch, chunks: int, sample_records: int, data: st.DataObject
) -> None:
    """Table, counts, lineage, dead letters and watermark are what applying the records one by one gives."""
    if sample_records != SAMPLE_RECORDS:  # go the way of a file of millions of records
        monkeypatch.setattr(sqlite_staging, "SAMPLE_RECORDS", sample_records)
        monkeypatch.setattr(sqlite_staging, "SAMPLES", 1)
        monkeypatch.setattr(sqlite_staging, "READ_AT_ONCE", 2)
    feed = data.draw(feeds())
    store = open_empty(feed)
    model = Model(feed.late)
    for _ in range(data.draw(st.integers(1, 4))):
        records = data.draw(files(feed))
        force = data.draw(st.sampled_from([False, False, False, True]))
        run, counts = load(store, feed, as_batches(feed, records, chunks), force=force)
        expected, fate, reached = model.load(run, records, force=force)
        assert counts == expected
        assert table_of(store, feed) == model.table
        assert store.run(run).watermark == (None if reached is None else str(reached))  # type: ignore[union-attr]
        assert {mark.name: mark.value for mark in store.watermarks()}.get(feed.name) == (
            None if model.watermark is None else str(model.watermark)
        )
        _assert_lineage(store, feed, run, records, fate)
    store.close()


def _assert_lineage(store: Store, feed: Feed, run: int, records: list[Record], fate: list[str]) -> None:
    first = {"load": ["stage"], "stale": ["stage"], "skip": [], "reject": []}
    expected = [
        (number, record_key(feed, record.key) if record.valid else UNREADABLE_KEY, step)
        for number, (record, last) in enumerate(zip(records, fate, strict=True), 1)
        for step in (*first[last], last)
    ]
    found = query(store, f"SELECT record_no, record_key, step FROM lineage WHERE run_id = {run} ORDER BY id")
    assert found == expected
    dead_letters = query(store, f"SELECT record_no FROM dead_letters WHERE run_id = {run} ORDER BY id")
    assert dead_letters == [(number,) for number, last in enumerate(fate, 1) if last == "reject"]


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_check_says_what_loading_would_then_do(open_empty: OpenEmpty, data: st.DataObject) -> None:
    """``check`` counts what is inserted, changed, stale, skipped and rejected, and leaves no trace."""
    feed = data.draw(feeds())
    store = open_empty(feed)
    load(store, feed, as_batches(feed, data.draw(files(feed)), 1))
    records = data.draw(files(feed))
    force = data.draw(st.booleans())
    chunks = data.draw(st.sampled_from([1, 3]))
    before = table_of(store, feed)
    runs = len(store.runs())
    with store.transaction(0, feed, force=force) as tx:
        for batch in as_batches(feed, records, chunks):
            tx.stage(batch)
        classified = tx.classify(None if force or feed.late is Late.MERGE else tx.watermark())
        faults = tx.first_faults(100)
        assert sum(tx.rejected_counts().values()) == classified.rejected == len(faults)
    assert table_of(store, feed) == before
    assert len(store.runs()) == runs
    run, counts = load(store, feed, as_batches(feed, records, chunks), force=force)
    new = [key for key, (_, _, by) in table_of(store, feed).items() if by == run and key not in before]
    expected = Classified(
        len(new), counts.rows_out - len(new), counts.rows_stale, counts.rows_skipped, counts.rows_rejected
    )
    assert classified == expected
    store.close()


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_before_images_hold_the_table_as_it_was(open_empty: OpenEmpty, data: st.DataObject) -> None:
    """For a feed with ``undo`` a run keeps the row, or the lack of one, that each of its keys had before it."""
    feed = make_feed(f"feed_{next(NAMES)}", late=Late.MERGE, undo=True)
    store = open_empty(feed)
    load(store, feed, as_batches(feed, data.draw(files(feed)), 1))
    before = table_of(store, feed)
    run, counts = load(store, feed, as_batches(feed, data.draw(files(feed)), 3))
    images = query(store, f"SELECT record_key, table_name, image FROM before_images WHERE run_id = {run}")
    assert len(images) == counts.rows_out
    for key, table, image in images:
        assert table == feed.table
        assert table_of(store, feed)[key,][2] == run  # type: ignore[index]
        old = before.get((key,))  # type: ignore[arg-type]
        if old is None:
            assert image is None
        else:
            row_before = json.loads(str(image))
            assert (row_before["at"], row_before["value"], row_before["run_id"]) == old
            assert row_before["k0"] == key
            assert set(row_before) == {"k0", "value", "at", "run_id", "updated_at"}
            assert row_before["updated_at"].endswith("Z")
    store.close()
