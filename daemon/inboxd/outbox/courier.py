"""The thread that delivers notices: each receiver's in order, again with growing pauses, given up after a day.

What no file's transaction wrote is handed to it by ``post`` and kept in the database at once. While that is away it is
delivered all the same, for that may be what it tells of; what is still undelivered is kept when the database is back.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from inboxd.clock import Clock, stamp
from inboxd.config import NotifySettings
from inboxd.errors import InboxdError
from inboxd.events import Event
from inboxd.log import Logger, emit
from inboxd.outbox.delivery import Delivery, Undelivered
from inboxd.pending import pause_after
from inboxd.store.base import NoticeRow
from inboxd.store.database import Store

if TYPE_CHECKING:
    from inboxd.outbox.box import Box

GIVE_UP_AFTER: Final = timedelta(days=1)
LEAST_FAILURES: Final = 10
"""Nothing is given up before a receiver has failed so often in a row: a clock that jumped, or a machine that was off
for a day, is not its fault."""
KEPT: Final = timedelta(days=30)
"""How long what was delivered or given up can be looked up."""
LOOK_EVERY_S: Final = 10.0
"""How often it is looked for what another host has left."""
AT_ONCE: Final = 100
"""So many notices to one receiver, and it is the next one's turn."""
TIDY_EVERY_S: Final = 3_600.0
MOST_UNSAVED: Final = 10_000
"""So many notices are held while the database is away (some 10 MB); the oldest give way."""
JOIN_S: Final = 3.0
"""How long a stop waits for the thread; a name that is being looked up cannot be interrupted."""


@dataclass(slots=True)
class _Failing:
    """How often a receiver has failed in a row, and when (monotonic seconds) it is tried again."""

    failures: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Courier:
    """``post``, ``wake``, ``settle`` and ``stop`` may be called from any thread; the rest is the courier's own."""

    open_store: Callable[[Callable[[], None]], Store]
    receivers: Callable[[], Sequence[NotifySettings]]
    log: Logger
    clock: Clock
    delivery: Delivery = field(default_factory=Delivery)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _posted: deque[NoticeRow] = field(default_factory=lambda: deque(maxlen=MOST_UNSAVED))
    _awake: bool = True
    _idle: bool = False
    _stopping: bool = False
    _thread: threading.Thread | None = None
    _store: Store | None = None
    _unsaved: dict[tuple[str, str], tuple[NoticeRow, str | None]] = field(default_factory=dict)
    """What the database could not be given yet, and when each was delivered."""
    _failing: dict[str, _Failing] = field(default_factory=dict)
    _next_tidy: float = 0.0

    def start(self) -> None:
        """Begin to deliver, if there is anybody to deliver to; may be called again."""
        if self._thread is None and self.receivers():
            self._thread = threading.Thread(target=self._run, name="inboxd-notices", daemon=True)
            self._thread.start()

    def post(self, rows: Sequence[NoticeRow]) -> None:
        """Take notices that are in no transaction."""
        with self._news:
            self._posted.extend(rows)
        self.wake()

    def wake(self) -> None:
        """Say that there may be something to deliver."""
        with self._news:
            self._awake, self._idle = True, False
            self._news.notify_all()

    def settle(self, timeout_s: float) -> None:
        """Wait until everything was tried, for so long at most."""
        if self._thread is not None:
            with self._news:
                self._news.wait_for(lambda: self._idle or self._stopping, timeout_s)

    def stop(self) -> None:
        """End the thread; what is not delivered stays in the database. May be called twice, or before ``start``."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        self.delivery.stop()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._stopping:
            with self._news:
                self._awake = False
            try:
                pause = self._round()
            except Exception:  # noqa: BLE001 - whatever it is, the next notice may well be delivered
                emit(self.log, Event.BUG, traceback=traceback.format_exc())
                self._close()
                pause = LOOK_EVERY_S
            with self._news:
                if not self._awake and not self._stopping:
                    self._idle = True
                    self._news.notify_all()
                    self._news.wait(pause)
                self._idle = False
        self._close(save=True)

    def _round(self) -> float:
        """Deliver what can be delivered now; return how long (s) there will be nothing to do."""
        reachable = self._save()
        more = False
        for receiver in self.receivers():
            if not self._stopping and self._state(receiver).due <= self.clock.monotonic():
                more |= self._serve(receiver, reachable=reachable)
        if reachable:
            self._tidy()
        if more:
            return 0.0
        now = self.clock.monotonic()
        dues = [self._state(one).due for one in self.receivers()]
        return max(min([now + LOOK_EVERY_S, *(due for due in dues if due > now)]) - now, 0.0)

    def _serve(self, receiver: NotifySettings, *, reachable: bool) -> bool:
        """Deliver to a receiver until it fails, or another host serves it; tell whether there may be more for it."""
        try:
            if reachable:
                with self._box().turn(receiver.name) as ours:
                    return ours and all(self._next_in_box(receiver) for _ in range(AT_ONCE))
        except InboxdError:
            self._close()
        return all(self._next_in_memory(receiver) for _ in range(AT_ONCE))

    def _next_in_box(self, receiver: NotifySettings) -> bool:
        box = self._box()
        found = None if self._stopping else box.head(receiver.name)
        if found is None:
            return False
        taken = self._hand_over(receiver, found.row)
        box.tried(found.number, stamp(self.clock.now()) if taken else None)
        return taken

    def _next_in_memory(self, receiver: NotifySettings) -> bool:
        """Do the same without the database: in order among what was posted since it went away."""
        self._take_posted()
        mine = (key for key, (row, at) in self._unsaved.items() if at is None and row.target == receiver.name)
        key = None if self._stopping else next(mine, None)
        if key is None:
            return False
        row = self._unsaved[key][0]
        taken = self._hand_over(receiver, row)
        if taken:
            self._unsaved[key] = (row, stamp(self.clock.now()))
        return taken

    def _hand_over(self, receiver: NotifySettings, row: NoticeRow) -> bool:
        """Try once, and tell whether the notice was taken; if not, the receiver is left in peace for a while."""
        state = self._state(receiver)
        try:
            self.delivery.deliver(receiver, row.body)
        except Undelivered as reason:
            if not self._stopping:
                self._failed(state, receiver, row, str(reason))
            return False
        except Exception as error:  # noqa: BLE001 - the others must not wait for one receiver's bug
            emit(self.log, Event.BUG, traceback=traceback.format_exc())
            self._failed(state, receiver, row, type(error).__name__)
            return False
        state.failures, state.due = 0, 0.0
        return True

    def _failed(self, state: _Failing, receiver: NotifySettings, row: NoticeRow, reason: str) -> None:
        state.failures += 1
        pause = pause_after(state.failures)
        state.due = self.clock.monotonic() + pause
        emit(
            self.log,
            Event.NOTICE_DEFERRED,
            run_id=row.run_id,
            feed=row.feed,
            to=receiver.name,
            notice=row.id,
            of=row.event,
            reason=reason,
            attempt=state.failures,
            retry_in_s=round(pause, 3),
        )

    def _state(self, receiver: NotifySettings) -> _Failing:
        return self._failing.setdefault(receiver.name, _Failing())

    def _take_posted(self) -> None:
        with self._news:
            posted = list(self._posted)
            self._posted.clear()
        self._unsaved |= {(row.id, row.target): (row, None) for row in posted}
        while len(self._unsaved) > MOST_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]

    def _save(self) -> bool:
        """Give the database what was posted; tell whether it could be asked."""
        self._take_posted()
        try:
            self._box().save(self._unsaved.values())
        except InboxdError:
            self._close()
            return False
        self._unsaved.clear()
        return True

    def _tidy(self) -> None:
        """Give up what nobody takes, and forget what is long done."""
        names = [one.name for one in self.receivers()]
        hopeless = [one.name for one in self.receivers() if self._state(one).failures >= LEAST_FAILURES]
        now = self.clock.monotonic()
        if not hopeless and now < self._next_tidy:
            return
        today = self.clock.now()
        before, at = stamp(today - GIVE_UP_AFTER), stamp(today)
        try:
            dropped = self._box().give_up(before, at, hopeless) if hopeless else []
            if now >= self._next_tidy:
                self._next_tidy = now + TIDY_EVERY_S
                dropped += self._box().give_up(before, at, names, others=True)
                self._box().forget(stamp(today - KEPT))
        except InboxdError:
            self._close()
            return
        for row in dropped:
            about = {"run_id": row.run_id, "feed": row.feed, "to": row.target, "notice": row.id, "of": row.event}
            emit(self.log, Event.NOTICE_DROPPED, **about, created=row.created)

    def _box(self) -> Box:
        if self._store is None:
            self._store = self.open_store(self._tick)
        from inboxd.outbox.box import Box  # noqa: PLC0415 - SQLAlchemy: 0.1 s and 15 MB, for those who are told

        return Box(self._store)

    def _tick(self) -> None:
        """End a statement that a stop would have to wait for."""
        if self._stopping:
            raise InboxdError("stopping", "inboxd is stopping")

    def _close(self, *, save: bool = False) -> None:
        """Let go of the database, which may be back with the next connection."""
        if save:
            self._save()
        store, self._store = self._store, None
        if store is not None:
            with suppress(InboxdError):
                store.close()
