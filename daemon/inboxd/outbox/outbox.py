"""What the daemon has of notices: it is asked what is told of a file, is shown every line, and has the courier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inboxd.clock import Clock, stamp
from inboxd.config import NotifySettings
from inboxd.events import Event
from inboxd.inbox.scan import Aside
from inboxd.log import Logger
from inboxd.outbox.courier import Courier
from inboxd.outbox.notices import Receivers, rows
from inboxd.outcomes import Verdict
from inboxd.pending import PendingFile
from inboxd.store.base import NoticeRow
from inboxd.store.database import Store


@dataclass(slots=True)
class Outbox:
    """Owned by the loop's thread, but for ``on_line``, which any thread's line is given to."""

    receivers: Receivers
    open_store: Callable[[Callable[[], None]], Store]
    clock: Clock
    courier: Courier | None = None
    _early: list[NoticeRow] = field(default_factory=list)
    """What came before the database was there."""
    _since: dict[str, float] = field(default_factory=dict)
    """When (monotonic seconds) each file that waits was first seen to."""
    _reported: set[tuple[str, str]] = field(default_factory=set)
    """Which receiver was told which of them waits for long."""

    def start(self, log: Logger) -> None:
        """Begin to deliver: the database has its tables by now."""
        self.courier = Courier(self.open_store, lambda: self.receivers.settings, log, self.clock)
        self.courier.post(self._early)
        self.courier.start()

    def replace(self, settings: tuple[NotifySettings, ...]) -> None:
        """Take over the receivers of a config that was loaded anew."""
        self.receivers = Receivers(settings)
        if self.courier is not None:
            self.courier.start()

    def settle(self, timeout_s: float) -> None:
        """Wait until everything was tried, for so long at most."""
        if self.courier is not None:
            self.courier.settle(timeout_s)

    def stop(self) -> None:
        """End the courier; what is undelivered stays. May be called twice, or before ``start``."""
        if self.courier is not None:
            self.courier.stop()

    def of_verdict(self, verdict: Verdict, at: str) -> tuple[NoticeRow, ...]:
        """Return what is told of a file, to be written in its transaction; ``wake`` sends it off."""
        return self.receivers.of_verdict(verdict, at)

    def of_event(self, event: Event, at: str, values: Mapping[str, object]) -> tuple[NoticeRow, ...]:
        """Return what is told of an event, to be written by the caller; ``wake`` sends it off."""
        return self.receivers.of_event(event, at, values)

    def wake(self) -> None:
        """Look for what a transaction has written."""
        if self.courier is not None:
            self.courier.wake()

    def on_line(self, line: Mapping[str, Any]) -> None:  # Any: as the log has them
        """Tell of a line that no transaction tells of."""
        if not self.receivers.settings:
            return
        event = Event(line["event"])
        self._post(self.receivers.of_event(event, line["timestamp"], {**line, "event": None, "timestamp": None}))

    def look_at(self, pending: Iterable[PendingFile], aside: Mapping[str, Aside]) -> float:
        """Tell of files that wait for longer than somebody wants; return how soon (s) there may be another."""
        patience = [(one.name, one.deferred_for) for one in self.receivers.settings if one.deferred_for is not None]
        if not patience:
            return float("inf")
        waiting = {one.claim.id: _of_pending(one) for one in pending if one.fault is not None}
        waiting |= {name: _of_aside(name, one) for name, one in aside.items()}
        now = self.clock.monotonic()
        self._since = {key: self._since.get(key, now) for key in waiting}
        self._reported = {(key, name) for key, name in self._reported if key in waiting}
        due: defaultdict[str, list[str]] = defaultdict(list)
        soonest = float("inf")
        for name, longest in patience:
            for key in waiting:
                left = self._since[key] + longest - now
                if left <= 0 and (key, name) not in self._reported:
                    due[key].append(name)
                elif left > 0:
                    soonest = min(soonest, left)
        for key, names in due.items():
            self._reported |= {(key, name) for name in names}
            values = {**waiting[key], "waited_s": round(now - self._since[key], 3)}
            self._post(rows(Event.FILE_DEFERRED, stamp(self.clock.now()), values, names))
        return soonest

    def _post(self, written: tuple[NoticeRow, ...]) -> None:
        if self.courier is None:
            self._early += written
        elif written:
            self.courier.post(written)


def _of_pending(pending: PendingFile) -> dict[str, object]:
    fault = pending.fault
    return {
        "level": Event.FILE_DEFERRED.level,
        "run_id": pending.verdict.run_id if pending.verdict else None,
        "feed": pending.feed,
        "file": pending.claim.name,
        "error_code": fault.code if fault else None,
        "error": fault.message if fault else None,
        "hint": fault.hint if fault else None,
        "attempt": pending.attempts,
    }


def _of_aside(name: str, aside: Aside) -> dict[str, object]:
    return {
        "level": Event.FILE_DEFERRED.level,
        "file": name,
        "error_code": aside.fault.code,
        "error": aside.fault.message,
        "hint": aside.fault.hint,
        "attempt": aside.attempts,
    }
