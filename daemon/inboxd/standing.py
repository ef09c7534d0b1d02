"""How a daemon stands: what it tells the service manager and all who read its state file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from inboxd import __version__
from inboxd.clock import Clock, stamp
from inboxd.config import Settings
from inboxd.daemon import Daemon
from inboxd.model import printable
from inboxd.presence import MAX_LISTED, SETTLING, DaemonState, LeftAlone, Refused, Waiting, Work

if TYPE_CHECKING:
    from inboxd.operate.arrivals import Expected


MAX_IGNORED: Final = 20


def work_of(daemon: Daemon) -> Work | None:
    """Return what the daemon is working on."""
    if daemon.reading is None:
        return None
    held, source = daemon.reading
    done = source.offset
    phase = "reading" if done < source.size else "writing"
    return Work(held.claim.id, printable(held.claim.name), held.feed, phase, done, source.size)


def status_line(daemon: Daemon, refused: Refused | None) -> str:
    """Return the one line that ``systemctl status`` shows."""
    tally = daemon.tally
    config = "the config on disk is refused, an older one is in force; " if refused else ""
    return (
        f"{config}{tally.loaded} loaded, {tally.duplicate} duplicate, {tally.failed} failed; "
        f"{daemon.survey.total} waiting, {len(daemon.held)} deferred"
    )


def state_of(
    daemon: Daemon, settings: Settings, *, since: str, refused: Refused | None, expected: Sequence[Expected] = ()
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
        files_waiting=survey.total + len(daemon.held),
        oldest_waiting=_oldest(survey.oldest_arrival, daemon),
        files_ignored=survey.ignored,
        files_deferred=sum(held.fault is not None for held in daemon.held) + len(daemon.folders.inbox.aside),
        config_refused=refused,
        expected=[one.shown for one in expected],
        ignored=[LeftAlone(printable(one.name), one.reason) for one in daemon.folders.inbox.left_alone(MAX_IGNORED)],
        deferred=[*_held(daemon), *_aside(daemon)],
        unsettled=[
            Waiting(
                file=printable(found.name),
                code=SETTLING,
                message=found.reason,
                since=_wall(daemon.clock, found.since),
            )
            for found in survey.unsettled[:MAX_LISTED]
        ],
    )


def _held(daemon: Daemon) -> list[Waiting]:
    """Return the claimed files that are not done, and why."""
    return [
        Waiting(
            file=printable(held.claim.name),
            feed=held.feed,
            code=held.fault.code if held.fault else "",
            message=printable(held.fault.message) if held.fault else "",
            hint=printable(held.fault.hint) if held.fault else "",
            since=held.since,
            attempts=held.attempts,
            retry_at=_wall(daemon.clock, held.due) if held.fault else None,
        )
        for held in islice(daemon.held, MAX_LISTED)
    ]


def _aside(daemon: Daemon) -> list[Waiting]:
    """Return the files in the inbox that cannot be claimed, and why."""
    return [
        Waiting(
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
    found = [held.since for held in daemon.held]
    if arrival is not None:  # another host's clock, or a jump of ours, may have it in the future
        found.append(stamp(min(datetime.fromtimestamp(max(arrival, 0.0), UTC), daemon.clock.now())))
    return min(found, default=None)


def _wall(clock: Clock, monotonic: float) -> str:
    """Return a moment of the monotonic clock as text."""
    return stamp(clock.now() + timedelta(seconds=monotonic - clock.monotonic()))
