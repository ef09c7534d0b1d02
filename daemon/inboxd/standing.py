"""How a daemon stands: what it tells the service manager and all who read its state file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from inboxd import __version__
from inboxd.clock import Clock, stamp
from inboxd.daemon import Daemon
from inboxd.errors import TransientFault
from inboxd.model import printable
from inboxd.notify import Notifier
from inboxd.outbox.arrivals import Arrivals
from inboxd.outcomes import Edge, Hook, Step
from inboxd.pending import PendingFile
from inboxd.premises import state_file
from inboxd.presence import (
    MAX_LISTED,
    PHASES,
    SETTLING,
    DaemonState,
    LeftAlone,
    Phase,
    Published,
    UnfinishedFile,
    Work,
    remove_state,
    write_state,
)

if TYPE_CHECKING:
    from inboxd.operate.arrivals import Expected


MAX_IGNORED: Final = 20
WORK_EVERY_S: Final = 0.5
STATE_EVERY_S: Final = 1.0


@dataclass(slots=True)
class Standing:
    """Tells how the daemon stands: the page, the state file, the service manager. Owned by the loop's thread.

    The file in work is followed: it is shown on the page, and told to all once it takes a while.
    """

    published: Published
    clock: Clock
    notifier: Notifier
    since: str
    """When the daemon was started."""
    arrivals: Arrivals | None = None
    _daemon: Daemon | None = None
    _written: float = float("-inf")
    _phase: Phase = Phase.READING
    _began: float = 0.0
    _shown: float = float("-inf")

    def follow(self, daemon: Daemon) -> None:
        """Follow the work of this daemon from now on."""
        self._daemon = daemon

    def beat(self) -> float:
        """Note, and let the service manager know, that there is progress; returns the time (monotonic, s)."""
        now = self.published.beat = self.clock.monotonic()
        self.notifier.watchdog(now)
        return now

    def is_due(self, now: float) -> bool:
        """Tell whether what was written is so old that it should be written anew."""
        return now >= self._written + STATE_EVERY_S

    def ready(self, daemon: Daemon) -> None:
        """Tell the service manager that the start, or a reload, is over."""
        self.notifier.ready(status_line(daemon, self.published))

    def publish(self, daemon: Daemon) -> None:
        """Show how the daemon stands to others in this process."""
        self.published.state = self._state(daemon)
        self.published.inbox_lost = daemon.lost

    def write(self, daemon: Daemon) -> None:
        """Write the state file."""
        write_state(state_file(self.published.settings), self._state(daemon))

    def tell(self, daemon: Daemon) -> None:
        """Tell those outside of this process."""
        self._written = self.clock.monotonic()
        self.write(daemon)
        self.notifier.status(status_line(daemon, self.published))

    def end(self) -> None:
        """Remove the state file: nobody works any more."""
        remove_state(state_file(self.published.settings))

    def _state(self, daemon: Daemon) -> DaemonState:
        expected = () if self.arrivals is None else self.arrivals.standing
        return state_of(daemon, self.published, since=self.since, expected=expected)

    def followed(self, hook: Hook | None) -> Hook:
        """Return a hook that notes the phases, and calls another one if there is any."""

        def follow(step: Step, edge: Edge) -> None:
            if edge is Edge.BEFORE and step in PHASES:
                self._phase, self._began = PHASES[step], self.clock.monotonic()
                if step is Step.BEGIN:
                    self._shown = self._began  # most files are done before there is anything to show
                elif self.published.work is not None:  # a new phase of what is shown is shown at once
                    self.look_at_work(self._began, at_once=True)
            if hook is not None:
                hook(step, edge)

        return follow

    def look_at_work(self, now: float, *, at_once: bool = False) -> None:
        """Show how far the work is, twice a second at most; called at each sign of progress."""
        if self._daemon is None or (now < self._shown + WORK_EVERY_S and not at_once):
            return
        known, work = self.published.work, work_of(self._daemon, self._phase, self._began)
        self.published.work, self._shown = work, now
        if work is not None and known is not None and known.claim == work.claim:
            self.tell(self._daemon)


def work_of(daemon: Daemon, phase: Phase, since: float) -> Work | None:
    """Return what the daemon is working on; ``since`` is when (monotonic seconds) the phase began."""
    if daemon.reading is None:
        return None
    pending, source = daemon.reading
    began = _wall(daemon.clock, since)
    return Work(pending.claim.id, printable(pending.claim.name), pending.feed, phase, began, source.offset, source.size)


def status_line(daemon: Daemon, published: Published) -> str:
    """Return the one line that ``systemctl status`` shows."""
    tally, work = daemon.tally, published.work
    config = "the config on disk is refused, an older one is in force; " if published.refused else ""
    return (
        f"{config}{tally.loaded} loaded, {tally.duplicate} duplicate, {tally.failed} failed; "
        f"{daemon.survey.total} waiting, {_count_deferred(daemon)} deferred"
        f"{f'; {work.phase} {work.file}' if work else ''}"
    )


def state_of(daemon: Daemon, published: Published, *, since: str, expected: Sequence[Expected] = ()) -> DaemonState:
    """Return what the daemon, which runs ``since`` that moment, tells others about itself."""
    survey, settings = daemon.survey, published.settings
    return DaemonState(
        pid=os.getpid(),
        host=os.uname().nodename,
        version=__version__,
        since=since,
        updated=stamp(daemon.clock.now()),
        inbox=printable(str(settings.inbox.path)),
        database=printable(settings.database.shown_url),
        config=printable(str(settings.source)) if settings.source else None,
        config_mtime_ns=settings.source_mtime_ns,
        files_waiting=survey.total + len(daemon.pending),
        oldest_waiting=_oldest(survey.oldest_arrival, daemon),
        files_ignored=survey.ignored,
        files_deferred=_count_deferred(daemon),
        config_refused=published.refused,
        expected=[one.shown for one in expected],
        ignored=[LeftAlone(printable(one.name), one.reason) for one in daemon.folders.inbox.left_alone(MAX_IGNORED)],
        deferred=[*_why_deferred(daemon), *_aside(daemon)],
        unsettled=[
            UnfinishedFile(
                file=printable(found.name),
                code=SETTLING,
                message=found.reason,
                since=_wall(daemon.clock, found.since),
            )
            for found in survey.unsettled[:MAX_LISTED]
        ],
        work=published.work,
    )


def _deferred(daemon: Daemon) -> Iterator[tuple[PendingFile, TransientFault]]:
    """Yield the claimed files that wait after a transient fault; others are pending because their turn is to come."""
    return ((pending, pending.fault) for pending in daemon.pending if pending.fault is not None)


def _count_deferred(daemon: Daemon) -> int:
    return sum(1 for _ in _deferred(daemon)) + len(daemon.folders.inbox.aside)


def _why_deferred(daemon: Daemon) -> list[UnfinishedFile]:
    return [
        UnfinishedFile(
            file=printable(pending.claim.name),
            feed=pending.feed,
            code=fault.code,
            message=printable(fault.message),
            hint=printable(fault.hint),
            since=pending.since,
            attempts=pending.attempts,
            retry_at=_wall(daemon.clock, pending.due),
        )
        for pending, fault in islice(_deferred(daemon), MAX_LISTED)
    ]


def _aside(daemon: Daemon) -> list[UnfinishedFile]:
    """Return the files in the inbox that cannot be claimed, and why."""
    return [
        UnfinishedFile(
            file=printable(name),
            code=aside.fault.code,
            message=aside.fault.message,
            hint=aside.fault.hint,
            since=_wall(daemon.clock, aside.since),
            attempts=aside.attempts,
            retry_at=_wall(daemon.clock, aside.until),
        )
        for name, aside in islice(daemon.folders.inbox.aside.items(), MAX_LISTED)
    ]


def _oldest(arrival: float | None, daemon: Daemon) -> str | None:
    """Return since when the oldest file waits: by its arrival in the inbox, or by when it was claimed."""
    found = [pending.since for pending in daemon.pending]
    if arrival is not None:  # another host's clock, or a jump of ours, may have it in the future
        found.append(stamp(min(datetime.fromtimestamp(max(arrival, 0.0), UTC), daemon.clock.now())))
    return min(found, default=None)


def _wall(clock: Clock, monotonic: float) -> str:
    """Return a moment of the monotonic clock as text."""
    return stamp(clock.now() + timedelta(seconds=monotonic - clock.monotonic()))
