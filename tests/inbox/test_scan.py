"""What is found in the inbox, in which order, and what is left alone."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folders import NOBODY, Bench, other_process, public_folder, without_privilege
from inboxd.errors import TransientFault
from inboxd.inbox.claim import new_claim_id, take
from inboxd.inbox.scan import Candidate
from inboxd.inbox.settle import Kind
from inboxd.inbox.watch import Watch

NOT_OURS = TransientFault("not_movable", "it is not ours")


@pytest.fixture
def public_bench(require_root: Callable[[], None]) -> Iterator[Bench]:
    """Return an inbox that other users reach too; only root can become another user."""
    require_root()
    with public_folder() as folder:
        yield Bench(folder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an inbox of our own."""
    return Bench(tmp_path)


def names(bench: Bench) -> list[str]:
    """Return what is ready once everything has settled."""
    return [candidate.name for candidate in bench.settled().ready]


@pytest.mark.parametrize("form", [".json", ".ndjson", ".jsonl"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_each_suffix_of_the_manual_is_taken(bench: Bench, form: str, packing: str) -> None:
    """JSON, NDJSON and JSON lines, plain or packed with gzip or zstd."""
    bench.drop(f"a{form}{packing}")
    assert names(bench) == [f"a{form}{packing}"]


@pytest.mark.parametrize("name", ["a.csv", "a.json.tar", "a", "json", "a.json.bz2"])
def test_a_file_of_another_kind_is_left_alone_and_said_once(bench: Bench, name: str) -> None:
    """A CSV in the inbox is neither touched nor passed over in silence."""
    bench.drop(name)
    survey = bench.settled()
    assert (survey.ready, survey.total, survey.ignored) == ((), 0, 1)
    bench.drop("b.csv")
    assert [(n.event, n.name) for n in bench.survey().notices] == [("file_ignored", "b.csv")]
    assert bench.survey().notices == ()
    assert (bench.root / name).exists()


def test_a_file_that_no_feed_matches_is_left_alone_and_said_once(bench: Bench) -> None:
    """The operator learns which file has no feed."""
    bench.drop("unmatched.json")
    notices = bench.survey().notices
    assert [(notice.event, notice.name, notice.reason) for notice in notices] == [
        ("file_ignored", "unmatched.json", "no feed matches it")
    ]
    assert bench.survey().ignored == 1


def test_what_is_left_alone_is_said_again_when_it_comes_back(bench: Bench) -> None:
    """The memory of what was said ends with the file, so it stays small and the next mistake is told."""
    for _ in range(2):
        bench.drop("a.csv")
        assert [notice.name for notice in bench.survey().notices] == ["a.csv"]
        (bench.root / "a.csv").unlink()
        assert bench.survey().notices == ()


@pytest.mark.parametrize("name", [".a.json", "a.tmp", "a.json.tmp", "a.json~", ".hidden/a.json", "work.part/a.json"])
def test_hidden_and_ignored_names_are_left_alone_without_a_word(bench: Bench, name: str) -> None:
    """Names that producers use while they write are not commented on."""
    bench.drop(name)
    survey = bench.settled()
    assert (survey.ready, survey.total, survey.ignored, survey.notices) == ((), 0, 0, ())


def test_what_is_claimed_is_never_found_again(bench: Bench) -> None:
    """The scan does not enter `.claimed`."""
    bench.drop(".claimed/20260115T103000000000-0123456789ab/a.json")
    assert bench.settled().total == 0


def test_folders_are_entered_also_one_called_like_a_file(bench: Bench) -> None:
    """A folder named `x.json` is a folder, and needs no comment."""
    bench.drop("x.json/deep/er/a.json")
    survey = bench.settled()
    assert [candidate.name for candidate in survey.ready] == ["x.json/deep/er/a.json"]
    assert survey.notices == ()


def test_symlinks_fifos_sockets_and_devices_are_left_alone_and_said_once(
    bench: Bench, require_root: Callable[[], None]
) -> None:
    """Only regular files are taken: nothing hangs on a FIFO, and a symlink leads nowhere."""
    require_root()
    secret = bench.folder / "secret.json"
    secret.write_bytes(b"[]")
    (bench.root / "link.json").symlink_to(secret)
    (bench.folder / "elsewhere").mkdir()
    (bench.folder / "elsewhere" / "b.json").write_bytes(b"[]")
    (bench.root / "linked-folder").symlink_to(bench.folder / "elsewhere")
    os.mkfifo(bench.root / "fifo.json")
    os.mknod(bench.root / "device.json", 0o644 | 0o020000, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.root / "socket.json"))
        survey = bench.survey()
        assert {(notice.event, notice.name) for notice in survey.notices} == {
            ("file_ignored", name) for name in ("link.json", "linked-folder", "fifo.json", "device.json", "socket.json")
        }
        assert bench.survey(after=60).ready == ()
        assert bench.survey().ignored == 5


NAME_BYTES = st.binary(min_size=1, max_size=250).filter(
    lambda name: b"/" not in name and b"\0" not in name and not name.startswith(b".")
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stem=NAME_BYTES)
def test_a_file_of_any_name_is_found_under_exactly_that_name(
    tmp_path_factory: pytest.TempPathFactory, stem: bytes
) -> None:
    """Newlines, escapes, quotes, bytes that are no UTF-8: what the kernel allows is taken."""
    bench = Bench(tmp_path_factory.mktemp("names"))
    name = stem + b".json"
    with open(os.fsencode(bench.root) + b"/" + name, "wb") as file:
        file.write(b"[]")
    assert [os.fsencode(found) for found in names(bench)] == [name]


def test_files_are_given_out_oldest_first_by_mtime_then_name(bench: Bench) -> None:
    """The order is that of the files' age, and where that is the same, of their names."""
    bench.drop("c.json", mtime=3000)
    bench.drop("b.json", mtime=1000)
    bench.drop("a.json", mtime=3000)
    bench.drop("z/d.json", mtime=2000)
    assert names(bench) == ["b.json", "z/d.json", "a.json", "c.json"]


def test_a_survey_gives_out_the_oldest_and_says_that_there_are_more(tmp_path: Path) -> None:
    """A backlog is taken in portions, and the oldest portion comes first, in whatever order the folder lists it."""
    bench = Bench(tmp_path, limit=10)
    for number in range(95):
        bench.drop(f"{number:03}.json", mtime=1000 + (number * 37) % 95)
    survey = bench.settled()
    assert [candidate.mtime_ns // 10**9 for candidate in survey.ready] == list(range(1000, 1010))
    assert (survey.more, survey.total) == (True, 95)
    seen = 0
    while survey.ready:
        for candidate in survey.ready:
            (bench.root / candidate.name).unlink()
        seen += len(survey.ready)
        survey = bench.survey()
    assert (seen, survey.total, survey.more) == (95, 0, False)


@pytest.mark.slow
def test_a_hundred_thousand_waiting_files_need_bounded_memory(tmp_path: Path) -> None:
    """What a survey holds depends on the limit, not on how many files wait."""
    bench = Bench(tmp_path, limit=1_000)
    for folder in range(10):
        (bench.root / str(folder)).mkdir()
        for number in range(10_000):
            os.close(os.open(bench.root / str(folder) / f"{number}.json", os.O_CREAT | os.O_WRONLY))
    bench.clock.forward(60)
    tracemalloc.start()
    try:
        survey = bench.survey()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(survey.ready), survey.total, survey.more) == (1_000, 100_000, True)
    assert peak < 8 * 2**20


@pytest.fixture
def expensive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a look at everything as expensive as it is with hundreds of thousands of files."""
    bench.expensive = True
    monkeypatch.setattr("inboxd.inbox.scan.CHEAP_S", 0.0)
    monkeypatch.setattr("inboxd.inbox.scan.SCAN_SHARE", 1_000_000)


def test_new_files_are_found_at_once_beside_any_number_that_is_left_alone(bench: Bench, expensive: None) -> None:
    """Where looking at everything is expensive, a hint is enough to find a new file; the scan still comes round."""
    for number in range(100):
        bench.drop(f"{number}.csv")
    assert bench.survey().full
    bench.drop("new.json")
    bench.inbox.hint("new.json", Kind.MOVED)
    survey = bench.survey()
    assert ([candidate.name for candidate in survey.ready], survey.full) == (["new.json"], False)
    assert bench.ready() == ["new.json"]  # until it is taken
    (bench.root / "new.json").unlink()
    bench.drop("unheard.json")
    survey = bench.survey()
    assert (survey.ready, survey.full) == ((), False)
    assert survey.next_due is not None
    assert bench.survey(after=survey.next_due - bench.clock.monotonic() + 60).full
    bench.inbox.hint("", Kind.RESCAN)
    assert "unheard.json" in bench.ready(after=1)


def test_a_hinted_folder_is_looked_into_at_once(bench: Bench, expensive: None) -> None:
    """A folder renamed in with its files is found without a look at everything."""
    bench.drop("old.csv")
    bench.survey()
    bench.drop("new/deep/a.json")
    bench.clock.forward(0.2)
    bench.inbox.hint("new", Kind.FOLDER)
    survey = bench.survey()
    assert ([candidate.name for candidate in survey.ready], survey.full) == (["new/deep/a.json"], False)


def test_what_settles_is_not_forgotten_between_two_looks_at_everything(bench: Bench, expensive: None) -> None:
    """A hint about one file neither hides the others that settle, nor lets it overtake an older one."""
    bench.survey()
    bench.drop("skip/old.json", mtime=1000)
    bench.inbox.hint("skip/old.json", Kind.CREATED)
    bench.survey()
    bench.drop("skip/new.json", mtime=2000)
    bench.inbox.hint("skip/new.json", Kind.MOVED)
    survey = bench.survey(after=0.05)
    assert (survey.full, survey.ready, survey.settling) == (False, (), 1)
    assert survey.next_due is not None
    assert survey.next_due - bench.clock.monotonic() < 0.1
    assert bench.ready(after=0.06) == ["skip/old.json", "skip/new.json"]


def test_a_backlog_that_waits_for_one_older_file_leaves_the_places_to_other_feeds(tmp_path: Path) -> None:
    """An ordered feed held up by a file that settles does not hold up the others."""
    bench = Bench(tmp_path, limit=3)
    for number in range(10):
        bench.drop(f"skip/{number}.json", mtime=2000)
    bench.drop("other/a.json", mtime=3000)
    bench.clock.forward(60)
    with bench.drop("skip/open.json", mtime=1000).open("ab"):
        survey = bench.survey()
        assert survey.ready == ()
        assert survey.next_due is not None
        assert 0 < survey.next_due - bench.clock.monotonic() < 1
        assert bench.ready() == ["other/a.json"]
        assert bench.ready(after=60)[0] == "skip/0.json"


def test_lost_events_are_made_good_by_a_look_at_everything(bench: Bench, expensive: None) -> None:
    """After an overflow of the kernel's queue nothing waits for the next timed scan."""
    bench.survey()
    bench.drop("a.json", mtime=1000)
    assert bench.survey(after=0.2).ready == ()
    bench.inbox.hint("", Kind.RESCAN)
    assert bench.ready() == ["a.json"]


def test_files_that_are_open_for_ever_do_not_starve_the_others(tmp_path: Path) -> None:
    """However many of the oldest files are never complete, the newer ones get their turn."""
    bench = Bench(tmp_path, limit=5)
    open_files = [(bench.drop(f"old{number}.json", mtime=1000)).open("ab") for number in range(20)]
    bench.drop("new.json", mtime=2000)
    bench.clock.forward(60)
    try:
        assert any("new.json" in bench.ready() for _ in range(6))
    finally:
        for file in open_files:
            file.close()


def test_an_ordered_feeds_file_does_not_overtake_an_older_one_that_settles(bench: Bench) -> None:
    """With `late = "skip"` a newer file would make the older one's records stale, so it waits, but only for so long."""
    with other_process() as producer:
        producer.do(f"import os; os.makedirs({str(bench.root / 'skip')!r})")
        producer.do(f"file = open({str(bench.root / 'skip' / 'old.json')!r}, 'w')")
        producer.do("file.write('[1'); file.flush(); os.utime(file.fileno(), (1000, 1000))")
        bench.drop("skip/new.json", mtime=2000)
        bench.drop("other/new.json", mtime=2000)
        bench.survey()
        assert bench.ready(after=0.2) == ["other/new.json"]
        due = bench.survey().next_due
        assert due is not None
        assert due - bench.clock.monotonic() < 1
        assert bench.ready(after=0.5) == ["other/new.json"]
        assert bench.ready(after=0.5) == ["other/new.json", "skip/new.json"]


def test_an_ordered_feeds_older_files_are_not_held_up_by_a_newer_one(bench: Bench) -> None:
    """Waiting goes one way only."""
    bench.drop("skip/old.json", mtime=1000)
    bench.clock.forward(60)
    with bench.drop("skip/new.json", mtime=2000).open("ab"):
        assert bench.ready() == ["skip/old.json"]


def test_a_feed_that_has_to_wait_leaves_the_places_to_others(tmp_path: Path) -> None:
    """The files of a feed that cannot be loaded now do not stand in the way of other feeds' files."""
    bench = Bench(tmp_path, limit=3)
    for number in range(20):
        bench.drop(f"stuck/{number}.json", mtime=1000)
    bench.drop("fine/a.json", mtime=2000)
    bench.clock.forward(60)
    assert [candidate.feed for candidate in bench.inbox.survey().ready] == ["stuck"] * 3
    survey = bench.inbox.survey(without={"stuck"})
    assert [candidate.name for candidate in survey.ready] == ["fine/a.json"]
    assert survey.total == 21


def test_a_file_that_could_not_be_claimed_is_offered_again_after_a_growing_pause(bench: Bench) -> None:
    """What cannot be moved is said once and tried again; it neither spins the loop nor is forgotten."""
    bench.drop("a.json")
    bench.drop("b.json")
    first, other = bench.settled().ready
    assert bench.inbox.set_aside(first, NOT_OURS)
    survey = bench.survey()
    assert survey.ready == (other,)
    assert survey.total == 2
    assert survey.next_due is not None
    assert survey.next_due - bench.clock.monotonic() <= 1.0
    assert first in bench.survey(after=1.1).ready
    assert not bench.inbox.set_aside(first, NOT_OURS)
    assert bench.survey(after=1.1).ready == (other,)
    assert first in bench.survey(after=1.0).ready


def test_a_subfolder_that_cannot_be_listed_is_said_once_and_the_rest_goes_on(public_bench: Bench) -> None:
    """One folder's permissions are that folder's trouble."""
    public_bench.drop("closed/a.json")
    public_bench.drop("b.json")
    (public_bench.root / "closed").chmod(0o700)
    os.chown(public_bench.root / "b.json", NOBODY, NOBODY)
    with without_privilege():
        survey = public_bench.settled()
        assert [candidate.name for candidate in survey.ready] == ["b.json"]
        assert public_bench.survey().notices == ()
    again = public_bench.open()
    with without_privilege():
        assert [(notice.event, notice.name) for notice in again.survey().notices] == [("folder_unreadable", "closed")]


def test_an_inbox_that_is_gone_is_the_worlds_fault(bench: Bench) -> None:
    """A missing inbox is waited for; it is no error of any file's."""
    bench.root.rename(bench.folder / "moved")
    with pytest.raises(TransientFault) as caught:
        bench.survey()
    assert caught.value.code == "gone"
    (bench.folder / "moved").rename(bench.root)
    bench.drop("a.json")
    assert names(bench) == ["a.json"]


def test_folders_nested_deeper_than_a_path_can_be_named_do_not_stop_the_scan(bench: Bench) -> None:
    """Thousands of levels of folders end in one notice."""
    here = os.open(bench.root, os.O_RDONLY)
    for _ in range(2_200):
        os.mkdir("d", dir_fd=here)
        here = descend(here, "d")
    try:
        bench.drop("a.json")
        first = bench.survey()
        assert [notice.event for notice in first.notices] == ["folder_unreadable"]
        assert bench.ready(after=0.2) == ["a.json"]
    finally:  # pytest's own removal gives up at such a depth
        for _ in range(2_200):
            here = descend(here, "..")
            os.rmdir("d", dir_fd=here)
        os.close(here)


def descend(here: int, name: str) -> int:
    """Open a folder in an open folder, and close that."""
    there = os.open(name, os.O_RDONLY, dir_fd=here)
    os.close(here)
    return there


def test_thousands_of_names_left_alone_are_counted_and_end_in_one_line(bench: Bench) -> None:
    """A folder full of CSVs neither fills the log nor the memory."""
    for number in range(10_050):
        os.close(os.open(bench.root / f"{number}.csv", os.O_CREAT | os.O_WRONLY))
    survey = bench.survey()
    assert survey.ignored == 10_050
    assert len(survey.notices) == 10_001
    assert survey.notices[-1].name == ""
    bench.inbox.hint("", Kind.RESCAN)
    assert bench.survey().notices == ()


def test_a_candidate_says_all_that_the_claim_compares(bench: Bench) -> None:
    """What is claimed is compared with what was found: size, mtime, inode."""
    path = bench.drop("a.json", b"[]", mtime=1000)
    found = path.stat()
    assert bench.settled().ready == (Candidate("a.json", 2, found.st_mtime_ns, found.st_dev, found.st_ino, "events"),)


def test_an_entry_that_cannot_be_looked_at_holds_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stale handle or bad inode in the inbox is named and left alone; the files around it are found."""
    for name in ("a.json", "bad.json", "z.json"):
        bench.drop(name)
    real = os.scandir

    class Entry:
        """An entry of which the disk can say nothing."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self._entry.is_dir(follow_symlinks=follow_symlinks)

        def is_file(self, *, follow_symlinks: bool) -> bool:
            return self._entry.is_file(follow_symlinks=follow_symlinks)

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == "bad.json":
                raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))
            return self._entry.stat(follow_symlinks=follow_symlinks)

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[Entry]]:
        with real(path) as entries:
            yield map(Entry, entries)

    monkeypatch.setattr(os, "scandir", scandir)
    survey = bench.settled()
    assert [candidate.name for candidate in survey.ready] == ["a.json", "z.json"]
    assert survey.ignored == 1


def test_a_folder_that_may_not_be_searched_is_said_to_be_closed(public_bench: Bench) -> None:
    """With read but no search permission names can be seen, but no files: that is told, not passed over in silence."""
    public_bench.drop("sub/a.json")
    (public_bench.root / "sub").chmod(0o744)
    with without_privilege():
        notices = public_bench.survey().notices
        assert [(notice.event, notice.name) for notice in notices] == [("folder_unreadable", "sub")]
        assert "Permission denied" in notices[0].reason
    public_bench.root.chmod(0o744)
    with without_privilege(), pytest.raises(TransientFault) as caught:
        public_bench.survey()
    assert caught.value.code == "permission"
    with without_privilege():
        watch = Watch(str(public_bench.root), "auto", lambda: None, lambda _name, _kind: True)
        assert [notice.event for notice in watch.start()] == ["inbox_lost"]
        watch.stop()


def test_a_file_that_was_put_back_settles_anew(bench: Bench) -> None:
    """Our own rename, back into the inbox, is no producer's: the writer that changed the file may not be done."""
    bench.drop("a.json", b"{")
    candidate = bench.settled().ready[0]
    bench.drop("a.json", b'{"key":')
    assert take(str(bench.root), candidate, new_claim_id()) is None
    bench.inbox.resettle("a.json")
    bench.inbox.hint("a.json", Kind.MOVED)
    assert bench.ready() == []
    assert bench.ready(after=0.2) == ["a.json"]


@pytest.mark.parametrize("name", ["a.JSON", "A.Json.GZ", "b.NDJSON.zst", "c.jsonl.Gz"])
def test_the_letter_case_of_a_suffix_does_not_matter(bench: Bench, name: str) -> None:
    """A camera's or a Windows host's `EXPORT.JSON` is taken like any other."""
    bench.drop(name)
    assert names(bench) == [name]


def test_other_suffixes_can_be_taken_each_also_packed(tmp_path: Path) -> None:
    """`inbox.suffixes` says which names are taken; the others are left alone, said once, and counted."""
    bench = Bench(tmp_path, suffixes=(".geojson", ".log"))
    for name in ("a.geojson", "b.GEOJSON.gz", "c.log.zst", "d.json", "e.txt"):
        bench.drop(name)
    first = bench.survey()
    assert {(notice.event, notice.name) for notice in first.notices} == {
        ("file_ignored", "d.json"),
        ("file_ignored", "e.txt"),
    }
    assert all(".geojson, .log" in notice.reason for notice in first.notices)
    assert first.ignored == 2
    assert names(bench) == ["a.geojson", "b.GEOJSON.gz", "c.log.zst"]


def test_the_empty_suffix_takes_any_name(tmp_path: Path) -> None:
    """Files of a producer that gives them no suffix are taken; hidden and ignored ones are not."""
    bench = Bench(tmp_path, suffixes=("",))
    for name in ("messages", "a.b.c", "x.csv", ".hidden", "y.tmp"):
        bench.drop(name)
    assert sorted(names(bench)) == ["a.b.c", "messages", "x.csv"]


def test_what_was_said_is_not_said_again_after_a_reload(bench: Bench) -> None:
    """A HUP makes new hands for the loop; names that are left alone were told, and what settles goes on settling."""
    bench.drop("a.csv")
    bench.drop("new.json")
    assert [notice.name for notice in bench.survey().notices] == ["a.csv"]
    old, bench.inbox = bench.inbox, bench.open()
    bench.inbox.take_over(old)
    survey = bench.survey(after=0.2)
    assert survey.notices == ()
    assert [candidate.name for candidate in survey.ready] == ["new.json"]


def test_the_oldest_file_is_the_one_that_waits_longest_not_the_one_with_the_oldest_time(bench: Bench) -> None:
    """A file that is moved in with a time of years ago, or of years ahead, has just arrived."""
    bench.drop("old.json", mtime=1_000_000_000)
    bench.drop("future.json", mtime=4_000_000_000)
    arrival = bench.survey().oldest_arrival
    assert arrival is not None
    assert 0 <= bench.clock.now().timestamp() - arrival < 60


def test_no_sender_holds_up_an_ordered_feed_with_files_that_he_never_ends(bench: Bench) -> None:
    """However many old-dated files are begun one after another: a file waits for ten settle times in all, at most."""
    bench.survey()
    held: list[BinaryIO] = []
    bench.drop("skip/theirs.json", mtime=5_000)
    bench.clock.forward(0.2)
    waited = 0.0
    try:
        while True:
            name = f"skip/old{len(held)}.json"
            held.append(bench.drop(name, mtime=1_000 + len(held)).open("ab"))
            old = bench.root / f"skip/old{len(held) - 3}.json"
            old.unlink(missing_ok=True)  # each for a while only: no single one is waited for too long
            if "skip/theirs.json" in bench.ready(after=0.3):
                break
            waited += 0.3
            assert waited < 1.5, "the limit is each file's, and not the feed's"
        assert waited > 0.3, "an older file that is just being completed is not overtaken"
    finally:
        for file in held:
            file.close()
