"""A file's way in each mode, from its bytes to the verdict, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inboxd.clock import SystemClock
from inboxd.model import Limit
from inboxd.operate.explain import explain
from inboxd.operate.undo import undo
from inboxd.outcomes import Outcome, Verdict
from inboxd.pipeline import facts_of
from loaders import Files

pytestmark = pytest.mark.on_citus


def test_facts_are_all_kept_and_those_of_others_only_counted(files: Files) -> None:
    """Equal records are two rows, what ``where`` leaves out is no dead letter; our column gives way to a field."""
    verdict = files.load("facts/1.json", [{"a": 1, "run_id": "x"}, {"a": 1, "run_id": "x"}, {"skip": 1}, {"a": "no"}])
    counts = verdict.counts
    assert (counts.rows_in, counts.rows_out, counts.rows_rejected, counts.rows_filtered) == (4, 2, 1, 1)
    assert files.rows("SELECT a, run_id, inboxd_run_id, record_no FROM facts ORDER BY record_no") == [
        (1, "x", verdict.run_id, 1),
        (1, "x", verdict.run_id, 2),
    ]
    assert files.rows("SELECT record_key FROM dead_letters") == [("#4",)]


def test_content_that_comes_back_is_said(files: Files) -> None:
    """A, B, A: the second A stays a duplicate, and says that it would have changed something."""
    first = [{"id": "a", "name": "A"}]
    files.load("ref/1.json", first)
    assert not files.load("ref/2.json", first).content_returned
    files.load("ref/3.json", [{"id": "a", "name": "B"}])
    again = files.load("ref/4.json", first)
    assert (again.outcome, again.content_returned) == (Outcome.DUPLICATE, True)
    assert files.rows("SELECT name FROM ref") == [("B",)]


def test_the_same_bytes_of_another_day_are_another_file(files: Files) -> None:
    """What a feed reads from the path is part of what a file is; of one file's records the last one of a key wins."""
    records = [{"id": "a", "v": 1}, {"id": "a", "v": 2}]
    assert files.load("daily-2026-01-01.json", records).counts.rows_out == 1
    second = files.load("daily-2026-01-02.json", records)
    assert (second.outcome, second.counts.rows_out, second.counts.rows_stale) == (Outcome.LOADED, 1, 1)
    assert files.load("daily-2026-01-02.json", records).outcome is Outcome.DUPLICATE
    assert files.rows("SELECT v FROM daily") == [(2,)]
    assert files.rows("SELECT DISTINCT variant FROM etl_runs ORDER BY 1") == [
        ('{"$path.day":"2026-01-01"}',),
        ('{"$path.day":"2026-01-02"}',),
    ]


def test_a_file_that_deletes_too_much_changes_nothing(files: Files) -> None:
    """It fails with the number and the keys, and passes where that is allowed for once."""
    made = [{"op": "c", "after": {"id": number, "name": "n"}, "ts_ms": 1} for number in (1, 2, 3)]
    files.load("cdc/1.json", made)
    gone = [{"op": "d", "before": {"id": number}, "ts_ms": 2} for number in (1, 2)]
    verdict = files.load("cdc/2.json", gone)
    assert (verdict.outcome, verdict.error_code) == (Outcome.FAILED, "too_many_deleted")
    assert verdict.details is not None
    assert verdict.details["rows_deleted"] == 2
    assert verdict.details["keys"] == ["1", "2"]
    assert files.rows("SELECT COUNT(*) FROM cdc") == [(3,)]
    assert files.rows("SELECT COUNT(*) FROM tombstones") == [(0,)]
    assert files.load("cdc/2.json", gone, max_deleted=Limit(share=1.0)).counts.rows_deleted == 2
    assert files.rows("SELECT id FROM cdc") == [(3,)]


def test_explain_tells_who_deleted_a_key_when_nothing_else_is_left(files: Files) -> None:
    """A tombstone alone is an answer: its run, file, cursor and time, with row and lineage gone."""
    files.load("cdc/1.json", [{"op": "c", "after": {"id": 1, "name": "n"}, "ts_ms": 1}])
    gone = files.load("cdc/2.json", [{"op": "d", "before": {"id": 1}, "ts_ms": 2}])
    files.load("cdc/3.json", [{"op": "d", "before": {"id": 7}, "ts_ms": 3}])
    with files.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM lineage_records")
    (history,) = explain(files.store, files.settings.feeds, "1").feeds
    assert (history.table, history.row, history.touches) == ("cdc", None, [])
    assert history.tombstone is not None
    assert (history.tombstone.run_id, history.tombstone.file_name) == (gone.run_id, "cdc/2.json")
    assert history.tombstone.cursor == "1970-01-01T00:00:00.002000Z"
    assert history.tombstone.deleted_at <= SystemClock().now().isoformat()
    (never_seen,) = explain(files.store, files.settings.feeds, "7", feed="cdc").feeds
    assert never_seen.tombstone is not None
    assert explain(files.store, files.settings.feeds, "8").feeds == []


def test_explain_tells_of_a_marked_row_since_when_it_is_deleted(files: Files) -> None:
    """The row is there, with its ``deleted_at``, and what marked it is named."""
    files.load("marks/1.json", [{"id": "a", "ts": 1}])
    gone = files.load("marks/2.json", [{"op": "d", "id": "a", "ts": 2}])
    (history,) = explain(files.store, files.settings.feeds, "a").feeds
    assert history.row is not None
    assert history.tombstone is not None
    assert history.row["deleted_at"] == history.tombstone.deleted_at
    assert (history.tombstone.run_id, history.tombstone.cursor) == (gone.run_id, "2")


def dump(files: Files, ids: str, *, day: int, region: str = "EU", force: bool = False) -> Verdict:
    """Load a snapshot of these keys."""
    records = [{"id": int(each), "v": f"of day {day}" if each == "1" else "same"} for each in ids]
    return files.load(f"dump/{region}/{day}-{ids}.json", records, day=day, force=force)


def test_a_snapshot_is_everything_there_is_of_its_scope(files: Files) -> None:
    """Rows that it has not go, those of other scopes stay, and what did not change keeps its run."""
    first = dump(files, "123", day=1)
    other = dump(files, "123", day=1, region="US")
    verdict = dump(files, "12", day=2)
    assert (verdict.counts.rows_out, verdict.counts.rows_stale, verdict.counts.rows_deleted) == (1, 1, 1)
    assert files.rows("SELECT region, id, run_id FROM dump ORDER BY 1, 2") == [
        ("EU", 1, verdict.run_id),
        ("EU", 2, first.run_id),
        *(("US", each, other.run_id) for each in (1, 2, 3)),
    ]
    assert files.rows("SELECT name, run_id FROM watermarks ORDER BY 1") == [
        ('dump ["EU"]', verdict.run_id),
        ('dump ["US"]', other.run_id),
    ]


def test_guards_of_a_snapshot(files: Files) -> None:
    """An empty, a truncated, an invalid and an older dump change nothing, and say so."""
    dump(files, "123", day=5)
    before = files.rows("SELECT id, v, run_id FROM dump ORDER BY 1")
    old = dump(files, "1", day=4)
    assert (old.outcome, old.counts.rows_skipped, old.counts.rows_in) == (Outcome.LOADED, 1, 1)
    refused = {
        "snapshot_empty": files.load("dump/EU/empty.json", [], day=6),
        "too_many_deleted": dump(files, "1", day=6),
        "snapshot_incomplete": files.load("dump/EU/bad.json", [{"id": "x", "v": "a"}, {"id": 2, "v": "a"}], day=6),
        "future_as_of": dump(files, "123", day=1_000_000),
    }
    assert {code: verdict.error_code for code, verdict in refused.items()} == {code: code for code in refused}
    assert files.rows("SELECT id, v, run_id FROM dump ORDER BY 1") == before
    assert dump(files, "123", day=5).outcome is Outcome.DUPLICATE
    assert dump(files, "12", day=4, force=True).counts.rows_deleted == 1


def test_check_tells_what_would_be_refused_and_what_would_go(files: Files) -> None:
    """A file that ``load`` would refuse is named with its code and its count; an older snapshot would be skipped."""
    dump(files, "123456", day=5)
    same = [{"id": each, "v": "same"} for each in range(2, 7)]
    found = files.foresee("dump/EU/a.json", same, day=6)
    assert (found.refused, found.found.stale, found.found.deleted) == (None, 5, 1)
    cases = {
        "snapshot_empty": files.foresee("dump/EU/b.json", [], day=6),
        "too_many_deleted": files.foresee("dump/EU/c.json", same[:1], day=6),
        "snapshot_incomplete": files.foresee("dump/EU/d.json", [*same, {"id": "x"}], day=6),
    }
    assert {code: one.refused and one.refused.code for code, one in cases.items()} == {code: code for code in cases}
    assert cases["too_many_deleted"].found.deleted == 5
    old = files.foresee("dump/EU/e.json", [], day=5)
    assert (old.refused, str(old.outdated_by)[:10]) == (None, "1970-01-06")
    assert files.rows("SELECT COUNT(*) FROM dump") == [(6,)]
    assert dump(files, "23456", day=6).counts.rows_deleted == 1


def test_the_same_dump_of_a_later_day_is_an_arrival(files: Files) -> None:
    """It is applied, and takes the place of the run that had loaded the content."""
    records = [{"id": 1, "v": "a"}]
    first = files.load("dump/EU/x.json", records, day=1)
    files.load("dump/EU/y.json", [{"id": 1, "v": "b"}], day=2)
    third = files.load("dump/EU/x.json", records, day=3)
    assert (third.outcome, third.counts.rows_out) == (Outcome.LOADED, 1)
    run = files.store.run(first.run_id)
    assert run is not None
    assert run.superseded_by == third.run_id
    assert files.rows("SELECT v FROM dump") == [("a",)]


def test_the_last_snapshot_can_be_undone(files: Files) -> None:
    """Rows, those that had gone, and the watermark are as before; an earlier one is refused."""
    dump(files, "123", day=1)
    seen = files.rows("SELECT id, v, run_id FROM dump ORDER BY 1")
    marks = files.rows("SELECT name, value, run_id FROM watermarks")
    second = dump(files, "124", day=2)
    undo(files.store, files.settings.feeds, second.run_id, clock=SystemClock(), host="here")
    assert files.rows("SELECT id, v, run_id FROM dump ORDER BY 1") == seen
    assert files.rows("SELECT name, value, run_id FROM watermarks") == marks


def test_both_zeros_of_a_number_are_one_key(files: Files) -> None:
    """As they are in a table: a deletion of the one holds the other down, and both have one name."""
    files.load("points/1.json", [{"x": 0, "y": 1.5, "n": 1}])
    assert files.load("points/2.json", [{"x": -0.0, "y": 1.5, "n": 5, "op": "d"}]).counts.rows_deleted == 1
    assert (
        files.load("points/3.json", [{"x": -0.0, "y": 1.5, "n": 4}, {"x": 0, "y": 1.5, "n": 3}]).counts.rows_stale == 2
    )
    assert files.rows("SELECT DISTINCT record_key FROM lineage") == [("[0.0,1.5]",)]
    assert files.rows("SELECT record_key FROM tombstones") == [("[0.0,1.5]",)]
    for key in ("[0, 1.5]", "[-0.0, 1.5]"):
        (history,) = explain(files.store, files.settings.feeds, key).feeds
        assert len(history.touches) == 4


def test_both_zeros_of_a_number_are_one_scope(files: Files) -> None:
    """An older snapshot of it is skipped, whichever zero it has."""
    files.load("levels/1.json", [{"level": 0, "id": 1}], day=2)
    assert files.load("levels/2.json", [{"level": -0.0, "id": 2}], day=1).counts.rows_skipped == 1
    assert files.rows("SELECT name FROM watermarks") == [("levels [0.0]",)]


@pytest.mark.parametrize("seconds", [10**15, -(10**15), 253_402_300_800, -62_135_596_801])
def test_an_mtime_that_is_no_moment_is_not_known(files: Files, seconds: int) -> None:
    """A sender may set any: a feed that reads it refuses the file, or the record, and all others load it."""
    for name, records, outcome, code in (
        ("facts/1.json", [{"a": 1}], Outcome.LOADED, None),
        ("levels/a.json", [{"level": 1.5, "id": 1}], Outcome.FAILED, "invalid_context"),
    ):
        job = files.job(name, records)
        verdict = files.pipeline.process(replace(job, facts=facts_of(job.feed, name, seconds * 10**9)))
        assert (verdict.outcome, verdict.error_code) == (outcome, code)
    assert files.rows("SELECT file_mtime FROM etl_runs") == [(None,), (None,)]
