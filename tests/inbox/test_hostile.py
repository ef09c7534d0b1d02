"""A sender who may do more than drop files: he owns folders in the inbox, and swaps, links and races as he likes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from faults import mount, swapping, umount
from folders import NOBODY, Bench, without_privilege
from inboxd.errors import TransientFault
from inboxd.inbox.archive import Archive
from inboxd.inbox.claim import forget, new_claim_id, prepare, release, take
from inboxd.inbox.left import claims, without_line
from inboxd.inbox.names import CLAIMED
from inboxd.inbox.settle import Kind
from inboxd.inbox.tree import Folder, is_within, walk
from inboxd.inbox.walk import identities_of


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an inbox of our own."""
    return Bench(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive on the inbox's filesystem."""
    return Archive(tmp_path / "data" / "processed", tmp_path / "data" / "failed")


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all files of a folder with their inodes and contents."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes()) for path in found}


def make_others(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Put files of others outside the inbox, under the names that the sender's files have."""
    (folder / "sub").mkdir(parents=True)
    for name in ("a.json", "b.json", "sub/c.json"):
        (folder / name).write_bytes(b"another's: " + name.encode())
    return tree(folder)


def test_a_folder_swapped_for_a_link_in_a_loop_leads_nowhere(bench: Bench, archive: Archive) -> None:
    """While a sender swaps his folder for a link, scan, claim, put back and archive touch nothing outside the inbox."""
    others = make_others(archive.processed)
    mine = bench.root / "mine"
    (mine / "sub").mkdir(parents=True)
    taken = 0
    with swapping(mine, archive.processed):
        for number in range(400):
            name = ("mine/a.json", "mine/b.json", "mine/sub/c.json")[number % 3]
            content = b"%d" % number
            with suppress(OSError), open(bench.root / name, "xb") as file:  # where the link leads the name is taken
                file.write(content)
            bench.clock.forward(1)
            bench.inbox.hint(name, Kind.MOVED)
            for candidate in bench.survey().ready:
                claim = take(str(bench.root), candidate, new_claim_id())
                if claim is None:
                    continue
                taken += 1
                assert not Path(claim.path).read_bytes().startswith(b"another's")
                if number % 2 and release(str(bench.root), [claim]):
                    continue
                with suppress(TransientFault):
                    archive.move(claim, archive.failed, number)
                    forget(claim)
        assert tree(archive.processed) == others
    assert taken > 10, "the race was never run"
    assert tree(archive.processed) == others


def test_a_file_is_not_put_back_through_a_link(bench: Bench, tmp_path: Path) -> None:
    """A claim whose folder in the inbox has become a link stays claimed, whole."""
    claim = bench.claim("mine/a.json", b"[1]")
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.root / "mine").rmdir()
    (bench.root / "mine").symlink_to(outside)
    assert not release(str(bench.root), [claim])
    assert list(outside.iterdir()) == []
    assert [found.name for found in claims(str(bench.root))] == ["mine/a.json"]


def test_a_link_in_the_archive_is_not_followed_either(bench: Bench, archive: Archive, tmp_path: Path) -> None:
    """Where a link stands in the place of a folder of the archive, the file gets a folder beside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    archive.processed.mkdir(parents=True)
    (archive.processed / "mine").symlink_to(outside)
    place = archive.move(bench.claim("mine/a.json", b"[1]"), archive.processed, 7)
    assert place.name == "mine.run-7/a.json"
    assert list(outside.iterdir()) == []


def claimed_refused(bench: Bench) -> str:
    """Return why everything that goes through ``.claimed`` refuses it; fail if anything does not."""
    bench.drop("new.json", b"[]")
    candidate = next(found for found in bench.settled().ready if found.name == "new.json")
    reasons = set()
    for attempt in (
        lambda: prepare(str(bench.root)),
        lambda: take(str(bench.root), candidate, new_claim_id()),
        lambda: list(claims(str(bench.root))),
        lambda: list(without_line(str(bench.root))),
    ):
        with pytest.raises(TransientFault) as caught:
            attempt()
        assert caught.value.code == "claimed_refused"
        assert f"{bench.root}/.claimed" in caught.value.message
        assert caught.value.hint
        reasons.add(caught.value.message.rpartition(": ")[2])
    assert (bench.root / "new.json").read_bytes() == b"[]"
    (reason,) = reasons
    return reason


def test_a_claimed_that_is_a_link_is_refused_and_nothing_behind_it_is_touched(bench: Bench, tmp_path: Path) -> None:
    """A sender who makes `.claimed` a link to the archive gets none of it moved, removed, or put into the inbox."""
    others = make_others(tmp_path / "data" / "processed" / "20260101T000000000000-000000000000")
    (bench.root / ".claimed").symlink_to(tmp_path / "data" / "processed")
    assert claimed_refused(bench) == "it is not a folder"
    assert tree(tmp_path / "data" / "processed" / "20260101T000000000000-000000000000") == others


def test_a_claimed_that_is_a_file_is_refused(bench: Bench) -> None:
    """It is named, with what to do about it."""
    (bench.root / ".claimed").write_bytes(b"")
    assert claimed_refused(bench) == "it is not a folder"


@pytest.mark.parametrize("mode", [0o000, 0o755, 0o770, 0o701])
def test_a_claimed_of_another_mode_is_refused(bench: Bench, mode: int) -> None:
    """Only a folder that is shut to all others is entered."""
    (bench.root / ".claimed").mkdir()
    (bench.root / ".claimed").chmod(mode)
    assert claimed_refused(bench) == f"its mode is {mode:04o}"


@pytest.mark.root
def test_a_claimed_of_another_user_is_refused(bench: Bench, require_root: Callable[[], None]) -> None:
    """Whoever made it first does not get the claims into his hands; nor does root enter it for a command."""
    require_root()
    (bench.root / ".claimed").mkdir(mode=0o700)
    os.chown(bench.root / ".claimed", NOBODY, NOBODY)
    assert claimed_refused(bench).startswith(f"it belongs to uid {NOBODY}")


@pytest.mark.root
def test_root_enters_the_claimed_of_the_user_who_owns_the_inbox(bench: Bench, require_root: Callable[[], None]) -> None:
    """`sudo inboxd retry` works on an inbox of the service's user."""
    require_root()
    for path in (bench.root, bench.root.parent):
        path.chmod(0o755)
    os.chown(bench.root, NOBODY, NOBODY)
    prepare(str(bench.root))
    os.chown(bench.root / ".claimed", NOBODY, NOBODY)
    assert list(claims(str(bench.root))) == []


def test_a_linked_claim_is_neither_walked_nor_counted(bench: Bench, tmp_path: Path) -> None:
    """What looks like a claim but is a link is passed over, and what it leads to stays."""
    claim = bench.claim("a.json")
    others = make_others(tmp_path / "others")
    (bench.root / ".claimed" / "20200101T000000000000-000000000000").symlink_to(tmp_path / "others")
    (bench.root / ".claimed" / "20200101T000000000000-000000000001").symlink_to(tmp_path / "nowhere")
    assert list(claims(str(bench.root))) == [claim]
    assert list(without_line(str(bench.root))) == []
    assert tree(tmp_path / "others") == others


def test_a_file_of_the_same_name_size_and_time_is_another_file(bench: Bench, archive: Archive) -> None:
    """Only device and inode say that two are one: what merely looks alike is never removed for it."""
    claim = bench.claim("a.json", b"[1]")
    archive.processed.mkdir(parents=True)
    twin = archive.processed / "a.json"
    twin.write_bytes(b"[2]")
    os.utime(twin, ns=(claim.mtime_ns, claim.mtime_ns))
    found = os.stat(twin)
    claim.dev, claim.ino = found.st_dev + 1, found.st_ino  # overlayfs: another device, and whatever inode
    place = archive.move(claim, archive.processed, 5)
    assert place.name == "a.run-5.json"
    assert (twin.read_bytes(), Path(place.path).read_bytes()) == (b"[2]", b"[1]")


def test_a_claim_that_is_gone_is_not_guessed_to_be_a_file_that_looks_like_it(bench: Bench, archive: Archive) -> None:
    """A twin in the archive is not said to be the file, and what lies beside it stays."""
    claim = bench.claim("a.json", b"[1]")
    archive.processed.mkdir(parents=True)
    (archive.processed / "a.json").write_bytes(b"[2]")
    os.utime(archive.processed / "a.json", ns=(claim.mtime_ns, claim.mtime_ns))
    claim.dev += 1
    Path(claim.path).unlink()
    with pytest.raises(TransientFault) as caught:
        archive.move(claim, archive.processed, 5)
    assert caught.value.code == "gone"


def test_a_folder_of_the_archive_that_is_met_in_the_inbox_is_left_alone_and_said(bench: Bench, tmp_path: Path) -> None:
    """Whatever path leads there: what inboxd has archived is not loaded again."""
    (bench.root / "old" / "deep").mkdir(parents=True)
    bench.foreign = [bench.root / "old"]
    bench.inbox = bench.open()
    bench.drop("old/a.json")
    bench.drop("old/deep/b.json")
    bench.drop("new.json")
    for name in ("old/a.json", "old/deep/b.json"):
        bench.inbox.hint(name, Kind.MOVED)
    bench.inbox.hint("old/deep", Kind.FOLDER)
    survey = bench.settled()
    assert [candidate.name for candidate in survey.ready] == ["new.json"]
    assert survey.ignored == 1
    again = bench.open()
    assert [(notice.event, notice.name) for notice in again.survey().notices] == [("file_ignored", "old")]


def test_a_folder_that_got_the_number_of_one_that_is_gone_is_not_taken_for_it(bench: Bench, tmp_path: Path) -> None:
    """The archive's folder may be made anew at any time, and a sender's folder may get its old inode."""
    archive = tmp_path / "archive"
    archive.mkdir()
    bench.foreign = [archive]
    bench.inbox = bench.open()
    archive.rename(bench.root / "orders")  # the same inode, as if it had been freed and given out again
    archive.mkdir()
    bench.drop("orders/a.json")
    assert [candidate.name for candidate in bench.settled().ready] == ["orders/a.json"]


def test_folders_are_compared_by_what_they_are(tmp_path: Path, require_root: Callable[[], None]) -> None:
    """A link or a bind mount gives a folder another path, and it is the same folder."""
    inbox = tmp_path / "inbox"
    (inbox / "sub" / "archive").mkdir(parents=True)
    (tmp_path / "link").symlink_to(inbox / "sub")
    (tmp_path / "elsewhere").mkdir()
    assert is_within(tmp_path / "link" / "archive", inbox)
    assert is_within(inbox, inbox)
    assert not is_within(tmp_path / "elsewhere", inbox)
    require_root()
    mount("--bind", inbox, tmp_path / "elsewhere")
    try:
        assert is_within(tmp_path / "elsewhere" / "sub", inbox)
        assert identities_of(tmp_path / "elsewhere", tmp_path / "none") == identities_of(inbox)
    finally:
        umount(tmp_path / "elsewhere")


@pytest.mark.root
def test_nothing_is_archived_into_the_inbox_by_whatever_way(
    bench: Bench, tmp_path: Path, require_root: Callable[[], None]
) -> None:
    """An archive in which the inbox is mounted makes the file wait: archived, it would be loaded for ever."""
    require_root()
    archive = Archive(tmp_path / "processed", tmp_path / "failed")
    (archive.processed / "sub").mkdir(parents=True)
    mount("--bind", bench.root, archive.processed / "sub")
    try:
        claim = bench.claim("sub/a.json", b"[1]")
        with pytest.raises(TransientFault) as caught:
            archive.move(claim, archive.processed, 1)
        assert caught.value.code == "archive_in_inbox"
        assert Path(claim.path).read_bytes() == b"[1]"
    finally:
        umount(archive.processed / "sub")


def test_set_id_bits_do_not_get_into_the_archive(bench: Bench, archive: Archive) -> None:
    """A dropped program cannot lie in wait there."""
    claim = bench.claim("a.json")
    Path(claim.path).chmod(0o6755)
    place = archive.move(claim, archive.processed, 1)
    assert stat.S_IMODE(os.stat(place.path).st_mode) == 0o755


@pytest.mark.root
def test_set_id_bits_of_another_users_file_are_not_copied(bench: Bench, require_root: Callable[[], None]) -> None:
    """A mode that is not ours to change is left behind with the original: a copy is archived."""
    require_root()
    claim = bench.claim("a.json", b"[1]")
    os.chown(claim.path, 1, 1)
    Path(claim.path).chmod(0o6755)
    archive = Archive(bench.folder / "processed", bench.folder / "failed")
    archive.processed.mkdir()
    for folder in (bench.root, *(bench.root / ".claimed").rglob("*"), bench.root / ".claimed", archive.processed):
        if folder.is_dir():
            os.chown(folder, NOBODY, NOBODY)
    for folder in (bench.folder, *bench.folder.parents[:3]):
        folder.chmod(0o755)
    with without_privilege():
        place = archive.move(claim, archive.processed, 1)
    found = os.stat(place.path)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, Path(place.path).read_bytes()) == (0o755, NOBODY, b"[1]")
    assert not Path(claim.path).exists()


def test_a_copy_in_the_archive_is_out_of_its_senders_reach(bench: Bench, tmp_path: Path) -> None:
    """With `archive.copy` another link to the file, or an open handle, changes nothing that is archived."""
    archive = Archive(tmp_path / "processed", tmp_path / "failed", copy=True)
    claim = bench.claim("sub/a.json", b"[1]")
    os.link(claim.path, tmp_path / "kept.json")
    os.utime(claim.path, ns=(1, 2_000_000_000))
    place = archive.move(claim, archive.processed, 1)
    (tmp_path / "kept.json").write_bytes(b"[2]")
    assert Path(place.path).read_bytes() == b"[1]"
    assert os.stat(place.path).st_mtime_ns == 2_000_000_000
    assert sorted(path.name for path in archive.processed.rglob("*")) == ["a.json", "sub"]
    assert not Path(claim.path).exists()


def test_names_that_lead_up_are_no_names(tmp_path: Path) -> None:
    """No caller can step out of a folder by `..`, nor over it by a slash."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"")
    with Folder.root(tmp_path / "in") as folder:
        for name in ("..", ".", "", "../secret", "/etc/passwd"):
            with pytest.raises(FileNotFoundError):
                folder.into(name)
            with pytest.raises(FileNotFoundError):
                folder.look(name)
            with pytest.raises(FileNotFoundError):
                folder.unlink(name)
        with pytest.raises(FileNotFoundError):
            folder.reach("../in")
        assert list(walk(folder, start="..")) == []


def test_half_a_copy_in_a_claim_is_no_senders_file(bench: Bench) -> None:
    """A crash while `retry` copies a file into its claim leaves a hidden part, which is never loaded."""
    (bench.root / ".claimed").mkdir(mode=0o700)
    folder = bench.root / ".claimed" / "20260101T000000000000-000000000000-retry"
    folder.mkdir()
    (folder / f".{folder.name}.part").write_bytes(b"[1,")
    assert list(claims(str(bench.root))) == []
    assert list(without_line(str(bench.root))) == [folder.name]
    assert not folder.exists()


def test_the_inbox_of_another_inboxd_is_left_alone(bench: Bench) -> None:
    """Also a file in it that is hinted at; a sender's folder of that name, or of another mode, hides nothing."""
    for name, mode in (("theirs", 0o700), ("open", 0o755)):
        (bench.root / name / CLAIMED).mkdir(parents=True)
        (bench.root / name / CLAIMED).chmod(mode)
    (bench.root / "file").mkdir()
    (bench.root / "file" / CLAIMED).write_bytes(b"")
    for name in ("theirs", "open", "file"):
        bench.drop(f"{name}/a.json")
        bench.inbox.hint(f"{name}/a.json", Kind.MOVED)
    found = bench.settled()
    assert {candidate.name for candidate in found.ready} == {"open/a.json", "file/a.json"}
    bench.drop("theirs/b.json")
    bench.inbox.hint("theirs/b.json", Kind.MOVED)
    assert "theirs/b.json" not in bench.ready()
    assert ("file_ignored", "theirs") in [(notice.event, notice.name) for notice in bench.inbox.left_alone(10)]
