"""What only SQLite does: one writer, a nameless scratch file, and the transient faults of a file on a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from inboxd.errors import EXIT_CONFIG, Interrupted, OperatorFault, TransientFault
from inboxd.model import Feed, FieldType, Late, Row
from inboxd.outcomes import Batch, Reject
from inboxd.store import open_store, sqlite, sqlite_staging
from inboxd.store.base import TableCounts
from inboxd.store.sqlite import SqliteStore
from inboxd.store.sqlite_driver import driver, refuse_old_sqlite
from inboxd.store.sqlite_sql import FeedSql
from stores import batches, load, make_feed, query, row, sha256, start, work

FEED = make_feed()
MERGED = make_feed(late=Late.MERGE)
MOMENT = "2026-01-15T10:30:00.000000Z"


def rows(number: int, day: int = 1, feed: Feed = FEED) -> list[Row]:
    """Return that many records of different keys, out of order."""
    moment = f"2026-01-{day:02}T00:00:00.000000Z"
    return [row(feed, place + 1, (f"{place * 7919 % number:06}",), (place,), moment) for place in range(number)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database is."""
    return tmp_path / "data" / "inboxd.db"


def opened(path: Path, *, tick: Callable[[], None] = lambda: None) -> SqliteStore:
    """Open the database, ready to load."""
    store = open_store(f"sqlite:///{path}", tick=tick)
    assert isinstance(store, SqliteStore)
    store.upgrade()
    store.prepare([FEED])
    return store


def raw(path: Path) -> driver.Connection:
    """Open the database as another program would."""
    return driver.connect(str(path), isolation_level=None, timeout=0)


def test_staging_holds_nobody_up(path: Path) -> None:
    """While a large file is decoded and staged, other programs write; and what they wrote counts under the lock."""
    with opened(path) as store, closing(raw(path)) as other:
        run_id = store.begin(start(FEED))
        with store.transaction(run_id, FEED) as tx:
            for batch in batches(rows(5_000), chunks=5):
                tx.stage(batch)
                other.execute("INSERT INTO watermarks (name, value, updated_at) VALUES (hex(randomblob(4)), '1', '')")
            other.execute("INSERT INTO watermarks (name, value, updated_at) VALUES ('events', '2026-02', '')")
            tx.lock()
            assert tx.watermark() == "2026-02"
            with pytest.raises(driver.OperationalError, match="locked"):
                other.execute("DELETE FROM watermarks")


def test_the_scratch_file_has_no_name(path: Path) -> None:
    """However inboxd ends, no staging file is left beside the database."""
    with opened(path) as store:
        run_id = store.begin(start(FEED))
        with store.transaction(run_id, FEED) as tx:
            for batch in batches(rows(3_000), chunks=3):
                tx.stage(batch)
            assert sorted(name for name in os.listdir(path.parent) if not name.startswith(path.name)) == []


def test_staging_is_empty_after_every_kind_of_file(path: Path) -> None:
    """A small file, a large one, one with duplicates and one undone leave nothing for the next to trip over."""
    with opened(path) as store:
        for number, (chunks, twice) in enumerate(((1, False), (4, False), (1, True), (4, True)), 1):
            moment, keys = f"2026-01-{number:02}T00:00:00.000000Z", 50 if twice else 100
            records = [row(MERGED, n + 1, (f"k{n % keys}",), (n,), moment) for n in range(100)]
            run_id = store.begin(start(MERGED))
            with store.transaction(run_id, MERGED) as tx:
                work(tx, run_id, MERGED, batches(records, chunks=chunks), sha256(number), watermark=None)
            _, counts = load(store, MERGED, batches(records, chunks=chunks))
            assert (counts.rows_out, counts.rows_stale) == ((50, 50) if twice else (100, 0))
        _, counts = load(store, MERGED, batches([]))
        assert counts.rows_in == 0


def test_a_feed_that_is_changed_again_and_again_leaves_no_tables(path: Path) -> None:
    """A config that is loaded anew every minute does not grow the daemon: what the feed had for staging goes."""
    with opened(path) as store:
        feeds = [replace(FEED, max_future_s=float(number)) for number in range(20)]
        for feed in feeds:
            store._scratch.statements(feed)
        tables = "SELECT COUNT(*) FROM scratch.sqlite_schema"
        many = store._connection.execute(tables).fetchone()
        store._scratch.renew()
        store._scratch.statements(FEED)
        assert many == store._connection.execute(tables).fetchone()


def test_two_writers_never_corrupt_or_lose(path: Path) -> None:
    """Two stores on one database, writing at once, wait for one another and both arrive whole."""
    opened(path).close()
    failures: list[BaseException] = []

    def fill(name: str) -> None:
        try:
            with opened(path) as store:
                for number in range(30):
                    record = row(MERGED, 1, (f"{name}{number}",), (1,), "2026-01-01T00:00:00.000000Z")
                    load(store, MERGED, batches([record]))
        except BaseException as failure:  # noqa: BLE001 - told by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=fill, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with opened(path) as store:
        assert query(store, "SELECT COUNT(*) FROM events") == [(60,)]
        assert query(store, "PRAGMA integrity_check") == [("ok",)]


def test_a_locked_database_is_the_worlds_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another program holds makes a file wait, ticking meanwhile; after it, the file loads."""
    monkeypatch.setattr(sqlite, "PATIENCE_S", 0.2)
    ticks: list[int] = []
    with opened(path, tick=lambda: ticks.append(1)) as store, closing(raw(path)) as other:
        run_id = store.begin(start(FEED))
        other.execute("BEGIN IMMEDIATE")
        ticks.clear()
        with pytest.raises(TransientFault) as caught, store.transaction(run_id, FEED) as tx:
            work(tx, run_id, FEED, batches(rows(10)), sha256("x"), watermark=None)
        assert caught.value.code == "database_locked"
        assert ticks
        with pytest.raises(TransientFault):
            store.begin(start(FEED))
        other.execute("COMMIT")
        load(store, FEED, batches(rows(10)))


def test_a_full_disk_is_the_worlds_fault(path: Path) -> None:
    """When the database cannot grow, nothing of the file stays, and with room again it loads."""
    with opened(path) as store:
        run_id = store.begin(start(FEED))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(TransientFault) as caught, store.transaction(run_id, FEED) as tx:
            work(tx, run_id, FEED, batches(rows(20_000)), sha256("x"), watermark=None)
        assert caught.value.code == "disk_full"
        assert query(store, "SELECT COUNT(*) FROM events") == [(0,)]
        store._connection.execute("PRAGMA max_page_count = 1000000")
        load(store, FEED, batches(rows(20_000)))


def test_a_file_that_is_no_database_is_told_apart(path: Path) -> None:
    """Garbage where the database should be is named as such, and not written over."""
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(TransientFault) as caught:
        opened(path)
    assert caught.value.code == "database_corrupt"
    assert path.read_bytes() == b"not a database" * 1000


def test_a_table_dropped_by_hand_makes_files_wait(path: Path) -> None:
    """An operator's slip fails no file."""
    with opened(path) as store, closing(raw(path)) as other:
        other.execute("DROP TABLE events")
        with pytest.raises(TransientFault) as caught:
            load(store, FEED, batches(rows(3)))
        assert caught.value.code == "database_error"
        store.prepare([FEED])
        load(store, FEED, batches(rows(3)))


@pytest.mark.parametrize("step", ["stage", "upsert"])
def test_a_stop_ends_a_long_statement(path: Path, step: str) -> None:
    """What ``tick`` raises in the middle of a statement undoes the file at once, and the next file loads."""
    asked: list[str] = []

    def tick() -> None:
        if asked:
            raise Interrupted

    with opened(path, tick=tick) as store:
        run_id = store.begin(start(FEED))
        with pytest.raises(Interrupted), store.transaction(run_id, FEED) as tx:  # noqa: PT012 - either step may raise
            for batch in batches(rows(60_000), chunks=3):
                if step == "stage":
                    asked.append(step)
                tx.stage(batch)
            tx.lock()
            asked.append(step)
            tx.upsert(None)
        asked.clear()
        assert query(store, "SELECT COUNT(*) FROM events") == [(0,)]
        _, counts = load(store, FEED, batches(rows(60_000), chunks=3))
        assert counts.rows_out == 60_000


def test_a_long_statement_ticks(path: Path) -> None:
    """While one statement runs for long, the caller hears of it again and again."""
    ticks: list[int] = []
    with opened(path, tick=lambda: ticks.append(1)) as store:
        run_id = store.begin(start(FEED))
        with store.transaction(run_id, FEED) as tx:
            for batch in batches(rows(60_000), chunks=3):
                tx.stage(batch)
            tx.lock()
            ticks.clear()
            tx.upsert(None)
            assert len(ticks) >= 10


def test_every_interrupted_claim_is_found_at_start(path: Path) -> None:
    """What a crash left running becomes ``interrupted``; a run without a claim, of a command, is left alone."""
    with opened(path) as store:
        gone = store.begin(start(FEED, claim="c-1", host="elsewhere"))
        command = store.begin(start(FEED))
    with opened(path) as store:
        assert [run.id for run in store.interrupt_abandoned("2026-03-02T00:00:00.000000Z")] == [gone]
        assert store.interrupt_abandoned("2026-03-02T00:00:00.000000Z") == []
        (run,) = store.runs_of_claim("c-1")
        assert (run.status, run.error_code) == ("failure", "interrupted")
        assert run.finished_at == "2026-03-02T00:00:00.000000Z"
        assert [run.status for run in store.runs()] == ["running", "failure"]
        assert store.runs()[0].id == command
        assert store.begin(start(FEED, claim="c-1")) not in {gone, command}


def test_a_reader_sees_the_last_commit_while_a_file_is_loaded(path: Path) -> None:
    """Reading commands see whole files only, and are not held up."""
    with opened(path) as store:
        load(store, FEED, batches(rows(10)))
        with open_store(f"sqlite:///{path}", readonly=True) as reader:
            run_id = store.begin(start(FEED))
            with store.transaction(run_id, FEED) as tx:
                work(tx, run_id, FEED, batches(rows(20, day=2)), sha256("x"), watermark=None)
                assert reader.table_counts([FEED]).target_rows == 10
                tx.commit()
            assert reader.table_counts([FEED]).target_rows == 20


def test_a_reader_needs_no_writer(path: Path) -> None:
    """With the daemon stopped, a user who may not write there reads the database all the same."""
    with opened(path) as store:
        load(store, FEED, batches(rows(10)))
    path.chmod(0o444)
    path.parent.chmod(0o555)
    script = (
        "import os, sys; sys.path[:0] = sys.argv[3:]; from inboxd.store import open_store\n"
        "def ask():\n"
        "    with open_store('sqlite:///' + sys.argv[1], readonly=True) as store:\n"
        "        return store.schema_current(), [run.rows_out for run in store.runs()]\n"
        "ask()\n"  # what is imported lazily may not be readable to the user that this becomes
        "if sys.argv[2] == '0':\n"  # root: where nobody else may enter, nobody gets a root of its own
        "    os.chroot(os.path.dirname(sys.argv[1])); os.chdir('/'); os.setgid(65534); os.setuid(65534)\n"
        "    sys.argv[1] = '/inboxd.db'\n"
        "print(ask())\n"
    )
    command = [sys.executable, "-c", script, str(path), str(os.geteuid()), *sys.path]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    path.parent.chmod(0o755)
    assert (answer.stdout.strip(), answer.stderr) == ("(True, [10])", "")


def test_a_missing_database_is_said_to_be_missing(path: Path) -> None:
    """A reading command does not make an empty database by accident."""
    with pytest.raises(OperatorFault) as caught:
        open_store(f"sqlite:///{path}", readonly=True)
    assert caught.value.code == "database_missing"
    assert not path.exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://x/y"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    """A database in memory, or of a kind that inboxd does not speak, is a config error."""
    with pytest.raises(OperatorFault) as caught:
        open_store(url)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_database_url", EXIT_CONFIG)


def test_an_old_sqlite_is_refused_for_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite with the WAL-reset bug may read and not write."""
    opened(path).close()
    monkeypatch.setattr(driver, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(OperatorFault) as caught:
        refuse_old_sqlite()
    assert caught.value.code == "sqlite_too_old"
    with pytest.raises(OperatorFault):
        open_store(f"sqlite:///{path}")
    with open_store(f"sqlite:///{path}", readonly=True) as reader:
        assert reader.runs() == []


def test_a_kill_in_the_middle_leaves_nothing(path: Path) -> None:
    """After ``kill -9`` between the upsert and the COMMIT the database is as it was, and no file lies about."""
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from test_sqlite import FEED, batches, opened, rows, sha256, start, work\n"
        "store = opened(Path(sys.argv[1])); run = store.begin(start(FEED, claim='c-1'))\n"
        "with store.transaction(run, FEED) as tx:\n"
        "    work(tx, run, FEED, batches(rows(20_000), chunks=3), sha256('x'), watermark=None)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path), *WHERE], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [name for name in os.listdir(path.parent) if "staging" in name] == []
    with opened(path) as store:
        assert store.table_counts([FEED]) == TableCounts(0, 0, 0)
        assert [run.status for run in store.runs_of_claim("c-1")] == ["running"]


WIDE = make_feed("wide", late=Late.MERGE, more=(("value", FieldType.TEXT),))
WHERE = [str(Path(__file__).parent), *sys.path]
PEAK = """
import resource, sys; sys.path[:0] = sys.argv[5:]
from pathlib import Path; from stores import *; from test_sqlite import WIDE, opened
store = opened(Path(sys.argv[1])); store.prepare([WIDE])
size, distinct = int(sys.argv[3]), sys.argv[4] == "distinct"; step = (1 << 20) // size; number = int(sys.argv[2]) * step
for day in (1, 2):
    at = f'2026-01-{day:02}T00:00:00.000000Z'
    run = store.begin(start(WIDE))
    with store.transaction(run, WIDE) as tx:
        for low in range(0, number, step):
            part = [row(WIDE, n + 1, (f'{n * 7919 % number if distinct else 1:08}',), (f'{n:{size}}',), at)
                    for n in range(low, low + step)]
            tx.stage(Batch(list(zip(*part)), [], 1 << 20))
        tx.lock(); counts = tx.upsert(None)
        assert (counts.rows_in, counts.rows_out) == (number, number if distinct else 1)
        tx.record(loaded(run, WIDE, counts, None, sha256(day))); tx.commit()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "keys"), [(85, "distinct"), (85, "one"), (65_536, "distinct")])
def test_memory_stays_flat(path: Path, size: int, keys: str) -> None:
    """Ten times the records take about the memory of one time, short or long, of many keys or one; and so once more."""
    peaks = []
    for mebibytes in (10, 100):
        database = path.with_name(f"{mebibytes}.db")
        command = [sys.executable, "-c", PEAK, str(database), str(mebibytes), str(size), keys, *WHERE]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    assert peaks[1] < peaks[0] + 64 * 1024  # KiB: the page caches of 32 and 8 MiB fill up, and that is all


def test_slices_stay_small_however_many_chunks_a_file_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sorted at once is a part of the file that does not grow with it, though chunks are all alike."""
    monkeypatch.setattr(sqlite_staging, "SAMPLE_RECORDS", 4)
    keys = [f"{number * 7919 % 40_000:05}" for number in range(40_000)]
    records = [row(MERGED, number + 1, (key,), (1,), MOMENT) for number, key in enumerate(keys)]
    with opened(path) as store, store.transaction(store.begin(start(MERGED)), MERGED) as tx:
        for batch in batches(records, chunks=100):
            tx.stage(batch)
        ends, numbered = tx._staging._slice_ends()
        number = Counter(bisect_left(ends, (key,)) for key in keys)
    assert not numbered
    assert len(number) > 40_000 / 100 / 2
    assert max(number.values()) < 4 * 100


@pytest.mark.parametrize(("pages", "size"), [(0, 20), (1_000, sqlite_staging.SAMPLES)])
def test_many_chunks_are_read_in_larger_slices_unless_the_target_is_larger_still(
    path: Path, pages: int, size: int
) -> None:
    """A slice takes a few records of each chunk at least; but what it may change in the target stays small."""
    records = [row(MERGED, number, (f"{number:03}",), (1,), MOMENT) for number in range(1, 101)]
    with opened(path) as store:
        with closing(raw(path)) as connection:
            connection.execute("CREATE TABLE filler AS SELECT zeroblob(?) AS bytes", (pages * 4096,))
        with store.transaction(store.begin(start(MERGED)), MERGED) as tx:
            for batch in batches(records, chunks=100):
                tx.stage(batch)
            ends, _numbered = tx._staging._slice_ends()
            assert len(ends) == 100 // size


def test_staging_tables_that_could_not_all_be_made_are_no_trouble_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full at a feed's first file is no matter once there is room: nothing half made is in the way."""
    with opened(path) as store:
        run_id = store.begin(start(MERGED))
        with monkeypatch.context() as full:
            full.setattr(FeedSql, "create_rejects", lambda _self: "CREATE TABLE nowhere.rejects (record_no)")
            with pytest.raises(TransientFault), store.transaction(run_id, MERGED):
                pass
        with store.transaction(run_id, MERGED) as tx:
            work(tx, run_id, MERGED, batches([row(MERGED, 1, ("a",), (1,), MOMENT)]), sha256(1), watermark=None)
            tx.commit()


def open_files() -> list[tuple[str, int]]:
    """Return the names and sizes of the files that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what listed them
            found.append((os.readlink(link), link.stat().st_size))
    return found


def test_the_scratch_file_is_not_kept_at_the_size_of_a_file_of_rejects(path: Path) -> None:
    """What a file with nothing but bad records has staged is given back to the disk, too."""
    rejects = [Reject(number, "x" * 10_000, "?", None, "invalid_json", "") for number in range(1, 1_001)]
    with opened(path) as store:
        run_id = store.begin(start(MERGED))
        with store.transaction(run_id, MERGED) as tx:
            work(tx, run_id, MERGED, [Batch([], rejects, 10_000_000)], sha256(1), watermark=None)
            tx.commit()
        assert [size for name, size in open_files() if ".inboxd-staging" in name and size > 1 << 20] == []


def test_a_database_in_utf_16_is_refused(path: Path) -> None:
    """Its text sorts otherwise than Python's; the way out is named."""
    path.parent.mkdir()
    with closing(driver.connect(path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE anything (a)")
    with pytest.raises(OperatorFault) as refused:
        opened(path)
    assert refused.value.code == "invalid_encoding"
    assert ".dump" in refused.value.hint
