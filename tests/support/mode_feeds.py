"""A feed of each mode and its records by chance, for tests that compare a store with a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from hypothesis import strategies as st

from inboxd.model import Condition, Cursor, Deletes, Feed, FieldType, Gone, Late, Origin, Row
from inboxd.outcomes import Batch
from inboxd.store.database import Store
from stores import OpenEmpty, batches, make_feed, query

NAMES: Final = count(1)
KEYS: Final = ["a", "B", "ä", "\U0001f600"]
CURSORS: Final[list[Cursor]] = [1, 2, 9, 10, 11]
CONDITIONS: Final = (Condition(("op",), any_of=('"d"',)),)
Value = tuple[int | None, str | None]


@dataclass(frozen=True)
class Record:
    """One valid record: its key, an integer and a JSON value, its cursor, and whether it is a deletion."""

    key: str
    value: Value
    cursor: int
    deletion: bool


@dataclass
class StoredRow:
    """A row as the model has it."""

    value: Value
    cursor: int
    run: int
    marked: bool = False


@contextmanager
def opened(open_empty: OpenEmpty, feed: Feed) -> Iterator[Store]:
    """Lend a store for one example: a server has places for a hundred."""
    store = open_empty(feed)
    try:
        yield store
    finally:
        store.close()


def feed_of(*, cursor: bool, deletes: Gone | None = None, of_file: bool = False, undo: bool = False) -> Feed:
    """Return an upsert feed of a table of its own."""
    made = make_feed(
        f"feed_{next(NAMES)}",
        cursor=FieldType.INTEGER,
        late=Late.MERGE,
        undo=undo,
        more=(("value", FieldType.INTEGER), ("doc", FieldType.JSON)),
    )
    fields = tuple(replace(each, required=each.name == "k0") for each in made.fields)
    if of_file:
        path = (Origin.DOCUMENT, "at")
        fields = tuple(replace(each, path=path) if each.name == "at" else each for each in fields)
    elif not cursor:  # what is not compared: the number of a record in its file
        path = (Origin.RECORD, "no")
        fields = tuple(replace(each, path=path) if each.name == "at" else each for each in fields)
    return replace(
        made,
        fields=fields,
        cursor="at" if cursor or of_file else None,
        deletes=Deletes(CONDITIONS, deletes) if deletes else None,
    )


def as_batches(feed: Feed, records: list[Record], chunks: int = 1) -> list[Batch]:
    """Return records as the decoder gives them."""
    rows: list[Row] = []
    for number, record in enumerate(records, 1):
        value = (None, None) if record.deletion else record.value
        deletion = (record.deletion,) if feed.deletes else ()
        rows.append((record.key, *value, record.cursor, *deletion, number))
    return batches(rows, chunks=chunks)


VALUES: Final[list[Value]] = [(1, "[1,2]"), (2, "[1,2]"), (1, None), (None, '{"a":1}')]


def records_of_feed(*, deletions: bool, one_cursor: bool = False) -> st.SearchStrategy[list[Record]]:
    """Return files: few keys, cursors and values, so that they meet."""
    cursors: st.SearchStrategy[int] = st.sampled_from([1, 2, 9, 10, 11])
    kinds = st.booleans() if deletions else st.just(False)
    some = st.builds(Record, st.sampled_from(KEYS), st.sampled_from(VALUES), cursors, kinds)
    if not one_cursor:
        return st.lists(some, max_size=9)
    return st.builds(
        lambda records, cursor: [replace(record, cursor=cursor) for record in records],
        st.lists(some, max_size=9),
        cursors,
    )


def rows_of(store: Store, feed: Feed) -> dict[str, StoredRow]:
    """Return the target as the model has it."""
    marked = "deleted_at IS NOT NULL" if feed.deletes and feed.deletes.then is Gone.MARK else "1 = 0"
    found = query(store, f"SELECT k0, value, CAST(doc AS TEXT), at, run_id, {marked} FROM {feed.table}")
    return {
        str(key): StoredRow(
            (None if value is None else int(str(value)), None if doc is None else str(doc).replace(" ", "")),
            int(str(at)),
            int(str(run)),
            bool(gone),
        )
        for key, value, doc, at, run, gone in found
    }


def emptied(store: Store, *feeds: Feed) -> None:
    """Let nothing be left of the example before: a store of its own for each would take longer."""
    with store.writing() as connection:
        for table in ("etl_runs", "lineage_records", "before_images", "tombstones", "watermarks"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for feed in feeds:
            connection.exec_driver_sql(f"DELETE FROM {feed.table}")
