"""What only PostgreSQL does: several daemons at once, and a server that goes away."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from daemons import eventually
from inboxd.clock import SystemClock
from inboxd.errors import Interrupted, OperatorFault, TransientFault
from inboxd.model import Feed, Late, Row
from inboxd.operate import undo as undo_module
from inboxd.outcomes import RunStatus
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.store.postgres import PostgresStore
from inboxd.store.postgres_newest import NewestSql
from stores import MakeUrl, batches, load, make_feed, query, row, sha256, start, work

pytestmark = pytest.mark.postgres

SKIP = make_feed()
MERGE = make_feed("merged", late=Late.MERGE)
GONE = "2026-03-02T00:00:00.000000Z"


@pytest.fixture
def url(make_postgres_url: MakeUrl) -> str:
    """Return the URL of a database with the feeds' tables."""
    url = make_postgres_url()
    with open_store(url) as store:
        store.upgrade()
        store.prepare([SKIP, MERGE])
    return url


def opened(url: str, *, tick: Callable[[], None] = lambda: None) -> PostgresStore:
    """Open the database as one more daemon."""
    store = open_store(url, tick=tick)
    assert isinstance(store, PostgresStore)
    return store


def raw(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Open the database as another program would."""
    return psycopg.connect(url, autocommit=True)


def kill(url: str, store: PostgresStore) -> None:
    """End the server's side of a store's connection, as a crash or a failover does."""
    assert store._open is not None
    with closing(raw(url)) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (store._open.info.backend_pid,))


def crash(url: str, store: PostgresStore) -> None:
    """End a daemon's session, and wait until the server has noticed."""
    assert store._open is not None
    pid = store._open.info.backend_pid
    store.close()
    with closing(raw(url)) as admin:
        _wait(admin, f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = {pid})")


def _wait(admin: psycopg.Connection[tuple[object, ...]], question: str) -> None:
    """Return once the question has an answer."""
    for _ in range(2_000):
        if admin.execute(question.encode()).fetchone():
            return
        admin.execute("SELECT pg_sleep(0.005)")
    raise AssertionError(question)


def record(feed: Feed, key: str, day: int) -> list[Row]:
    """Return the rows of a file of one record."""
    return [row(feed, 1, (key,), (day,), f"2026-01-{day:02}T00:00:00.000000Z")]


def in_threads(*works: Callable[[], object]) -> list[BaseException]:
    """Do things at once; returns what they raised."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as failure:  # noqa: BLE001 - told by the caller's assertion
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return failures


def test_a_living_daemons_claim_is_its_own(url: str) -> None:
    """What a daemon works on, or has put off, is not taken by another, and is not taken for interrupted."""
    with opened(url) as one, opened(url) as two:
        run_id = one.begin(start(SKIP, claim="c-1", host="one"))
        assert two.interrupt_abandoned(GONE) == []
        assert not two.take_over("c-1", GONE)
        with pytest.raises(TransientFault) as caught:
            two.begin(start(SKIP, claim="c-1", host="two"))
        assert caught.value.code == "run_taken"
        with one.transaction(run_id, SKIP) as tx:
            tx.stage(batches(record(SKIP, "a", 1))[0])
            assert not two.take_over("c-1", GONE)
            tx.lock()
            assert not two.take_over("c-1", GONE)
        assert not two.take_over("c-1", GONE)
        assert one.begin(start(SKIP, claim="c-1", host="one")) == run_id


def test_a_dead_daemons_claim_can_be_taken(url: str) -> None:
    """When a daemon's session is gone, another finds its claim, and records itself on it."""
    with opened(url) as two:
        with opened(url) as one:
            dead = one.begin(start(SKIP, claim="c-1", host="one"))
            crash(url, one)
        assert two.take_over("c-1", GONE)
        run_id = two.begin(start(SKIP, claim="c-1", host="two"))
        runs = two.runs_of_claim("c-1")
        assert [(run.id, run.status, run.error_code, run.host) for run in runs] == [
            (dead, RunStatus.FAILURE, "interrupted", "one"),
            (run_id, RunStatus.RUNNING, None, "two"),
        ]


def test_only_the_dead_are_interrupted_at_start(url: str) -> None:
    """A daemon that starts puts right what dead daemons left, and nothing that living ones hold."""
    with opened(url) as living, opened(url) as starting:
        living.begin(start(SKIP, claim="c-1"))
        with opened(url) as dying:
            dead = dying.begin(start(SKIP, claim="c-2"))
            crash(url, dying)
        assert [run.id for run in starting.interrupt_abandoned(GONE)] == [dead]


@pytest.mark.parametrize("ending", ["load", "fail", "drop", "drop_claim"])
def test_a_claim_is_let_go_at_its_end(url: str, ending: str) -> None:
    """A claim is its daemon's until its file was moved, whatever the verdict; then it is nobody's."""
    from stores import failed, loaded  # noqa: PLC0415 - two more names for one test

    with opened(url) as one, opened(url) as two:
        run_id = one.begin(start(SKIP, claim="c-1"))
        if ending == "load":
            with one.transaction(run_id, SKIP) as tx:
                tx.lock()
                counts = tx.upsert(None)
                tx.record(loaded(run_id, SKIP, counts, None, sha256("x")))
                tx.commit()
        elif ending == "fail":
            one.fail(run_id, failed(run_id, SKIP))
        elif ending == "drop":
            one.drop(start(SKIP, claim="c-1"))
        else:
            one.drop_claim("c-1")
        assert not two.take_over("c-1", GONE)
        one.let_go("c-1")
        one.begin(start(SKIP, claim="c-2"))  # what was let go goes with the next statement
        one.drop_claim("c-2")
        assert two.take_over("c-1", GONE)
        two.begin(start(SKIP, claim="c-1"))


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_skip_files_are_applied_one_after_another(url: str, isolation: str) -> None:
    """With ``late = "skip"`` two daemons end as one would: a file behind the other's watermark is skipped.

    So it is too where the administrator's default would show a file the database as it was before its lock.
    """
    with closing(raw(url)) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = '{isolation}'".encode())
    with opened(url) as one, opened(url) as two:
        run_id = one.begin(start(SKIP))
        finished = threading.Event()

        def second() -> None:
            _, counts = load(two, SKIP, batches(record(SKIP, "b", 1)))
            finished.set()
            assert (counts.rows_skipped, counts.rows_out) == (1, 0)

        with one.transaction(run_id, SKIP) as tx:
            work(tx, run_id, SKIP, batches(record(SKIP, "a", 2)), sha256("x"), watermark=None)
            thread = threading.Thread(target=second)
            thread.start()
            _wait_for_a_waiter(url)
            assert not finished.is_set()
            tx.commit()
        thread.join(30)
        assert finished.is_set()
        assert query(one, "SELECT k0 FROM events") == [("a",)]


def _wait_for_a_waiter(url: str) -> None:
    """Return once some session waits for a lock."""
    with closing(raw(url)) as admin:
        _wait(admin, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


def test_merge_files_run_side_by_side(url: str) -> None:
    """With ``late = "merge"`` daemons do not wait for one another unless they meet on a row; the newest record wins."""
    failures = in_threads(*(partial(_fill, url, number) for number in range(3)))
    assert failures == []
    with opened(url) as store:
        sums = "SELECT SUM(rows_in), SUM(rows_out) + SUM(rows_stale) FROM etl_runs WHERE status = 'success'"
        assert query(store, sums) == [(900, 900)]
        assert [mark.value for mark in store.watermarks()] == ["2026-01-28T00:00:00.000000Z"]
        newest = {key: max(day for each, day in _days() if each == key) for key, _ in _days()}
        assert sorted(query(store, "SELECT k0, value FROM merged")) == sorted(newest.items())


def _days() -> list[tuple[str, int]]:
    """Return every key and day that the three daemons of the test above are given."""
    return [each for number in range(3) for turn in range(15) for each in _reported(number, turn)]


def _reported(number: int, turn: int) -> list[tuple[str, int]]:
    return [(f"k{place * (number + 1) % 20:02}", (turn * 7 + number * 3 + place * 5) % 28 + 1) for place in range(20)]


def _fill(url: str, number: int) -> None:
    """Load fifteen files, as one daemon of several."""
    with opened(url) as store:
        for turn in range(15):
            rows = [
                row(MERGE, place, (key,), (day,), f"2026-01-{day:02}T00:00:00.000000Z")
                for place, (key, day) in enumerate(_reported(number, turn), 1)
            ]
            _retried(partial(load, store, MERGE, batches(rows), sha256((number, turn))))


def _retried(task: Callable[[], object]) -> None:
    """Do as the daemon does when two files met."""
    for _ in range(20):
        try:
            task()
        except TransientFault as fault:
            assert fault.code == "serialization"  # noqa: PT017 - any other is a failure
        else:
            return
    raise AssertionError("never got through")


def test_the_same_content_from_two_daemons_loads_once(url: str) -> None:
    """Of two copies of a file that arrive at two daemons at once one is loaded, and the other found a duplicate."""
    with opened(url) as one, opened(url) as two:
        first, second = one.begin(start(MERGE)), two.begin(start(MERGE))
        with one.transaction(first, MERGE) as tx:
            work(tx, first, MERGE, batches(record(MERGE, "a", 1)), sha256("x"), watermark=None)
            caught: list[TransientFault] = []

            def other() -> None:
                try:
                    with two.transaction(second, MERGE) as tx:
                        work(tx, second, MERGE, batches(record(MERGE, "b", 1)), sha256("x"), watermark=None)
                        tx.commit()
                except TransientFault as fault:
                    caught.append(fault)

            thread = threading.Thread(target=other)
            thread.start()
            _wait_for_a_waiter(url)
            tx.commit()
        thread.join(30)
        assert [fault.code for fault in caught] == ["serialization"]
        with two.transaction(second, MERGE) as tx:
            tx.lock()
            assert tx.duplicate_of(sha256("x")) == first
        assert query(one, "SELECT k0 FROM merged") == [("a",)]


def test_a_lost_connection_is_the_worlds_fault(url: str) -> None:
    """When the server goes away in the middle of a file, nothing of it stays; the next try finds the server again."""
    with opened(url) as store:
        run_id = store.begin(start(SKIP, claim="c-1"))
        with pytest.raises(TransientFault) as caught, store.transaction(run_id, SKIP) as tx:  # noqa: PT012 - any verb may raise
            tx.stage(batches(record(SKIP, "a", 1))[0])
            kill(url, store)
            work(tx, run_id, SKIP, batches(record(SKIP, "a", 1)), sha256("x"), watermark=None)
        assert caught.value.code == "connection_lost"
        assert store.begin(start(SKIP, claim="c-1")) == run_id
        with store.transaction(run_id, SKIP) as tx:
            counts, _ = work(tx, run_id, SKIP, batches(record(SKIP, "a", 1)), sha256("x"), watermark=None)
            tx.commit()
        assert counts.rows_out == 1


def test_the_ledger_knows_what_became_of_a_commit(url: str) -> None:
    """A connection lost during COMMIT leaves the outcome unknown, until the ledger is asked."""
    with opened(url) as store:
        run_id = store.begin(start(SKIP, claim="c-1"))
        with pytest.raises(TransientFault) as caught, store.transaction(run_id, SKIP) as tx:  # noqa: PT012 - COMMIT is the last
            work(tx, run_id, SKIP, batches(record(SKIP, "a", 1)), sha256("x"), watermark=None)
            kill(url, store)
            tx.commit()
        assert caught.value.code == "connection_lost"
        (run,) = store.runs_of_claim("c-1")
        with store.transaction(run_id, SKIP) as tx:
            tx.lock()
            known = tx.duplicate_of(sha256("x"))
        assert (run.status is RunStatus.SUCCESS) == (known == run_id)


def test_a_stop_ends_a_wait_for_the_server(url: str) -> None:
    """What ``tick`` raises while the server is at work cancels the statement; the connection serves the next file."""
    asked = threading.Event()

    def tick() -> None:
        if asked.is_set():
            raise Interrupted

    with opened(url) as holder, opened(url, tick=tick) as store:
        held, run_id = holder.begin(start(SKIP)), store.begin(start(SKIP))
        assert store._open is not None
        before = store._open.info.backend_pid
        with holder.transaction(held, SKIP) as tx:
            tx.lock()
            asked.set()
            with pytest.raises(Interrupted), store.transaction(run_id, SKIP) as waiting:
                waiting.lock()
            asked.clear()
        load(store, SKIP, batches(record(SKIP, "a", 1)))
        assert store._open.info.backend_pid == before


def test_a_server_that_is_not_there_is_the_worlds_fault() -> None:
    """A database that cannot be reached is something to wait for."""
    with pytest.raises(TransientFault) as caught:
        open_store("postgresql://nobody@127.0.0.1:1/none")
    assert caught.value.code == "database_unavailable"


def test_a_reader_cannot_write(url: str) -> None:
    """A reading command's session is read-only on the server."""
    with open_store(url, readonly=True) as reader:
        assert reader.schema_current()
        with pytest.raises(TransientFault) as caught:
            reader.begin(start(SKIP))
        assert caught.value.code == "read_only"
        _refuses_to_write(reader)


def _refuses_to_write(reader: Store) -> None:
    with pytest.raises(TransientFault) as caught, reader.writing() as connection:
        connection.exec_driver_sql("DELETE FROM etl_runs")
    assert caught.value.code == "read_only"


def test_citus_can_distribute_target_and_lineage(url: str) -> None:
    """No foreign key is in the way, and every unique index of theirs has the column they are distributed by."""
    unique = (
        "SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a"
        " ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indisunique AND i.indrelid = '{}'::regclass GROUP BY i.indexrelid"
    )
    with opened(url) as store:
        assert query(store, "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'") == []
        for table, column in (("events", "k0"), ("merged", "k0"), ("lineage_records", "run_id")):
            indexes = query(store, unique.format(table))
            assert indexes, table
            assert all(column in names for (names,) in indexes)  # type: ignore[operator]  # lists


@pytest.mark.parametrize("force", [False, True])
def test_a_files_statements_join_the_target_from_within_only(force: bool) -> None:  # noqa: FBT001 - a parameter
    """A distributed target is met by inner joins and by its upsert: for others Citus would fetch all of it."""
    sql = NewestSql(make_feed("distributed", undo=True), 1)
    statements = [
        sql.upsert(skipping=True, force=force),
        sql.find_winners(skipping=True),
        sql.find_standing_winners(skipping=True, gathered=True),
        sql.count_met(force=force),
        sql.save_images(force=force),
        sql.save_absences(skipping=True, whole=force),
        sql.lineage(skipping=True),
        sql.lineage_of_winners(skipping=True),
        sql.dead_letters(),
        sql.lineage_of_rejects(),
    ]
    met = [statement for statement in statements if '"distributed"' in statement]
    assert len(met) == 4
    for statement in met:
        assert re.search(r'(INSERT INTO|[^T] JOIN) "distributed"', statement), statement
        assert not re.search(r"\b(LEFT|RIGHT|FULL|EXISTS|UPDATE [^S])\b", statement), statement


def test_of_two_undos_of_a_run_at_once_one_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before an undo had its locks is looked at again: the other one was quicker."""
    kept = replace(MERGE, name="kept", table="kept", undo=True)
    locking = undo_module._lock
    with opened(url) as store, opened(url) as other:
        store.prepare([kept])
        run_id, _ = load(store, kept, batches(record(kept, "a", 1)))

        def meanwhile(*arguments: Any) -> None:  # Any: what is passed on
            monkeypatch.setattr(undo_module, "_lock", locking)
            undo_module.undo(other, (kept,), run_id, clock=SystemClock(), host="there")
            locking(*arguments)

        monkeypatch.setattr(undo_module, "_lock", meanwhile)
        with pytest.raises(OperatorFault, match="was undone by run"):
            undo_module.undo(store, (kept,), run_id, clock=SystemClock(), host="here")
        assert query(store, "SELECT COUNT(*) FROM etl_runs WHERE undo_of IS NOT NULL") == [(1,)]


def test_sessions_free_a_dead_hosts_locks(url: str) -> None:
    """The server ends a session whose host is gone, and one that holds a transaction open and does nothing."""
    with opened(url) as store:
        shown = [store._rows(f"SHOW {name}")[0][0] for name in ("idle_in_transaction_session_timeout", "timezone")]
    assert shown == ["5min", "UTC"]


def test_of_an_ordered_feed_one_daemon_at_a_time_claims_files(url: str) -> None:
    """Another one gets its turn when the first has none of its files left, or is gone."""
    with opened(url) as one, opened(url) as other:
        assert one.take_turn("prices")
        assert one.take_turn("prices")
        assert not other.take_turn("prices")
        assert other.take_turn("stock")
        one.end_turn("prices")
        assert other.take_turn("prices")
        assert not one.take_turn("prices")
        other.close()  # the server ends its session a moment later
        assert eventually(lambda: one.take_turn("stock"))
