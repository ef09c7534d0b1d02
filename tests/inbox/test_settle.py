"""When a file is complete."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from folders import Bench, SkewedClock, other_process, public_folder, without_privilege
from inboxd.inbox.lease import Lease, lease_at
from inboxd.inbox.settle import Kind
from inboxd.inbox.tree import Folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an inbox of our own."""
    return Bench(tmp_path)


@pytest.fixture
def foreign(require_root: Callable[[], None]) -> Iterator[Bench]:
    """Return an inbox whose files are another user's: no lease is to be had of them once we are nobody."""
    require_root()
    with public_folder() as folder:
        yield Bench(folder)


def test_a_dropped_file_is_ready_once_it_has_been_still_for_the_settle_time(bench: Bench) -> None:
    """A file that was just written and closed is taken after `inbox.settle`, and not before."""
    bench.drop("a.json")
    assert bench.ready() == []
    assert bench.ready(after=0.05) == []
    assert bench.ready(after=0.06) == ["a.json"]


def test_the_next_look_is_announced_for_when_a_file_will_have_settled(bench: Bench) -> None:
    """The daemon sleeps exactly until a file may be complete: it neither spins nor oversleeps."""
    bench.drop("a.json")
    due = bench.survey().next_due
    assert due is not None
    assert 0.05 < due - bench.clock.monotonic() <= 0.1


def test_a_file_found_at_start_that_was_finished_long_ago_is_ready_at_once(bench: Bench) -> None:
    """What was dropped while the daemon was down does not wait at its start."""
    bench.drop("a.json")
    bench.clock.forward(60)
    assert bench.ready() == ["a.json"]


def test_a_file_that_grows_starts_settling_anew(bench: Bench) -> None:
    """Each change of size or mtime begins the settle time again."""
    path = bench.drop("a.json")
    bench.survey()
    path.write_bytes(b'{"key":"a"}\n{"key":"b"}\n')
    assert bench.ready(after=0.2) == []
    assert bench.ready(after=0.2) == ["a.json"]


def test_a_file_that_another_process_has_open_for_writing_is_never_ready(bench: Bench) -> None:
    """A slow producer may write one byte a minute: as long as it has the file open, nothing of it is taken."""
    with other_process() as producer:
        producer.do(f"file = open({str(bench.root / 'a.json')!r}, 'wb', buffering=0)")
        for byte in b'{"key":1}\n{"key":2}\n':
            producer.do(f"file.write(bytes([{byte}]))")
            assert bench.ready(after=60) == []
            assert bench.ready(after=60) == []
        producer.do("file.close()")
        bench.inbox.hint("a.json", Kind.CLOSED)
        assert bench.ready(after=0.2) == ["a.json"]


def test_a_file_renamed_in_while_its_writer_has_it_open_waits_for_the_close(bench: Bench, tmp_path: Path) -> None:
    """A rename proves that a file is complete, unless the kernel knows better."""
    with other_process() as producer:
        producer.do(f"file = open({str(tmp_path / 'a.json')!r}, 'w'); file.write('[1'); file.flush()")
        (tmp_path / "a.json").rename(bench.root / "a.json")
        bench.inbox.hint("a.json", Kind.MOVED)
        assert bench.ready() == []
        assert bench.survey().unsettled[0].reason == "open for writing"
        assert bench.ready(after=60) == []
        producer.do("file.write(']'); file.close()")
        bench.inbox.hint("a.json", Kind.CLOSED)
        assert bench.ready() == []
        assert bench.ready(after=0.2) == ["a.json"]


def test_a_file_renamed_in_is_ready_at_once(bench: Bench) -> None:
    """Write under another name and rename: nothing waits for anything."""
    bench.drop("a.json")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready() == ["a.json"]


def test_a_producer_that_dies_with_the_file_open_does_not_hold_it_for_ever(bench: Bench) -> None:
    """The kernel closes a dead process's files, and then the file settles, also if nobody heard of the close."""
    with other_process() as producer:
        producer.do(f"file = open({str(bench.root / 'a.json')!r}, 'w'); file.write('[]'); file.flush()")
        assert bench.ready(after=60) == []
    assert bench.ready() == []
    assert bench.ready(after=5) == ["a.json"]


def test_an_empty_file_waits_ten_times_as_long(bench: Bench) -> None:
    """A file of zero bytes is most likely about to be filled; after 10 settle times it is taken as it is."""
    bench.drop("a.json", b"")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready() == []
    assert bench.ready(after=0.9) == []
    assert bench.ready(after=0.2) == ["a.json"]


def test_a_file_that_never_settles_is_named_once_and_keeps_its_place(bench: Bench) -> None:
    """Somebody learns from the log which file waits and for what, and it is taken as soon as it is complete."""
    with other_process() as producer:
        producer.do(f"file = open({str(bench.root / 'a.json')!r}, 'w'); file.write('[]'); file.flush()")
        bench.survey()
        bench.survey(after=1)
        named = [notice for _ in range(20) for notice in bench.survey(after=5).notices]
        assert [(notice.event, notice.name) for notice in named] == [("file_unsettled", "a.json")]
        assert "open for writing" in named[0].reason
    assert bench.ready(after=5) == ["a.json"]


def test_the_wall_clock_jumping_forward_does_not_make_a_new_file_old(tmp_path: Path) -> None:
    """After NTP has put the clock right, a file just written still settles for the whole settle time."""
    bench = Bench(tmp_path, SkewedClock())
    bench.survey()
    bench.drop("a.json")
    bench.clock.jump(3600)
    assert bench.ready() == []
    assert bench.ready(after=0.2) == ["a.json"]


def test_the_wall_clock_jumping_back_does_not_hold_files_up(tmp_path: Path) -> None:
    """A file whose times are in the future settles like any other."""
    bench = Bench(tmp_path, SkewedClock())
    bench.drop("a.json", mtime=4_000_000_000)
    bench.clock.jump(-86_400)
    assert bench.ready() == []
    assert bench.ready(after=0.2) == ["a.json"]


def test_files_of_one_scan_settle_together(bench: Bench) -> None:
    """What one scan finds becomes ready in one scan, so that order is by age and not by luck."""
    for number in range(50):
        bench.drop(f"{number}.json", mtime=1_000_000 - number)
    bench.survey()
    assert bench.ready(after=0.2) == [f"{number}.json" for number in reversed(range(50))]


def test_on_a_filesystem_that_others_change_unseen_only_waiting_proves(tmp_path: Path) -> None:
    """On NFS neither the kernel nor the clock is believed: each file is still for `settle_unproven`, said once."""
    bench = Bench(tmp_path, remote=True)
    bench.drop("a.json", mtime=1_000_000)
    bench.clock.forward(3600)
    assert bench.ready() == []
    assert bench.ready(after=4) == []
    survey = bench.survey(after=2)
    assert [candidate.name for candidate in survey.ready] == ["a.json"]
    assert [notice.event for notice in survey.notices] == ["settle_unproven"]
    assert bench.survey().notices == ()


@pytest.mark.root
def test_without_a_lease_a_file_found_by_a_scan_waits_settle_unproven(foreign: Bench) -> None:
    """Files of other users, without CAP_LEASE and without an event: only waiting is left."""
    foreign.drop("a.json")
    with without_privilege():
        assert foreign.ready() == []
        assert foreign.ready(after=1) == []
        assert foreign.ready(after=3) == []
        assert foreign.ready(after=2) == ["a.json"]


@pytest.mark.root
def test_without_a_lease_a_created_file_waits_for_its_close(foreign: Bench) -> None:
    """A file that was seen being created is not taken before its close was seen, however long that takes."""
    foreign.drop("a.json")
    foreign.inbox.hint("a.json", Kind.CREATED)
    with without_privilege():
        assert [foreign.ready(after=60) for _ in range(10)] == [[]] * 10
        foreign.inbox.hint("a.json", Kind.CLOSED)
        assert foreign.ready() == ["a.json"]


@pytest.mark.root
def test_without_a_lease_a_hard_link_to_a_finished_file_is_not_waited_for(foreign: Bench) -> None:
    """`ln` makes a name that nobody will ever close: after `settle_unproven` it is taken."""
    (foreign.folder / "made-elsewhere").write_bytes(b"[]")
    (foreign.root / "a.json").hardlink_to(foreign.folder / "made-elsewhere")
    foreign.inbox.hint("a.json", Kind.CREATED)
    with without_privilege():
        assert foreign.ready(after=1) == []
        assert foreign.ready(after=1) == []
        assert foreign.ready(after=6) == ["a.json"]


@pytest.mark.root
def test_without_a_lease_a_file_renamed_in_is_ready_at_once(foreign: Bench) -> None:
    """A rename is proof enough, whoever owns the file."""
    foreign.drop("a.json")
    foreign.inbox.hint("a.json", Kind.MOVED)
    with without_privilege():
        assert foreign.ready() == ["a.json"]


@pytest.mark.root
def test_a_file_that_may_not_be_read_settles_all_the_same(foreign: Bench) -> None:
    """A file of mode 0600 of another user gets its verdict (`unreadable`) instead of waiting for ever."""
    foreign.drop("a.json").chmod(0o600)
    with without_privilege():
        assert foreign.ready(after=1) == []
        assert foreign.ready(after=6) == ["a.json"]


def test_a_file_that_changed_while_it_was_read_settles_again_though_it_is_renamed_back_in(bench: Bench) -> None:
    """A rewriting producer is not met half-way twice: being put back does not count as being complete."""
    path = bench.drop("a.json")
    bench.inbox.resettle("a.json")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready() == []
    path.write_bytes(b"[1, 2]")
    assert bench.ready(after=0.2) == []
    assert bench.ready(after=0.2) == ["a.json"]


def test_asking_for_a_lease_never_kills_the_process_and_never_stops_a_writer(tmp_path: Path) -> None:
    """A writer that opens the file just as the kernel is asked goes on, and so do we."""
    path = tmp_path / "a.json"
    path.write_bytes(b"[]")
    script = f"for _ in range(3000): open({str(path)!r}, 'ab').close()"
    folder = Folder.root(tmp_path)
    assert lease_at(folder, "a.json") is Lease.GRANTED
    writer = subprocess.Popen([sys.executable, "-c", script])
    answers = set()
    while writer.poll() is None:
        answers.add(lease_at(folder, "a.json"))
    assert writer.returncode == 0
    assert answers <= {Lease.GRANTED, Lease.OPEN}
    assert Lease.GRANTED in answers
    assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN


def test_a_writer_of_another_name_of_the_file_is_seen_too(bench: Bench, tmp_path: Path) -> None:
    """The kernel counts writers of the file, not of the name."""
    bench.drop("a.json")
    os.link(bench.root / "a.json", tmp_path / "other-name")
    with (tmp_path / "other-name").open("ab"):
        assert bench.ready(after=60) == []
    assert bench.ready(after=60) == ["a.json"]


def test_a_file_that_was_moved_in_waits_for_settle_moved(tmp_path: Path) -> None:
    """A sender who renames first and sets time and mode then (sftp, rclone) finds his file still there."""
    bench = Bench(tmp_path, settle_moved=1.0)
    path = bench.drop("a.json")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready(after=0.3) == []
    os.utime(path, (1_000, 1_000))
    path.chmod(0o600)
    assert bench.ready(after=0.5) == []
    assert bench.ready(after=0.6) == []  # it was touched less than a second ago
    assert bench.ready(after=0.6) == ["a.json"]


def test_without_settle_moved_a_file_that_was_moved_in_is_taken_at_once(bench: Bench) -> None:
    """The default costs a careful producer nothing."""
    bench.drop("a.json")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready() == ["a.json"]
