"""Claimed files that are not done yet, and when each is to be tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from inboxd.errors import DatabaseFault, TransientFault
from inboxd.inbox.archive import Place
from inboxd.inbox.claim import Claim
from inboxd.outcomes import Verdict

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0


def pause_after(attempts: int) -> float:
    """Return how long to wait after so many failed attempts: doubling from 0.5 s to a minute, half of it by chance.

    The chance keeps several daemons from asking a database that has just come back all at the same moment
    (equal jitter, as in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    longest = min(FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 16), LONGEST_PAUSE_S)
    return longest / 2 + random.uniform(0, longest / 2)  # noqa: S311 - spreads load, guards nothing


@dataclass(slots=True)
class PendingFile:
    """One claimed file: to be processed, or (with a verdict) committed and still to be moved."""

    claim: Claim
    feed: str
    since: str
    retry: bool = False
    """Asked for by ``inboxd retry``: read without the watermark."""
    found: bool = False
    """Its claim was found: made by ``retry``, or left by a daemon that died, perhaps over this file."""
    first_mtime: str | None = None
    """The file's mtime as the first run of the claim had it; that of a file that was mended is another by now."""
    recovered: bool = False
    """Its run was committed before this daemon started."""
    logged: bool = False
    """Its verdict is in the log."""
    place_logged: bool = False
    """Where it was moved to is in the log."""
    verdict: Verdict | None = None
    archived: Place | None = None
    """Where it was moved to already; that may still have to be made durable."""
    fault: TransientFault | None = None
    attempts: int = 0
    due: float = 0.0
    retry_at: str | None = None

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands among files that wait together: by mtime, then name."""
        return self.claim.mtime_ns, self.claim.name

    def keep_fault(self, fault: TransientFault) -> None:
        """Keep why it waits, without the frames of the attempt: they hold a window of the file's data."""
        fault.__cause__ = fault.__context__ = None
        self.fault = fault.with_traceback(None)


@dataclass(slots=True)
class PendingFiles:
    """Owned by the loop's thread. Small: files wait in the inbox, here are only those already claimed."""

    _files: dict[str, PendingFile] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[PendingFile]:
        return iter(list(self._files.values()))

    def __contains__(self, claim_id: object) -> bool:
        return claim_id in self._files

    def add(self, pending: PendingFile) -> None:
        """Keep a file, in the order of arrival."""
        pending.claim.rest()
        self._files.setdefault(pending.claim.id, pending)

    def remove(self, pending: PendingFile) -> None:
        """Forget a file that is done."""
        self._files.pop(pending.claim.id, None)

    def due(self, now: float) -> list[PendingFile]:
        """Return the files whose pause is over, oldest first."""
        return [pending for pending in self._files.values() if pending.due <= now]

    def next_due(self, database_due: float) -> float | None:
        """Return when the next file can go on (monotonic seconds): one that needs the database not before its pause."""
        dues = (pending.due if pending.verdict else max(pending.due, database_due) for pending in self._files.values())
        return min(dues, default=None)

    def blocks(self, feed: str) -> bool:
        """Tell whether newer files of an ordered feed must wait behind one that the database holds up."""
        return any(
            pending.feed == feed and pending.verdict is None and isinstance(pending.fault, DatabaseFault)
            for pending in self._files.values()
        )
