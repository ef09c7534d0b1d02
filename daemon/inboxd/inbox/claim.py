"""Taking a file out of the inbox, and reading it: the bytes hashed are the bytes parsed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from inboxd.errors import FileFault, WorldFault
from inboxd.inbox.faults import CHANGED_WHILE_READING, GONE, NOT_MOVABLE, world_fault
from inboxd.inbox.lease import Lease, lease_of
from inboxd.inbox.moves import remove_empty, rename_exclusively, sync
from inboxd.inbox.scan import Candidate
from inboxd.model import printable

CLAIMED: Final = ".claimed"
"""The one thing of inboxd's own in the inbox. Hidden, so the scan never enters it."""
_RETRY: Final = "-retry"
_CHUNK: Final = 1 << 20
_MISPLACED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ENAMETOOLONG, errno.EBUSY})
"""Errors of a rename that say: this file, or this folder, is not inboxd's to move."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that is ours. ``name`` is its path relative to the inbox, ``path`` where it is now."""

    id: str
    name: str
    path: str
    size: int
    mtime_ns: int
    dev: int
    ino: int

    @property
    def retry(self) -> bool:
        """Whether it was claimed by ``inboxd retry``: it is read without the watermark."""
        return self.id.endswith(_RETRY)

    @property
    def folder(self) -> str:
        """The claim's own folder, ``<inbox>/.claimed/<id>``."""
        return self.path[: -len(self.name) - 1]


def new_claim_id(*, retry: bool = False) -> str:
    """Return an id that no other daemon on any host makes, and that sorts by time: UTC to the microsecond, 48 bits."""
    now = time.time_ns()
    suffix = _RETRY if retry else ""
    return f"{_second(now // 1_000_000_000)}{now // 1000 % 1_000_000:06d}-{os.urandom(6).hex()}{suffix}"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))


def take(root: str, candidate: Candidate, claim_id: str) -> Claim | None:
    """Rename a file into its claim's folder; ``None`` when somebody else was quicker, or it is not what it was.

    What is not the regular file that was judged complete is put back. Raises ``WorldFault``: ``not_movable`` if the
    file is not ours to move (it has not been read then), else what the disk says.
    """
    folder = f"{root}/{CLAIMED}/{claim_id}"
    path = f"{folder}/{candidate.name}"
    try:
        if not _move_in(candidate.path, path, root):
            remove_empty(os.path.dirname(path), folder)
            return None
        claim = _claim(claim_id, candidate.name, path, os.lstat(path))
    except OSError as error:
        remove_empty(os.path.dirname(path), folder)
        raise _not_taken(error, candidate, root) from error
    if claim is not None and _is(claim, candidate):
        return claim
    if _put_back(path, candidate.path):
        remove_empty(os.path.dirname(path), folder)
        return None
    return claim  # its place is taken by a newer file; the reader proves that this one is whole


def _move_in(source: str, target: str, root: str) -> bool:
    """Rename into a folder that is made for it; tell whether the file was still there."""
    for _ in range(3):
        try:
            make_claim_folder(os.path.dirname(target), root)
            os.rename(source, target)
        except FileNotFoundError:
            if os.path.lexists(target):
                return True  # NFS: the first answer was lost, and the second try found it done (RFC 1813, 4.4)
            if not os.path.lexists(source):
                return False
            # a neighbour that is recovering removed our folder while it was empty
        else:
            return True
    return False


def make_claim_folder(folder: str, root: str) -> None:
    """Make ``.claimed/<id>`` and what is below it; nothing above: an inbox that is gone stays gone."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = os.path.dirname(folder)
        if len(parent) <= len(root):
            raise
        make_claim_folder(parent, root)
        make_claim_folder(folder, folder)


def _claim(claim_id: str, name: str, path: str, found: os.stat_result) -> Claim | None:
    if not stat.S_ISREG(found.st_mode):
        return None
    return Claim(claim_id, name, path, found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)


def claim_at(claim_id: str, name: str, path: str) -> Claim:
    """Return the claim of the regular file at ``path``; raises ``OSError``, also if it is no regular file."""
    claim = _claim(claim_id, name, path, os.lstat(path))
    if claim is None:
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return claim


def _is(claim: Claim, candidate: Candidate) -> bool:
    return (claim.ino, claim.size, claim.mtime_ns) == (candidate.ino, candidate.size, candidate.mtime_ns)


def _put_back(path: str, place: str) -> bool:
    try:
        rename_exclusively(path, place)
    except OSError:
        return False
    return True


def _not_taken(error: OSError, candidate: Candidate, root: str) -> WorldFault:
    if error.errno not in _MISPLACED:
        return world_fault(error, f"taking {printable(candidate.name)} out of the inbox", root)
    place = printable(os.path.dirname(candidate.path))
    message = f"{printable(candidate.name)} cannot be renamed out of the inbox: {os.strerror(error.errno or 0)}"
    if error.errno == errno.EXDEV:
        hint = f"{place} is another filesystem than the inbox {printable(root)}; give it an inbox of its own"
    else:
        hint = f"give inboxd's user write permission on {place} (a sticky folder must be its own); until then it waits"
    return WorldFault(NOT_MOVABLE, message, hint)


def forget(claim: Claim) -> None:
    """Remove the claim's empty folder: its file is archived and its verdict said."""
    remove_empty(os.path.dirname(claim.path), claim.folder)


def unsaid(root: str, *, ours: Callable[[str], bool] = lambda _id: True) -> Iterator[str]:
    """Yield the ids of claims whose folder is empty, and remove it: their file was moved, or never came.

    A crash came after the move and before the verdict was said. On a shared inbox another daemon may be just there:
    ``ours`` leaves its folders alone, and raises ``FileNotFoundError`` for one that is gone by now.
    """
    folder = f"{root}/{CLAIMED}"
    try:
        ids = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise world_fault(error, "listing what is claimed", folder) from error
    for claim_id in ids:
        place = f"{folder}/{claim_id}"
        with contextlib.suppress(FileNotFoundError):
            if not any(names for _, _, names in os.walk(place)) and ours(claim_id):
                yield claim_id
                for below, _, _ in os.walk(place, topdown=False):
                    remove_empty(below, below)


def claims(root: str) -> Iterator[Claim]:
    """Yield the files that ``.claimed`` holds, in the order in which they were claimed.

    Raises ``WorldFault`` if it cannot be listed.
    """
    try:
        ids = sorted(os.listdir(f"{root}/{CLAIMED}"))
        for claim_id in ids:
            yield from _claims_in(f"{root}/{CLAIMED}/{claim_id}", claim_id)
    except FileNotFoundError:
        return
    except OSError as error:
        raise world_fault(error, "listing what is claimed", f"{root}/{CLAIMED}") from error


def _claims_in(folder: str, claim_id: str) -> Iterator[Claim]:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = f"{place}/{name}"
            try:
                claim = _claim(claim_id, path[len(folder) + 1 :], path, os.lstat(path))
            except FileNotFoundError:
                continue  # its daemon is alive and done with it
            if claim is not None:
                yield claim


def release(root: str, claim: Claim) -> bool:
    """Put a claimed file back where it was; tell whether it could be. Never overwrites, never raises.

    A file that cannot be put back stays claimed, where the next start finds it.
    """
    place = f"{root}/{claim.name}"
    back = _put_back(claim.path, place)
    if not back and not os.path.lexists(os.path.dirname(place)):
        try:
            os.makedirs(os.path.dirname(place))
        except OSError:
            return False
        back = _put_back(claim.path, place)
    if back:
        remove_empty(os.path.dirname(claim.path), claim.folder)
    return back


class Source:
    """One file opened for one attempt. Everything that ``read`` gives is hashed, and nothing else is.

    A context manager. ``in_place`` is for files that stay where they are (``load``): a symlink is followed, and a
    writer that has the file open does no harm unless it writes. ``tick`` is called whenever bytes were read. ``name``
    is what people call the file, where it is not ``path``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_size: int | None = None,
        tick: Callable[[], None] | None = None,
        in_place: bool = False,
        name: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._name = name
        self.size = 0
        self._max_size = max_size
        self._tick = tick
        self._in_place = in_place
        self._fd = -1
        self._opened: os.stat_result | None = None
        self._offset = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        """Open the file; raises ``FileFault`` (``unreadable``, ``file_too_large``) or ``WorldFault``."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if self._in_place else os.O_NOFOLLOW)
        try:
            self._fd = os.open(self.path, flags)
        except OSError as error:
            raise self._not_opened(error) from error
        try:
            self._opened = found = os.fstat(self._fd)
            self.size = found.st_size
            self._refuse(found)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _shown(self) -> str:
        return printable(self.path if self._name is None else self._name)

    def close(self) -> None:
        """Close the file; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, ``b""`` at the end the file had when it was opened."""
        wanted = min(size, self.size - self._offset)
        if wanted <= 0:
            return b""
        try:
            data = os.read(self._fd, wanted)
        except OSError as error:
            raise world_fault(error, f"reading {self._shown}", self.path) from error
        self._hash.update(data)
        self._offset += len(data)
        if self._tick is not None:
            self._tick()
        return data

    def seal(self) -> str:
        """Prove that nobody changed the file since it was opened, make it durable, and return its SHA-256 (hex).

        Raises ``WorldFault`` ``changed_while_reading`` when somebody did, or has it open for writing.
        """
        try:
            sync(self._fd)  # a producer that renames without fsync leaves an empty file after a power cut
        except OSError as error:
            raise world_fault(error, f"making {self._shown} durable", self.path) from error
        self._verify()  # last: making a large file durable takes its time
        if self._offset != self.size:
            msg = f"{self.path}: sealed after {self._offset} of {self.size} bytes; all must be parsed that is hashed"
            raise RuntimeError(msg)
        return self._hash.hexdigest()

    def drain(self) -> str:
        """Read what is left, then as ``seal``: a fault found in a file that changed meanwhile says nothing about it."""
        while self.read(_CHUNK):
            pass
        return self.seal()

    def _refuse(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise FileFault("unreadable", f"{self._shown} is no regular file", "only regular files are read")
        if self._max_size is not None and found.st_size > self._max_size:
            message = f"{self._shown} has {found.st_size:,} bytes, more than inbox.max_file_size ({self._max_size:,})"
            raise FileFault("file_too_large", message, "raise inbox.max_file_size, or split the file, and retry it")

    def _not_opened(self, error: OSError) -> FileFault | WorldFault:
        reason = os.strerror(error.errno or 0)
        if error.errno in {errno.EACCES, errno.EPERM}:
            hint = "give inboxd's user read permission on the file, then retry it"
            return FileFault("unreadable", f"{self._shown} cannot be read: {reason}", hint)
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return FileFault("unreadable", f"{self._shown} is no regular file", "only regular files are read")
        return world_fault(error, f"opening {self._shown}", self.path)

    def _verify(self) -> None:
        """Compare what the file is with what it was; a read lease tells whether a writer has it open."""
        try:
            now, there = os.fstat(self._fd), os.stat(self.path)
            lease = Lease.FORBIDDEN if self._in_place else lease_of(self._fd)
        except FileNotFoundError as error:
            message = f"{self._shown} was moved or removed while it was read"
            raise WorldFault(GONE, message, "leave what is in .claimed to inboxd") from error
        except OSError as error:
            raise world_fault(error, f"reading {self._shown}", self.path) from error
        same = self._opened is not None and _same(self._opened, now) and os.path.samestat(now, there)
        if not same or lease is Lease.OPEN:
            what = "changed while it was read" if not same else "is still open for writing"
            hint = "write under another name and rename when it is complete"
            raise WorldFault(CHANGED_WHILE_READING, f"{self._shown} {what}", hint)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)
