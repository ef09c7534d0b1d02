"""What one survey gathers: of all files that wait the oldest, and what holds up the newer ones of ordered feeds."""

from __future__ import annotations

from dataclasses import dataclass, field

from inboxd.inbox.settle import Found, Kind


@dataclass(slots=True)
class Gathered:
    """What is gathered during one survey. Holds at most twice the limit of files, however many there are."""

    limit: int
    found: list[Found] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    """What was hinted of the files in ``found``."""
    blockers: dict[str, Found] = field(default_factory=dict)
    """For each ordered feed, the oldest file that newer ones have to wait for: the disk refused to give it out."""
    settling_first: dict[str, Found] = field(default_factory=dict)
    """For each ordered feed, the oldest file that is settling; newer ones wait for it for a while."""
    arrivals: dict[str, float] = field(default_factory=dict)
    """When (monotonic seconds) the first of those that are settling was seen."""
    counted: int = 0
    settling: int = 0
    unsettled: list[str] = field(default_factory=list)
    due: float = float("inf")
    more: bool = False
    oldest_ns: int | None = None
    _bound: Found | None = None

    def count(self, found: Found) -> None:
        """Count a file that waits."""
        self.counted += 1
        if self.oldest_ns is None or found.ctime_ns < self.oldest_ns:
            self.oldest_ns = found.ctime_ns

    def offer(self, found: Found, kind: Kind | None) -> None:
        """Keep a file if it is among the oldest: sorted now and then, so that not all of them are held."""
        if self._bound is not None and found >= self._bound:
            self.more = True
            return
        self.found.append(found)
        if kind is not None:
            self.kinds[found.name] = kind
        if len(self.found) >= 2 * self.limit:
            self._truncate()

    def wait(self, until: float) -> None:
        """Note when something is due."""
        self.due = min(self.due, until)

    def block(self, found: Found, until: float) -> None:
        """Let newer files of an ordered feed wait for this one."""
        self.blockers[found.feed] = min(found, self.blockers.get(found.feed, found))
        self.wait(until)

    def settles(self, found: Found, since: float) -> None:
        """Note a file of an ordered feed that is settling, and since when."""
        self.settling_first[found.feed] = min(found, self.settling_first.get(found.feed, found))
        self.arrivals[found.feed] = min(since, self.arrivals.get(found.feed, since))

    def oldest(self) -> list[Found]:
        """Return the files kept, oldest first."""
        self._truncate()
        return self.found

    def _truncate(self) -> None:
        self.found.sort()
        if len(self.found) > self.limit:
            for found in self.found[self.limit :]:
                self.kinds.pop(found.name, None)
            del self.found[self.limit :]
            self.more = True
            self._bound = self.found[-1]
