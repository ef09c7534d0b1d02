"""Runs undone one after another, in any order, with files that come between: what there would be without them."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from inboxd.clock import SystemClock
from inboxd.model import Feed, Field, FieldType, Gone, Origin, Row
from inboxd.operate.undo import plan, undo
from inboxd.operate.undo_plan import Undo
from inboxd.outcomes import Counts
from inboxd.store.database import Store
from mode_feeds import KEYS, VALUES, Record, StoredRow, emptied, feed_of
from mode_model import KINDS, Model
from stores import OpenEmpty, batches, examples, loaded, query, sha256, start

pytestmark = pytest.mark.on_citus

ROUNDS: Final = int(os.environ.get("INBOXD_TEST_CHAINS", "16"))
"""Histories of each kind that are tried; many more are tried by hand."""


@dataclass
class Taken:
    """A file that was loaded: its name, its records, and whether what it said still counts."""

    name: str
    records: list[Record]
    stands: bool = True


@dataclass
class History:
    """What happened to one table, and what a plain model makes of what stands."""

    store: Store
    feed: Feed
    runs: dict[int, Taken] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    """The runs that are to be loaded again."""

    def load(self, records: list[Record], name: str = "", *, force: bool = False) -> int:
        """Load a file."""
        taken = Taken(name or f"f{len(self.runs)}.json", records)
        run_id, _ = load_as(self.store, self.feed, taken, force=force)
        self.runs[run_id] = taken
        self.done.append(f"{run_id} = load {taken.name} {'by force' if force else ''}: {records}")
        return run_id

    def undo(self, run_id: int) -> Undo:
        """Undo a run, and note what is to be loaded again."""
        foreseen = plan(self.store, (self.feed,), run_id)
        found = undo(self.store, (self.feed,), run_id, clock=SystemClock(), host="here")
        assert replace(found, run_id=None) == foreseen
        self.done.append(f"undo {run_id}, told {[one.run_id for one in found.reload]}")
        self.runs[run_id].stands = False
        self.told.discard(run_id)
        named = {one.run_id for one in found.reload}
        assert named <= self.standing().keys()
        self.told |= named
        return found

    def reload(self, run_id: int) -> None:
        """Load a file again, as the undo says."""
        self.told.remove(run_id)
        taken = self.runs[run_id]
        self.load(taken.records, taken.name, force=True)

    def standing(self) -> dict[int, Taken]:
        """Return the runs that stand, in the order of their commits."""
        return {run_id: taken for run_id, taken in self.runs.items() if taken.stands}

    def check(self) -> None:
        """Compare the table with what the files say that stand, once all that was told was loaded again."""
        for run_id in sorted(self.told):
            self.reload(run_id)
        model = Model(self.feed)
        for run_id, taken in self.standing().items():
            model.load(run_id, taken.records)
        rows = rows_with_files(self.store, self.feed)
        assert {key: said(self.feed, row) for key, (row, _) in rows.items()} == {
            key: said(self.feed, row) for key, row in model.table.items()
        }
        for key, (row, by) in rows.items():
            writer = self.runs[row.run]
            assert writer.stands, (key, writer)
            if not row.marked:
                assert writer.name == by, (key, writer)
            if self.feed.cursor is None:
                own = [taken.records[row.cursor - 1] for taken in self.standing().values() if taken.name == by]
                assert (key, row.value, False) in [(one.key, one.value, one.deletion) for one in own], (key, row, by)
        graves = {
            str(key): int(str(cursor)) for key, cursor in query(self.store, "SELECT record_key, cursor FROM tombstones")
        }
        assert self.counting(graves, model) == self.counting(model.tombstones, model)

    @staticmethod
    def counting(graves: dict[str, int], model: Model) -> dict[str, int]:
        """Return the tombstones that hold anything: those below a row that lives hold nothing."""
        rows = model.table
        return {key: cursor for key, cursor in graves.items() if key not in rows or cursor >= rows[key].cursor}


def said(feed: Feed, row: StoredRow) -> tuple[object, ...]:
    """Return what a row says, whichever run says it."""
    return (row.value, row.marked) if feed.cursor is None else (row.value, row.marked, row.cursor)


def load_as(store: Store, feed: Feed, taken: Taken, *, force: bool) -> tuple[int, Counts]:
    """Load a file under its name."""
    content = sha256((taken.name, "content"))
    run_id = store.begin(replace(start(feed), file_name=taken.name))
    with store.transaction(run_id, feed, force=force) as tx:
        for batch in batches(rows_of_file(feed, taken)):
            tx.stage(batch)
        tx.lock()
        counts = tx.upsert(None)
        reached = tx.advance(None)
        tx.record(loaded(run_id, feed, counts, reached, content))
        tx.commit()
    return run_id, counts


def rows_of_file(feed: Feed, taken: Taken) -> list[Row]:
    """Return a file's records as the decoder gives them: with its name, and their numbers."""
    rows: list[Row] = []
    for number, record in enumerate(taken.records, 1):
        value = (None, None) if record.deletion else record.value
        by = None if record.deletion else taken.name
        at = record.cursor if feed.cursor else None if record.deletion else number
        deletion = (record.deletion,) if feed.deletes else ()
        rows.append((record.key, *value, at, by, *deletion, number))
    return rows


def rows_with_files(store: Store, feed: Feed) -> dict[str, tuple[StoredRow, str]]:
    """Return the table: each row, and the file that it says it is from."""
    marked = "deleted_at IS NOT NULL" if feed.deletes and feed.deletes.then is Gone.MARK else "1 = 0"
    found = query(store, f"SELECT k0, value, CAST(doc AS TEXT), at, run_id, {marked}, origin FROM {feed.table}")
    return {
        str(key): (
            StoredRow(
                (None if value is None else int(str(value)), None if doc is None else str(doc).replace(" ", "")),
                int(str(at)),
                int(str(run)),
                bool(gone),
            ),
            str(by),
        )
        for key, value, doc, at, run, gone, by in found
    }


def feed_with_file(kind: str) -> Feed:
    """Return a feed of that kind whose rows also say which file they are from."""
    made = feed_of(**UNDOABLE[kind], undo=True)  # type: ignore[arg-type]
    return replace(
        made, fields=(*made.fields, Field("origin", FieldType.TEXT, (Origin.FILE, "name"), "origin", required=False))
    )


UNDOABLE: Final = {name: kind for name, kind in KINDS.items() if not kind.get("of_file")} | {"newest": {"cursor": True}}


@pytest.mark.parametrize("kind", UNDOABLE)
def test_whatever_is_loaded_and_undone_leaves_what_stands(open_empty: OpenEmpty, kind: str) -> None:
    """Load, undo and load again in any order: the table is what a model makes of the files that stand."""
    feed = feed_with_file(kind)
    store = open_empty(feed)
    for seed in range(examples(ROUNDS)):
        emptied(store, feed)
        live(History(store, feed), random.Random(seed))


def live(history: History, chance: random.Random) -> None:
    """Let things happen by chance, then compare."""
    upserts: dict[tuple[str, int], Record] = {}
    keys = KEYS[: chance.choice([1, 1, 2, 4])]
    for _ in range(chance.randint(2, 12)):
        chosen = [*history.standing()]
        act = chance.choice(["load", "load", "undo", "undo", "reload"])
        if act == "reload" and history.told:
            history.reload(chance.choice(sorted(history.told)))
        elif act == "undo" and chosen:
            history.undo(chance.choice(chosen))
        else:
            history.load(by_chance(history.feed, chance, keys, upserts))
    try:
        history.check()
    except AssertionError as error:
        error.add_note("\n".join(history.done))
        raise


def by_chance(
    feed: Feed, chance: random.Random, keys: Sequence[str], upserts: dict[tuple[str, int], Record]
) -> list[Record]:
    """Return the records of a file. Of two that tie the first applied wins, so there are no two that differ."""
    found = []
    for _ in range(chance.randint(1, 3)):
        deletion = feed.deletes is not None and chance.random() < 0.5
        record = Record(chance.choice(keys), chance.choice(VALUES), chance.choice([1, 2, 9, 10, 11]), deletion)
        if feed.cursor and not deletion:
            record = upserts.setdefault((record.key, record.cursor), record)
        found.append(record)
    return found


@pytest.mark.parametrize("kind", UNDOABLE)
def test_the_order_of_undos_makes_no_difference(open_empty: OpenEmpty, kind: str) -> None:
    """Table, tombstones, watermark and the files to be loaded again are the same, whichever run is undone first."""
    feed = feed_with_file(kind)
    store = open_empty(feed)
    for seed in range(examples(ROUNDS) // 2):
        ends: list[tuple[object, ...]] = []
        done: list[str] = []
        for turned in (False, True):
            emptied(store, feed)
            history, chance = History(store, feed, done=done), random.Random(seed)
            upserts: dict[tuple[str, int], Record] = {}
            for _ in range(chance.randint(3, 8)):
                history.load(by_chance(feed, chance, KEYS[:2], upserts))
            undone = chance.sample([*history.runs], chance.randint(2, 3))
            for run_id in reversed(undone) if turned else undone:
                history.undo(run_id)
            ends.append(end_of(history))
        assert ends[0] == ends[1], done


def end_of(history: History) -> tuple[object, ...]:
    """Return what there is, by the names of files: the runs of two histories have other numbers."""
    names = {run_id: taken.name for run_id, taken in history.runs.items()}
    rows = rows_with_files(history.store, history.feed)
    graves = query(history.store, "SELECT record_key, cursor, run_id FROM tombstones")
    marks = query(history.store, "SELECT value, run_id FROM watermarks")
    return (
        {key: (said(history.feed, row), names[row.run], by) for key, (row, by) in rows.items()},
        sorted((str(key), str(cursor), names[int(str(run))]) for key, cursor, run in graves),
        [(value, names[int(str(run))]) for value, run in marks],
        sorted(names[run_id] for run_id in history.told),
    )


def test_a_file_that_lost_to_a_run_undone_before_is_named_when_it_matters(open_empty: OpenEmpty) -> None:
    """While a later run holds the key the file has lost to that one as well; without both it is to be loaded again."""
    feed = feed_with_file("newest")
    history = History(open_empty(feed), feed)
    bad, lost, later = (history.load([Record("a", (value, None), value, False)]) for value in (20, 15, 30))
    assert history.undo(bad).reload == ()
    [named] = history.undo(later).reload
    assert (named.run_id, named.feed, named.file_name, named.stale) == (lost, feed.name, "f1.json", 1)
    history.check()
    assert {key: row.value for key, (row, _) in rows_with_files(history.store, feed).items()} == {"a": (15, None)}
    assert history.undo(max(history.runs)).reload == (named,)


@pytest.mark.parametrize("before", [True, False])
def test_a_marked_row_has_the_values_of_what_stands(open_empty: OpenEmpty, before: bool) -> None:  # noqa: FBT001
    """What a deletion has marked says what it would say without the undone file; if nothing was there, there is no row.

    So, too, what a later run has replaced, and what a file had said again of which the mark is not.
    """
    feed = feed_with_file("last one wins, mark")
    history = History(open_empty(feed), feed)
    if before:
        history.load([Record("a", (1, None), 0, False)])
    bad = history.load([Record("a", (2, None), 0, False)])
    marking = history.load([Record("a", (None, None), 0, True)])
    later = history.load([Record("a", (3, None), 0, False)])
    history.undo(bad)
    history.undo(later)
    rows = rows_with_files(history.store, feed)
    assert [(row.value, row.run, row.marked, by) for row, by in rows.values()] == (
        [((1, None), marking, True, "f0.json")] if before else []
    )
    history.undo(marking)
    assert {key: row.marked for key, (row, _) in rows_with_files(history.store, feed).items()} == (
        {"a": False} if before else {}
    )
    history.check()


def test_a_marked_row_is_of_the_file_that_had_said_the_same(open_empty: OpenEmpty) -> None:
    """Its name and the record's number are in the row, though a later run has marked it."""
    feed = feed_with_file("last one wins, mark")
    history = History(open_empty(feed), feed)
    bad = history.load([Record("a", (2, None), 0, False)])
    history.load([Record("b", (2, None), 0, False), Record("a", (2, None), 0, False)])
    history.load([Record("a", (None, None), 0, True)])
    history.undo(bad)
    row, by = rows_with_files(history.store, feed)["a"]
    assert (row.value, row.cursor, row.marked, by) == ((2, None), 2, True, "f1.json")


def test_a_replay_loses_to_what_an_undo_has_given_the_row(open_empty: OpenEmpty) -> None:
    """A file that had said the same came later than the dead letter's, so its word counts."""
    feed = feed_with_file("last one wins")
    history = History(open_empty(feed), feed)
    refusing = history.load([Record("b", (1, None), 0, False)])
    bad = history.load([Record("a", (2, None), 0, False)])
    history.load([Record("a", (2, None), 0, False)])
    history.undo(bad)
    run_id = history.store.begin(start(feed))
    with history.store.transaction(run_id, feed) as tx:
        for batch in batches(rows_of_file(feed, Taken("", [Record("a", (1, None), 0, False)]))):
            tx.stage(batch)
        tx.lock()
        tx.outdate([("a", 1, refusing, 2)])
        assert tx.upsert(None).rows_stale == 1
        tx.commit()
