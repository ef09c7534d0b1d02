"""Taking a file, and reading it: what is ours, what is whole, and what is left where it is."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults import mount, small_disk
from folders import NOBODY, Bench, other_process, public_folder, read_all, without_privilege
from inboxd.errors import FileFault, TransientFault
from inboxd.inbox.claim import Claim, forget, new_claim_id, release, take
from inboxd.inbox.faults import transient_fault
from inboxd.inbox.left import claims, without_line
from inboxd.inbox.scan import Candidate
from inboxd.inbox.source import Source
from inboxd.inbox.tree import Folder


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


def candidate(bench: Bench, name: str) -> Candidate:
    """Drop a file and wait until it may be claimed."""
    bench.drop(name)
    return next(found for found in bench.settled().ready if found.name == name)


def below(root: Path) -> list[str]:
    """Return everything in a folder, folders too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_claimed_file_is_in_its_claims_folder_under_its_whole_path(bench: Bench) -> None:
    """The original path is not lost, and nothing of the file is changed."""
    found = candidate(bench, "a/b/c.json")
    claim = take(str(bench.root), found, "the-id")
    assert claim == Claim(
        "the-id",
        str(bench.root),
        "a/b/c.json",
        found.size,
        found.mtime_ns,
        found.dev,
        found.ino,
    )
    assert Path(claim.path).read_bytes() == b'{"key":"a"}\n'
    assert (bench.root / "a" / "b").is_dir()


def test_of_two_daemons_one_gets_the_file_and_the_other_nothing(bench: Bench) -> None:
    """A file that somebody else took is no error, and leaves nothing behind."""
    found = candidate(bench, "a.json")
    assert take(str(bench.root), found, "first")
    assert take(str(bench.root), found, "second") is None
    assert below(bench.root) == [".claimed", ".claimed/first", ".claimed/first/a.json"]


def test_many_daemons_at_once_take_each_file_exactly_once(bench: Bench) -> None:
    """Whoever wins the rename has the file; no file is taken twice and none is lost."""
    for number in range(200):
        bench.drop(f"{number}.json", str(number).encode())
    ready = bench.settled().ready
    script = (
        "import os, sys\nfrom inboxd.inbox.claim import new_claim_id, take\nfrom inboxd.inbox.left import claims\n"
        "from inboxd.inbox.scan import Candidate\n"
        "for line in sys.stdin:\n"
        "    found = Candidate(*eval(line))\n"
        f"    claim = take({str(bench.root)!r}, found, new_claim_id())\n"
        "    if claim: print(claim.name)\n"
    )
    lines = "".join(f"{(found.name, found.size, found.mtime_ns, found.dev, found.ino)!r}\n" for found in ready)
    daemons = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(3)
    ]
    outputs: list[str] = []
    feeders = [
        threading.Thread(target=lambda daemon=daemon: outputs.append(daemon.communicate(lines)[0]))
        for daemon in daemons
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    taken = [name for output in outputs for name in output.split()]
    assert sorted(taken) == sorted(found.name for found in ready)
    assert sorted(claim.name for claim in claims(str(bench.root))) == sorted(taken)


def test_a_recovering_neighbour_that_clears_away_our_empty_folder_does_not_cost_us_the_file(bench: Bench) -> None:
    """The folder of a claim is made again when it vanished before the rename."""
    found = candidate(bench, "a.json")
    stop = threading.Event()

    def clear_away() -> None:
        while not stop.is_set():
            list(without_line(str(bench.root)))

    neighbour = threading.Thread(target=clear_away)
    neighbour.start()
    try:
        for _ in range(200):
            claim = take(str(bench.root), found, new_claim_id())
            while claim is None:
                assert (bench.root / "a.json").exists()
                claim = take(str(bench.root), found, new_claim_id())
            assert release(str(bench.root), [claim])
    finally:
        stop.set()
        neighbour.join()


def test_a_file_replaced_since_it_was_looked_at_is_put_back(bench: Bench) -> None:
    """What is claimed is what was judged complete; anything else goes through settling itself."""
    found = candidate(bench, "a.json")
    bench.drop("other.json", b"[]").rename(bench.root / "a.json")
    assert take(str(bench.root), found, "id") is None
    assert (bench.root / "a.json").read_bytes() == b"[]"
    assert below(bench.root) == [".claimed", "a.json"]


def test_a_symlink_or_fifo_swapped_in_is_put_back_and_never_opened(bench: Bench) -> None:
    """A swap between the look and the claim makes inboxd neither follow nor hang."""
    found = candidate(bench, "a.json")
    (bench.root / "a.json").unlink()
    (bench.root / "a.json").symlink_to("/etc/passwd")
    assert take(str(bench.root), found, "id") is None
    assert (bench.root / "a.json").is_symlink()
    (bench.root / "a.json").unlink()
    os.mkfifo(bench.root / "a.json")
    assert take(str(bench.root), found, "id") is None
    assert (bench.root / "a.json").is_fifo()


@pytest.mark.root
def test_a_file_that_is_not_ours_to_move_is_never_read(public_bench: Bench) -> None:
    """In a sticky folder of somebody else a rename is refused: the file waits as `not_movable`."""
    found = candidate(public_bench, "a.json")
    public_bench.root.chmod(0o1777)
    with without_privilege(), pytest.raises(TransientFault) as caught:
        take(str(public_bench.root), found, "id")
    assert caught.value.code == "not_movable"
    assert str(public_bench.root) in caught.value.hint
    public_bench.root.chmod(0o555)
    with without_privilege(), pytest.raises(TransientFault) as caught:
        take(str(public_bench.root), found, "id")
    assert caught.value.code == "not_movable"
    assert (public_bench.root / "a.json").exists()


@pytest.mark.root
def test_a_read_only_inbox_is_said_to_be_one(tmp_path: Path, require_root: Callable[[], None]) -> None:
    """No right on a folder helps there: the filesystem has to be mounted for writing."""
    require_root()
    with small_disk(tmp_path / "disk") as disk:
        bench = Bench(disk)
        found = candidate(bench, "a.json")
        mount("-o", "remount,ro", disk)
        with pytest.raises(TransientFault) as caught:
            take(str(bench.root), found, "id")
    assert caught.value.code == "read_only"
    assert "for writing" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOTDIR, "stands in the place of one"), (errno.EPERM, "chattr -i")]
)
def test_a_hint_is_one_that_can_help(number: int, said: str) -> None:
    """Each error of the kernel has the remedy that is its own."""
    assert said in transient_fault(OSError(number, os.strerror(number)), "moving a.json", "/archive").hint


@pytest.mark.root
def test_a_folder_of_the_inbox_on_another_filesystem_is_not_movable(
    bench: Bench, require_root: Callable[[], None]
) -> None:
    """A mount inside the inbox is said to be one."""
    require_root()
    with small_disk(bench.root / "mounted"):
        found = candidate(bench, "mounted/a.json")
        with pytest.raises(TransientFault) as caught:
            take(str(bench.root), found, "id")
        assert caught.value.code == "not_movable"
        assert "another filesystem" in caught.value.hint
        assert below(bench.root / ".claimed") == []


def test_an_inbox_that_is_gone_is_not_made_anew_by_a_claim(bench: Bench) -> None:
    """An inbox that was unmounted does not fill its mount point."""
    found = candidate(bench, "a.json")
    bench.root.rename(bench.folder / "away")
    assert take(str(bench.root), found, "id") is None
    assert not bench.root.exists()


def test_claim_ids_sort_by_time_and_are_never_the_same() -> None:
    """Many daemons on many hosts may name their claims without asking each other."""
    ids = [new_claim_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    times = [claim_id.split("-")[0] for claim_id in ids]
    assert times == sorted(times)
    assert all(len(claim_id) < 50 and "/" not in claim_id for claim_id in ids)


def test_what_a_crash_left_claimed_is_found_and_empty_folders_go(bench: Bench) -> None:
    """Recovery sees each claimed file with its path, in the order of the claims; what holds none is cleared away."""
    first = bench.claim("b/first.json")
    second = bench.claim("a.json")
    (bench.root / ".claimed" / "20990101T000000000000-000000000000" / "deep" / "er").mkdir(parents=True)
    assert list(claims(str(bench.root))) == [first, second]
    assert list(without_line(str(bench.root), ours=lambda _id: False)) == []
    assert list(without_line(str(bench.root))) == ["20990101T000000000000-000000000000"]
    assert sorted(path.name for path in (bench.root / ".claimed").iterdir()) == [first.id, second.id]


def test_a_claim_is_forgotten_only_when_its_file_is_gone(bench: Bench) -> None:
    """Clearing away can never cost a file."""
    claim = bench.claim("a/b.json")
    forget(claim)
    assert Path(claim.path).exists()
    Path(claim.path).unlink()
    forget(claim)
    assert below(bench.root) == [".claimed", "a"]


def test_an_inbox_without_any_claim_has_none(bench: Bench) -> None:
    """A new inbox needs no folder of ours."""
    assert list(claims(str(bench.root))) == []


def test_a_claim_made_for_a_retry_is_known_as_one_after_a_crash(bench: Bench) -> None:
    """The id says so, and the id is the folder's name."""
    found = candidate(bench, "a.json")
    assert take(str(bench.root), found, new_claim_id(retry=True))
    assert [claim.retry for claim in claims(str(bench.root))] == [True]
    assert not bench.claim("b.json").retry


def test_a_released_file_is_back_where_it_was(bench: Bench) -> None:
    """After an orderly stop the inbox is as the sender left it."""
    claim = bench.claim("a/b.json")
    assert release(str(bench.root), [claim])
    assert below(bench.root) == [".claimed", "a", "a/b.json"]


def test_a_released_file_overwrites_nothing(bench: Bench) -> None:
    """A newer file of the same name stays; the older one stays claimed, whole."""
    claim = bench.claim("a.json")
    bench.drop("a.json", b"newer")
    assert not release(str(bench.root), [claim])
    assert (bench.root / "a.json").read_bytes() == b"newer"
    assert Path(claim.path).exists()


def test_a_released_file_finds_its_way_back_though_its_folder_is_gone(bench: Bench) -> None:
    """A folder that its owner removed meanwhile is made again for its file."""
    claim = bench.claim("a/b.json")
    (bench.root / "a").rmdir()
    assert release(str(bench.root), [claim])
    assert (bench.root / "a" / "b.json").exists()


NAME_BYTES = st.binary(min_size=1, max_size=250).filter(
    lambda name: b"/" not in name and b"\0" not in name and not name.startswith(b".")
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stem=NAME_BYTES)
def test_a_file_of_any_name_goes_in_and_out_of_a_claim(tmp_path_factory: pytest.TempPathFactory, stem: bytes) -> None:
    """255 bytes, newlines, no UTF-8, a leading dash: the claim's folder adds nothing to the name."""
    bench = Bench(tmp_path_factory.mktemp("names"))
    name = os.fsdecode(stem + b".json")
    claim = bench.claim(name)
    assert [found.name for found in claims(str(bench.root))] == [name]
    assert read_all(claim)
    assert release(str(bench.root), [claim])
    assert (bench.root / name).exists()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000), sizes=st.lists(st.integers(1, 700), min_size=1))
def test_what_is_hashed_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, sizes: list[int]
) -> None:
    """The SHA-256 is that of the bytes given out, in whatever pieces they were asked for."""
    path = tmp_path_factory.mktemp("read") / "a.json"
    path.write_bytes(content)
    got = b""
    with Source(path) as source:
        step = 0
        while piece := source.read(sizes[step % len(sizes)]):
            got += piece
            step += 1
        assert (got, source.seal(), source.size) == (content, hashlib.sha256(content).hexdigest(), len(content))


def test_a_failed_files_hash_is_that_of_all_of_it(bench: Bench) -> None:
    """A file whose fault shows in its first line is known again by its whole content."""
    claim = bench.claim(content=b"x" * 3_000_000)
    with claim.source() as source:
        source.read(10)
        assert source.drain() == hashlib.sha256(b"x" * 3_000_000).hexdigest()


@pytest.mark.parametrize("change", ["append", "rewrite", "truncate", "replace"])
@pytest.mark.parametrize("end", ["seal", "drain"])
def test_a_file_that_changes_while_it_is_read_is_never_committed(bench: Bench, change: str, end: str) -> None:
    """Whatever a rewriting producer does between the opening and the end of the reading, it is noticed."""
    claim = bench.claim(content=b"[1]" + b" " * 5000)
    path = Path(claim.path)
    with claim.source() as source:
        assert source.read(100)
        if change == "append":
            with path.open("ab") as file:
                file.write(b" ")
        elif change == "rewrite":
            path.write_bytes(b"[2]" + b" " * 5000)
            os.utime(path, ns=(1, claim.mtime_ns + 1))
        elif change == "truncate":
            path.write_bytes(b"")
        else:
            (bench.folder / "other").write_bytes(b"[2]" + b" " * 5000)
            os.utime(bench.folder / "other", ns=(claim.mtime_ns, claim.mtime_ns))
            (bench.folder / "other").rename(path)
        while source.read(1000):
            pass
        with pytest.raises(TransientFault) as caught:
            source.seal() if end == "seal" else source.drain()
        assert caught.value.code == "changed_while_reading"


def test_a_file_that_a_writer_opened_after_it_had_settled_is_not_committed(bench: Bench) -> None:
    """A producer that goes on with a file after a pause is not met in the middle."""
    claim = bench.claim()
    with other_process() as producer:
        producer.do(f"file = open({claim.path!r}, 'ab')")
        with pytest.raises(TransientFault) as caught:
            read_all(claim)
        assert caught.value.code == "changed_while_reading"
        producer.do("file.close()")
        assert read_all(claim)


def test_a_file_that_stays_in_its_place_may_be_open_elsewhere_and_be_linked_to(tmp_path: Path) -> None:
    """`load` reads a log that is being written to, and follows a symlink: the user has said which file."""
    (tmp_path / "real.json").write_bytes(b"[]")
    (tmp_path / "link.json").symlink_to("real.json")
    with (tmp_path / "real.json").open("ab"), Source(tmp_path / "link.json") as source:
        assert source.read(10) == b"[]"
        assert source.seal() == hashlib.sha256(b"[]").hexdigest()


def test_sealing_before_the_end_is_a_bug_and_not_a_short_file(bench: Bench) -> None:
    """No code path can commit a file of which it has read only a part."""
    claim = bench.claim()
    with claim.source() as source:
        source.read(3)
        with pytest.raises(RuntimeError, match="sealed after 3 of 12 bytes"):
            source.seal()


def test_a_file_that_is_too_large_is_not_read_at_all(bench: Bench) -> None:
    """`inbox.max_file_size` costs nothing but a look at the size."""
    claim = bench.claim()
    with pytest.raises(FileFault) as caught, claim.source(max_size=11):
        pass
    assert caught.value.code == "file_too_large"
    with claim.source(max_size=12) as source:
        assert source.size == 12


@pytest.mark.parametrize("kind", ["fifo", "symlink", "folder"])
def test_only_a_regular_file_is_ever_read(tmp_path: Path, kind: str) -> None:
    """Opening a FIFO does not hang, and a symlink is not followed."""
    path = tmp_path / "a.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    with pytest.raises(FileFault) as caught, Folder.root(tmp_path) as folder, Source("a.json", folder=lambda: folder):
        pass
    assert caught.value.code == "unreadable"


@pytest.mark.root
def test_a_file_whose_content_is_not_for_us_is_the_files_fault(public_bench: Bench) -> None:
    """Mode 0600 of another user: `unreadable`, and it can still be moved to `failed/`."""
    os.chown(public_bench.root, NOBODY, NOBODY)
    public_bench.drop("a.json").chmod(0o600)
    with without_privilege():
        public_bench.survey()
        (found,) = public_bench.survey(after=6).ready
        claim = take(str(public_bench.root), found, "id")
        assert claim is not None
        with pytest.raises(FileFault) as caught, claim.source():
            pass
    assert caught.value.code == "unreadable"


def test_no_handle_is_left_open_whatever_happens(bench: Bench) -> None:
    """A daemon that meets a million bad files still has its file handles."""
    claim = bench.claim()
    gc.collect()  # what other tests' frames hold
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(FileFault), claim.source(max_size=1):
            pass
        with pytest.raises(FileFault), Source(bench.root):
            pass
        read_all(claim)
        bench.survey()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("answer", [None, lambda *_given: -1])
def test_a_kernel_that_cannot_begin_a_sync_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., int] | None
) -> None:
    """Where the call is missing, or refused, the seal makes the file durable all the same."""
    monkeypatch.setattr("inboxd.inbox.tree._SYNC_FILE_RANGE", answer)
    (tmp_path / "a").write_bytes(b"x")
    with Source(tmp_path / "a") as source:
        assert source.read(9) == b"x"
        assert source.seal() == hashlib.sha256(b"x").hexdigest()
