"""Taking a file out of the inbox: into a folder of its own in ``.claimed``, where nobody but inboxd gets."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from inboxd.errors import TransientFault
from inboxd.inbox.faults import NOT_MOVABLE, NOT_PERMITTED, transient_fault
from inboxd.inbox.names import CLAIMED, PRIVATE
from inboxd.inbox.scan import Candidate
from inboxd.inbox.source import Ahead, Source
from inboxd.inbox.tree import Folder, is_no_folder, is_regular, sync_folder
from inboxd.model import printable

CLAIMED_REFUSED: Final = "claimed_refused"
_LOGGED: Final = ".told"
"""Ends the name of a claim's folder once the file's verdict is in the log, so that no crash lets it be told twice."""
_RETRY: Final = "-retry"
_MISPLACED: Final = {
    errno.EACCES: "give inboxd's user write and search permission on {place}",
    errno.EPERM: NOT_PERMITTED,
    errno.EXDEV: "{place} is another filesystem than the inbox {root}; give it an inbox of its own",
    errno.ENAMETOOLONG: "give it, or the folders it is in, a shorter name",
    errno.EBUSY: "it is in use by the system, as a mount is; look at {place}",
}
"""Errors that are the file's place's, not the inbox's, and what mends them; until then the file waits."""
"""Errors of a rename that say: this file, or this folder, is not inboxd's to move."""


@dataclass(slots=True)
class Claim:
    """A file that is ours. ``name`` is its path relative to the inbox ``root``; ``path`` is for people to read.

    Keeps the folders on its way open from its first use until ``rest``. Owned by one thread.
    """

    id: str
    root: str
    name: str
    size: int = 0
    mtime_ns: int = 0
    dev: int = 0
    ino: int = 0
    inbox: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    """Device and inode of the inbox that it was taken from; ``None`` if it was found."""
    logged: bool = False
    """Its verdict is in the log."""
    file: str = field(init=False, compare=False, repr=False)
    """The file's own name."""
    ahead: Ahead | None = field(default=None, compare=False, repr=False)
    """Tells of its content being made durable before it is read, see ``sync_ahead``."""
    _claimed: Folder | None = field(default=None, compare=False, repr=False)
    _folder: Folder | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Take the file's own name from its path: it is asked for at each step."""
        self.file = self.name.rpartition("/")[2]

    @property
    def retry(self) -> bool:
        """Whether it was claimed by ``inboxd retry``: it is read without the watermark."""
        return self.id.endswith(_RETRY)

    @property
    def path(self) -> str:
        """Where the file is now, to be shown."""
        return f"{self.root}/{CLAIMED}/{self.own}/{self.name}"

    @property
    def own(self) -> str:
        """The name of its folder."""
        return self.id + _LOGGED if self.logged else self.id

    @property
    def claimed(self) -> Folder:
        """The open folder of all claims; raises ``OSError``, or ``TransientFault`` if it is not ours."""
        if self._claimed is None:
            with Folder.root(self.root) as inbox:
                self._claimed = open_claimed(inbox)
        return self._claimed

    @property
    def folder(self) -> Folder:
        """The open folder that the file is in; raises ``OSError``, or ``TransientFault`` if it is not ours."""
        if self._folder is None:
            self._folder = self.claimed.reach(_below(self.own, self.name))
        return self._folder

    def make(self, entrance: Entrance) -> None:
        """Make ``.claimed/<id>`` and what is below it, and leave it open."""
        self.rest()
        self.inbox, self._claimed = entrance.identity, entrance.claimed
        self._folder = entrance.claimed.reach(_below(self.own, self.name), _made)

    def mark_logged(self) -> None:
        """Note in the name of its folder that the file's verdict is in the log. Never raises."""
        with contextlib.suppress(OSError, TransientFault):
            self.claimed.replace(self.id, self.claimed, self.id + _LOGGED)
            self.logged = True

    def source(self, *, max_size: int | None = None, tick: Callable[[], None] | None = None) -> Source:
        """Return the file, to be opened for one attempt."""
        ahead, self.ahead = self.ahead, None  # for the first: what it failed with may have passed by the second
        return Source(self.file, max_size=max_size, tick=tick, folder=lambda: self.folder, name=self.name, ahead=ahead)

    def found(self, found: os.stat_result) -> Claim:
        """Take over what a look at the file says."""
        self.size, self.mtime_ns, self.dev, self.ino = found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino
        return self

    def there(self) -> bool:
        """Tell whether the file is still where it was claimed to."""
        try:
            return self.folder.has(self.file)
        except (OSError, TransientFault):
            return False

    def rest(self) -> None:
        """Close what it keeps open; it is opened again when it is needed."""
        if self._folder is not None:
            self._folder.close()
        self._folder = self._claimed = None  # others may have the latter open, too: the last one closes it


class Entrance:
    """The inbox, and ``.claimed`` in it, open for some files to be taken one after the other.

    Not for long: meanwhile nobody can unmount it. What it has open is closed when nobody, no claim either, has it.
    """

    __slots__ = ("claimed", "identity", "inbox")

    def __init__(self, root: str, inbox: Folder | None = None) -> None:
        """Open what is not open yet; raises ``OSError``, or ``TransientFault`` if ``.claimed`` is not ours."""
        self.inbox = inbox or Folder.root(root)
        self.identity = self.inbox.identity()
        self.claimed = open_claimed(self.inbox, make=True)


def _below(claim_id: str, name: str) -> str:
    return f"{claim_id}/{name}".rpartition("/")[0]


def new_claim_id(*, retry: bool = False) -> str:
    """Return an id that no other daemon on any host makes, and that sorts by time: UTC to the microsecond, 48 bits."""
    now = time.time_ns()
    suffix = _RETRY if retry else ""
    return f"{_second(now // 1_000_000_000)}{now // 1000 % 1_000_000:06d}-{os.urandom(6).hex()}{suffix}"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))


def open_claimed(inbox: Folder, *, make: bool = False) -> Folder:
    """Open ``.claimed``; with ``make`` it is made where there is none.

    It is a folder of the daemon's own user (who may be asked by root) and shut to all others, or it is not entered:
    whoever may write to the inbox can put something of that name there. Raises ``TransientFault`` ``claimed_refused``,
    or ``OSError``.
    """
    try:
        claimed = inbox.made(CLAIMED, PRIVATE, durable=False) if make else inbox.into(CLAIMED)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise _refused(inbox, "it is not a folder", "rm") from error
        raise
    found, user = claimed.itself(), os.geteuid()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != user and (user != 0 or found.st_uid != inbox.itself().st_uid):
        raise _refused(inbox, f"it belongs to uid {found.st_uid}, and inboxd runs as uid {user}", "rm -r")
    if mode & 0o777 != PRIVATE:
        raise _refused(inbox, f"its mode is {mode:04o}", "chmod 0700")
    return claimed


def _refused(inbox: Folder, why: str, remedy: str) -> TransientFault:
    place = printable(f"{inbox.path}/{CLAIMED}")
    command = f"{remedy} {shlex.quote(place)}"
    hint = f"look at what is in it, then `{command}`: it must be a folder of inboxd's user with mode 0700"
    return TransientFault(CLAIMED_REFUSED, f"{place} is not inboxd's own, and is not entered: {why}", hint)


def prepare(root: str) -> None:
    """Make ``.claimed``, or prove that it is ours. Raises ``TransientFault``."""
    try:
        with Folder.root(root) as inbox:
            open_claimed(inbox, make=True).close()
    except OSError as error:
        raise transient_fault(error, "making .claimed", root) from error


def take(root: str, candidate: Candidate, claim_id: str, entrance: Entrance | None = None) -> Claim | None:
    """Rename a file into its claim's folder; ``None`` when somebody else was quicker, or it is not what it was.

    ``entrance`` is open already where many files are taken. What is not the regular file that was judged complete is
    put back. Raises ``TransientFault``: ``not_movable`` if the file is not ours to move (it has not been read then),
    else what the disk says.
    """
    claim = Claim(claim_id, root, candidate.name, candidate.size, candidate.mtime_ns, candidate.dev, candidate.ino)
    try:
        entrance = entrance or Entrance(root)
        with entrance.inbox.reach(candidate.name.rpartition("/")[0]) as source:
            taken = _take(claim, entrance, source)
    except OSError as error:
        _leave(claim)
        if is_no_folder(error):
            return None  # a folder on its way, or the inbox, is another one by now
        raise _not_taken(error, candidate, root) from error
    if taken is None:
        _leave(claim)
    return taken


def _take(claim: Claim, entrance: Entrance, source: Folder) -> Claim | None:
    if not _move_in(claim, entrance, source):
        return None
    found = claim.folder.look(claim.file)
    if is_regular(found) and _is(claim, found):
        return claim.found(found)
    try:
        claim.folder.move(claim.file, source, claim.file)
    except OSError:  # its place is taken by a newer file; the reader proves that this one is whole
        return claim.found(found) if is_regular(found) else None
    return None


def _move_in(claim: Claim, entrance: Entrance, source: Folder) -> bool:
    """Rename into a folder that is made for it; tell whether the file was still there."""
    for _ in range(3):
        try:
            claim.make(entrance)
            source.replace(claim.file, claim.folder, claim.file)
        except FileNotFoundError:
            if claim.there():
                return True  # NFS: the first answer was lost, and the second try found it done (RFC 1813, 4.4)
            if not source.has(claim.file):
                return False
            claim.rest()  # a neighbour that is recovering removed our folder while it was empty
        else:
            return True
    return False


def _made(folder: Folder, name: str) -> Folder:
    """Step into a folder that is made where there is none; it need not be durable: the file's move is not either."""
    return folder.make(name, PRIVATE, durable=False)


def _leave(claim: Claim) -> None:
    """Remove the folder of a claim that came to nothing, unless something is in it."""
    with contextlib.suppress(OSError, TransientFault):
        forget(claim)
    claim.rest()


def _is(claim: Claim, found: os.stat_result) -> bool:
    return (claim.ino, claim.size, claim.mtime_ns) == (found.st_ino, found.st_size, found.st_mtime_ns)


def _not_taken(error: OSError, candidate: Candidate, root: str) -> TransientFault:
    if error.errno not in _MISPLACED:
        return transient_fault(error, f"taking {printable(candidate.name)} out of the inbox", root)
    place = printable(os.path.dirname(f"{root}/{candidate.name}"))
    message = f"{printable(candidate.name)} cannot be renamed out of the inbox: {os.strerror(error.errno)}"
    hint = _MISPLACED[error.errno].format(place=place, root=printable(root))
    return TransientFault(NOT_MOVABLE, message, f"{hint}; until then it waits")


def forget(claim: Claim) -> None:
    """Remove the claim's empty folder: its file is durably archived and its verdict told."""
    with contextlib.suppress(OSError, TransientFault):  # not empty, or gone, or not ours: the next start looks again
        claim.claimed.remove_empty(_below(claim.own, claim.name))
    claim.rest()


def release(root: str, claims: Iterable[Claim]) -> list[Claim]:
    """Put claimed files back where they were; return those that could be. Never overwrites, never raises.

    A file that cannot be put back stays claimed, where the next start finds it. The claims are forgotten once it is
    durable that the files are back: a claim's own folder may be so before what is, or was, in it.
    """
    back = [claim for claim in claims if _moved_back(root, claim)]
    for below in dict.fromkeys(claim.name.rpartition("/")[0] for claim in back):
        with contextlib.suppress(OSError):  # then the empty folders stay, for the next start to remove
            sync_folder(root, below)
            for claim in back:
                if claim.name.rpartition("/")[0] == below:
                    forget(claim)
    return back


def _moved_back(root: str, claim: Claim) -> bool:
    try:
        with Folder.root(root) as inbox, inbox.reach(claim.name.rpartition("/")[0], Folder.made) as place:
            claim.folder.move(claim.file, place, claim.file)
    except (OSError, TransientFault):
        return False
    finally:
        claim.rest()
    return True


def split_logged(own: str) -> tuple[str, bool]:
    """Return the id of the claim whose folder has this name, and whether its file's verdict is in the log."""
    return own.removesuffix(_LOGGED), own.endswith(_LOGGED)
