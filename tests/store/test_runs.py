"""The ledger: what a run's row says, from ``begin`` to its end, on both databases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd.errors import FileFault, InboxdError, TransientFault
from inboxd.model import FieldType, Late
from inboxd.outcomes import Counts, Outcome, Reject, RunStatus, Verdict
from inboxd.store.base import RunEnd
from inboxd.store.cursors import at_or_below
from inboxd.store.database import Store
from stores import (
    ENDED,
    STARTED,
    OpenEmpty,
    batches,
    failed,
    load,
    loaded,
    make_feed,
    query,
    row,
    sha256,
    start,
    work,
)

pytestmark = pytest.mark.every_version

FEED = make_feed()
MERGED = make_feed(late=Late.MERGE)
LATER = "2026-03-02T00:00:00.000000Z"


def one_record(value: int = 1, cursor: str = "2026-01-15T10:30:00.000001Z") -> list[tuple[str | int, ...]]:
    """Return the rows of a file of one record."""
    return [row(FEED, 1, ("a",), (value,), cursor)]  # type: ignore[list-item]  # no float or null in it


def record(tx_store: Store, run_id: int, *, duplicate_of: int, content: str) -> None:
    """End a run as a duplicate."""
    verdict = Verdict(
        Outcome.DUPLICATE, run_id, FEED.name, "a/file.json", duration_ms=7, sha256=content, duplicate_of=duplicate_of
    )
    with tx_store.transaction(run_id, FEED) as tx:
        tx.lock()
        tx.record(RunEnd(verdict, ENDED))
        tx.commit()


def test_a_run_is_seen_running_before_its_work_begins(open_empty: OpenEmpty) -> None:
    """From ``begin`` on, ``inboxd status`` on another connection sees the run at work."""
    store, other = open_empty(FEED), open_empty(FEED)
    run_id = store.begin(start(FEED, claim="c-1"))
    seen = other.run(run_id)
    assert seen is not None
    assert (seen.status, seen.started_at, seen.finished_at, seen.claim) == (RunStatus.RUNNING, STARTED, None, "c-1")
    assert (seen.job_name, seen.file_name, seen.file_size, seen.host) == ("events", "a/file.json", 10, "here")


def test_a_success_row_says_everything_about_its_file(open_empty: OpenEmpty) -> None:
    """Counts, duration, moments, size, hash and the largest cursor are in the run's row."""
    store = open_empty(FEED)
    run_id, counts = load(store, FEED, batches(one_record()), sha256("x"))
    run = store.run(run_id)
    assert run is not None
    assert counts == Counts(rows_in=1, rows_out=1)
    assert (run.status, run.rows_in, run.rows_out, run.rows_rejected, run.rows_skipped, run.rows_stale) == (
        RunStatus.SUCCESS,
        1,
        1,
        0,
        0,
        0,
    )
    assert (run.duration_ms, run.started_at, run.finished_at, run.file_size) == (1500, STARTED, ENDED, 10)
    assert (run.content_sha256, run.watermark) == (sha256("x"), "2026-01-15T10:30:00.000001Z")
    assert query(store, "SELECT id, status, staged, loaded, rejected, duration_ms FROM run_log") == [
        (run_id, "success", 1, 1, 0, 1500)
    ]


def test_a_claim_put_off_keeps_its_run(open_empty: OpenEmpty) -> None:
    """A file that waits for the database is one run, however often it is tried."""
    store = open_empty(FEED)
    first = store.begin(start(FEED, claim="c-1"))
    assert store.begin(start(FEED, claim="c-1")) == first
    assert store.begin(start(FEED, claim="c-2")) != first
    assert store.begin(start(FEED)) != store.begin(start(FEED))


def test_the_same_content_is_known_for_each_feed_apart(open_empty: OpenEmpty) -> None:
    """A file is a duplicate of the run that loaded its bytes for the same feed, and of no other."""
    other = make_feed("others")
    store = open_empty(FEED, other)
    run_id, _ = load(store, FEED, batches(one_record()), sha256("x"))
    second = store.begin(start(FEED))
    with store.transaction(second, FEED) as tx:
        tx.lock()
        assert tx.duplicate_of(sha256("x")) == run_id
        assert tx.duplicate_of(sha256("y")) is None
    with store.transaction(store.begin(start(other)), other) as tx:
        tx.lock()
        assert tx.duplicate_of(sha256("x")) is None


def test_a_duplicate_is_a_success_without_counts(open_empty: OpenEmpty) -> None:
    """A duplicate's row names the run it repeats; a duplicate of it names that one too."""
    store = open_empty(FEED)
    run_id, _ = load(store, FEED, batches(one_record()), sha256("x"))
    second = store.begin(start(FEED, claim="c-2"))
    record(store, second, duplicate_of=run_id, content=sha256("x"))
    run = store.run(second)
    assert run is not None
    assert (run.status, run.duplicate_of, run.rows_in, run.content_sha256) == (
        RunStatus.SUCCESS,
        run_id,
        0,
        sha256("x"),
    )
    with store.transaction(store.begin(start(FEED)), FEED) as tx:
        tx.lock()
        assert tx.duplicate_of(sha256("x")) == run_id


def test_content_cannot_be_loaded_twice_even_by_a_bug(open_empty: OpenEmpty) -> None:
    """The database itself refuses a second loaded run of one content, and nothing of it stays."""
    store = open_empty(MERGED)
    load(store, MERGED, batches(one_record(1)), sha256("x"))
    with pytest.raises(InboxdError):
        load(store, MERGED, batches(one_record(2, "2026-02-01T00:00:00.000000Z")), sha256("x"))
    assert query(store, "SELECT value FROM events") == [(1,)]
    assert query(store, "SELECT COUNT(*) FROM lineage") == [(2,)]


def test_a_forced_reload_takes_the_place_of_the_run_it_repeats(open_empty: OpenEmpty) -> None:
    """``load --force`` mends rows of an equal cursor, and is what the content's ledger entry is from then on."""
    store = open_empty(FEED)
    first, _ = load(store, FEED, batches(one_record(1)), sha256("x"))
    second, counts = load(store, FEED, batches(one_record(2)), sha256("x"), force=True)
    assert counts == Counts(rows_in=1, rows_out=1)
    assert query(store, "SELECT value, run_id FROM events") == [(2, second)]
    run = store.run(first)
    assert run is not None
    assert run.superseded_by == second
    with store.transaction(store.begin(start(FEED)), FEED) as tx:
        tx.lock()
        assert tx.duplicate_of(sha256("x")) == second


def test_a_failure_has_zero_counts_and_its_code(open_empty: OpenEmpty) -> None:
    """A failed file's row says why, and counts nothing."""
    store = open_empty(FEED)
    run_id = store.begin(start(FEED, claim="c-1"))
    store.fail(run_id, failed(run_id, FEED))
    (run,) = store.runs_of_claim("c-1")
    assert (run.status, run.error_code, run.error, run.rows_in) == (
        RunStatus.FAILURE,
        "invalid_json",
        "it is broken",
        0,
    )
    assert (run.finished_at, run.duration_ms) == (ENDED, 3)


def test_an_orderly_stop_leaves_no_run(open_empty: OpenEmpty) -> None:
    """``drop`` and ``drop_claim`` delete a running row, and no other."""
    store = open_empty(FEED)
    done, _ = load(store, FEED, batches(one_record()))
    store.begin(start(FEED, claim="c-1"))
    store.drop(start(FEED, claim="c-1"))
    store.begin(start(FEED, claim="c-2"))
    store.drop_claim("c-2")
    store.drop(start(FEED))  # one that began so has ended
    assert [run.id for run in store.runs()] == [done]


def test_whatever_ends_the_block_but_commit_undoes_it(open_empty: OpenEmpty) -> None:
    """An error, or a block left without ``commit``, leaves neither rows nor lineage, dead letters or a watermark."""
    store = open_empty(FEED)
    parts = batches(one_record(), [Reject(2, "{}", "?", None, "missing_k0", "no key")], chunks=2)
    run_id = store.begin(start(FEED, claim="c-1"))
    with store.transaction(run_id, FEED) as tx:
        work(tx, run_id, FEED, parts, sha256("x"), watermark=None)
    with pytest.raises(ZeroDivisionError), store.transaction(run_id, FEED) as tx:  # noqa: PT012 - the block is the point
        work(tx, run_id, FEED, parts, sha256("x"), watermark=None)
        raise ZeroDivisionError
    counts = store.table_counts([FEED])
    assert (counts.target_rows, counts.dead_letters, counts.lineage_entries) == (0, 0, 0)
    assert store.watermarks() == []
    assert [run.status for run in store.runs()] == [RunStatus.RUNNING]
    with store.transaction(run_id, FEED) as tx:
        counted, reached = work(tx, run_id, FEED, parts, sha256("x"), watermark=None)
        tx.commit()
    assert (counted.rows_in, counted.rows_out, counted.rows_rejected) == (2, 1, 1)
    assert reached == "2026-01-15T10:30:00.000001Z"
    assert store.table_counts([FEED]).lineage_entries == 3


def test_the_watermark_stops_at_its_limit_and_never_goes_back(open_empty: OpenEmpty) -> None:
    """A run's own largest cursor is reported, the feed's watermark is capped, and a smaller one changes nothing."""
    store = open_empty(MERGED)
    for cursor, limit, expected in (
        ("2026-05-01T00:00:00.000000Z", "2026-04-01T00:00:00.000000Z", "2026-04-01T00:00:00.000000Z"),
        ("2026-03-01T00:00:00.000000Z", None, "2026-04-01T00:00:00.000000Z"),
        ("2026-06-01T00:00:00.000000Z", None, "2026-06-01T00:00:00.000000Z"),
    ):
        run_id = store.begin(start(MERGED))
        with store.transaction(run_id, MERGED) as tx:
            tx.stage(batches([row(MERGED, 1, (cursor,), (1,), cursor)])[0])
            tx.lock()
            counts = tx.upsert(None)
            assert tx.advance(limit) == cursor
            tx.record(loaded(run_id, MERGED, counts, cursor, sha256(cursor)))
            tx.commit()
        assert [mark.value for mark in store.watermarks()] == [expected]


def test_integer_watermarks_compare_as_numbers(open_empty: OpenEmpty) -> None:
    """An integer cursor goes from 9 to 10, though the text of 9 sorts later."""
    feed = make_feed("counted", cursor=FieldType.INTEGER, late=Late.MERGE)
    store = open_empty(feed)
    for cursor in (9, 10, 2**63 - 1, 11):
        load(store, feed, batches([row(feed, 1, (str(cursor),), (1,), cursor)]))
    assert [mark.value for mark in store.watermarks()] == [str(2**63 - 1)]
    with store.transaction(store.begin(start(feed)), feed) as tx:
        tx.lock()
        assert tx.watermark() == 2**63 - 1


def test_nothing_loaded_nothing_advanced(open_empty: OpenEmpty) -> None:
    """A file whose records were all refused or stale leaves the watermark alone, and reports no cursor."""
    store = open_empty(MERGED)
    reject = Reject(1, "{}", "?", "2027-01-01T00:00:00.000000Z", "invalid_value", "not a number")
    run_id, counts = load(store, MERGED, batches([], [reject]))
    run = store.run(run_id)
    assert run is not None
    assert run.watermark is None
    assert counts == Counts(rows_in=1, rows_rejected=1)
    assert store.watermarks() == []


def test_operators_move_the_watermark_as_they_like(open_empty: OpenEmpty) -> None:
    """``watermark set`` goes back too, and ``reset`` removes it; only that feed's."""
    other = make_feed("others")
    store = open_empty(FEED, other)
    load(store, FEED, batches(one_record()))
    load(store, other, batches(one_record()))
    store.set_watermark(FEED.name, "2020-01-01T00:00:00.000000Z", LATER)
    moved = {mark.name: mark for mark in store.watermarks()}
    assert moved["events"].value == "2020-01-01T00:00:00.000000Z"
    assert (moved["events"].run_id, moved["events"].updated_at) == (None, LATER)
    store.set_watermark(FEED.name, None, LATER)
    assert [mark.name for mark in store.watermarks()] == ["others"]


def test_the_last_end_is_of_inboxds_own_runs(open_empty: OpenEmpty) -> None:
    """The clock is compared with the last run that inboxd ended, not with an imported one."""
    store = open_empty(FEED)
    with store.transaction(0, FEED) as tx:
        assert tx.last_finished_at() is None
    load(store, FEED, batches(one_record()))
    with store.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO etl_runs (job_name, status, rows_rejected, rows_skipped, rows_stale, started_at, finished_at) "
            "VALUES ('other', 'success', NULL, NULL, NULL, '2030-01-01 00:00:00+00', '2030-01-01 00:00:00+00')"
        )
    run_id = store.begin(start(FEED))
    with store.transaction(run_id, FEED) as tx:
        tx.lock()
        assert tx.last_finished_at() == ENDED


def test_runs_are_listed_newest_first_and_filtered(open_empty: OpenEmpty) -> None:
    """``runs list`` filters by job, status and time, a page at a time."""
    other = make_feed("others")
    store = open_empty(FEED, other)
    one, _ = load(store, FEED, batches(one_record()))
    two, _ = load(store, other, batches(one_record()))
    three = store.begin(start(FEED, claim="c-9"))
    assert [run.id for run in store.runs()] == [three, two, one]
    assert [run.id for run in store.runs(limit=1)] == [three]
    assert [run.id for run in store.runs(job="events")] == [three, one]
    assert [run.id for run in store.runs(status=RunStatus.SUCCESS)] == [two, one]
    assert [run.id for run in store.runs(before=three)] == [two, one]
    assert [run.id for run in store.runs(job="events", before=three, limit=1)] == [one]
    assert store.runs(before=one) == []
    began = store.runs(job="others")[0].started_at
    assert two in [run.id for run in store.runs(since=began)]
    assert store.runs(since="2999-01-01T00:00:00.000000Z") == []
    assert store.run(10_000) is None


@pytest.mark.parametrize(
    "broken",
    [
        "rows_in = 5",
        "rows_out = -1, rows_in = -1",
        "status = 'done'",
        "status = 'failure'",
        "finished_at = NULL",
        "error_code = 'x'",
        "duplicate_of = 99",
        "content_sha256 = 'abc'",
        "rows_rejected = NULL",
        "superseded_by = id",
    ],
)
def test_the_database_refuses_a_run_that_does_not_add_up(open_empty: OpenEmpty, broken: str) -> None:
    """CHECK constraints hold what a run's row promises, against a bug and against a hand."""
    store = open_empty(FEED)
    load(store, FEED, batches(one_record()))
    with pytest.raises(FileFault), store.writing() as connection:
        connection.exec_driver_sql(f"UPDATE etl_runs SET {broken}")
    assert [run.rows_in for run in store.runs()] == [1]


def test_a_run_taken_by_another_is_not_ended_twice(open_empty: OpenEmpty) -> None:
    """A daemon that finds its run ended by another stops work on the file, and nothing of its own stays."""
    store, other = open_empty(FEED), open_empty(FEED)
    run_id = store.begin(start(FEED, claim="c-1"))
    with other.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE etl_runs SET status = 'failure', error_code = 'interrupted', finished_at = '2026-01-01 00:00:00+00'"
        )
    with pytest.raises(TransientFault) as caught, store.transaction(run_id, FEED) as tx:  # noqa: PT012 - on SQLite the last line
        work(tx, run_id, FEED, batches(one_record()), sha256("x"), watermark=None)
        tx.commit()
    assert caught.value.code == "run_taken"
    assert query(store, "SELECT COUNT(*) FROM events") == [(0,)]


def test_rejects_are_told_in_file_order_and_counted_by_code(open_empty: OpenEmpty) -> None:
    """A file's report names the first rejects as they stand in the file, with the exact count of each code."""
    store = open_empty(FEED)
    rejects = [
        Reject(number, f'{{"n": {number}}}', "?", None, f"code_{number % 3}", "why\0not") for number in range(1, 12)
    ]
    run_id = store.begin(start(FEED))
    with store.transaction(run_id, FEED) as tx:
        tx.stage(batches([], rejects)[0])
        tx.lock()
        tx.upsert(None)
        assert [fault.record_no for fault in tx.first_faults(3)] == [1, 2, 3]
        assert tx.rejected_counts() == {"code_1": 4, "code_2": 4, "code_0": 3}


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2))
def test_integer_cursors_are_ordered_as_numbers(pair: list[int]) -> None:
    """Cursors of one feed compare as what they say."""
    assert at_or_below(pair[0], pair[1]) == (pair[0] <= pair[1])
