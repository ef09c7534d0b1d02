"""What is in the inbox, and which of it may be taken: the scan is the truth, events are hints."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from inboxd.clock import Clock, SystemClock
from inboxd.errors import TransientFault
from inboxd.inbox.faults import NOT_MOVABLE, transient_fault
from inboxd.inbox.gathered import Gathered
from inboxd.inbox.mounts import is_remote
from inboxd.inbox.notices import FILE_IGNORED, FILE_UNSETTLED, SETTLE_UNPROVEN, Notice, Once
from inboxd.inbox.settle import Found, Kind, Settling
from inboxd.inbox.tree import Folder
from inboxd.inbox.walk import Match, Sieve, Walk

LIMIT: Final = 10_000
"""Files given out by one survey. Large, because each survey of a backlog looks at all of it; some 10 MB of memory."""
HINTS: Final = 100_000
"""Names remembered between two surveys (about 20 MB); with more, everything is looked at."""
LISTED: Final = 1_000
"""Unsettled files that a survey names; the count is exact."""
CHEAP_S: Final = 0.01
"""A look at everything that takes less is simply done each time."""
FOLLOWED: Final = 2_000
"""With more files settling than this, everything is looked at: it costs no more than looking at each of them."""
SCAN_SHARE: Final = 10
"""A more expensive one is done again after so many times its duration: scanning takes a tenth of the time at most."""
FIRST_ASIDE_S: Final = 1.0
LONGEST_ASIDE_S: Final = 60.0
"""How long a file that could not be claimed is not offered again: doubling."""
SET_ASIDE: Final = 100_000
"""Files that could not be claimed and are remembered (about 20 MB); further ones are offered again each time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete file that may be claimed. ``name`` is relative to the inbox."""

    name: str
    size: int
    mtime_ns: int
    dev: int
    ino: int
    feed: str = ""


@dataclass(frozen=True, slots=True)
class NotSettled:
    """A file that is not complete yet: since when (monotonic seconds), and what it waits for."""

    name: str
    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at the inbox found."""

    ready: tuple[Candidate, ...] = ()
    """Oldest first by mtime, then name; at most the limit."""
    total: int = 0
    """Files of ours that wait, settled or not. Exact after a look at everything, else carried on from the last one."""
    settling: int = 0
    unsettled: tuple[NotSettled, ...] = ()
    """The first of those that are settling."""
    next_due: float | None = None
    """When (monotonic seconds) another survey may find more, without any event."""
    oldest_arrival: float | None = None
    """When (wall clock seconds) the file that waits longest arrived, or was changed since: by its ctime, which a rename
    sets and no sender can."""
    notices: tuple[Notice, ...] = ()
    ignored: int = 0
    more: bool = False
    """There were more ready files than the limit: survey again once these are taken."""
    full: bool = True
    """Everything was looked at, not only what was hinted at."""


@dataclass(slots=True)
class Aside:
    """A file that could not be claimed. Times are monotonic seconds."""

    until: float
    pause: float
    ino: int
    look: int
    since: float
    fault: TransientFault
    attempts: int = 1


class Inbox:
    """The inbox as the loop sees it. Owned by the loop's thread; only ``hint`` may be called from another.

    ``match`` names the feed of a file, ``ordered`` tells whether a feed's files must be taken oldest first. Times are
    in seconds. ``remote`` is found out where it is not given.
    """

    def __init__(  # noqa: PLR0913 - the slices of [inbox] that the scan needs, each by its name
        self,
        root: str | os.PathLike[str],
        *,
        match: Match,
        ordered: Callable[[str], bool],
        ignore: Iterable[str] = (),
        suffixes: Sequence[str] = (".json", ".ndjson", ".jsonl"),
        foreign: tuple[str, ...] = (),
        settle: float = 0.1,
        settle_unproven: float = 5.0,
        settle_moved: float = 0.0,
        remote: bool | None = None,
        limit: int = LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self.root = os.fspath(root)
        self._clock = clock or SystemClock()
        self._ordered = ordered
        self._limit = limit
        self._once = Once()
        self._sieve = Sieve.of(match, ignore, suffixes)
        self._walk = Walk(self._sieve, self._once, foreign)
        self._settling = Settling(settle, settle_unproven, self._clock, moved=settle_moved)
        self._remote = remote
        self._device: int | None = None
        self._aside: dict[str, Aside] = {}
        self._look = 0
        self._last_full = float("-inf")
        self._last_cost = 0.0
        self._more = False
        self._stuck: set[str] = set()  # feeds that filled the last survey, and had to wait for an older file
        self._again: dict[str, Kind | None] = {}  # what the last survey gave out or held back, to be looked at again
        self._waiting_since: dict[str, float] = {}  # of ordered feeds whose newer files wait for older ones
        self._said_unproven = False
        self._left = 0  # files that waited when everything was looked at, less those given out since
        self._oldest_ns: int | None = None
        self._lock = threading.Lock()  # guards the two below
        self._hints: dict[str, Kind] = {}
        self._rescan = True

    def take_over(self, old: Inbox) -> None:
        """Know what another one knew of the same folder, under settings that were in force before.

        What was said is not said again, what settles goes on settling, what was hinted at is looked at.
        """
        self._once = self._walk.once = old._once
        self._settling.take_over(old._settling)
        self._aside = old._aside
        self._said_unproven = old._said_unproven
        self._look = old._look
        with old._lock:
            again = {name: kind for name, kind in old._again.items() if kind is not None}
            self._hints = {**again, **old._hints}

    def hint(self, name: str, kind: Kind) -> bool:
        """Take a hint from the watcher's thread; tell whether it is worth waking the loop for."""
        if kind is not Kind.RESCAN and not self._sieve.interesting(name):
            return False
        with self._lock:
            if kind is Kind.RESCAN or len(self._hints) >= HINTS:
                self._rescan = True
            if kind is not Kind.RESCAN and (len(self._hints) < HINTS or name in self._hints):
                self._hints[name] = kind
        return True

    def set_aside(self, candidate: Candidate, fault: TransientFault) -> bool:
        """Do not offer a file that could not be claimed for a while; tell whether this is the first time for it."""
        now = self._clock.monotonic()
        aside = self._aside.get(candidate.name)
        first = aside is None or aside.ino != candidate.ino
        pause = FIRST_ASIDE_S if first or aside is None else min(aside.pause * 2, LONGEST_ASIDE_S)
        if aside is not None or len(self._aside) < SET_ASIDE:
            since, attempts = (now, 0) if first or aside is None else (aside.since, aside.attempts)
            found = Aside(now + pause, pause, candidate.ino, self._look, since, fault, attempts + 1)
            self._aside[candidate.name] = found
        return first

    @property
    def aside(self) -> Mapping[str, Aside]:
        """The files that could not be claimed, by their names, and why."""
        return self._aside

    def left_alone(self, limit: int) -> list[Notice]:
        """Return files that are left alone, and why, at most so many."""
        return self._once.standing(FILE_IGNORED, limit)

    def resettle(self, name: str) -> None:
        """Let a file settle anew that changed while it was read. To be called before it is put back."""
        self._settling.begin()
        self._settling.doubt(name)

    def survey(self, inbox: Folder | None = None, *, without: Collection[str] = ()) -> Survey:
        """Look what is there. Files of the feeds ``without`` are counted, but not offered.

        Everything is looked at if that is cheap or due, or asked for with a hint to rescan; else only what was hinted
        at since, and what was settling. ``inbox``: it is open already. Raises ``TransientFault`` if it cannot be
        listed.
        """
        with self._lock:
            new, self._hints = self._hints, {}
            rescan, self._rescan = self._rescan, False
        hints = {**self._again, **new}
        self._look += 1
        self._settling.begin()
        without = {*without, *self._stuck}
        gathered = Gathered(self._limit)
        try:
            everything = rescan or self._more or len(self._settling) > FOLLOWED or self._full_is_due()
            look = self._look_at_everything if everything else self._look_at_some
            with nullcontext(inbox) if inbox is not None else Folder.root(self.root) as opened:
                look(opened, gathered, hints, without)
                return self._conclude(opened, gathered, full=everything)
        except OSError as error:
            with self._lock:
                self._rescan = True
            raise transient_fault(error, "listing the inbox", self.root) from error

    def _full_is_due(self) -> bool:
        return self._last_cost <= CHEAP_S or self._clock.monotonic() >= self._next_full()

    def _next_full(self) -> float:
        return self._last_full + SCAN_SHARE * self._last_cost

    def _look_at_everything(
        self, inbox: Folder, gathered: Gathered, hints: dict[str, Kind | None], without: Collection[str]
    ) -> None:
        started = self._clock.monotonic()
        self._find_out_about_the_filesystem(inbox)
        self._once.begin()
        self._walk.left_alone = 0
        for found in self._walk.below(inbox):
            self._judge(gathered, found, hints.pop(found.name, None), without)
        for name, kind in hints.items():  # it came while the folder was being listed, or is gone
            if kind is not Kind.FOLDER:
                self._judge(gathered, self._walk.one(inbox, name), kind, without)
        self._once.end()
        self._settling.forget_unseen()
        for name in [name for name, aside in self._aside.items() if aside.look != self._look]:
            del self._aside[name]
        self._last_full = self._clock.monotonic()
        self._last_cost = self._last_full - started
        self._left, self._oldest_ns = gathered.counted, gathered.oldest_ns

    def _look_at_some(
        self, inbox: Folder, gathered: Gathered, hints: dict[str, Kind | None], without: Collection[str]
    ) -> None:
        now = self._settling.now
        looked_at: set[str] = set()
        for folder in [name for name, kind in hints.items() if kind is Kind.FOLDER]:
            if not self._sieve.hides_path(folder):
                for found in self._walk.below(inbox, folder):
                    looked_at.add(found.name)
                    self._judge(gathered, found, hints.get(found.name), without)
        names = dict.fromkeys(hints)
        names.update(dict.fromkeys(self._settling.names()))
        names.update(dict.fromkeys(name for name, aside in self._aside.items() if aside.until <= now))
        for name in names.keys() - looked_at:
            one = self._walk.one(inbox, name)
            if one is None:
                self._settling.forget(name)
                self._aside.pop(name, None)
            self._judge(gathered, one, hints.get(name), without)
        gathered.wait(self._next_full())

    def _judge(self, gathered: Gathered, found: Found | None, kind: Kind | None, without: Collection[str]) -> None:
        """Sort one file: still moving, to be left out for now, or to be asked about when it is among the oldest."""
        if found is None:
            return
        gathered.count(found)
        aside = self._aside.get(found.name)
        if aside is not None:
            aside.look = self._look
            if aside.until > self._settling.now and aside.ino == found.ino:
                gathered.wait(aside.until)
                if aside.fault.code != NOT_MOVABLE and self._ordered(found.feed):
                    gathered.block(found, aside.until)  # the disk's trouble passes; newer files do not overtake it
                return
        due = self._settling.still(found, kind)
        if due is not None:
            self._unsettled(gathered, found, due)
        elif found.feed not in without:
            gathered.offer(found, kind)

    def _unsettled(self, gathered: Gathered, found: Found, due: float) -> None:
        gathered.settling += 1
        gathered.wait(due)
        if len(gathered.unsettled) < LISTED:
            gathered.unsettled.append(found.name)
        if self._ordered(found.feed):
            gathered.settles(found, self._settling.reason(found.name)[0])
        if self._settling.never_settles(found.name):
            since, reason = self._settling.reason(found.name)
            self._once.say(FILE_UNSETTLED, found.name, f"{reason}, for {self._settling.now - since:.0f} s now")

    def _choose(self, inbox: Folder, gathered: Gathered) -> list[Candidate]:
        """Ask for the proof of the oldest files; those of an ordered feed wait for an older one that is settling."""
        ready: list[Candidate] = []
        self._again = {}
        waiting: dict[str, float] = {}
        for found in gathered.oldest():
            self._again[found.name] = gathered.kinds.get(found.name)
            blocker = gathered.blockers.get(found.feed)
            if blocker is not None and blocker < found:
                continue
            if self._waits(gathered, found, waiting):
                continue
            try:
                due = self._settling.complete(found, inbox, gathered.kinds.get(found.name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if due is None:
                ready.append(Candidate(found.name, found.size, found.mtime_ns, found.dev, found.ino, found.feed))
            else:
                self._unsettled(gathered, found, due)
        self._waiting_since = waiting
        return ready

    def _waits(self, gathered: Gathered, found: Found, waiting: dict[str, float]) -> bool:
        """Tell whether a complete file waits for an older one of its feed that is settling; note it in ``waiting``.

        All that waiting together is bounded for the feed, from the first arrival that it waits for: however many files
        a sender begins and does not end, and whatever times he gives them, the feed is held up no longer.
        """
        older = gathered.settling_first.get(found.feed)
        if older is None or older > found:
            return False
        since = waiting[found.feed] = self._waiting_since.get(found.feed, gathered.arrivals[found.feed])
        until = since + self._settling.longest_wait()
        if until <= self._settling.now:
            return False
        gathered.wait(until)
        return True

    def _conclude(self, inbox: Folder, gathered: Gathered, *, full: bool) -> Survey:
        ready = self._choose(inbox, gathered)
        self._more = gathered.more
        held_up = {*gathered.blockers, *gathered.settling_first}
        self._stuck = held_up if gathered.more and not ready else set()
        if gathered.more and not ready:
            gathered.wait(self._settling.now + max(self._last_cost, CHEAP_S))
        if self._settling.unproven and not self._said_unproven:
            self._said_unproven = True
            self._once.say(SETTLE_UNPROVEN, "", _UNPROVEN)
        oldest = min((ns for ns in (gathered.oldest_ns, self._oldest_ns) if ns is not None), default=None)
        total = gathered.counted if full else max(self._left, gathered.counted)
        self._left = max(total - len(ready), 0)
        if not self._left:
            self._oldest_ns = None
        return Survey(
            ready=tuple(ready),
            total=total,
            settling=gathered.settling,
            unsettled=tuple(NotSettled(name, *self._settling.reason(name)) for name in gathered.unsettled),
            next_due=None if gathered.due == float("inf") else gathered.due,
            oldest_arrival=None if oldest is None else oldest / 1e9,
            notices=self._once.take(),
            ignored=self._walk.left_alone,
            more=gathered.more,
            full=full,
        )

    def _find_out_about_the_filesystem(self, inbox: Folder) -> None:
        """Look at the filesystem's kind whenever another one is mounted there."""
        device, _ = inbox.identity()
        if device != self._device:
            self._device = device
            self._settling.remote = is_remote(self.root) if self._remote is None else self._remote


_UNPROVEN = (
    "neither a lease nor an event proves that files are complete, so each must have been still for "
    "inbox.settle_unproven; let inboxd own the files or give it CAP_LEASE, or rename finished files into the inbox"
)
