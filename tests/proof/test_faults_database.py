"""The database's own troubles: locked, full, refused, replaced, corrupt. The files wait; nothing is ever done twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemons import Home, eventually, files_in, record
from faults import QUICK, deferred, fill, is_whole, loaded_once, mount, small_disk
from inboxd.store.sqlite_driver import driver

TWO_FEEDS = (
    QUICK
    + """
[feeds.orders]
match = ["orders/**"]
key = ["key"]
cursor = "ts"
late = "merge"
[feeds.orders.fields]
key = { type = "text" }
name = { type = "text" }
value = { type = "real" }
ts = { type = "timestamp" }
[feeds.events]
"""
)
A = b'[{"key": "a", "name": "n", "value": 1, "ts": "2026-01-15T10:30:00Z"}]'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon that settles at once."""
    with Home(tmp_path, QUICK) as home:
        yield home


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as a long repair by hand does."""
    with closing(driver.connect(str(database), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.slow
def test_a_locked_database_makes_files_wait_in_order_and_load_once(home: Home) -> None:
    """While another program holds the database nothing fails: the oldest file is tried again, the newer ones queue."""
    home.start()
    with locked(home.database):
        home.drop("1.json", [record("a", ts="2026-01-15T10:00:00Z")])
        eventually(deferred(home, "1.json", "database_locked"))
        home.drop("2.json", [record("a", ts="2026-01-16T10:00:00Z")])
        home.drop("3.json", [record("b", ts="2026-01-17T10:00:00Z")])
        eventually(lambda: len(home.lines("file_deferred")) >= 2, "a second attempt")
        attempts = [line["attempt"] for line in home.lines("file_deferred")]
        assert attempts == list(range(1, len(attempts) + 1)), "one line an attempt, of the oldest file alone"
        waiting = home.json("status", "--json")
        assert "1.json" in str(waiting)
        assert "database_locked" in str(waiting)
        assert home.verdicts() == []
        assert {path.name for path in home.inbox.glob("*.json")} == {"2.json", "3.json"}
    home.verdict("3.json")
    assert [line["file"] for line in home.verdicts()] == ["1.json", "2.json", "3.json"]
    assert all(loaded_once(home, f"{number}.json") for number in (1, 2, 3))
    assert sum(line["rows_skipped"] for line in home.verdicts()) == 0


@pytest.mark.slow
def test_a_stop_while_the_database_is_locked_ends_in_time_and_loads_each_file_once_later(tmp_path: Path) -> None:
    """TERM while files wait for the database ends the daemon with 0 within 10 s; the next start loads each once."""
    with Home(tmp_path, TWO_FEEDS) as home:
        home.start()
        with locked(home.database):
            home.drop("a.json", A)
            eventually(deferred(home, "a.json", "database_locked"))
            home.drop("orders/b.json", A)
            eventually(deferred(home, "orders/b.json", "database_locked"))
            assert home.process is not None
            home.process.terminate()
            assert home.process.wait(10) == 0  # what the service manager allows
        assert home.run_once() == 0
        assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]
        assert [len(home.verdicts(name)) for name in ("a.json", "orders/b.json")] == [1, 1]
        assert is_whole(home, "a.json", A)


def test_a_clock_set_back_makes_files_wait_and_a_stop_puts_them_back(home: Home) -> None:
    """With the last run far in the future the clock is wrong: files wait, a stop returns them to the inbox."""
    home.start()
    home.drop("first.json", A)
    home.verdict("first.json")
    with closing(driver.connect(str(home.database))) as connection, connection:
        connection.execute("UPDATE etl_runs SET finished_at = '2099-01-01T00:00:00.000000Z'")
    content = b'[{"key": "b", "name": "n", "value": 1, "ts": "2026-02-01T00:00:00Z"}]'
    home.drop("sub/b.json", content)
    eventually(deferred(home, "sub/b.json", "clock_behind"))
    assert home.stop() == 0
    assert (home.inbox / "sub" / "b.json").read_bytes() == content
    assert home.query("SELECT file_name FROM etl_runs WHERE status = 'running'") == []
    with closing(driver.connect(str(home.database))) as connection, connection:
        connection.execute("UPDATE etl_runs SET finished_at = started_at")
    assert home.run_once() == 0
    assert loaded_once(home, "sub/b.json")


@contextmanager
def dying(home: Home, path: Path, calls: str, error: str) -> Iterator[None]:
    """Let a running daemon's calls on one path fail, as they do on a disk that dies: strace attaches to it."""
    assert home.process is not None
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}", "-P", str(path)]
    command = ["strace", "-f", "-p", str(home.process.pid), "-o", str(home.path / "strace.out"), *inject]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        while b"attached" not in tracer.stderr.readline():
            assert tracer.poll() is None, "strace may not attach"
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("error", "code"), [("EIO", "io_error"), ("ENOSPC", "disk_full")])
def test_a_database_on_a_dying_or_full_disk_makes_files_wait(
    home: Home, require_tool: Callable[[str, str], str], error: str, code: str
) -> None:
    """Writes to the database that the disk refuses move no file to failed: it is loaded once they work again."""
    require_tool("strace", "strace")
    home.start()
    home.drop("first.json", [record("z", ts="2026-01-01T00:00:00Z")])
    home.verdict("first.json")
    with dying(home, home.database.with_name("inboxd.db-wal"), "pwrite64", error):
        home.drop("a.json", A)
        eventually(deferred(home, "a.json", code))
    home.verdict("a.json")
    assert loaded_once(home, "a.json")
    assert is_whole(home, "a.json", A)


@pytest.mark.root
def test_a_full_disk_under_the_database_makes_files_wait(tmp_path: Path, require_root: Callable[[], None]) -> None:
    """With the database's disk full every file waits, whole; with room again all are loaded, once."""
    require_root()
    with small_disk(tmp_path / "db"), Home(tmp_path / "home", QUICK) as home:
        home.env = {"INBOXD_DATABASE__URL": f"sqlite:///{tmp_path}/db/inboxd.db"}
        home.start()
        ballast = fill(tmp_path / "db")
        records = [record(f"k{number}", name="n" * 200) for number in range(2000)]
        home.drop("a.json", records)
        eventually(deferred(home, "a.json", "disk_full"))
        assert home.verdicts() == []
        ballast.unlink()
        assert home.verdict("a.json")["rows_out"] == 2000
        assert home.stop() == 0
        assert [path.name for path in home.processed.rglob("*.json")] == ["a.json"]


@pytest.mark.root
@pytest.mark.slow
def test_a_file_too_large_for_the_databases_disk_does_not_hold_up_other_feeds(
    tmp_path: Path, require_root: Callable[[], None]
) -> None:
    """Where one file finds no room, the smaller ones of another feed go on."""
    require_root()
    with small_disk(tmp_path / "db", "6m"), Home(tmp_path / "home", TWO_FEEDS) as home:
        home.env = {"INBOXD_DATABASE__URL": f"sqlite:///{tmp_path}/db/inboxd.db"}
        home.start()
        home.drop("large.json", [record(f"k{number}", name=f"{number}" * 40) for number in range(40_000)])
        eventually(deferred(home, "large.json", "disk_full"))
        for number in range(3):
            home.drop(f"orders/{number}.json", [record(f"k{number}")])
        for number in range(3):
            assert home.verdict(f"orders/{number}.json")["rows_out"] == 1
        assert home.verdicts("large.json") == []


@pytest.mark.root
def test_a_disk_that_turns_read_only_makes_files_wait(tmp_path: Path, require_root: Callable[[], None]) -> None:
    """A filesystem that turns read-only, as ext4 does after an error, costs time and nothing else."""
    require_root()
    with small_disk(tmp_path / "disk"), Home(tmp_path / "home", QUICK) as home:
        disk = tmp_path / "disk"
        archive = f'[archive]\nprocessed = "{disk}/processed"\nfailed = "{disk}/failed"\n'
        (home.path / "inboxd.toml").write_text(QUICK + archive, "utf-8")
        home.start()
        mount("-o", "remount,ro", disk)
        home.drop("a.json", A)
        eventually(deferred(home, "a.json", "read_only"))
        assert home.verdict("a.json")["rows_out"] == 1
        mount("-o", "remount,rw", disk)
        eventually((disk / "processed" / "a.json").exists)
        eventually(lambda: not files_in(home.inbox))
        assert loaded_once(home, "a.json")


def test_a_database_that_was_replaced_is_not_written_to(home: Home) -> None:
    """Another file in the database's place is left as it is; files wait until the old one is back."""
    home.start()
    home.drop("a.json", A)
    home.verdict("a.json")
    away = home.database.with_name("away.db")
    home.database.rename(away)
    home.database.write_bytes(b"restored from somewhere")
    home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
    eventually(deferred(home, "b.json", "database_replaced"))
    assert home.database.read_bytes() == b"restored from somewhere"
    away.replace(home.database)
    home.verdict("b.json")
    assert loaded_once(home, "b.json")
    assert [row[0] for row in home.rows()] == ["a", "b"]


@pytest.mark.parametrize("parts", [("-wal",), ("-shm",), ("-wal", "-shm")], ids="+".join)
def test_a_part_of_the_database_that_was_removed_is_noticed(home: Home, parts: tuple[str, ...]) -> None:
    """Somebody tidies up: files wait from then on, and what was said to be loaded survives even a kill."""
    home.start()
    home.drop("a.json", A)
    home.verdict("a.json")
    for part in parts:
        home.database.with_name(home.database.name + part).unlink()
    home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
    eventually(deferred(home, "b.json", "database_replaced"))
    assert not home.verdicts("b.json")
    home.kill()
    home.start()
    home.verdict("b.json")
    assert [row[0] for row in home.rows()] == ["a", "b"]
    assert home.query("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 100, b"\x00" * 8192])
def test_a_corrupt_database_is_refused_at_start_and_nothing_is_touched(home: Home, content: bytes) -> None:
    """A file that is no database ends the start with a clear error, and stays byte by byte what it was."""
    home.database.parent.mkdir(parents=True)
    home.database.write_bytes(content)
    home.drop("a.json", A)
    done = home.call("run")
    assert done.returncode == 69
    assert "database" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.database.read_bytes() == content
    assert (home.inbox / "a.json").read_bytes() == A


def test_a_database_damaged_in_the_middle_makes_files_wait(home: Home) -> None:
    """Damage that a later page reveals is the database's, not the file's: the file waits."""
    home.start()
    home.drop("a.json", [record(f"k{number}", ts=f"2026-01-15T10:30:{number % 60:02d}Z") for number in range(5000)])
    home.verdict("a.json")
    assert home.stop() == 0
    good = home.database.read_bytes()
    size = len(good)
    home.database.write_bytes(good[:8192] + os.urandom(size - 8192))
    home.drop("b.json", [record("k1", ts="2026-02-01T00:00:00Z")])
    before = (home.inbox / "b.json").read_bytes()
    done = home.call("run", "--once")
    assert home.verdicts("b.json") == [], done.stderr
    assert any(path.read_bytes() == before for path in home.inbox.rglob("b.json"))
    assert not list(home.failed.rglob("*.json"))
    assert "Traceback" not in done.stderr
    home.database.write_bytes(good)
    for rest in home.database.parent.glob("inboxd.db-*"):
        rest.unlink()
    assert home.run_once() == 0
    assert len(home.verdicts("b.json")) == 1
