"""What befalls an inbox: deleted, renamed, unmounted, closed to us, full, flooded. The daemon says so and goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from daemons import Home, eventually, files_in, record
from faults import QUICK, fill, is_whole, loaded_once, mount, rss_kib, small_disk, umount
from folders import NOBODY, public_folder
from requirements import missing

LIMITS = Path("/proc/sys/fs/inotify")
BURST = 1_500
WAITING = 1_500


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon that settles at once."""
    with Home(tmp_path, QUICK) as home:
        yield home


def one(number: int) -> bytes:
    """Return a file of one record, newer than those of smaller numbers."""
    stamp = f"2026-01-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return json.dumps([record(f"k{number}", ts=stamp)]).encode()


def _recreated(home: Home) -> None:
    shutil.rmtree(home.inbox)
    eventually(lambda: home.lines("inbox_lost"), "inbox_lost")
    home.inbox.mkdir()


def _renamed_away(home: Home) -> None:
    home.inbox.rename(home.path / "away")
    eventually(lambda: home.lines("inbox_lost"), "inbox_lost")
    home.inbox.mkdir()


def _replaced_at_once(home: Home) -> None:
    (home.path / "new").mkdir()
    home.inbox.rename(home.path / "away")
    (home.path / "new").rename(home.inbox)


@pytest.mark.parametrize("change", [_recreated, _renamed_away, _replaced_at_once])
def test_an_inbox_that_is_gone_is_told_and_watched_again_when_it_is_back(
    home: Home, change: Callable[[Home], None]
) -> None:
    """Deleted or renamed, and made again: two lines say so, and files that come then are loaded."""
    home.start()
    home.drop("before.json", one(1))
    home.verdict("before.json")
    change(home)
    eventually(lambda: home.lines("inbox_restored"), "inbox_restored")
    home.drop("after.json", one(2))
    home.verdict("after.json")
    home.drop("sub/last.json", one(3))
    home.verdict("sub/last.json")
    assert [line["event"] for line in home.lines() if line["event"] in {"inbox_lost", "inbox_restored"}] == [
        "inbox_lost",
        "inbox_restored",
    ]
    assert all(loaded_once(home, name) for name in ("before.json", "after.json", "sub/last.json"))


@pytest.mark.root
def test_an_inbox_that_is_unmounted_is_told_and_what_it_held_is_loaded_when_it_is_back(
    tmp_path: Path, require_root: Callable[[], None]
) -> None:
    """Another filesystem mounted over the inbox, then taken away: both changes are noticed, nothing is forgotten."""
    require_root()
    with Home(tmp_path, QUICK) as home:
        home.start()
        with small_disk(home.inbox):
            eventually(lambda: home.lines("inbox_restored"), "inbox_restored")
            (home.inbox / "mounted.json").write_bytes(one(1))
            home.verdict("mounted.json")
        eventually(lambda: len(home.lines("inbox_restored")) == 2, "inbox_restored, again")
        home.drop("beneath.json", one(2))
        home.verdict("beneath.json")
        assert loaded_once(home, "mounted.json")
        assert loaded_once(home, "beneath.json")


@pytest.mark.root
def test_an_inbox_that_may_not_be_listed_is_told(
    require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """Taken from the daemon's user and given back: lost, restored, and the files that came meanwhile are loaded."""
    require_root()
    require_tool("setpriv", "util-linux")
    with _of_nobody() as home:
        home.start()
        home.inbox.chmod(0)
        eventually(lambda: home.lines("inbox_lost"), "inbox_lost")
        home.drop("a.json", one(1))
        home.inbox.chmod(0o777)
        home.verdict("a.json")
        assert home.lines("inbox_restored")


@contextmanager
def _of_nobody() -> Iterator[Home]:
    """A home whose daemon is another, powerless user."""
    powerless = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with public_folder() as folder, Home(folder / "home", QUICK) as home:
        home.command = (*powerless, *home.command)
        if home.call("--version").returncode:
            missing("a Python that other users may run")
        for path in (home.path, home.inbox):
            os.chown(path, NOBODY, NOBODY)
        yield home


@pytest.mark.root
def test_files_of_other_users_are_failed_as_unreadable_or_left_where_they_are(
    require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """A file closed to us fails as unreadable; one in a folder that is not ours to change waits, unread."""
    require_root()
    require_tool("setpriv", "util-linux")
    with _of_nobody() as home:
        theirs = home.inbox / "theirs"
        theirs.mkdir()
        sticky = home.inbox / "sticky"
        sticky.mkdir()
        sticky.chmod(0o1777)
        home.start()
        closed = home.write("closed.json", one(1))
        closed.chmod(0o600)
        closed.rename(home.inbox / "closed.json")
        home.drop("theirs/kept.json", one(2))
        home.drop("sticky/kept.json", one(3))
        assert home.verdict("closed.json")["error_code"] == "unreadable"
        assert (home.failed / "closed.json").read_bytes() == one(1)
        eventually(lambda: len(home.lines("file_not_movable")) == 2, "file_not_movable")
        assert {line["file"] for line in home.lines("file_not_movable")} == {"theirs/kept.json", "sticky/kept.json"}
        home.drop("ours.json", one(4))
        home.verdict("ours.json")
        assert (theirs / "kept.json").read_bytes() == one(2)
        assert (sticky / "kept.json").read_bytes() == one(3)
        assert [row[0] for row in home.rows()] == ["k4"]
        sticky.chmod(0o777)
        eventually(lambda: home.verdicts("sticky/kept.json"), "it is movable now")
        assert len(home.lines("file_not_movable")) == 2


@contextmanager
def few_names(place: Path, mkfs: str) -> Iterator[Path]:
    """A filesystem with room for a handful of files and folders."""
    image = place.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run([mkfs, "-q", "-N", "32", str(image)], check=True)
    place.mkdir()
    mount("-o", "loop", image, place)
    try:
        yield place
    finally:
        umount(place)


@pytest.mark.root
def test_a_full_disk_under_the_inbox_makes_files_wait_in_order(
    tmp_path: Path, require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """With no room to claim in, files wait where they are, whole, and say so; with room again each is loaded once."""
    require_root()
    mkfs = require_tool("mkfs.ext4", "e2fsprogs")
    with few_names(tmp_path / "disk", mkfs) as disk, Home(tmp_path / "home", QUICK) as home:
        inbox = disk / "inbox"
        inbox.mkdir()
        for number in (1, 2):
            (inbox / f"{number}.json").write_bytes(one(number))
            os.utime(inbox / f"{number}.json", (1_760_000_000 + number, 1_760_000_000 + number))
        ballast = [disk / f"{number}" for number in range(32)]
        with suppress(OSError):  # until there is no room for another name
            for path in ballast:
                path.touch()
        (home.path / "inboxd.toml").write_text(QUICK.replace("[inbox]", f'[inbox]\npath = "{inbox}"'), "utf-8")
        home.start()
        eventually(lambda: len(home.lines("file_deferred")) >= 2, "a second attempt")
        assert {line["error_code"] for line in home.lines("file_deferred")} == {"disk_full"}
        assert "disk_full" in str(eventually(lambda: home.json("status", "--json")["deferred"]))
        assert (inbox / "1.json").read_bytes() == one(1)
        for path in ballast:
            path.unlink(missing_ok=True)
        home.verdict("2.json")
        assert [line["rows_out"] for line in home.verdicts()] == [1, 1]
        assert loaded_once(home, "1.json")
        assert loaded_once(home, "2.json")
        assert (home.processed / "1.json").read_bytes() == one(1)


@pytest.mark.root
def test_a_full_disk_under_the_archive_makes_committed_files_wait_for_their_move(
    tmp_path: Path, require_root: Callable[[], None]
) -> None:
    """What is committed stays so: the copy across filesystems is tried again until there is room, and loads nothing."""
    require_root()
    with small_disk(tmp_path / "disk"), Home(tmp_path / "home", QUICK) as home:
        disk = tmp_path / "disk"
        archive = f'[archive]\nprocessed = "{disk}/processed"\nfailed = "{disk}/failed"\n'
        (home.path / "inboxd.toml").write_text(QUICK + archive, "utf-8")
        home.start()
        ballast = fill(disk)
        content = json.dumps([record(f"k{number}") for number in range(500)]).encode()
        home.drop("a.json", content)
        eventually(lambda: len(home.lines("file_deferred")) >= 2, "the move is tried again")
        assert {line["error_code"] for line in home.lines("file_deferred")} == {"disk_full"}
        assert home.query("SELECT status, rows_out FROM etl_runs") == [("success", 500)]
        ballast.unlink()
        eventually(lambda: not files_in(home.inbox), "it is moved")
        assert (disk / "processed" / "a.json").read_bytes() == content
        assert loaded_once(home, "a.json")


def test_a_failed_move_is_tried_again_and_a_restart_does_not_load_the_file_again(home: Home) -> None:
    """With a file in the place of processed/ the data stays committed; once that is mended the file is moved."""
    home.start()
    shutil.rmtree(home.processed)
    home.processed.write_bytes(b"in the way")
    home.drop("a.json", one(1))
    eventually(lambda: home.lines("file_deferred"), "file_deferred")
    home.verdict("a.json")
    home.kill()
    home.processed.unlink()
    home.start()
    eventually((home.processed / "a.json").exists, "it is moved")
    eventually(lambda: not files_in(home.inbox))
    assert loaded_once(home, "a.json")
    assert is_whole(home, "a.json", one(1))


@contextmanager
def limit(name: str, value: int) -> Iterator[None]:
    """Set one of the kernel's limits for inotify, for as long as it is needed."""
    setting = LIMITS / name
    before = setting.read_text("ascii")
    try:
        setting.write_text(str(value), "ascii")
    except OSError:
        missing(f"the right to set fs.inotify.{name}")
    try:
        yield
    finally:
        setting.write_text(before, "ascii")


def test_where_the_kernel_refuses_watches_the_inbox_is_polled(
    home: Home, require_tool: Callable[[str, str], str]
) -> None:
    """At the limit of inotify watches files are found all the same, and the operator is told which limit it is."""
    require_tool("strace", "strace")
    refusing = ("-e", "trace=inotify_add_watch", "-e", "inject=inotify_add_watch:error=ENOSPC")
    home.command = ("strace", "-f", "-o", str(home.path / "strace.out"), "--seccomp-bpf", *refusing, *home.command)
    home.start()
    assert "max_user_watches" in eventually(lambda: home.lines("inbox_polled"))[0]["reason"]
    home.drop("a.json", one(1))
    home.verdict("a.json")
    home.drop("sub/b.json", one(2))
    home.verdict("sub/b.json")


@pytest.mark.root
@pytest.mark.slow
def test_lost_events_cost_no_file(tmp_path: Path, require_root: Callable[[], None]) -> None:
    """When the kernel's queue overflows it is said, and every file of the burst is loaded, once."""
    require_root()
    with Home(tmp_path, QUICK) as home:
        with limit("max_queued_events", 16):  # a queue has the size that was the limit when it was made
            home.start()
        outside = home.write("burst/0.json", one(0)).parent
        for number in range(300):
            (outside / f"{number}.json").write_bytes(one(number))
        home.suspend()
        outside.rename(home.inbox / "burst")
        for number in range(300):
            (home.inbox / "burst" / f"{number}.json").rename(home.inbox / f"{number}.json")
        home.resume()
        eventually(lambda: len(home.verdicts()) >= 300, "every file of the burst")
        assert home.lines("inbox_overflow")
        assert home.query("SELECT COUNT(*), SUM(rows_in) FROM etl_runs WHERE status = 'success'") == [(300, 300)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_burst_of_files_is_loaded_whole(home: Home) -> None:
    """More than a thousand files renamed in at once, by several producers, all arrive, once, in flat memory."""
    home.start()
    before = rss_kib(home)
    outside = home.write("burst/0.json", one(0)).parent
    for number in range(BURST):
        (outside / f"{number}.json").write_bytes(one(number))
    movers = [
        subprocess.Popen(["sh", "-c", f"mv {outside}/*{digit}.json {home.inbox}"], stderr=subprocess.DEVNULL)
        for digit in range(10)
    ]
    for mover in movers:
        mover.wait()  # mv says "cannot stat" of a file that is taken before it has looked at what it moved
    assert files_in(outside) == []
    loaded = "SELECT COUNT(*), SUM(rows_in) FROM etl_runs WHERE status = 'success'"
    eventually(lambda: home.query(loaded) == [(BURST, BURST)], "all of them", deadline_s=200)
    eventually(lambda: len(home.verdicts()) == BURST)
    assert rss_kib(home) - before < 30_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_start_with_many_files_waiting_is_ready_before_they_are_loaded(home: Home) -> None:
    """READY does not wait for the backlog, all of it is loaded, oldest first, and a new file is not forgotten."""
    for number in range(WAITING):
        path = home.inbox / f"{number}.json"
        path.write_bytes(one(number))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    home.start()
    started = home.lines("daemon_started")[0]
    assert started["files_waiting"] == WAITING
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'success'")[0][0] < WAITING
    home.drop("new.json", one(80_000))
    sums = "SELECT COUNT(*), SUM(rows_out) FROM etl_runs WHERE status = 'success'"
    eventually(lambda: home.query(sums) == [(WAITING + 1, WAITING + 1)], "all of them", deadline_s=200)
    assert [line["file"] for line in home.verdicts()] == [*(f"{number}.json" for number in range(WAITING)), "new.json"]
    assert rss_kib(home) < 150_000
