"""A real daemon, and a sender who may do more than drop files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD, Mask, WatchDescriptor

from daemons import Home, eventually, files_in, record
from faults import QUICK
from inboxd.inbox.archive import Archive, Place
from inboxd.inbox.claim import new_claim_id
from inboxd.inbox.emitter import InboxFD


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon that settles at once."""
    with Home(tmp_path / "home", QUICK) as home:
        yield home


def test_a_daemon_does_not_start_on_a_claimed_that_is_not_its_own(home: Home) -> None:
    """Exit 77, with the place and what to do; what is behind the link stays, and so do files that wait."""
    assert home.run_once() == 0
    (home.inbox / ".claimed").rmdir()
    home.drop("a.json", [record("a")])
    old = home.processed / "20260101T000000000000-000000000000"
    old.mkdir()
    (old / "b.json").write_bytes(b"[]")
    (home.inbox / ".claimed").symlink_to(home.processed)
    done = home.call("run", "--once")
    assert done.returncode == 77, done.stderr
    assert str(home.inbox / ".claimed") in done.stderr
    assert "0700" in done.stderr
    assert (old / "b.json").exists()
    assert (home.inbox / "a.json").exists()
    checks = {one["check"]: one for one in home.json("doctor", "--json")["checks"]}
    assert (checks["rename"]["status"], checks["claims"]["status"]) == ("wrong", "wrong")
    assert home.json("status", "--json")["content"]["claimed"] == 0
    (home.inbox / ".claimed").unlink()
    assert home.run_once() == 0
    assert (home.processed / "a.json").exists()


def test_files_wait_while_somebody_has_put_something_in_the_place_of_claimed(home: Home) -> None:
    """Met at work it is no crash and no loss: the files wait, it is said why, and they are loaded when it is gone."""
    home.start()
    (home.inbox / ".claimed").rename(home.path / "away")
    outside = home.path / "outside"
    outside.mkdir()
    (home.inbox / ".claimed").symlink_to(outside)
    home.drop("a.json", [record("a")])
    line = eventually(lambda: home.lines("file_deferred"))[0]
    assert (line["file"], line["error_code"]) == ("a.json", "claimed_refused")
    assert line["hint"]
    assert (home.inbox / "a.json").exists()
    assert list(outside.iterdir()) == []
    (home.inbox / ".claimed").unlink()
    home.verdict("a.json")
    assert (home.processed / "a.json").exists()


def test_a_report_goes_with_its_file_also_when_retry_was_killed(home: Home) -> None:
    """Whoever finishes the file sees to it: the report does not stay behind in `failed/`."""
    home.drop("sub/a.json", b"[")
    home.drop("other.json", b"[")
    assert home.run_once() == 1
    archive = Archive(home.processed, home.failed)
    place = Place(str(home.failed), "sub/a.json")
    claim = archive.take_back(str(home.inbox), place, "sub/a.json", new_claim_id(retry=True))  # and then it was killed
    Path(claim.path).write_bytes(b"[]")
    assert home.run_once() == 0
    assert (home.processed / "sub" / "a.json").exists()
    left = sorted(path.name for path in files_in(home.failed))
    assert left == ["other.json", "other.json.error.json"]


def test_an_archive_that_is_in_the_inbox_by_another_path_is_refused(home: Home) -> None:
    """Its text says otherwise: the folder is what counts, and 78 says so, at the start and at a reload."""
    (home.inbox / "done").mkdir()
    (home.path / "link").symlink_to(home.inbox / "done")
    overlapping = f'{QUICK}[archive]\nprocessed = "link/processed"\n'
    (home.path / "inboxd.toml").write_text(overlapping, encoding="utf-8")
    done = home.call("run", "--once")
    assert done.returncode == 78, done.stderr
    assert "archive.processed" in done.stderr
    (home.path / "inboxd.toml").write_text(QUICK, encoding="utf-8")
    home.start()
    (home.path / "inboxd.toml").write_text(overlapping, encoding="utf-8")
    assert home.process is not None
    os.kill(home.process.pid, 1)
    assert eventually(lambda: home.lines("config_rejected"))[0]["error_code"] == "folders_overlap"


def test_a_name_that_is_left_alone_is_said_once_whatever_is_reloaded(home: Home) -> None:
    """Each HUP loads the config anew, and warns of nothing that was said."""
    home.start()
    home.drop("notes.txt", b"x")
    eventually(lambda: home.lines("file_ignored"))
    assert home.process is not None
    for number in range(3):
        os.kill(home.process.pid, 1)
        eventually(partial(_reloaded, home, number + 1))
        home.drop(f"{number}.json", [record("a", ts=f"2026-01-15T10:30:0{number}Z")])
        home.verdict(f"{number}.json")
    assert [line["file"] for line in home.lines("file_ignored")] == ["notes.txt"]


def _reloaded(home: Home, times: int) -> bool:
    return len(home.lines("config_reloaded")) >= times


class Listening:
    """Hears what a watch tells."""

    def __init__(self) -> None:
        self.overflows = 0

    def happened(self, path: str, kind: object) -> None:
        """Hear nothing of it."""

    def overflowed(self) -> None:
        """Count it."""
        self.overflows += 1

    def gone(self) -> None:
        """Hear nothing of it."""


def test_a_librarys_fault_in_the_watchers_thread_costs_a_look_at_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After folders were swapped, watchdog's books may be wrong: no traceback, no dead thread, but a new watch."""

    def fails(_self: InotifyFD, _event: InotifyEvent) -> None:
        raise KeyError(b"/swapped")

    monkeypatch.setattr(InotifyFD, "handle_event", fails)
    listener = Listening()
    fd = InboxFD(str(tmp_path), listener)
    try:
        fd.handle_event(InotifyEvent(WatchDescriptor(1), Mask(0x100), 0, b"a.json"))
        assert listener.overflows == 1
    finally:
        fd.close()


def test_swapped_folders_are_still_watched(home: Home) -> None:
    """Files in folders that came and went are found at once, and no library prints a traceback."""
    for name in ("one", "two"):
        (home.inbox / name).mkdir()
    home.start()
    for number in range(30):
        (home.inbox / "one").rename(home.inbox / "three")
        (home.inbox / "two").rename(home.inbox / "one")
        (home.inbox / "three").rename(home.inbox / "two")
        if number % 10 == 0:
            shutil.rmtree(home.inbox / "two")
            (home.inbox / "two").mkdir()
    home.drop("one/a.json", [record("a")])
    home.drop("two/b.json", [record("b", ts="2026-01-16T10:30:00Z")])
    home.verdict("one/a.json")
    home.verdict("two/b.json")
    assert "Traceback" not in home.output()


def test_with_archive_copy_a_senders_link_changes_nothing_that_is_archived(home: Home) -> None:
    """Neither of what the daemon archives nor of what `retry` does: each is a file of its own."""
    (home.path / "inboxd.toml").write_text(f"{QUICK}[archive]\ncopy = true\n", encoding="utf-8")
    for name, content in (("good.json", b"[]"), ("bad.json", b"[")):
        os.link(home.write(name, content), home.path / f"kept-{name}")
        (home.path / "outside" / name).rename(home.inbox / name)
    assert home.run_once() == 1
    assert home.call("retry", "bad.json").returncode == 1
    for place, name in ((home.processed, "good.json"), (home.failed, "bad.json")):
        before = (place / name).read_bytes()
        (home.path / f"kept-{name}").write_bytes(b"changed")
        assert (place / name).read_bytes() == before
