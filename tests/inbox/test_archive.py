"""Where files end: whole, under their own path, over nothing, whatever happens on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons import files_in
from faults import mount, small_disk
from folders import NOBODY, Bench, public_folder, without_privilege
from inboxd.errors import Interrupted, TransientFault
from inboxd.inbox.archive import Archive, Place, make_durable
from inboxd.inbox.claim import Claim, forget, new_claim_id, release
from inboxd.inbox.left import claims, without_line
from inboxd.inbox.names import CLAIMED, NAME_MAX, marked, report_name, suffixes_of
from inboxd.inbox.reports import remove_report, write_report
from inboxd.outcomes import Counts
from requirements import missing


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


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive on the inbox's filesystem; its folders are not there yet."""
    return Archive(tmp_path / "data" / "processed", tmp_path / "data" / "failed")


@pytest.fixture
def far_archive(tmp_path: Path) -> Iterator[Archive]:
    """Return an archive on another filesystem than the inbox."""
    memory = Path("/dev/shm")  # noqa: S108 - the one place where Linux has another filesystem without root
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev or not os.access(memory, os.W_OK):
        missing("a filesystem at /dev/shm that is not the one of the temporary folder")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Archive(Path(folder) / "processed", Path(folder) / "failed")


def put(archive: Archive, claim: Claim, folder: Path, run_id: int) -> Path:
    """Archive a file, and return where it is."""
    return Path(archive.move(claim, folder, run_id).path)


def report_on(archive: Archive, path: Path, report: dict[str, object]) -> Path:
    """Write the report of a file of `failed/`, and return where that is."""
    return Path(write_report(Place(str(archive.failed), str(path.relative_to(archive.failed))), report).path)


def files(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_in(folder)}


def nothing_is_claimed(bench: Bench, claim: Claim) -> bool:
    """Tell whether `.claimed` is empty once the verdict on a file is said."""
    forget(claim)
    return list((bench.root / ".claimed").iterdir()) == []


def test_a_file_is_archived_under_its_path_in_the_inbox_with_its_time(bench: Bench, archive: Archive) -> None:
    """Name, folders, content and mtime stay; nothing is left in `.claimed`."""
    bench.drop("2026/01/a.json", b"[1]", mtime=1_000_000)
    claim = bench.claim("2026/01/a.json", b"[1]")
    os.utime(claim.path, (1_000_000, 1_000_000))
    path = put(archive, claim, archive.processed, 812)
    assert path == archive.processed / "2026" / "01" / "a.json"
    assert (path.read_bytes(), path.stat().st_mtime) == (b"[1]", 1_000_000)
    assert nothing_is_claimed(bench, claim)


def test_an_archived_file_never_overwrites_another(bench: Bench, archive: Archive) -> None:
    """The same name again gets the run's number before its suffixes, and further ones are counted."""
    names = [put(archive, bench.claim("a.json.gz", str(n).encode()), archive.processed, 812).name for n in range(4)]
    assert names == ["a.json.gz", "a.run-812.json.gz", "a.run-812-2.json.gz", "a.run-812-3.json.gz"]
    assert sorted(files(archive.processed).values()) == [b"0", b"1", b"2", b"3"]


@given(
    stem=st.text(min_size=1, max_size=120),
    suffix=st.sampled_from(suffixes_of([".json", ".ndjson", ".jsonl"])),
    run_id=st.integers(1, 10**12),
)
def test_a_marked_name_keeps_its_suffixes_and_its_limit(stem: str, suffix: str, run_id: int) -> None:
    """A stem is cut where 255 bytes would be passed, and never in the middle of a character."""
    stem = stem.encode("utf-8", "replace").decode()
    name = marked(stem + suffix, f"run-{run_id}")
    tail = f".run-{run_id}{suffix}"
    assert name.endswith(tail)
    kept = name[: -len(tail)]
    assert stem.startswith(kept)
    assert len(name.encode()) <= NAME_MAX
    assert kept == stem or len((name + stem[len(kept)]).encode()) > NAME_MAX


@given(name=st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_names_that_are_no_utf8_are_cut_to_the_limit_too(name: bytes) -> None:
    """Whatever the kernel allows as a name has a marked form and a report's name that the kernel allows."""
    for changed in (marked(os.fsdecode(name), "run-812"), report_name(os.fsdecode(name))):
        assert 0 < len(os.fsencode(changed)) <= NAME_MAX


def test_a_file_in_the_place_of_a_folder_and_a_folder_in_the_place_of_a_file(bench: Bench, archive: Archive) -> None:
    """Neither is overwritten, and neither is waited for."""
    put(archive, bench.claim("x.json", b"file"), archive.processed, 1)
    assert put(archive, bench.claim("x.json/y.json", b"below"), archive.processed, 2).relative_to(
        archive.processed
    ) == Path("x.run-2.json/y.json")
    (archive.processed / "z.json").mkdir()
    assert put(archive, bench.claim("z.json", b"z"), archive.processed, 3).name == "z.run-3.json"


def test_names_of_255_bytes_are_archived_and_reported_on(bench: Bench, archive: Archive) -> None:
    """The longest name there is collides, fails and is reported on like any other."""
    name = "ä" * 125 + ".json"
    assert len(name.encode()) == 255
    first = put(archive, bench.claim(name, b"1"), archive.failed, 1)
    second = put(archive, bench.claim(name, b"2"), archive.failed, 2)
    assert second.name.endswith(".run-2.json")
    assert first.name == name
    reports = {report_on(archive, path, {"run_id": n}) for n, path in enumerate((first, second))}
    assert len(reports) == 2
    assert len(files(archive.failed)) == 4


def test_a_report_is_beside_the_failed_file_and_readable(bench: Bench, archive: Archive) -> None:
    """`NAME.error.json` is plain JSON, also where a value is no plain text; a newer one replaces it."""
    path = put(archive, bench.claim(), archive.failed, 5)
    said = {"file": "a.json", "run_id": 5, "error": "\udcff", "counts": Counts(rows_in=3), "at": Path("x")}
    report = report_on(archive, path, said)
    assert report == archive.failed / "a.json.error.json"
    assert json.loads(report.read_text(encoding="utf-8"))["counts"]["rows_in"] == 3
    report_on(archive, path, {"file": "a.json", "run_id": 6})
    assert json.loads(report.read_text(encoding="utf-8")) == {"file": "a.json", "run_id": 6}
    assert sorted(files(archive.failed)) == ["a.json", "a.json.error.json"]
    place = Place(str(archive.failed), path.name)
    remove_report(place)
    remove_report(place)
    assert sorted(files(archive.failed)) == ["a.json"]


def test_a_senders_file_that_is_called_like_a_report_is_not_overwritten_by_one(bench: Bench, archive: Archive) -> None:
    """`a.json.error.json` may be a file somebody dropped."""
    theirs = put(archive, bench.claim("a.json.error.json", b"theirs"), archive.failed, 1)
    ours = put(archive, bench.claim("a.json", b"bad"), archive.failed, 2)
    report_on(archive, ours, {"error": "bad"})
    assert theirs.read_bytes() == b"theirs"


def test_a_moves_durability_may_be_asked_for_again(
    bench: Bench, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If making the folders durable fails after the rename, that alone is done again."""
    claim = bench.claim()
    place = archive.move(claim, archive.processed, 1)

    def no_sync(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("inboxd.inbox.tree.os.fsync", no_sync)
        faults = make_durable([place])
    assert [fault.code for fault in faults.values()] == ["io_error"]
    assert not make_durable([place])
    assert files(archive.processed) == {"a.json": b'{"key":"a"}\n'}
    assert nothing_is_claimed(bench, claim)


def test_a_claimed_file_that_somebody_removed_is_said_to_be_gone(bench: Bench, archive: Archive) -> None:
    """It is not waited for as if a disk were full."""
    claim = bench.claim()
    Path(claim.path).unlink()
    with pytest.raises(TransientFault) as caught:
        put(archive, claim, archive.processed, 1)
    assert caught.value.code == "gone"


def test_across_filesystems_a_file_is_copied_whole_and_only_then_removed(bench: Bench, far_archive: Archive) -> None:
    """Content, mode and mtime arrive; nothing hidden stays behind."""
    content = os.urandom(3_000_001)
    claim = bench.claim("a/b.json", content)
    Path(claim.path).chmod(0o640)
    os.utime(claim.path, ns=(1, 1_234_567_891_234_567_891))
    path = put(far_archive, claim, far_archive.processed, 1)
    assert files(far_archive.processed) == {"a/b.json": content}
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o640, 1_234_567_891_234_567_891)
    assert nothing_is_claimed(bench, claim)


def test_across_filesystems_nothing_is_overwritten_either(bench: Bench, far_archive: Archive) -> None:
    """The same name again, also with the same content, is another file."""
    for number in range(3):
        put(far_archive, bench.claim("a.json", b"same"), far_archive.processed, number)
    assert sorted(files(far_archive.processed)) == ["a.json", "a.run-1.json", "a.run-2.json"]


def test_a_copy_that_differs_is_never_believed(
    bench: Bench, far_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back other bytes than it took does not cost the original."""
    claim = bench.claim()
    with monkeypatch.context() as patch:
        patch.setattr("inboxd.inbox.carry._hash", lambda _fd, _tick: b"other")
        with pytest.raises(TransientFault) as caught:
            put(far_archive, claim, far_archive.processed, 1)
    assert caught.value.code == "io_error"
    assert Path(claim.path).exists()
    assert [name for name in files(far_archive.processed) if not name.startswith(".")] == []
    put(far_archive, claim, far_archive.processed, 1)
    assert list(files(far_archive.processed)) == ["a.json"]


KILLED = 99

DYING = """
import os, sys
from pathlib import Path
from inboxd.inbox import tree
from inboxd.inbox.archive import Archive, Place
from inboxd.inbox.left import claims
left = int(sys.argv[1])
def dying(call):
    def wrapped(*args, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(99)
        return call(*args, **named)
    return wrapped
for name in ("rename", "link", "unlink", "mkdir", "rmdir", "open", "write", "fsync", "utime"):
    setattr(os, name, dying(getattr(os, name)))
tree._renameat2 = dying(tree._renameat2)
(claim,) = claims(sys.argv[2])
Archive(sys.argv[3], sys.argv[4]).move(claim, Path(sys.argv[3]), 812)
"""


@pytest.mark.crash
@pytest.mark.parametrize("far", [False, True])
def test_a_move_killed_before_any_of_its_calls_is_finished_by_the_next_start(
    tmp_path: Path, archive: Archive, request: pytest.FixtureRequest, *, far: bool
) -> None:
    """However often the process dies while it archives, the file ends in `processed/` once and whole."""
    bench = Bench(tmp_path)
    if far:
        archive = request.getfixturevalue("far_archive")
    (archive.processed / "a").mkdir(parents=True)
    (archive.processed / "a" / "b.json").write_bytes(b"an older file")
    returned, step = KILLED, 0
    while returned == KILLED:
        content = f"[{step}]".encode()
        bench.claim("a/b.json", content)
        for _ in range(2):  # dies in the same place again and again
            returned = run_dying(step, bench, archive)
            if not list(claims(str(bench.root))):
                break
        for claim in claims(str(bench.root)):
            put(archive, claim, archive.processed, 812)
        assert list(claims(str(bench.root))) == []
        assert len(list(without_line(str(bench.root)))) == 1
        assert list((bench.root / ".claimed").iterdir()) == []
        found = [path for path in (archive.processed / "a").iterdir() if path.read_bytes() == content]
        visible = [path for path in found if not path.name.startswith(".")]
        assert len(visible) == 1
        assert all(path.samefile(visible[0]) for path in found)
        for path in found:
            path.unlink()
        step += 1
    assert returned == 0
    assert step > 5
    assert files(archive.processed) == {"a/b.json": b"an older file"}


def run_dying(step: int, bench: Bench, archive: Archive) -> int:
    """Archive in a process of its own that dies before its call number ``step``."""
    return subprocess.run(
        [sys.executable, "-c", DYING, str(step), str(bench.root), str(archive.processed), str(archive.failed)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    ).returncode


@pytest.mark.root
def test_a_full_disk_is_the_worlds_fault_and_costs_nothing(
    bench: Bench, tmp_path: Path, require_root: Callable[[], None]
) -> None:
    """The file stays claimed and whole until there is room, and then it is moved."""
    require_root()
    with small_disk(tmp_path / "small", "64k") as small:
        archive = Archive(small / "processed", small / "failed")
        content = os.urandom(100_000)
        claim = bench.claim("a.json", content)
        with pytest.raises(TransientFault) as caught:
            put(archive, claim, archive.processed, 1)
        assert caught.value.code == "disk_full"
        assert str(archive.processed) in caught.value.hint
        assert Path(claim.path).read_bytes() == content
        mount("-o", "remount,size=1m", small)
        put(archive, claim, archive.processed, 1)
        assert files(archive.processed) == {"a.json": content}
        mount("-o", "remount,ro", small)
        with pytest.raises(TransientFault) as caught:
            put(archive, bench.claim("b.json"), archive.processed, 1)
        assert caught.value.code == "read_only"


@pytest.mark.root
def test_an_archive_that_is_not_ours_to_write_is_the_worlds_fault(public_bench: Bench) -> None:
    """Permissions are mended by people, and files wait for them."""
    archive = Archive(public_bench.folder / "processed", public_bench.folder / "failed")
    archive.processed.mkdir(parents=True)
    claim = public_bench.claim()
    for folder in (public_bench.root, *(public_bench.root / ".claimed").rglob("*"), public_bench.root / ".claimed"):
        os.chown(folder, NOBODY, NOBODY)
    with without_privilege(), pytest.raises(TransientFault) as caught:
        put(archive, claim, archive.processed, 1)
    assert caught.value.code == "permission"
    assert put(archive, claim, archive.processed, 1).exists()


@pytest.mark.parametrize("far", [False, True])
def test_an_archived_file_can_be_claimed_again(
    tmp_path: Path, archive: Archive, request: pytest.FixtureRequest, *, far: bool
) -> None:
    """`retry` takes a file out of `failed/` under the name it had in the inbox."""
    bench = Bench(tmp_path)
    if far:
        archive = request.getfixturevalue("far_archive")
    failed = bench.claim("a/b.json", b"[1]")
    place = archive.move(failed, archive.failed, 1)
    path = Path(place.path)
    forget(failed)
    claim_id = new_claim_id(retry=True)
    claim = archive.take_back(str(bench.root), place, "a/b.json", claim_id)
    assert not path.exists()
    assert list(claims(str(bench.root))) == [claim]
    assert (claim.name, claim.retry, Path(claim.path).read_bytes()) == ("a/b.json", True, b"[1]")
    assert release(str(bench.root), [claim])
    with pytest.raises(TransientFault) as caught:
        archive.take_back(str(bench.root), place, "a/b.json", claim_id)
    assert caught.value.code == "gone"
    assert nothing_is_claimed(bench, claim)


@pytest.mark.parametrize("far", [False, True])
def test_a_file_that_is_taken_back_is_durable_in_its_claim_before_it_leaves_the_archive(
    tmp_path: Path,
    archive: Archive,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    far: bool,
) -> None:
    """After a power cut the file lies in one of the two: each folder on its way is synced, and the archive's last."""
    bench = Bench(tmp_path)
    if far:
        archive = request.getfixturevalue("far_archive")
    failed = bench.claim("a/b.json", b"[1]")
    place = archive.move(failed, archive.failed, 1)
    forget(failed)
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", fsync)
    claim = archive.take_back(str(bench.root), place, "a/b.json", new_claim_id(retry=True))
    own = bench.root / CLAIMED / claim.id
    before = synced[: synced.index(str(Path(place.path).parent))]
    assert {str(bench.root), str(own.parent), str(own), str(own / "a")} <= set(before)


@pytest.mark.parametrize("missing", ["renameat2", "link"])
def test_without_the_kernels_exclusive_rename_nothing_is_overwritten_either(
    bench: Bench, archive: Archive, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """NFS knows no exclusive rename, and some filesystems no hard links: the promise is the same there."""
    monkeypatch.setattr("inboxd.inbox.tree._renameat2", lambda *_: False)
    if missing == "link":

        def no_links(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("inboxd.inbox.tree.os.link", no_links)
    for number in range(3):
        put(archive, bench.claim("a.json", str(number).encode()), archive.processed, number)
    assert files(archive.processed) == {"a.json": b"0", "a.run-1.json": b"1", "a.run-2.json": b"2"}


def test_a_long_copy_shows_its_progress_and_can_be_interrupted(bench: Bench, far_archive: Archive) -> None:
    """Across filesystems a stop need not wait for gigabytes: the file stays claimed, and is copied another time."""
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 2:
            raise Interrupted

    content = os.urandom(3 << 20)
    claim = bench.claim("a.json", content)
    archive = Archive(far_archive.processed, far_archive.failed, tick)
    with pytest.raises(Interrupted):
        put(archive, claim, archive.processed, 1)
    assert Path(claim.path).read_bytes() == content
    put(archive, claim, archive.processed, 1)
    assert files(archive.processed) == {"a.json": content}
    assert len(ticks) == 2 + 2 * 3
