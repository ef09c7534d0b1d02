"""What only a database of several nodes does: a commit that is not finished on one of them, daemons side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
import pytest

from citus import CitusCluster
from inboxd.clock import SystemClock
from inboxd.errors import DatabaseFault
from inboxd.model import Late
from inboxd.operate.undo import undo
from inboxd.store import open_store, postgres_citus
from inboxd.store.base import Store, Turn
from inboxd.store.postgres import PostgresStore
from inboxd.store.postgres_faults import translated
from stores import CITUS, batches, load, make_feed, query, row, start

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group(CITUS)]

KEPT = make_feed("kept", late=Late.MERGE, undo=True)
PLAIN = make_feed("plain", late=Late.MERGE)
NAME = "inboxd_citus_commits"


@pytest.fixture
def store(citus: CitusCluster) -> Iterator[Store]:
    """Return a store whose feeds' tables and lineage are distributed."""
    citus.drop(NAME)
    with open_store(citus.make(NAME)) as opened:
        opened.upgrade()
        opened.prepare([KEPT, PLAIN])
        yield opened
    citus.drop(NAME)


def _put(store: Store, day: int, *, kept: bool = True) -> int:
    feed = KEPT if kept else PLAIN
    return load(store, feed, batches([row(feed, 1, ("x",), (day,), f"2026-01-{day:02}T00:00:00.000000Z")]))[0]


@pytest.fixture
def unfinished(citus: CitusCluster, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave a transaction of the coordinator's prepared on a worker, as a worker that dies before its end does."""
    monkeypatch.setattr(postgres_citus, "PATIENCE_S", 0.2)
    del store
    before, _, options = citus.nodes[1].partition("?")
    gid = "citus_0_1_1_1"
    with closing(psycopg.connect(f"{before.rpartition('/')[0]}/{NAME}?{options}", autocommit=True)) as worker:
        worker.execute("BEGIN; CREATE TABLE left_behind (); PREPARE TRANSACTION 'citus_0_1_1_1'")
        yield
        with suppress(psycopg.Error):  # it was recovered meanwhile
            worker.execute(f"ROLLBACK PREPARED '{gid}'".encode())


def _recover(store: Store) -> None:
    """Do what Citus does after ``citus.recover_2pc_interval``."""
    with store.writing() as connection:
        connection.exec_driver_sql("SELECT recover_prepared_transactions()")


def test_a_feed_that_keeps_images_waits_for_commits_that_are_not_finished(store: Store, unfinished: None) -> None:
    """What cannot be seen yet would be taken for absent, and lost by an undo: the file waits, and loads afterwards."""
    del unfinished
    with pytest.raises(DatabaseFault) as caught:
        _put(store, 1)
    assert caught.value.code == "commit_unfinished"
    assert query(store, "SELECT COUNT(*) FROM kept") == [(0,)]
    _put(store, 1, kept=False)  # nothing is decided there by what a plain read sees
    _recover(store)
    _put(store, 1)
    assert query(store, "SELECT COUNT(*) FROM kept") == [(1,)]


def test_an_undo_waits_for_commits_that_are_not_finished(
    store: Store, citus: CitusCluster, request: pytest.FixtureRequest
) -> None:
    """It changes nothing until then."""
    del citus
    run_id = _put(store, 1)
    request.getfixturevalue("unfinished")
    with pytest.raises(DatabaseFault, match="not finished on all workers"):
        undo(store, (KEPT,), run_id, clock=SystemClock(), host="here")
    _recover(store)
    assert undo(store, (KEPT,), run_id, clock=SystemClock(), host="here").restored == 1


def test_two_daemons_write_to_one_table_at_once(store: Store) -> None:
    """A second daemon's file with other keys gets its rows in while the first one's transaction is open."""
    assert isinstance(store, PostgresStore)
    with open_store(store._url, turn=Turn(5.0, lambda: None)) as other:
        begun = [(one, one.begin(start(PLAIN, claim=name))) for one, name in ((store, "a"), (other, "b"))]
        with (
            begun[0][0].transaction(begun[0][1], PLAIN) as first,
            begun[1][0].transaction(begun[1][1], PLAIN) as second,
        ):
            for tx, letter in ((first, "a"), (second, "b")):
                rows = [row(PLAIN, n, (f"{letter}{n}",), (1,), "2026-01-01T00:00:00.000000Z") for n in range(1, 50)]
                for batch in batches(rows):
                    tx.stage(batch)
                tx.lock()
            assert [tx.upsert(None).rows_out for tx in (first, second)] == [49, 49]


def test_what_a_distributed_table_does_not_take_has_a_code_of_its_own() -> None:
    """SQLSTATE 0A000 holds a file up, and says where to look."""
    fault = translated(psycopg.errors.FeatureNotSupported("complex joins are only supported when co-located"))
    assert isinstance(fault, DatabaseFault)
    assert fault.code == "not_supported"
