"""The last step of a file's way: into ``processed/`` or ``failed/``, whole, durable, over nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inboxd.errors import WorldFault
from inboxd.inbox.claim import CLAIMED, Claim, claim_at, make_claim_folder
from inboxd.inbox.faults import GONE, world_fault
from inboxd.inbox.moves import make_folders, remove_empty, rename_exclusively, sync, sync_folder
from inboxd.inbox.names import looks_like_report, marked, report_name
from inboxd.model import printable

_CHUNK: Final = 1 << 20


class Archive:
    """Where files end. Paths in it are those they had in the inbox.

    ``tick`` is called whenever bytes were copied, which takes long across filesystems; it may raise, and the file is
    then claimed as before.
    """

    def __init__(
        self,
        processed: str | os.PathLike[str],
        failed: str | os.PathLike[str],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.processed = Path(processed)
        self.failed = Path(failed)
        self._tick = tick

    def put(self, claim: Claim, folder: Path, run_id: int) -> Path:
        """Move a claimed file to its place below ``folder``, durably, and return where it is now."""
        path = self.move(claim, folder, run_id)
        self.make_durable(claim, path)
        return Path(path)

    def move(self, claim: Claim, folder: Path, run_id: int) -> str:
        """Move a claimed file to its place below ``folder``, and return where it is now. Never overwrites.

        The claim's folder stays, empty, as the mark that the file's verdict is still to be said: see ``forget``.
        May be called again after a crash or an error at any point. Raises ``WorldFault``: the file is still claimed, or
        already in its place, and another call goes on from there; ``gone`` if it is in neither.
        """
        try:
            return self._move(claim, os.fspath(folder), run_id)
        except OSError as error:
            raise _not_moved(error, claim, folder) from error

    def make_durable(self, claim: Claim, path: str) -> None:
        """Make durable that a file was moved to ``path``: there first, so that it is never in neither folder.

        Then in the folder of all claims, as the claim's own may be gone by now. May be called from any thread, and
        raises ``WorldFault``; then ``move`` finds the file where it is.
        """
        place = os.path.dirname(path)
        try:
            sync_folder(place)
            with contextlib.suppress(FileNotFoundError):
                sync_folder(os.path.dirname(claim.folder))
        except OSError as error:
            raise _not_moved(error, claim, place) from error

    def _move(self, claim: Claim, folder: str, run_id: int) -> str:
        below, _, name = claim.name.rpartition("/")
        place = f"{folder}/{below}" if below else folder
        reserved = folder == os.fspath(self.failed) and looks_like_report(name)
        names = _Names(name, run_id, reserved=reserved)
        try:
            target = _move(claim, place, names, self._tick)
        except (FileNotFoundError, NotADirectoryError):
            place = _make_place(folder, below, run_id)
            if os.path.lexists(claim.path):
                target = _move(claim, place, names, self._tick)
            else:
                target = _moved_before(claim, place, names)
        return target

    def find(self, name: str, run_id: int) -> Path | None:
        """Return where in ``failed/`` the file of a run is, under its own name or the one with the run's number."""
        place = self.failed / os.path.dirname(name)
        for candidate in (marked(os.path.basename(name), f"run-{run_id}"), os.path.basename(name)):
            if os.path.isfile(place / candidate):
                return place / candidate
        return None

    def take_back(self, root: str, path: str | os.PathLike[str], name: str, claim_id: str) -> Claim:
        """Claim a file of ``processed/`` or ``failed/`` again, as ``name`` (relative to the inbox), for ``retry``.

        Raises ``WorldFault``; the file is then where it was.
        """
        source = os.fspath(path)
        target = f"{root}/{CLAIMED}/{claim_id}/{name}"
        try:
            claim = claim_at(claim_id, name, source)
            make_claim_folder(os.path.dirname(target), root)
            moved = _move(claim, os.path.dirname(target), _Names(os.path.basename(name), 0), self._tick)
            sync_folder(os.path.dirname(source) or ".")
            return claim_at(claim_id, name, moved)
        except OSError as error:
            remove_empty(os.path.dirname(target), f"{root}/{CLAIMED}/{claim_id}")
            raise world_fault(error, f"claiming {printable(source)} again", root) from error

    def remove_report(self, path: str | os.PathLike[str]) -> None:
        """Remove the report of a file that is no longer in ``failed/``; it need not be there."""
        folder, name = os.path.split(os.fspath(path))
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, report_name(name)))

    def report(self, path: str | os.PathLike[str], report: Mapping[str, object]) -> Path:
        """Write why a file failed beside it, as ``NAME.error.json``, whole or not at all; it replaces an older one."""
        folder, target, part = _report_places(path)
        text = json.dumps(report, indent=2, default=_plain) + "\n"
        try:
            _write(part, text.encode())
            os.rename(part, target)
            sync_folder(folder)
        except OSError as error:
            raise world_fault(error, f"writing {printable(target)}", folder) from error
        return Path(target)

    def complete_report(self, path: str | os.PathLike[str], report: Mapping[str, object]) -> None:
        """After a crash, write the report if there is none; else remove what is left of writing it once more."""
        _, target, part = _report_places(path)
        if not os.path.exists(target):
            self.report(path, report)
            return
        with contextlib.suppress(OSError):
            os.unlink(part)


@dataclass(frozen=True, slots=True)
class _Names:
    """The names a file may get: its own (unless reserved for reports), then with the run's number, then a counter."""

    name: str
    run_id: int
    reserved: bool = False

    def __iter__(self) -> Iterator[str]:
        if not self.reserved:
            yield self.name
        yield marked(self.name, f"run-{self.run_id}")
        for number in range(2, 10_000):
            yield marked(self.name, f"run-{self.run_id}-{number}")


def _report_places(path: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Return a failed file's folder, its report's path, and the hidden one that is written before that."""
    folder, name = os.path.split(os.fspath(path))
    part = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.report.part"
    return folder, os.path.join(folder, report_name(name)), os.path.join(folder, part)


def _not_moved(error: OSError, claim: Claim, folder: str | os.PathLike[str]) -> WorldFault:
    return world_fault(error, f"moving {printable(claim.name)} to {printable(os.fspath(folder))}", folder)


def _move(claim: Claim, place: str, names: _Names, tick: Callable[[], None]) -> str:
    """Rename to the first name that is free; across filesystems, copy."""
    for name in names:
        target = f"{place}/{name}"
        try:
            rename_exclusively(claim.path, target)
        except FileExistsError:
            if _is_claim(target, claim):  # a crash came between the link and the unlink
                os.unlink(claim.path)
                return target
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _copy(claim, place, names, tick)
        else:
            return target
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), f"{place}/{names.name}")


def _moved_before(claim: Claim, place: str, names: _Names) -> str:
    """Find the file that an earlier call has moved already, up to the making durable."""
    for name in itertools.islice(names, 10):
        target = f"{place}/{name}"
        if _is_claim(target, claim):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/.{claim.id}.part")
            return target
    message = f"{printable(claim.name)} is neither claimed any more nor in {printable(place)}"
    raise WorldFault(GONE, message, "somebody moved or removed it; what it held is in the database")


def _is_claim(path: str, claim: Claim) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if found.st_dev == claim.dev:
        return found.st_ino == claim.ino
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (claim.size, claim.mtime_ns)


def _make_place(folder: str, below: str, run_id: int) -> str:
    """Make the folders a file goes to. Where a file is in the way, the folder gets the run's number in its name."""
    place = folder
    make_folders(place)
    for part in below.split("/") if below else ():
        for name in _Names(part, run_id):
            try:
                make_folders(f"{place}/{name}")
            except NotADirectoryError:
                continue
            place = f"{place}/{name}"
            break
    return place


def _copy(claim: Claim, place: str, names: _Names, tick: Callable[[], None]) -> str:
    """Copy across filesystems: to a hidden name, fsync, verify, publish under a free name, then remove the original.

    The hidden name stays until the original is gone: as a second link to the published file it tells, after a crash,
    that the copy is published and under which name.
    """
    part = f"{place}/.{claim.id}.part"
    target = _published(part, place, names)
    if target is None:
        _copy_whole(claim.path, part, tick)
        target = _publish(part, place, names)
    sync_folder(place)
    os.unlink(claim.path)
    sync_folder(os.path.dirname(claim.path))
    if os.path.lexists(part):
        os.unlink(part)
    return target


def _published(part: str, place: str, names: _Names) -> str | None:
    try:
        copied = os.lstat(part)
    except FileNotFoundError:
        return None
    if copied.st_nlink > 1:
        for name in names:
            target = f"{place}/{name}"
            if os.path.lexists(target) and os.path.samestat(copied, os.lstat(target)):
                return target
    os.unlink(part)  # a crash came in the middle of the copying
    return None


def _publish(part: str, place: str, names: _Names) -> str:
    for name in names:
        target = f"{place}/{name}"
        try:
            os.link(part, target, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                raise
            try:  # a filesystem without hard links
                rename_exclusively(part, target)
            except FileExistsError:
                continue
        return target
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), f"{place}/{names.name}")


def _copy_whole(source: str, part: str, tick: Callable[[], None]) -> None:
    """Copy bytes, mode and times; read the copy back from the disk and compare."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(reading)
        writing = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            wanted = hashlib.sha256()
            while chunk := os.read(reading, _CHUNK):
                wanted.update(chunk)
                _write_all(writing, chunk)
                tick()
            os.fchmod(writing, stat.S_IMODE(found.st_mode))
            os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
            sync(writing)
            os.posix_fadvise(writing, 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk, not from memory
            if _hash(writing, tick) != wanted.digest():
                msg = "the copy differs from the original"
                raise OSError(errno.EIO, msg, part)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _hash(fd: int, tick: Callable[[], None]) -> bytes:
    found = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    while chunk := os.read(fd, _CHUNK):
        found.update(chunk)
        tick()
    return found.digest()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _write_all(fd, data)
        sync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _plain(value: object) -> object:
    """Return what JSON can say of a value of ours."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
