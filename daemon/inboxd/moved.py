"""Files that were moved and whose verdict is told: a thread makes the moves durable, then forgets the claims.

A sync of a folder serves every move into it, so files that come while the disk is busy share the next one. The order is
what a power cut needs: a claim is forgotten after its file is durably where it was moved to, never before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from inboxd.errors import TransientFault
from inboxd.inbox.archive import Place, make_durable
from inboxd.inbox.claim import forget
from inboxd.pending import PendingFile

AT_ONCE: Final = 8
"""So many files share a sync while there are more to come: a thread that is woken for each file costs a tenth of it."""
MOST: Final = 32
"""So many files may wait for the next sync; each keeps two folders open."""
THREADS: Final = 4
"""One syncs folders, the others the contents of files that are claimed ahead: more at once gain little (measured)."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A file and where it was moved to; its claim is the thread's until the file has ended."""

    pending: PendingFile
    place: Place


Ended = tuple[Moved, TransientFault | None]


@dataclass(slots=True)
class MovedFiles:
    """Owned by the loop's thread, but for the claims that are in it."""

    disk: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "inboxd-disk"))
    """Its threads wait for the disk, so that the loop need not."""
    _next: list[Moved] = field(default_factory=list)
    _running: Future[list[Ended]] | None = None

    def begin(self) -> None:
        """Start a thread now: where none can, that is to be known before a file is touched."""
        self.disk.submit(int).result()

    def add(self, moved: Moved) -> None:
        """Take one file more."""
        self._next.append(moved)

    def ended(self, *, wait: bool = False) -> Iterator[Ended]:
        """Yield the files that are durable now, or why they are not; with ``wait`` all of them."""
        while self._next or self._running is not None:
            if not wait and len(self._next) < AT_ONCE:
                return
            if self._running is not None:
                if not (wait or len(self._next) >= MOST or self._running.done()):
                    return
                done, self._running = self._running.result(), None
                yield from done
            if self._next:
                batch, self._next = self._next, []
                self._running = self.disk.submit(_settle, batch)

    def close(self) -> None:
        """End the threads, once what they have begun is done."""
        self.disk.shutdown()


def _settle(batch: Sequence[Moved]) -> list[Ended]:
    """Sync each folder once, and forget the claims of the files in it."""
    faults = make_durable([moved.place for moved in batch])
    ended: list[Ended] = []
    for moved in batch:
        fault = faults.get(moved.place.whole_folder)
        if fault is None:
            forget(moved.pending.claim)
        ended.append((moved, fault))
    return ended
