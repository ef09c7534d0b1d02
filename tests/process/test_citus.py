"""What only a database of several nodes does: a commit that is not finished on one of them, daemons side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace

import psycopg
import pytest

from citus import CitusCluster, url_of
from inboxd.clock import SystemClock
from inboxd.errors import DatabaseFault
from inboxd.model import Late, Mode
from inboxd.operate.undo import undo
from inboxd.store import open_store, postgres_citus
from inboxd.store.base import Turn
from inboxd.store.database import Store
from inboxd.store.postgres import PostgresStore
from inboxd.store.postgres_faults import translated
from stores import CITUS, MakeUrl, batches, load, make_feed, query, row, sha256, start

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group(CITUS)]

KEPT = make_feed("kept", late=Late.MERGE, undo=True)
PLAIN = make_feed("plain", late=Late.MERGE)
FACTS = replace(make_feed("facts"), mode=Mode.APPEND, cursor=None, late=Late.MERGE)
MOMENT = "2026-01-15T10:30:00.000000Z"


@pytest.fixture
def store(make_citus_url: MakeUrl) -> Iterator[Store]:
    """Return a store whose feeds' tables and lineage are distributed."""
    with open_store(make_citus_url()) as opened:
        opened.upgrade()
        opened.prepare([KEPT, PLAIN, FACTS])
        yield opened


def _put(store: Store, day: int, *, kept: bool = True) -> int:
    feed = KEPT if kept else PLAIN
    return load(store, feed, batches([row(feed, 1, ("x",), (day,), f"2026-01-{day:02}T00:00:00.000000Z")]))[0]


@pytest.fixture(params=["coordinator", "worker"])
def leave_unfinished(
    request: pytest.FixtureRequest, citus: CitusCluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """Return what leaves a transaction of the coordinator's prepared on a node, as one that dies before its end does.

    The coordinator may have shards itself, and writes to them by sessions of their own.
    """
    monkeypatch.setattr(postgres_citus, "PATIENCE_S", 0.2)
    name = str(query(store, "SELECT current_database()")[0][0])
    gid = "citus_0_1_1_1"
    with closing(psycopg.connect(url_of(citus.nodes[request.param == "worker"], name), autocommit=True)) as node:
        yield lambda: node.execute(f"BEGIN; CREATE TABLE left_behind (); PREPARE TRANSACTION '{gid}'".encode()).close()
        with suppress(psycopg.Error):  # it was recovered meanwhile
            node.execute(f"ROLLBACK PREPARED '{gid}'".encode())


def _recover(store: Store) -> None:
    """Do what Citus does after ``citus.recover_2pc_interval``."""
    with store.writing() as connection:
        connection.exec_driver_sql("SELECT recover_prepared_transactions()")


def test_a_feed_that_keeps_images_waits_for_commits_that_are_not_finished(
    store: Store, leave_unfinished: Callable[[], None]
) -> None:
    """What cannot be seen yet would be taken for absent, and lost by an undo: the file waits, and loads afterwards."""
    leave_unfinished()
    with pytest.raises(DatabaseFault) as caught:
        _put(store, 1)
    assert caught.value.code == "commit_unfinished"
    assert query(store, "SELECT COUNT(*) FROM kept") == [(0,)]
    _put(store, 1, kept=False)  # nothing is decided there by what a plain read sees
    _recover(store)
    _put(store, 1)
    assert query(store, "SELECT COUNT(*) FROM kept") == [(1,)]


def test_an_undo_waits_for_commits_that_are_not_finished(store: Store, leave_unfinished: Callable[[], None]) -> None:
    """It changes nothing until then."""
    run_id = _put(store, 1)
    leave_unfinished()
    with pytest.raises(DatabaseFault, match="not finished on all nodes"):
        undo(store, (KEPT,), run_id, clock=SystemClock(), host="here")
    _recover(store)
    assert undo(store, (KEPT,), run_id, clock=SystemClock(), host="here").restored == 1


def test_a_reload_waits_where_it_takes_an_append_feeds_rows_away(
    store: Store, leave_unfinished: Callable[[], None]
) -> None:
    """Rows of the run that is replaced, and that cannot be seen yet, would stay beside those of the new one."""
    parts = batches([("a", 1, MOMENT, 1), ("b", 2, MOMENT, 2)])
    load(store, FACTS, parts, sha256("content"))
    leave_unfinished()
    with pytest.raises(DatabaseFault, match="not finished on all nodes"):
        load(store, FACTS, parts, sha256("content"), force=True)
    load(store, FACTS, parts)
    _recover(store)
    load(store, FACTS, parts, sha256("content"), force=True)
    assert query(store, "SELECT COUNT(*) FROM facts") == [(4,)]


def test_a_changed_feed_waits_where_a_row_would_be_in_its_way(
    store: Store, leave_unfinished: Callable[[], None]
) -> None:
    """Whether a table has a row without what is to be the cursor is only told once all rows are to be seen."""
    leave_unfinished()
    store.prepare([KEPT, PLAIN])
    dated = replace(PLAIN, cursor="value")
    with pytest.raises(DatabaseFault, match="not finished on all nodes"):
        store.prepare([dated])
    _recover(store)
    store.prepare([dated])


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


def test_a_worker_that_is_gone_is_a_lost_connection() -> None:
    """Citus gives that the code of an internal error."""
    fault = translated(psycopg.errors.InternalError_("failure on connection marked as essential: 127.0.0.1:5433"))
    assert isinstance(fault, DatabaseFault)
    assert fault.code == "connection_lost"
