"""What the inbox has to say to the operator: each thing once, for as long as it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Final

REMEMBERED: Final = 10_000
"""So many names are told apart; a folder with more that is left alone gets one line for the rest. About 2 MB."""

FILE_IGNORED: Final = "file_ignored"
FILE_UNSETTLED: Final = "file_unsettled"
SETTLE_UNPROVEN: Final = "settle_unproven"
FOLDER_UNREADABLE: Final = "folder_unreadable"
INBOX_LOST: Final = "inbox_lost"
INBOX_RESTORED: Final = "inbox_restored"
INBOX_OVERFLOW: Final = "inbox_overflow"
INBOX_POLLED: Final = "inbox_polled"


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the log. ``name`` is relative to the inbox; empty when the notice is about the inbox itself."""

    event: str
    name: str
    reason: str


@dataclass(slots=True)
class Once:
    """Says each thing once. Owned by the loop's thread.

    A name that is gone is forgotten, so that it is told anew when it comes back, and memory stays bounded.
    """

    limit: int = REMEMBERED
    _reported: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """When each thing was last told, and why."""
    _round: int = 0
    _pending: list[Notice] = field(default_factory=list)
    _said_more: bool = False

    def begin(self) -> None:
        """Begin a look at the whole inbox: what is not told again before ``end`` is gone."""
        self._round += 1

    def tell(self, event: str, name: str, reason: str) -> None:
        """Say it, unless it was said."""
        key = (event, name)
        if key in self._reported:
            self._reported[key] = (self._round, reason)
        elif len(self._reported) < self.limit:
            self._reported[key] = (self._round, reason)
            self._pending.append(Notice(event, name, reason))
        elif not self._said_more:
            self._said_more = True
            reason = f"more than {self.limit} names; from here on they are only counted"
            self._pending.append(Notice(event, "", reason))

    def say(self, event: str, name: str, reason: str) -> None:
        """Say it; the caller knows that it is for the first time."""
        self._pending.append(Notice(event, name, reason))

    def end(self) -> None:
        """End the look at the whole inbox: forget what was not there any more."""
        gone = [key for key, (seen, _) in self._reported.items() if seen != self._round]
        for key in gone:
            del self._reported[key]
        if len(self._reported) < self.limit // 2:
            self._said_more = False

    def standing(self, event: str, limit: int) -> list[Notice]:
        """Return what was said of an event and still holds, at most so many."""
        found = (Notice(event, name, why) for (said, name), (_, why) in self._reported.items() if said == event)
        return list(islice(found, limit))

    def take(self) -> tuple[Notice, ...]:
        """Return what is to be logged now."""
        pending, self._pending = self._pending, []
        return tuple(pending)
