"""Folders by their descriptors: the only hands that reach into the inbox and the archive.

Whoever may drop a file may own folders in the inbox, and swap one for a symbolic link between a look at it and its
use. So no path of several parts is ever given to the kernel: each step from a root, which the operator named, is opened
by the descriptor of the one before, following no link, and what is done there is done by the last descriptor. A swapped
folder is then still the one that was opened, or no folder at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, Self

from inboxd.locks import is_archive

DEEPEST: Final = 200
"""Folders on a file's way from the root. Descriptors set no bound to it, as a path's 4,096 bytes do."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_RENAMEAT2: Final = getattr(_LIBC, "renameat2", None)
"""glibc 2.28, musl 1.2.6"""
_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_SYNC_FILE_RANGE: Final = getattr(_LIBC, "sync_file_range", None)
if _SYNC_FILE_RANGE is not None:
    _SYNC_FILE_RANGE.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_BEGUN_BYTES: Final = 1 << 20
"""What the kernel is asked to begin with; more than the disk's queue takes would be waited for."""
_NO_SUCH_CALL: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK})
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})
_NO_FOLDER: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_IS_ROOT: Final = os.geteuid() == 0
_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""To pass through a folder, and to name what is in it, takes no right to list it."""
_STEP: Final = _PASS | os.O_NOFOLLOW
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """An open folder. A context manager; ``path`` is what people call it, and is never given to the kernel again.

    Names are as ``os.fsdecode`` gives them. A name that is no single name raises ``FileNotFoundError``; whatever the
    kernel says is raised as ``OSError``.
    """

    __slots__ = ("_fd", "_lent", "path")

    def __init__(self, fd: int, path: str, *, lent: bool = False) -> None:
        self._fd = fd
        self._lent = lent  # the descriptor is another one's to close
        self.path = path

    @classmethod
    def root(cls, path: str | os.PathLike[str], *, listed: bool = False) -> Self:
        """Open a folder that the operator named: links on its way are the operator's.

        ``listed``: one that may not be listed and searched raises ``OSError``.
        """
        name = os.fspath(path)
        folder = cls(os.open(name, _LIST if listed else _PASS), name)
        if listed:
            os.stat(".", dir_fd=folder._fd)  # to look at a name in it takes the right to search it
        return folder

    def __enter__(self) -> Self:
        return self

    def close(self, *_: object) -> None:
        """Close it; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and not self._lent:
            os.close(fd)

    __exit__ = close

    def __del__(self) -> None:
        if self._fd >= 0:
            self.close()

    # Steps

    def into(self, name: str) -> Folder:
        """Open a folder in this one."""
        return Folder(os.open(_single(name), _STEP, dir_fd=self._fd), f"{self.path}/{name}")

    def reach(self, below: str, step: Callable[[Folder, str], Folder] | None = None) -> Folder:
        """Open the folder at the relative path ``below``, step by step; ``""`` is this one, while it is open."""
        here = Folder(self._fd, self.path, lent=True)
        for name in below.split("/") if below else ():
            with here:
                here = here.into(name) if step is None else step(here, name)
        return here

    def made(self, name: str, mode: int = 0o777, *, durable: bool = True) -> Folder:
        """Open a folder in this one that is made where there is none.

        What root makes belongs to the owner of this folder: the daemon, of another user, must be able to go on there.
        """
        with contextlib.suppress(FileNotFoundError):
            return self.into(name)
        return self.make(name, mode, durable=durable)

    def make(self, name: str, mode: int = 0o777, *, durable: bool = True) -> Folder:
        """Do the same where there most likely is none."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(_single(name), mode, dir_fd=self._fd)
            if _IS_ROOT:
                self._hand_over(name)
            if durable:
                self.sync()
        return self.into(name)

    def _hand_over(self, name: str) -> None:
        owner = os.fstat(self._fd)
        if owner.st_uid != 0:
            fd = os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=self._fd)
            try:
                if os.fstat(fd).st_uid == 0:
                    os.fchown(fd, owner.st_uid, owner.st_gid)
            finally:
                os.close(fd)

    def above(self) -> Folder:
        """Open the folder that this one is in; the root is in itself."""
        return Folder(os.open("..", _PASS, dir_fd=self._fd), f"{self.path}/..")

    # What is there

    def identity(self) -> tuple[int, int]:
        """Return what tells one folder from another, whatever it is called: device and inode."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def itself(self) -> os.stat_result:
        """Look at this folder."""
        return os.fstat(self._fd)

    def look(self, name: str) -> os.stat_result:
        """Look at a name, following no link."""
        return os.lstat(_single(name), dir_fd=self._fd)

    def has(self, name: str) -> bool:
        """Tell whether there is anything of that name."""
        try:
            self.look(name)
        except OSError:
            return False
        return True

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """List the folder, as a stream."""
        fd = os.open(".", _LIST, dir_fd=self._fd)
        try:
            with os.scandir(fd) as entries:
                yield from entries
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(entry.name for entry in self.entries())

    def is_archive(self) -> bool:
        """Tell whether some inboxd that runs has the folder for its archive."""
        fd = os.open(".", _LIST, dir_fd=self._fd)
        try:
            return is_archive(fd)
        finally:
            os.close(fd)

    # Files

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open a file, following no link, and return its descriptor."""
        return os.open(_single(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self._fd)

    def move(self, name: str, to: Folder, new: str) -> None:
        """Rename, but never over something: raises ``FileExistsError``.

        A filesystem without ``RENAME_NOREPLACE`` (NFS, some FUSE) gets a hard link and an unlink instead, and one
        without hard links an empty file made exclusively, which only we then replace.
        """
        _single(name), _single(new)
        if _renameat2(self._fd, name, to._fd, new):
            return
        try:
            self.link(name, to, new)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            os.unlink(name, dir_fd=self._fd)
            return
        os.close(to.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            self.replace(name, to, new)
        except OSError:
            to.unlink(new)
            raise

    def replace(self, name: str, to: Folder, new: str) -> None:
        """Rename, over whatever file of that name there is."""
        os.rename(_single(name), _single(new), src_dir_fd=self._fd, dst_dir_fd=to._fd)

    def link(self, name: str, to: Folder, new: str) -> None:
        """Give a file a second name."""
        os.link(name, new, src_dir_fd=self._fd, dst_dir_fd=to._fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a name that is no folder's."""
        os.unlink(_single(name), dir_fd=self._fd)

    def rmdir(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(_single(name), dir_fd=self._fd)

    def remove_empty(self, below: str) -> None:
        """Remove the folder at ``below``, and those on the way to it, as long as they are empty."""
        while below:
            parent, _, name = below.rpartition("/")
            try:
                with self.reach(parent) as folder:
                    folder.rmdir(name)
            except FileNotFoundError:
                pass  # somebody else was quicker
            except OSError:
                return  # not empty, or not ours to remove
            below = parent

    def sync(self) -> None:
        """Make the folder's entries durable. A filesystem that cannot do that for folders is taken at its word."""
        fd = os.open(".", _LIST, dir_fd=self._fd)
        try:
            sync(fd)
        finally:
            os.close(fd)


def sync_folder(top: str | os.PathLike[str], below: str) -> None:
    """Make durable what is in the folder at ``below`` of one that the operator named; raises ``OSError``."""
    parent, _, name = below.rpartition("/")
    if not below:
        fd = os.open(top, _LIST)
    else:
        with Folder.root(top) as root, root.reach(parent) as folder:
            fd = folder.open(name, _LIST)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """Make an open file or folder durable; raises ``OSError`` when the disk says no."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def begin_sync(fd: int) -> None:
    """Let the kernel begin to write an open file's first MiB, and wait for nothing: ``sync`` finds it on its way.

    A hint, which a kernel or filesystem without it may refuse.
    """
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(fd, 0, _BEGUN_BYTES, _WRITE)


Closed = Callable[[str, OSError], None]
"""Is told of a folder or an entry that cannot be looked at."""


def walk(
    top: Folder,
    *,
    start: str = "",
    enter: Callable[[str, Folder], bool] = lambda _path, _folder: True,
    skip: Callable[[str], bool] = lambda _name: False,
    closed: Closed = lambda _path, _error: None,
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield what is below ``start`` and is no folder, each with its path relative to ``top``. A stream.

    Names for which ``skip`` holds are passed over, with all that is below them, and so is a folder that ``enter``,
    which sees it open, refuses. What is gone is passed over; ``closed`` is told of what cannot be looked at, and, with
    ``ENAMETOOLONG``, of folders that are deeper than ``DEEPEST``. Raises ``OSError`` if ``top`` cannot be listed.
    """
    waiting = [start]
    while waiting:
        here = waiting.pop()
        try:
            with top.reach(here) as folder:
                if here and not enter(here, folder):
                    continue
                for path, entry in _listed(folder, here, skip):
                    if not _is_folder(entry):
                        yield path, entry
                    elif path.count("/") < DEEPEST:
                        waiting.append(path)
                    else:
                        closed(path, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))
        except OSError as error:
            if not here:
                raise
            if not is_no_folder(error):
                closed(here, error)


def _listed(folder: Folder, here: str, skip: Callable[[str], bool]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in folder.entries():
        if not skip(entry.name):
            yield f"{here}/{entry.name}" if here else entry.name, entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder. What the disk can tell nothing of is left to the caller of ``walk``."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def identity_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return device and inode of a folder that the operator named; raises ``OSError``."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def is_within(inner: str | os.PathLike[str], outer: str | os.PathLike[str]) -> bool:
    """Tell whether one folder is the other, or below it: by device and inode, as paths have many texts."""
    wanted = identity_of(outer)
    here = Folder.root(inner)
    while True:
        with here:
            found = here.identity()
            if found == wanted:
                return True
            above = here.above()
        if above.identity() == found:
            above.close()
            return False
        here = above


def make_root(path: str | os.PathLike[str]) -> None:
    """Make a folder that the operator named, and what leads to it, each new one durable in its parent."""
    parent, name = os.path.split(os.path.abspath(path))
    try:
        above = Folder.root(parent)
    except FileNotFoundError:
        make_root(parent)
        above = Folder.root(parent)
    with above:
        above.made(name).close()


def is_no_folder(error: OSError) -> bool:
    """Tell whether an error says that a folder is gone, or that something else has taken its place."""
    return error.errno in _NO_FOLDER


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether two looks, both taken now, are at one file. Nothing less may say so before one is removed."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def is_regular(found: os.stat_result) -> bool:
    """Tell whether a look found a regular file."""
    return stat.S_ISREG(found.st_mode)


def _single(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name:
        raise FileNotFoundError(errno.ENOENT, "it is not a single name", name)
    return name


def _renameat2(source_fd: int, source: str, target_fd: int, target: str) -> bool:
    """Rename without replacing; tell whether this kernel and filesystem can. Raises ``OSError``."""
    if _RENAMEAT2 is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if _RENAMEAT2(source_fd, names[0], target_fd, names[1], _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_CALL:
        return False
    raise OSError(number, os.strerror(number), source, None, target)
