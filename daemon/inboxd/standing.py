"""How a daemon stands: what it tells the service manager and all who read its state file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from inboxd import __version__
from inboxd.clock import Clock, stamp
from inboxd.config import Settings
from inboxd.daemon import Daemon
from inboxd.errors import TransientFault
from inboxd.model import printable
from inboxd.outcomes import Edge, Hook, Step
from inboxd.pending import PendingFile
from inboxd.presence import (
    MAX_LISTED,
    PHASES,
    SETTLING,
    DaemonState,
    LeftAlone,
    Phase,
    Published,
    Refused,
    UnfinishedFile,
    Work,
)

if TYPE_CHECKING:
    from inboxd.operate.arrivals import Expected


MAX_IGNORED: Final = 20
WORK_EVERY_S: Final = 0.5


@dataclass(slots=True)
class WorkMonitor:
    """Follows the file in work: shown on the page, and told to everybody once it takes a while. The loop's thread's."""

    published: Published
    clock: Clock
    _daemon: Daemon | None = None
    _tell: Callable[[Work], None] = lambda _work: None
    _phase: Phase = Phase.READING
    _began: float = 0.0
    _shown: float = float("-inf")

    def begin(self, daemon: Daemon, tell: Callable[[Work], None]) -> None:
        """Look at this daemon from now on; ``tell`` tells those who are not in this process."""
        self._daemon, self._tell = daemon, tell

    def followed(self, hook: Hook | None) -> Hook:
        """Return a hook that notes the phases, and calls another one if there is any."""

        def follow(step: Step, edge: Edge) -> None:
            if edge is Edge.BEFORE and step in PHASES:
                self._phase, self._began = PHASES[step], self.clock.monotonic()
                if step is Step.BEGIN:
                    self._shown = self._began  # most files are done before there is anything to show
                elif self.published.work is not None:  # a new phase of what is shown is shown at once
                    self.look(self._began, at_once=True)
            if hook is not None:
                hook(step, edge)

        return follow

    def look(self, now: float, *, at_once: bool = False) -> None:
        """Show how far the work is, twice a second at most; called at each sign of progress."""
        if self._daemon is None or (now < self._shown + WORK_EVERY_S and not at_once):
            return
        known, work = self.published.work, work_of(self._daemon, self._phase, self._began)
        self.published.work, self._shown = work, now
        if work is not None and known is not None and known.claim == work.claim:
            self._tell(work)


def work_of(daemon: Daemon, phase: Phase, since: float) -> Work | None:
    """Return what the daemon is working on; ``since`` is when (monotonic seconds) the phase began."""
    if daemon.reading is None:
        return None
    pending, source = daemon.reading
    began = _wall(daemon.clock, since)
    return Work(pending.claim.id, printable(pending.claim.name), pending.feed, phase, began, source.offset, source.size)


def status_line(daemon: Daemon, refused: Refused | None, work: Work | None = None) -> str:
    """Return the one line that ``systemctl status`` shows."""
    tally = daemon.tally
    config = "the config on disk is refused, an older one is in force; " if refused else ""
    return (
        f"{config}{tally.loaded} loaded, {tally.duplicate} duplicate, {tally.failed} failed; "
        f"{daemon.survey.total} waiting, {_count_deferred(daemon)} deferred"
        f"{f'; {work.phase} {work.file}' if work else ''}"
    )


def state_of(
    daemon: Daemon,
    settings: Settings,
    *,
    since: str,
    refused: Refused | None,
    expected: Sequence[Expected] = (),
    work: Work | None = None,
) -> DaemonState:
    """Return what the daemon, which runs ``since`` that moment, tells others about itself."""
    survey = daemon.survey
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
        config_refused=refused,
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
        work=work,
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
