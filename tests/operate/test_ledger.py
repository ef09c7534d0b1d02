"""Questions to the ledger, on real databases: health, spans, explain, dead letters and their replay, imports."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import SystemClock, moment, stamp
from inboxd.errors import FileFault
from inboxd.model import Feed, FieldType, Late
from inboxd.operate import explain as explaining
from inboxd.operate import winners
from inboxd.operate.dead_letters import Filter, count_open, export_line, list_dead_letters
from inboxd.operate.explain import HistoryEntry, Look, explain, explain_file, explain_run, history_pages
from inboxd.operate.health import feed as feed_of_health
from inboxd.operate.health import health, no_runs
from inboxd.operate.imports import import_runs
from inboxd.operate.replay import Replay, replay
from inboxd.operate.trend import trend
from inboxd.operate.undo import undo
from inboxd.outcomes import LineageStep, Reject
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs
from stores import ENDED, OpenEmpty, batches, examples, load, make_feed, query, row

pytestmark = pytest.mark.on_citus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Records = list[dict[str, Any]]  # Any: run records as other jobs write them


def taken(store: Store, records: object) -> Any:  # Any: read by the tests below
    """Import run records."""
    return import_runs(store, BytesIO(json.dumps(records).encode()), now=NOW)


def run_record(job: str, status: str, hours_ago: float, duration: int = 0, rows: int = 0) -> dict[str, Any]:
    """Return one run of another job."""
    return {
        "job_name": job,
        "status": status,
        "started_at": stamp(NOW - timedelta(hours=hours_ago)),
        "duration_ms": duration,
        "rows_in": rows,
        "rows_out": rows // 2,
    }


RUNS = st.lists(
    st.builds(
        run_record,
        job=st.sampled_from(["daily", "hourly", "ü"]),
        status=st.sampled_from(["success", "failure", "running"]),
        hours_ago=st.floats(0, 72).map(lambda hours: round(hours, 3)),
        duration=st.integers(0, 10**6),
        rows=st.integers(0, 10**9),
    ),
    max_size=30,
)


def expected(records: Records, hours: float | None) -> dict[str, object]:
    """Return the health object's sums, computed record by record."""
    since = "" if hours is None else stamp(NOW - timedelta(hours=hours))
    chosen = [one for one in records if one["started_at"] >= since]
    ended = [one for one in chosen if one["status"] != "running"]
    well = [one for one in ended if one["status"] == "success"]
    durations = sorted(one["duration_ms"] for one in ended)
    return {
        "total_runs": len(chosen),
        "successes": len(well),
        "failures": len(ended) - len(well),
        "running": len(chosen) - len(ended),
        "success_rate": round(100 * len(well) / len(ended), 1) if ended else 0.0,
        "avg_duration_ms": round(fmean(durations), 1) if ended else 0.0,
        "p95_duration_ms": durations[math.ceil(0.95 * len(durations)) - 1] if ended else 0,
        "total_rows_in": sum(one["rows_in"] for one in ended),
        "total_rows_out": sum(one["rows_out"] for one in ended),
        "window_hours": hours,
    }


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RUNS, hours=st.sampled_from([None, 1, 24.5]))
def test_health_is_what_counting_by_hand_gives(open_empty: OpenEmpty, records: Records, hours: float | None) -> None:
    """Sums, rates, the nearest-rank p95 and the lines per job are exact; a running run enters no average or rate."""
    store = open_empty()
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM etl_runs")
    taken(store, records)
    found = health(store, now=NOW, hours=hours, limit=1000)
    assert {name: found[name] for name in expected(records, hours)} == expected(records, hours)
    lines: Any = found["per_job"]
    assert sum(line["runs"] for line in lines) == found["total_runs"]
    for line in lines:
        of_job = expected([one for one in records if one["job_name"] == line["job"]], hours)
        assert line["success_rate"] == of_job["success_rate"]
        assert line["avg_duration_ms"] == of_job["avg_duration_ms"]
        assert (line["rows_in"], line["rows_out"]) == (of_job["total_rows_in"], of_job["total_rows_out"])
    recent: Any = found["recent_runs"]
    assert [one["id"] for one in recent] == sorted((one["id"] for one in recent), reverse=True)
    store.close()


def test_health_of_an_empty_database_is_zeros(open_empty: OpenEmpty) -> None:
    """Before the first run, and before there is a database, every number is zero and every list empty."""
    found = health(open_empty(), now=NOW, hours=24)
    assert found == no_runs(24)
    assert next(iter(feed_of_health(found))) == "runs_recorded"


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RUNS, buckets=st.integers(1, 50))
def test_the_spans_lose_no_run(open_empty: OpenEmpty, records: Records, buckets: int) -> None:
    """The spans of a chart touch, and together they count every ended run of their time once."""
    store = open_empty()
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM etl_runs")
    taken(store, records)
    for hours in (None, 100):
        found = trend(store, now=NOW, hours=hours, buckets=buckets).buckets
        assert all(one.end == other.start for one, other in pairwise(found))
        of_all = expected(records, None)
        assert sum(one.files for one in found) == int(str(of_all["successes"])) + int(str(of_all["failures"]))
        assert sum(one.failures for one in found) == of_all["failures"]
        assert sum(one.rows_out for one in found) == of_all["total_rows_out"]
        durations = {one["duration_ms"] for one in records} | {0}
        assert {one.p50_ms for one in found} | {one.p95_ms for one in found} <= durations
    store.close()


def test_an_import_tells_each_bad_record_and_takes_the_others(open_empty: OpenEmpty) -> None:
    """Good records are taken, bad ones are named with their number and code; a second import changes nothing."""
    store = open_empty()
    records: list[object] = [
        run_record("daily", "success", 1),
        {"job_name": "daily", "status": "done", "started_at": "2026-03-01"},
        "no object",
        {"status": "success", "started_at": "2026-03-01"},
        {**run_record("daily", "running", 2), "finished_at": "2026-03-01T11:00:00Z"},
        {**run_record("daily", "success", 3), "rows_in": -1},
    ]
    found = taken(store, records)
    assert (found.records, found.imported, found.rejected) == (6, 1, 5)
    assert [(one.record_no, one.code) for one in found.errors] == [
        (2, "invalid_status"),
        (3, "not_an_object"),
        (4, "missing_job_name"),
        (5, "invalid_finished_at"),
        (6, "invalid_rows_in"),
    ]
    assert taken(store, records).unchanged == 1
    null = "rows_rejected IS NULL AND rows_skipped IS NULL AND rows_stale IS NULL AND claim IS NULL"
    assert query(store, f"SELECT COUNT(*) FROM etl_runs WHERE {null}") == [(1,)]
    with pytest.raises(FileFault):
        import_runs(store, BytesIO(b"[{]"), now=NOW)


def test_an_imported_run_that_has_ended_since_is_brought_up_to_date(open_empty: OpenEmpty) -> None:
    """A run that was imported while running becomes the ended one; it is not counted twice."""
    store = open_empty()
    taken(store, [run_record("daily", "running", 2)])
    found = taken(store, [run_record("daily", "failure", 2, duration=5)])
    assert (found.imported, found.updated) == (0, 1)
    assert query(store, "SELECT status, duration_ms FROM etl_runs") == [("failure", 5)]


# Explain


class FixedClock(SystemClock):
    """Says that it is the moment at which all runs of these tests end: their order is that of their numbers."""

    def now(self) -> datetime:
        """Return that moment."""
        return moment(ENDED)


def at(minute: int) -> str:
    """Return a cursor."""
    return f"2026-01-15T10:{minute:02}:00.000000Z"


def put(store: Store, feed: Feed, *records: tuple[str, int], rejects: tuple[Reject, ...] = ()) -> int:
    """Load a file of (key, minute); returns its run."""
    rows = [row(feed, place, (key,), (place,), at(minute)) for place, (key, minute) in enumerate(records, 1)]
    return load(store, feed, batches(rows, rejects))[0]


def test_explain_names_what_each_loser_lost_to(open_empty: OpenEmpty) -> None:
    """A record that lost is told with the run and record it lost to, or with the run whose watermark it met."""
    feed = make_feed()
    store = open_empty(feed)
    first = put(store, feed, ("x", 10), ("x", 10), ("x", 20))
    second = put(store, feed, ("x", 5), ("y", 30))
    [history] = explain(store, [feed], "x").feeds
    answered = [(one.run_id, one.record_no, one.outcome, one.lost_to) for one in history.touches]
    assert [(run, number, outcome) for run, number, outcome, _ in answered] == [
        (first, 1, LineageStep.STALE),
        (first, 2, LineageStep.STALE),
        (first, 3, LineageStep.LOAD),
        (second, 1, LineageStep.SKIP),
    ]
    winners = [(lost.run_id, lost.record_no) if lost else None for *_, lost in answered]
    assert winners == [(first, 3), (first, 3), None, (first, None)]
    assert history.row is not None
    assert (history.row["k0"], history.row["at"], history.row["run_id"]) == ("x", at(20), first)


def test_explain_knows_which_row_stood_there_before_and_after_an_undo(open_empty: OpenEmpty) -> None:
    """A stale record lost to the last run that was not undone by then."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    first = put(store, feed, ("x", 10))
    bad = put(store, feed, ("x", 30))
    lost_to_bad = put(store, feed, ("x", 20))
    own = undo(store, (feed,), bad, clock=FixedClock(), host="here").run_id
    lost_to_first = put(store, feed, ("x", 9))
    [history] = explain(store, [feed], "x").feeds
    lost = {one.run_id: one.lost_to.run_id for one in history.touches if one.lost_to is not None}
    assert lost == {lost_to_bad: bad, lost_to_first: first}
    assert [one.undone_by for one in history.touches if one.run_id == bad] == [own]
    assert [(one.kind, one.undo_of) for one in history.touches if one.run_id == own] == [("undo", bad)]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("block", [1, 2, 5_000])
@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_a_history_in_parts_is_the_whole_one(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch, limit: int, block: int, patience: float
) -> None:
    """Looked back part by part, however small the parts, every record of a key is met once, and none is told wrong."""
    monkeypatch.setattr(explaining, "BLOCK", block)
    feed = make_feed(late=Late.MERGE)
    store = open_empty(feed)
    put(store, feed, ("x", 10), ("x", 10), ("x", 20))
    put(store, feed, ("y", 30))
    put(store, feed, ("x", 5), ("x", 15))
    put(store, feed, ("x", 40), ("x", 35), ("x", 39))
    [whole] = explain(store, [feed], "x").feeds
    met: list[HistoryEntry] = []
    before: tuple[int, int] | None = None
    for _ in range(20):
        [page] = history_pages(store, [feed], "x", look=Look(before, limit, patience))
        assert len(page.history.touches) <= limit
        assert page.history.row == whole.row
        met = [*page.history.touches, *met]
        before = page.more
        if before is None:
            break
    assert [(one.run_id, one.record_no) for one in met] == [(one.run_id, one.record_no) for one in whole.touches]
    answered = [one.lost_to for one in met]
    true = [one.lost_to for one in whole.touches]
    assert all(found in {expected, None} for found, expected in zip(answered, true, strict=True))
    within = [both for one, *both in zip(met, answered, true, strict=True) if both[1] and both[1].run_id == one.run_id]
    assert len(within) == 4
    assert all(found == expected for found, expected in within)  # what won in the same file is told in any part
    assert sum(found is not None for found in answered) > len(within) or not (patience or block > len(true))
    if patience and block > len(true):
        assert answered == true


FILES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 9)), min_size=1, max_size=4),
        st.booleans(),
    ),
    min_size=3,
    max_size=7,
)
"""Files of (key, minute), and whether each is undone when all are loaded."""


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, late=st.sampled_from(Late), ends=st.randoms(use_true_random=False))
def test_a_runs_losers_lost_to_what_their_keys_histories_say(
    open_empty: OpenEmpty, files: list[tuple[list[tuple[str, int]], bool]], late: Late, ends: Random
) -> None:
    """``--run`` names the same winners as a look at each key, in whatever order runs were committed and undone."""
    feed = make_feed(undo=True, late=late)
    store = open_empty(feed)
    with store.writing() as connection:
        for table in ("etl_runs", "lineage_records", "watermarks", "before_images", "events"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    runs = [put(store, feed, *records) for records, _ in files]
    for run_id, (_, undone) in zip(tuple(runs), files, strict=True):
        own = undo(store, (feed,), run_id, clock=FixedClock(), host="here").run_id if undone else None
        runs += [] if own is None else [own]
    with store.writing() as connection:
        for run_id in runs:
            end = {"finished_at": at(ends.randrange(1, 2 + len(runs)))}
            connection.execute(sa.update(etl_runs).where(etl_runs.c.id == run_id).values(end))
    whole = {
        (entry.run_id, entry.record_no, entry.record_key): entry
        for key in "xyz"
        for history in explain(store, [feed], key).feeds
        for entry in history.touches
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winners, "FIRST_LOOK", 1)
        patch.setattr(winners, "BLOCK", 2)
        patch.setattr(winners, "KEYS", 2)
        answered = [entry for run_id in runs for entry in explained_records(store, feed, run_id)]
    assert {(entry.run_id, entry.record_no, entry.record_key): entry for entry in answered} == whole
    store.close()


def explained_records(store: Store, feed: Feed, run_id: int) -> list[HistoryEntry]:
    """Return a run's records as ``explain --run`` tells them."""
    found = explain_run(store, [feed], run_id)
    assert found is not None
    return found.records


def test_a_run_that_waited_and_was_committed_last_is_the_one_that_was_met(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which row a record met is told by when runs were committed, not by their numbers, however far they are apart."""
    monkeypatch.setattr(winners, "FIRST_LOOK", 1)
    feed = make_feed(late=Late.MERGE)
    store = open_empty(feed)
    waited, *_, loser = [put(store, feed, ("x", minute)) for minute in (10, 20, 30, 40, 5)]
    with store.writing() as connection:
        for place, run_id in enumerate((waited + 1, waited + 2, waited + 3, waited, loser), 100):
            end = {"commit_no": place}
            connection.execute(sa.update(etl_runs).where(etl_runs.c.id == run_id).values(end))
    [entry] = explained_records(store, feed, loser)
    assert entry.lost_to is not None
    assert entry.lost_to.run_id == waited


def test_the_losers_of_a_run_are_explained_in_one_walk_that_ends_at_their_winners(open_empty: OpenEmpty) -> None:
    """However many records of a page are stale: the runs before are looked through once, and only as far as needed."""
    feed = make_feed(late=Late.MERGE)
    store = open_empty(feed)
    keys = [f"k{number}" for number in range(50)]
    first = put(store, feed, *((key, 30) for key in keys))
    last = put(store, feed, *((key, 20) for key in keys))
    with store.reading() as connection:
        engine = connection.engine
    asked: list[object] = []

    def note(*values: object) -> None:
        asked.append(values[2])

    sa.event.listen(engine, "before_cursor_execute", note)
    answered = explained_records(store, feed, last)
    assert [entry.lost_to.run_id if entry.lost_to else None for entry in answered] == [first] * 50
    assert len(asked) < 10


def test_what_was_not_looked_through_is_not_taken_for_nothing(
    open_empty: OpenEmpty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look whose time is over says where it stopped, also if it found nothing; one to the end says nothing."""
    monkeypatch.setattr(explaining, "BLOCK", 1)
    feed = make_feed()
    store = open_empty(feed)
    runs = [put(store, feed, ("x", minute)) for minute in (10, 20, 30)]
    assert history_pages(store, [feed], "nobody", look=Look(None, 10, 60.0)) == []
    [page] = history_pages(store, [feed], "nobody", look=Look(None, 10, 0.0))
    assert (page.more, page.full, page.history.touches) == ((runs[-1], 0), False, [])


def test_a_skipped_record_met_the_highest_watermark_of_its_time(open_empty: OpenEmpty) -> None:
    """The run named is the first that had raised the watermark so far, not the last, and none that came later."""
    feed = make_feed()
    store = open_empty(feed)
    put(store, feed, ("a", 10))
    highest = put(store, feed, ("b", 30))
    skipped = put(store, feed, ("x", 20))
    put(store, feed, ("c", 40))
    [whole] = explain(store, [feed], "x").feeds
    [page] = history_pages(store, [feed], "x", look=Look(None, 10, 60.0))
    for history in (whole, page.history):
        assert [(one.run_id, one.lost_to and one.lost_to.run_id) for one in history.touches] == [(skipped, highest)]


def test_a_watermark_that_is_a_number_is_compared_as_one(open_empty: OpenEmpty) -> None:
    """10 is above 9, though its text is not."""
    feed = make_feed(cursor=FieldType.INTEGER)
    store = open_empty(feed)
    runs = [
        load(store, feed, batches([row(feed, 1, (key,), (1,), cursor)]))[0]
        for key, cursor in (("a", 9), ("b", 10), ("x", 8))
    ]
    [whole] = explain(store, [feed], "x").feeds
    [page] = history_pages(store, [feed], "x", look=Look(None, 10, 60.0))
    for history in (whole, page.history):
        assert [one.lost_to and one.lost_to.run_id for one in history.touches] == [runs[1]]


def test_explain_takes_a_key_of_several_columns_as_json_however_it_is_spaced(open_empty: OpenEmpty) -> None:
    """``["DE", 5]`` and ``["DE",5]`` are the same key."""
    feed = make_feed(key=(FieldType.TEXT, FieldType.INTEGER))
    store = open_empty(feed)
    load(store, feed, batches([row(feed, 1, ("DE", 5), (1,), at(1))]))
    for text in ('["DE",5]', '[ "DE" , 5 ]'):
        [history] = explain(store, [feed], text).feeds
        assert history.row is not None
        assert len(history.touches) == 1
    assert explain(store, [feed], "DE").feeds == []


def test_explain_a_run_and_a_file_page_by_page(open_empty: OpenEmpty) -> None:
    """A run's records come in file order, from any number on; a file is found by its path or its bare name."""
    feed = make_feed()
    store = open_empty(feed)
    run_id = put(store, feed, *((f"k{number:02}", number) for number in range(1, 31)))
    page = explain_run(store, [feed], run_id, limit=10, after=10)
    assert page is not None
    assert [one.record_no for one in page.records] == list(range(11, 21))
    for name in ("a/file.json", "file.json"):
        found = explain_file(store, [feed], name)
        assert found is not None
        assert [run["id"] for run in found.runs] == [run_id]
    assert explain_run(store, [feed], 999) is None
    assert explain_file(store, [feed], "ile.json") is None


# Dead letters


def reject(number: int, key: str, minute: int, value: object) -> Reject:
    """Return a record of the feed that an earlier config had refused."""
    raw = json.dumps({"k0": key, "value": value, "at": at(minute)}, indent=1)
    return Reject(number, raw, key, None, "invalid_value", "value: invalid_value (once)")


def again(store: Store, feed: Feed, wanted: Filter | None = None) -> Replay:
    """Replay the feed's open dead letters."""
    return replay(store, feed, wanted or Filter(), clock=SystemClock(), host="here", limit=None)


def test_a_replay_resolves_what_passes_and_keeps_what_fails(open_empty: OpenEmpty) -> None:
    """What passes today is loaded, or stale where a newer row is; what fails stays, with its new code."""
    feed = make_feed()
    store = open_empty(feed)
    refused = (reject(2, "new", 1, 5), reject(3, "x", 1, 5), reject(4, "bad", 1, "n/a"))
    put(store, feed, ("x", 10), rejects=refused)
    done = again(store, feed)
    assert (done.considered, done.loaded, done.stale, done.failed) == (3, 1, 1, 1)
    assert query(store, "SELECT k0, value, run_id FROM events ORDER BY k0") == [("new", 5, done.run_id), ("x", 1, 1)]
    dead_letters_now = query(store, "SELECT record_key, error, detail, resolved_by FROM dead_letters ORDER BY id")
    assert [(key, code, by) for key, code, _, by in dead_letters_now] == [
        ("new", "invalid_value", done.run_id),
        ("x", "invalid_value", done.run_id),
        ("bad", "invalid_value", None),
    ]
    assert "(once)" not in str(dead_letters_now[2][2])
    counts = "rows_in, rows_out, rows_rejected, rows_skipped, rows_stale, file_name, content_sha256, status"
    assert query(store, f"SELECT {counts} FROM etl_runs WHERE id = {done.run_id}") == [
        (3, 1, 1, 0, 1, None, None, "success")
    ]


def test_repeating_a_replay_changes_nothing(open_empty: OpenEmpty) -> None:
    """A replay that resolves nothing writes no run, and no dead letter changes."""
    feed = make_feed()
    store = open_empty(feed)
    put(store, feed, ("x", 10), rejects=(reject(2, "new", 1, 5), reject(3, "bad", 1, "n/a")))
    again(store, feed)
    names = ("events", "etl_runs", "dead_letters", "watermarks")
    tables = [query(store, f"SELECT * FROM {name} ORDER BY 1") for name in names]
    done = again(store, feed)
    assert (done.run_id, done.loaded, done.failed) == (None, 0, 1)
    assert tables == [query(store, f"SELECT * FROM {name} ORDER BY 1") for name in names]


def test_a_replay_can_be_undone_and_its_letters_are_open_again(open_empty: OpenEmpty) -> None:
    """Undoing a replay takes its rows back and opens its dead letters, so that they can be replayed once more."""
    feed = make_feed(undo=True, late=Late.MERGE)
    store = open_empty(feed)
    put(store, feed, ("x", 10), rejects=(reject(2, "new", 1, 5),))
    done = again(store, feed)
    assert done.run_id is not None
    undo(store, (feed,), done.run_id, clock=SystemClock(), host="here")
    assert query(store, "SELECT k0 FROM events") == [("x",)]
    assert again(store, feed).loaded == 1


def test_letters_are_chosen_by_feed_code_run_and_time_and_paged(open_empty: OpenEmpty) -> None:
    """Each filter narrows; the last id of a page leads to the next."""
    one, two = make_feed("one"), make_feed("two")
    store = open_empty(one, two)
    first = put(store, one, ("x", 1), rejects=tuple(reject(number, f"k{number}", 1, 5) for number in range(2, 7)))
    put(store, two, ("x", 1), rejects=(replace(reject(2, "y", 1, 5), code="missing_at"),))
    assert len(list_dead_letters(store, Filter())) == 6
    assert len(list_dead_letters(store, Filter(feed="one"))) == 5
    assert [dead_letter.record_key for dead_letter in list_dead_letters(store, Filter(code="missing_at"))] == ["y"]
    assert len(list_dead_letters(store, Filter(run=first))) == 5
    created = list_dead_letters(store, Filter())[0].created
    assert list_dead_letters(store, Filter(until=created)) == []
    assert len(list_dead_letters(store, Filter(feed="one", since=created))) == 5
    page = list_dead_letters(store, Filter(), limit=4)
    rest = list_dead_letters(store, Filter(), after=page[-1].id)
    assert [dead_letter.id for dead_letter in [*page, *rest]] == [
        dead_letter.id for dead_letter in list_dead_letters(store, Filter())
    ]
    assert [(count.feed, count.code, count.count) for count in count_open(store)] == [
        ("one", "invalid_value", 5),
        ("two", "missing_at", 1),
    ]
    again(store, one)
    assert list_dead_letters(store, Filter(feed="one")) == []
    assert len(list_dead_letters(store, Filter(feed="one", resolved=True))) == 5
    assert len(list_dead_letters(store, Filter(resolved=None))) == 6


def test_an_export_is_one_line_a_record_and_says_what_the_record_said(open_empty: OpenEmpty) -> None:
    """Line breaks between tokens are gone, what is in strings is not; a feed with a path gets documents it can take."""
    feed = make_feed()
    store = open_empty(feed)
    awkward = reject(2, 'line\nbreak "q" ü', 1, "n/a")
    put(store, feed, ("x", 1), rejects=(awkward,))
    [dead_letter] = list_dead_letters(store, Filter())
    line = export_line(dead_letter, feed)
    assert "\n" not in line
    assert json.loads(line) == json.loads(awkward.raw)
    inside = export_line(dead_letter, replace(feed, records=("a", 'b"c')))
    assert json.loads(inside) == {"a": {'b"c': [json.loads(awkward.raw)]}}
