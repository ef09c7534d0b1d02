"""What belongs to one daemon, or to one database, alone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemons import Home, eventually, record
from faults import QUICK
from inboxd.config import STATE_FILE
from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.inbox.names import CLAIMED
from inboxd.locks import ArchiveLock, DaemonLock, lock_file, running_pid
from inboxd.store import open_store
from stores import MakeUrl


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a place for a daemon."""
    return Home(tmp_path / "home", QUICK)


def test_asking_whether_a_daemon_runs_never_keeps_one_from_starting(tmp_path: Path) -> None:
    """However often `status` and `doctor` look, in whatever moment, the lock is there for whoever starts."""
    database = tmp_path / "a.db"
    lock_file(database).touch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            running_pid(database)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(2000):
            lock = DaemonLock()
            lock.acquire_database(database)
            lock.release()
    finally:
        stop.set()
        for thread in asking:
            thread.join()


def test_the_daemon_that_runs_is_known_by_its_pid_until_it_ends(tmp_path: Path) -> None:
    """The answer is the lock's, not the file's: it is right also after a kill."""
    database = tmp_path / "a.db"
    assert running_pid(database) is None
    lock = DaemonLock()
    lock.acquire_database(database)
    assert running_pid(database) == os.getpid()
    with pytest.raises(OperatorFault) as caught:
        DaemonLock().acquire_database(database)
    assert caught.value.exit_code == 75
    lock.release()
    assert lock_file(database).exists()
    assert running_pid(database) is None


def test_asking_takes_no_lock_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment, not a shared one."""
    database = tmp_path / "a.db"
    lock_file(database).touch()
    asked: list[int] = []
    real = fcntl.fcntl
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a lock was asked for"))

    def noted(fd: int, what: int, argument: bytes) -> bytes:
        asked.append(what)
        return real(fd, what, argument)

    monkeypatch.setattr(fcntl, "fcntl", noted)
    assert running_pid(database) is None
    assert asked == [fcntl.F_OFD_GETLK]


def test_an_archive_is_shared_by_those_of_one_database_and_by_no_others(tmp_path: Path) -> None:
    """Each folder counts: whoever has one of them in common is refused, until the other one ends."""
    folders = [tmp_path / name for name in ("processed", "failed", "state")]
    for folder in folders:
        folder.mkdir()
    one = ArchiveLock.take(folders, "postgresql 1/app")
    same = ArchiveLock.take(folders, "postgresql 1/app")
    for folder in folders:
        with pytest.raises(OperatorFault) as caught:
            ArchiveLock.take([tmp_path, folder], "postgresql 2/app")
        assert (caught.value.exit_code, caught.value.code) == (75, "archive_taken")
        assert str(folder) in caught.value.message
    one.close()
    with pytest.raises(OperatorFault):
        ArchiveLock.take(folders, "postgresql 2/app")
    same.close()
    same.close()
    ArchiveLock.take(folders, "postgresql 2/app").close()
    assert [list(folder.iterdir()) for folder in folders] == [[], [], []], "nothing is left in anybody's folders"


def test_a_link_to_an_archive_is_that_archive(tmp_path: Path) -> None:
    """What is locked is the folder, whatever it is called."""
    (tmp_path / "processed").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "processed")
    lock = ArchiveLock.take([tmp_path / "processed"], "one")
    with pytest.raises(OperatorFault):
        ArchiveLock.take([tmp_path / "link"], "other")
    lock.close()


def test_a_lock_ends_with_the_process_that_had_it(tmp_path: Path) -> None:
    """After a kill nobody has to clear anything away."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom inboxd.locks import ArchiveLock\n"
        f"lock = ArchiveLock.take([Path({str(tmp_path)!r})], 'one')\nprint('taken', flush=True)\nsys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"taken\n"
    with pytest.raises(OperatorFault):
        ArchiveLock.take([tmp_path], "other")
    other.kill()
    other.communicate()
    ArchiveLock.take([tmp_path], "other").close()


def test_a_database_is_told_from_every_other_one(make_url: MakeUrl) -> None:
    """Each store knows what it is called everywhere, however it was reached, and no other is called so."""
    url = make_url()
    with open_store(url) as one, open_store(url) as same, open_store(make_url()) as other:
        for store in (one, other):
            store.upgrade()
        assert one.identity() == same.identity()
        assert one.identity() != other.identity()


def test_two_databases_do_not_share_an_archive(home: Home, tmp_path: Path) -> None:
    """The second daemon is refused with 75, and so is a command of its; all files stay where they are."""
    home.start()
    home.drop("a.json", b"[")
    home.verdict("a.json")
    other = Home(tmp_path / "other", f'{QUICK}[archive]\nprocessed = "{home.processed}"\nfailed = "{home.failed}"\n')
    other.drop("b.json", [record("b")])
    for command in (("run", "--once"), ("retry", "--all")):
        done = other.call(*command)
        assert done.returncode == 75, done.stderr
        assert "another database" in done.stderr
    assert (home.failed / "a.json").read_bytes() == b"["
    assert (other.inbox / "b.json").exists()
    assert home.call("retry", "--all").returncode == 1
    home.stop()
    assert other.run_once() == 0
    home.kill()


def test_a_reload_does_not_take_another_databases_archive(home: Home, tmp_path: Path) -> None:
    """A config that names it is refused, and the old one stays in force."""
    home.start()
    other = Home(tmp_path / "other", QUICK)
    other.start()
    try:
        taken = f'{QUICK}[archive]\nprocessed = "{home.processed}"\nfailed = "{tmp_path}/other/data/failed"\n'
        (other.path / "inboxd.toml").write_text(taken, encoding="utf-8")
        assert other.process is not None
        os.kill(other.process.pid, 1)
        assert eventually(lambda: other.lines("config_rejected"))[0]["error_code"] == "archive_taken"
        other.drop("b.json", [record("b")])
        other.verdict("b.json")
        assert (other.processed / "b.json").exists()
    finally:
        other.kill()
        home.kill()


def test_what_a_kill_left_of_the_state_file_goes_with_the_next_start(home: Home) -> None:
    """Half a state file of a daemon that is gone does not lie about for ever."""
    assert home.run_once() == 0
    left = home.processed.parent / f".{STATE_FILE}.999999999"
    left.write_bytes(b'{"pid"')
    theirs = home.processed.parent / f".{STATE_FILE}.notes"
    theirs.write_bytes(b"")
    assert home.run_once() == 0
    assert not left.exists()
    assert theirs.exists()


def test_an_archive_in_another_ones_is_refused_or_left_alone(tmp_path: Path) -> None:
    """Whoever starts second inside is refused; if he was there first, nobody takes his files for their own."""
    outer = Home(tmp_path / "outer", QUICK)
    places = {name: str(outer.path / "data" / name / "b" / name) for name in ("processed", "failed")}
    env = {f"INBOXD_ARCHIVE__{name.upper()}": place for name, place in places.items()}
    with outer, Home(tmp_path / "inner", QUICK, env=env) as inner:
        outer.start()
        refused = inner.call("run", "--once")
        assert refused.returncode == 75
        assert str(outer.processed) in refused.stderr
        outer.stop()
        inner.start()
        inner.drop("b.json", [record("b")])
        inner.verdict("b.json")
        outer.start()
        assert "b.json" not in outer.call("retry", "--all").stdout
        assert outer.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]


def test_an_inbox_in_another_ones_is_refused(tmp_path: Path) -> None:
    """Whoever watches the outer one would take its files; what a stranger makes of that name is no inbox."""
    outer = Home(tmp_path / "outer")
    assert outer.run_once() == 0
    inner = Home(tmp_path / "inner", env={"INBOXD_INBOX__PATH": str(outer.inbox / "sub")})
    refused = inner.call("run", "--once")
    assert refused.returncode == EXIT_CONFIG
    assert f"{outer.inbox}, the inbox of another inboxd" in refused.stderr
    (outer.inbox / CLAIMED).chmod(0o755)
    assert inner.run_once() == 0
