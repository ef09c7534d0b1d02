"""That a file is heard of at once, and that an inbox never goes deaf unnoticed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import suspend
from faults import mount
from folders import NOBODY, Bench, Watched, public_folder, read_all, until, watching
from inboxd.inbox.archive import Archive
from inboxd.inbox.claim import new_claim_id, take
from inboxd.inbox.mounts import filesystem_of, is_remote
from inboxd.inbox.settle import Kind
from inboxd.inbox.watch import Watch
from requirements import missing


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an inbox of our own."""
    return Bench(tmp_path)


def rename_in(bench: Bench, name: str, content: bytes = b'{"key":"a"}\n') -> None:
    """Drop a file the good way: written elsewhere, then renamed."""
    (bench.folder / "being-written").write_bytes(content)
    (bench.folder / "being-written").rename(bench.root / name)


def test_a_rename_in_a_creation_and_a_close_are_told_apart(bench: Bench) -> None:
    """The daemon knows how each file came: only so can a renamed one be taken at once."""
    with watching(bench) as watched:
        rename_in(bench, "moved.json")
        bench.drop("written.json")
        watched.until(lambda: len(watched.hints) >= 3)
        assert watched.hints == [
            ("moved.json", Kind.MOVED),
            ("written.json", Kind.CREATED),
            ("written.json", Kind.CLOSED),
        ]


def test_a_file_renamed_in_is_ready_as_soon_as_it_is_heard_of(bench: Bench) -> None:
    """From the rename to the claim no timer runs."""
    with watching(bench) as watched:
        bench.survey()
        rename_in(bench, "a.json")
        watched.until(lambda: watched.hints)
        assert bench.ready() == ["a.json"]


def test_taking_files_out_wakes_nobody_and_delays_no_other_file(bench: Bench) -> None:
    """What inboxd does itself, the claim and the archive, is no event: the loop does not wake itself up."""
    archive = Archive(bench.root / "done" / "processed", bench.folder / "failed")
    with watching(bench) as watched:
        for number in range(20):
            rename_in(bench, f"{number}.json")
        watched.until(lambda: len(watched.hints) == 20)
        wakes = watched.wakes
        for candidate in bench.survey().ready:
            claim = take(str(bench.root), candidate, new_claim_id())
            assert claim is not None
            read_all(claim)
            archive.move(claim, archive.failed, 1)
        rename_in(bench, "last.json")
        watched.until(lambda: len(watched.hints) > 20)
        assert watched.hints[20:] == [("last.json", Kind.MOVED)]
        assert watched.wakes == wakes + 1


def test_hidden_and_ignored_names_wake_nobody(bench: Bench) -> None:
    """A producer's temporary names cost nothing."""
    with watching(bench) as watched:
        bench.drop(".a.json.part")
        bench.drop("a.json.tmp")
        bench.drop(".git/index.json")
        rename_in(bench, "a.json")
        watched.until(lambda: watched.wakes)
        assert watched.wakes == 1


def test_a_new_folder_is_looked_into_and_watched(bench: Bench) -> None:
    """Files below a folder made a moment ago are heard of like any others."""
    with watching(bench) as watched:
        (bench.root / "2026" / "01").mkdir(parents=True)
        watched.until(lambda: ("2026", Kind.FOLDER) in watched.hints)

        def heard() -> bool:
            rename_in(bench, "2026/01/a.json")
            return ("2026/01/a.json", Kind.MOVED) in watched.hints

        watched.until(heard)


def test_what_a_folder_brings_along_is_found_though_no_event_names_it(bench: Bench) -> None:
    """A folder renamed in whole is complete, and so are its files; none is taken for one being created."""
    with watching(bench) as watched:
        bench.survey()
        whole = bench.folder / "whole"
        (whole / "deep").mkdir(parents=True)
        (whole / "deep" / "a.json").write_bytes(b"[]")
        whole.rename(bench.root / "whole")
        watched.until(lambda: watched.hints)
        assert watched.hints == [("whole", Kind.FOLDER)]
        bench.survey()
        assert bench.ready(after=0.2) == ["whole/deep/a.json"]


def test_a_folder_renamed_within_the_inbox_is_heard_of_under_its_new_name(bench: Bench) -> None:
    """Renaming a folder does not make it deaf, nor its files homeless."""
    (bench.root / "old").mkdir()
    with watching(bench) as watched:
        (bench.root / "old").rename(bench.root / "new")
        watched.until(lambda: ("new", Kind.FOLDER) in watched.hints)
        rename_in(bench, "new/a.json")
        watched.until(lambda: ("new/a.json", Kind.MOVED) in watched.hints)
        assert watched.events() == []


def test_any_file_name_is_heard_of_as_it_is(bench: Bench) -> None:
    """Names that are no UTF-8, or hold a newline, arrive unchanged."""
    name = os.fsdecode(b"-\xff\xfe new\nline \xc3\xa4.json")
    with watching(bench) as watched:
        rename_in(bench, name)
        watched.until(lambda: watched.hints)
        assert watched.hints == [(name, Kind.MOVED)]


def test_an_inbox_that_is_a_symlink_to_a_folder_is_watched(tmp_path: Path) -> None:
    """The inbox may live elsewhere and be linked to."""
    bench = Bench(tmp_path)
    bench.root.rename(tmp_path / "real")
    bench.root.symlink_to(tmp_path / "real")
    with watching(bench) as watched:
        rename_in(bench, "a.json")
        watched.until(lambda: watched.hints)
        assert bench.ready() == ["a.json"]


def test_an_inbox_deleted_and_made_anew_is_noticed_and_watched_again(bench: Bench) -> None:
    """Also when the new folder gets the old one's inode number, as it does on ext4."""
    with watching(bench) as watched:
        for number in range(3):
            shutil.rmtree(bench.root)
            bench.root.mkdir()
            watched.until(lambda: watched.watch.check() and ("", Kind.RESCAN) in watched.hints)
            watched.hints.clear()
            rename_in(bench, f"{number}.json")
            watched.until(lambda: watched.hints)
            assert watched.hints == [(f"{number}.json", Kind.MOVED)]
            assert watched.events() == []


def test_an_inbox_that_is_gone_is_said_once_and_found_when_it_comes_back(bench: Bench) -> None:
    """Lost once, restored once, however long it takes and however often the loop looks."""
    with watching(bench) as watched:
        bench.root.rename(bench.folder / "away")
        assert watched.events() == ["inbox_lost"]
        assert watched.watch.lost
        assert watched.events() == []
        (bench.folder / "away").rename(bench.root)
        assert watched.events() == ["inbox_restored"]
        rename_in(bench, "a.json")
        watched.until(lambda: ("a.json", Kind.MOVED) in watched.hints)


def test_an_inbox_renamed_with_another_in_its_place_is_noticed(bench: Bench) -> None:
    """The old folder's events are not taken for the new one's."""
    with watching(bench) as watched:
        bench.root.rename(bench.folder / "away")
        bench.root.mkdir()
        assert watched.events() == ["inbox_lost", "inbox_restored"]
        (bench.folder / "away" / "old.json").write_bytes(b"[]")
        rename_in(bench, "new.json")
        watched.until(lambda: ("new.json", Kind.MOVED) in watched.hints)
        assert "old.json" not in [name for name, _ in watched.hints]


def heard_in(watched: Watched, *folders: str) -> None:
    """Wait until folders that are new, or have a new name, are watched, and then until files in them are heard of."""
    watched.until(lambda: {name for name, kind in watched.hints if kind is Kind.FOLDER} >= {*folders})
    for folder in folders:
        rename_in(watched.bench, f"{folder}/x.json")
    watched.until(lambda: {name for name, _ in watched.hints} >= {f"{folder}/x.json" for folder in folders})
    watched.hints.clear()


@pytest.mark.parametrize("away", ["../b.away", ".b"])
def test_folders_that_take_each_others_names_do_the_watch_no_harm(bench: Bench, away: str) -> None:
    """Nothing is heard of a folder that is moved away: the one that has its name then is watched, till the stop."""
    with watching(bench) as watched:
        for name in "abcd":
            (bench.root / name).mkdir()
        heard_in(watched, *"abcd")
        (bench.root / "b").rename(bench.root / away)
        (bench.root / "a").rename(bench.root / "b")
        (bench.root / "d").rename(bench.root / ".d")
        (bench.root / "c").rename(bench.root / "d")
        heard_in(watched, "b", "d")
        shutil.rmtree(bench.root / "b")
        shutil.rmtree(bench.root / away)
        (bench.root / "e").mkdir()
        heard_in(watched, "e")
        assert watched.events() == []


def test_a_watch_is_begun_anew_whatever_folders_were_moved(bench: Bench) -> None:
    """So it is when events were lost, or the inbox was: nothing of the old books counts."""
    with watching(bench) as watched:
        for name in "ab":
            (bench.root / name).mkdir()
        heard_in(watched, *"ab")
        (bench.root / "b").rename(bench.folder / "b.away")
        (bench.root / "a").rename(bench.root / "b")
        heard_in(watched, "b")
        watched.watch.overflowed()
        assert watched.events() == ["inbox_overflow"]
        rename_in(bench, "b/y.json")
        watched.until(lambda: ("b/y.json", Kind.MOVED) in watched.hints)
        bench.root.rename(bench.folder / "inbox.old")
        bench.root.mkdir()
        assert watched.events() == ["inbox_lost", "inbox_restored"]


def test_an_inbox_that_is_missing_at_start_is_no_error(bench: Bench) -> None:
    """A mount that comes late is waited for."""
    bench.root.rmdir()
    watch = Watch(str(bench.root), "auto", lambda: None, bench.inbox.hint)
    try:
        assert [notice.event for notice in watch.start()] == ["inbox_lost"]
        assert watch.check() == []
        bench.root.mkdir()
        assert [notice.event for notice in watch.check()] == ["inbox_restored"]
    finally:
        watch.stop()


def test_a_file_in_the_inboxs_place_is_a_lost_inbox(bench: Bench) -> None:
    """What is no folder cannot be watched."""
    with watching(bench) as watched:
        bench.root.rmdir()
        bench.root.write_bytes(b"")
        assert watched.events() == ["inbox_lost"]
        bench.root.unlink()
        bench.root.mkdir()
        assert watched.events() == ["inbox_restored"]


def test_stopping_twice_or_before_the_start_does_no_harm(bench: Bench) -> None:
    """Whoever ends the daemon need not know how far it had come."""
    watch = Watch(str(bench.root), "auto", lambda: None, bench.inbox.hint)
    watch.stop()
    assert watch.start() == []
    watch.stop()
    watch.stop()
    assert watch.check() == []


def test_a_polled_inbox_wakes_the_loop_now_and_then(bench: Bench) -> None:
    """Where the kernel hears nothing the loop is told to look."""
    with watching(bench, "always") as watched:
        watched.until(lambda: watched.wakes >= 3)
        assert watched.hints == []


@pytest.mark.root
def test_an_unmounted_inbox_is_noticed_and_watched_when_it_is_mounted_again(
    bench: Bench, require_root: Callable[[], None]
) -> None:
    """The watch does not hold the filesystem busy, and does not mistake the mount point for the inbox."""
    require_root()
    mount("-t", "tmpfs", "none", bench.root)
    try:
        with watching(bench) as watched:
            subprocess.run(["umount", str(bench.root)], check=True)
            watched.until(lambda: watched.wakes)
            assert watched.events() == ["inbox_lost", "inbox_restored"]
            mount("-t", "tmpfs", "none", bench.root)
            assert watched.events() == ["inbox_lost", "inbox_restored"]
            (bench.root / "a.json").write_bytes(b"[]")
            watched.until(lambda: ("a.json", Kind.CLOSED) in watched.hints)
    finally:
        subprocess.run(["umount", str(bench.root)], check=True)


@pytest.mark.root
def test_an_inbox_that_may_not_be_read_any_more_is_noticed(require_root: Callable[[], None]) -> None:
    """A chmod that shuts us out is said, and so is its end."""
    require_root()
    run_as_nobody(
        "root.chmod(0)\n"
        "assert [n.event for n in watch.check()] == ['inbox_lost']\n"
        "assert watch.check() == []\n"
        "root.chmod(0o755)\n"
        "assert [n.event for n in watch.check()] == ['inbox_restored']\n",
    )


def run_as_nobody(script: str) -> None:
    """Run a script with a watched inbox as a user without any privilege."""
    with public_folder() as folder:
        (folder / "inbox").mkdir()
        os.chown(folder / "inbox", NOBODY, NOBODY)
        run_with_watch(folder / "inbox", script, f"os.setgid({NOBODY}); os.setuid({NOBODY})")


def run_with_watch(root: Path, script: str, before: str = "") -> None:
    """Run a script in a process of its own, with ``watch`` on ``root`` and the hints it gives in ``hints``."""
    prelude = (
        "import os, sys\nfrom pathlib import Path\nfrom inboxd.inbox.watch import Watch\n"
        f"{before}\nroot = Path({str(root)!r})\nhints = []\n"
        "watch = Watch(str(root), 'auto', lambda: None, lambda name, kind: hints.append((name, str(kind))) or True)\n"
        "begun = watch.start()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}{script}watch.stop()\n"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_overflow_of_the_kernels_queue_is_noticed_and_everything_looked_at(bench: Bench) -> None:
    """A daemon that was stopped while 20,000 files arrived does not wait for the next timed scan."""
    script = (
        "import threading\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "for _ in range(2000):\n"
        "    found = [n.event for n in watch.check()]\n"
        "    if found: break\n"
        "    threading.Event().wait(0.01)\n"
        "print(found, ('', 'rescan') in hints, flush=True)\n"
        "before = len(hints)\n"
        "(root / 'after.json').write_bytes(b'[]')\n"
        "for _ in range(2000):\n"
        "    if ('after.json', 'closed') in hints: break\n"
        "    threading.Event().wait(0.01)\n"
        "print(('after.json', 'closed') in hints, flush=True)\n"
    )
    prelude = (
        "import sys\nfrom pathlib import Path\nfrom inboxd.inbox.watch import Watch\n"
        f"root = Path({str(bench.root)!r})\nhints = []\n"
        "watch = Watch(str(root), 'auto', lambda: None, lambda name, kind: hints.append((name, str(kind))) or True)\n"
        "watch.start()\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", prelude + script + "watch.stop()\n"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    try:
        assert daemon.stdout.readline() == "ready\n"
        suspend(daemon.pid)
        longest_queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
        (bench.root / "a.json").write_bytes(b"[]")
        for number in range(longest_queue + 100):  # each a rename in of its own: the same event twice is merged
            os.rename(
                bench.root / f"{'a' if number % 2 == 0 else 'b'}.json",
                bench.root / f"{'b' if number % 2 == 0 else 'a'}.json",
            )
        daemon.send_signal(signal.SIGCONT)
        daemon.stdin.write("go\n")
        daemon.stdin.flush()
        assert daemon.stdout.readline() == "['inbox_overflow'] True\n"
        assert daemon.stdout.readline() == "True\n"
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.communicate()


def test_without_any_watch_left_the_inbox_is_polled_and_that_is_said(
    bench: Bench, require_tool: Callable[[str, str], str]
) -> None:
    """The kernel's limit of watches costs latency, not files."""
    check_with_limit(bench, require_tool, 0, "[n.event for n in begun] == ['inbox_polled']")


def test_a_folder_too_many_to_be_watched_is_polled_and_that_is_said(
    bench: Bench, require_tool: Callable[[str, str], str]
) -> None:
    """Where only some folders can be watched the others are not forgotten."""
    for number in range(5):
        (bench.root / str(number)).mkdir()
    check_with_limit(
        bench,
        require_tool,
        3,
        "begun == [] and [n.event for n in watch.check()] == ['inbox_polled'] and watch.check() == []",
    )


def check_with_limit(bench: Bench, require_tool: Callable[[str, str], str], limit: int, claim: str) -> None:
    """Watch in a user namespace of its own, whose limit of watches can be set without touching anybody else's."""
    unshare = require_tool("unshare", "util-linux")
    script = (
        "import sys\nfrom inboxd.inbox.watch import Watch\n"
        f"open('/proc/sys/user/max_inotify_watches', 'w').write('{limit}')\n"
        f"watch = Watch({str(bench.root)!r}, 'auto', lambda: None, lambda name, kind: True)\n"
        f"begun = watch.start()\nassert {claim}\nwatch.stop()\n"
    )
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        missing(f"user namespaces: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_fifty_thousand_files_at_once_are_all_heard_of_or_found(tmp_path: Path) -> None:
    """A burst loses no file, whether the queue overflows or not."""
    bench = Bench(tmp_path, limit=100_000)
    with watching(bench) as watched:
        bench.survey()
        one = bench.folder / "one"
        one.write_bytes(b"[]")
        for number in range(50_000):
            os.link(one, bench.folder / "next")
            os.rename(bench.folder / "next", bench.root / f"{number}.json")
        bench.clock.forward(1)
        found: set[str] = set()

        def all_found() -> bool:
            watched.events()
            found.update(candidate.name for candidate in bench.survey().ready)
            return len(found) == 50_000

        until(all_found, watched.woken)


def test_a_local_filesystem_is_not_polled(tmp_path: Path) -> None:
    """Detection looks at the mount that holds the folder, and a folder that is not there is no reason to poll."""
    assert filesystem_of(str(tmp_path))
    assert not is_remote(str(tmp_path))
    assert filesystem_of("/proc") == "proc"
    assert not is_remote(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        ("nfs4", True),
        ("nfs", True),
        ("cifs", True),
        ("fuse.sshfs", True),
        ("9p", True),
        ("fuseblk", True),
        ("ext4", False),
    ],
)
def test_network_and_fuse_filesystems_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, remote: bool
) -> None:
    """`polling = "auto"` knows the filesystems that tell nothing of what other hosts do (also below a strange path)."""
    place = tmp_path / "a b"
    place.mkdir()
    listing = tmp_path / "mountinfo"
    escaped = str(place).replace(" ", "\\040")
    listing.write_text(
        f"22 1 0:1 / / rw - rootfs none rw\n23 22 0:99999 / {escaped} rw,relatime shared:1 - {kind} server:/x rw\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("inboxd.inbox.mounts.MOUNTINFO", listing)
    assert is_remote(str(place)) is remote


def test_being_short_of_file_handles_is_not_a_lost_inbox(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process lacks is not said of the inbox."""
    with watching(bench) as watched:

        def no_handles(*_: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr("inboxd.inbox.watch.os.open", no_handles)
            assert watched.events() == []
        assert not watched.watch.lost
