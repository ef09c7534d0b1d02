"""Whether a file is complete: proven by the kernel where it can be, waited for where it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from inboxd.clock import Clock
from inboxd.inbox.lease import Lease, lease_at
from inboxd.inbox.tree import Folder

EMPTY_TIMES: Final = 10
"""A file of zero bytes waits so many times longer: most are about to be filled."""
WAIT_TIMES: Final = 10
"""A feed that takes its files in order waits so many settle times for older ones."""
TRACKED: Final = 50_000
"""So many unsettled files are followed at once (about 20 MB); others are counted, and followed when there is room."""
SHORTEST_RECHECK_S: Final = 0.02
LONGEST_RECHECK_S: Final = 2.0
"""How soon a file that is open for writing is looked at again, should its close go unheard: 1/4 of its waiting."""
PATIENCE_S: Final = 10.0
"""After this long (and 100 times the settle time) an unsettled file is named in a warning."""
_JUMP_S: Final = 0.02
"""Wall and monotonic clock drift apart by less than this between two looks; more is a jump of the wall clock."""


class Kind(StrEnum):
    """What the kernel said of a name."""

    CREATED = "created"
    """A file came to be, and is likely being written."""
    CLOSED = "closed"
    """A file open for writing was closed."""
    MOVED = "moved"
    """A file was renamed in from elsewhere."""
    FOLDER = "folder"
    """A folder came to be or was renamed in: what is in it has to be looked for."""
    RESCAN = "rescan"
    """Events were lost, or an inbox came back: look at everything."""


class Found(NamedTuple):
    """A regular, admissible file in the inbox. Sorts oldest first: by mtime, then name."""

    mtime_ns: int
    name: str
    size: int
    ctime_ns: int
    dev: int
    ino: int
    feed: str


@dataclass(slots=True)
class _Seen:
    """What is known of a file that is not complete yet. Times are monotonic seconds."""

    size: int
    mtime_ns: int
    ino: int
    since: float
    changed: float
    kind: Kind | None
    look: int
    doubted: bool = False
    """It changed while it was read: a rename in does not count as proof for it any more."""
    again: float = 0.0
    reason: str = "just arrived"
    named: bool = False


@dataclass(slots=True)
class Settling:
    """Follows files until they are complete. Owned by the loop's thread; all times in seconds."""

    settle: float
    settle_unproven: float
    clock: Clock
    moved: float = 0.0
    """``inbox.settle_moved``: how long a file that was moved in must have been still."""
    remote: bool = False
    """The filesystem may change without this kernel knowing: neither leases nor events nor its clock prove anything."""
    unproven: bool = False
    """Some file had to wait ``settle_unproven``: to be said once."""
    now: float = 0.0
    _wall_ns: int = 0
    _offset: float | None = None
    _jumped: float = float("-inf")
    _look: int = 0
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def take_over(self, old: Settling) -> None:
        """Go on with the files that another one followed."""
        self._seen = old._seen

    def begin(self) -> None:
        """Begin a look. All files of one look are judged at one moment, so that they settle together."""
        self._look += 1
        self.now = self.clock.monotonic()
        wall = self.clock.now().timestamp()
        self._wall_ns = int(wall * 1e9)
        offset = wall - self.now
        if self._offset is not None and abs(offset - self._offset) > _JUMP_S:
            self._jumped = self.now
        self._offset = offset

    def still(self, found: Found, kind: Kind | None) -> float | None:
        """Return when the file will have been still for long enough, or ``None`` if it has been."""
        seen = self._seen.get(found.name)
        if seen is None:
            return self._first_sight(found, kind)
        seen.look = self._look
        if (seen.size, seen.mtime_ns, seen.ino) != (found.size, found.mtime_ns, found.ino):
            only_touched = self.moved > 0 and (seen.size, seen.ino) == (found.size, found.ino)
            seen.size, seen.mtime_ns, seen.ino = found.size, found.mtime_ns, found.ino
            seen.changed, seen.reason = self.now, "still changing"
            if seen.kind is Kind.MOVED and not only_touched:
                seen.kind = None
        if kind is not None:
            seen.kind, seen.again = kind, 0.0
        due = max(seen.changed + self._needs(seen.size, seen.kind, doubted=seen.doubted), seen.again)
        return due if due > self.now else None

    def complete(self, found: Found, inbox: Folder, kind: Kind | None) -> float | None:
        """Ask for the proof that a still file is complete: return when to ask again, or ``None`` if it is.

        Raises ``FileNotFoundError`` or ``NotADirectoryError`` when the file is gone.
        """
        if self.remote:
            self.unproven = True
            return None
        seen = self._seen.get(found.name)
        if seen is not None:
            kind = None if seen.doubted and seen.kind is Kind.MOVED else seen.kind
        below, _, base = found.name.rpartition("/")
        try:
            with inbox.reach(below) as folder:
                lease = lease_at(folder, base)
                links = folder.look(base).st_nlink if lease is Lease.FORBIDDEN else 0
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:  # a disk or a table of files in trouble, or no file any more
            return self._later(found, kind, f"it cannot be opened: {os.strerror(error.errno or 0)}")
        if lease is Lease.OPEN:
            return self._later(found, kind, "open for writing")
        if lease is Lease.GRANTED or kind in {Kind.MOVED, Kind.CLOSED}:
            return None
        if kind is Kind.CREATED and links == 1:
            return self._later(found, kind, "its writer has not closed it yet, as far as the kernel tells")
        return self._unproven(found, kind)

    def doubt(self, name: str) -> None:
        """Let a file that changed while it was read settle from now on, however it came to be there."""
        seen = self._track(name, 0, 0, 0, None)
        if seen is not None:
            seen.doubted, seen.reason = True, "changed while it was read"

    def reason(self, name: str) -> tuple[float, str]:
        """Return since when (monotonic seconds) a file has been waiting, and for what."""
        seen = self._seen.get(name)
        return (seen.since, seen.reason) if seen else (self.now, "just arrived")

    def longest_wait(self) -> float:
        """Return how long an ordered feed is held up by older files that are settling: 10 times the settle time."""
        return WAIT_TIMES * (self.settle_unproven if self.remote else self.settle)

    def never_settles(self, name: str) -> bool:
        """Tell, once for each file, that it has been unsettled for longer than a user would expect."""
        seen = self._seen.get(name)
        patience = max(PATIENCE_S, 100 * self.settle, 3 * self.settle_unproven if self.remote else 0.0)
        if seen is None or seen.named or self.now - seen.since < patience:
            return False
        seen.named = True
        return True

    def names(self) -> list[str]:
        """Return the names of the files that are followed."""
        return list(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def forget(self, name: str) -> None:
        """Forget a file that is gone."""
        self._seen.pop(name, None)

    def forget_unseen(self) -> None:
        """After a look at everything: forget the files that were not there."""
        for name in [name for name, seen in self._seen.items() if seen.look != self._look]:
            del self._seen[name]

    def _first_sight(self, found: Found, kind: Kind | None) -> float | None:
        needed = self._needs(found.size, kind, doubted=False)
        if kind is not Kind.CREATED and (needed == 0 or self._old_enough(found, needed)):
            return None
        self._track(found.name, found.size, found.mtime_ns, found.ino, kind)
        return self.now + needed

    def _needs(self, size: int, kind: Kind | None, *, doubted: bool) -> float:
        """Return how long a file must have been still."""
        needed = self.settle_unproven if self.remote else self.settle
        if size == 0:
            return max(EMPTY_TIMES * self.settle, needed)
        return self.moved if kind is Kind.MOVED and not doubted and not self.remote else needed

    def _old_enough(self, found: Found, needed: float) -> bool:
        """Tell whether a file's last change (ctime, which nobody can set back) is long enough ago.

        After the wall clock jumped, that is believed again once ``needed`` has passed on the monotonic clock.
        """
        if self.remote or self.now - self._jumped < needed:
            return False
        return self._wall_ns - found.ctime_ns >= needed * 1e9

    def _track(self, name: str, size: int, mtime_ns: int, ino: int, kind: Kind | None) -> _Seen | None:
        seen = self._seen.get(name)
        if seen is None and len(self._seen) < TRACKED:
            seen = _Seen(size, mtime_ns, ino, self.now, self.now, kind, self._look)
            self._seen[name] = seen
        return seen

    def _later(self, found: Found, kind: Kind | None, reason: str) -> float:
        seen = self._track(found.name, found.size, found.mtime_ns, found.ino, kind)
        if seen is None:
            return self.now + LONGEST_RECHECK_S
        pause = min((self.now - seen.since) / 4, LONGEST_RECHECK_S)
        seen.again, seen.reason = self.now + max(pause, self.settle, SHORTEST_RECHECK_S), reason
        return seen.again

    def _unproven(self, found: Found, kind: Kind | None) -> float | None:
        """Without any proof only waiting is left."""
        self.unproven = True
        needed = max(self.settle_unproven, self._needs(found.size, kind, doubted=True))
        if found.name not in self._seen and self._old_enough(found, needed):
            return None
        seen = self._track(found.name, found.size, found.mtime_ns, found.ino, kind)
        if seen is None:
            return self.now + needed
        seen.again, seen.reason = seen.changed + needed, "nothing proves that its writer is done"
        return seen.again if seen.again > self.now else None
