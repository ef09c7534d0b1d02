"""Expected arrivals, watched: a feed that is late is told of once, and that something came at last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from inboxd.clock import Clock, moment, stamp
from inboxd.errors import TransientFault
from inboxd.events import Event
from inboxd.log import NOTICED, Logger, emit
from inboxd.model import Feed
from inboxd.outcomes import Verdict
from inboxd.store.base import NoticeRow
from inboxd.store.database import Store

if TYPE_CHECKING:
    from inboxd.operate.arrivals import Expected

AGAIN_S: Final = 5.0
"""How soon it is looked again for what may have come on another host, or when the database is back."""
LONGEST_S: Final = 60.0
"""A deadline is by the wall clock, which may be set meanwhile."""
JUST_OVER_S: Final = 0.005


@dataclass(slots=True)
class Arrivals:
    """Owned by the loop's thread; ``standing`` is replaced as a whole."""

    store: Store
    log: Logger
    clock: Clock
    tell: Callable[[Event, str, Mapping[str, object]], tuple[NoticeRow, ...]]
    """Makes the notices of an event; they are written with the note that it was told."""
    announced: Callable[[], None] = lambda: None
    """Called when notices were written."""
    standing: tuple[Expected, ...] = ()
    _feeds: Sequence[Feed] = ()
    _next: float = float("-inf")

    def look(self, feeds: Sequence[Feed]) -> float:
        """Judge the feeds if it is time to; return how soon (s) it is again."""
        now = self.clock.monotonic()
        if feeds is not self._feeds:
            self._feeds, self._next = feeds, now
        if not any(feed.expect for feed in feeds):
            self.standing = ()
            return float("inf")
        if now >= self._next:
            try:
                self._judge(feeds)
                self._next = now + self._patience()
            except TransientFault:
                self._next = now + AGAIN_S
        return max(self._next - now, 0.0)

    def has_ended(self, verdict: Verdict) -> None:
        """Judge anew soon if a file has come that was waited for."""
        if any(one.late and one.feed == verdict.feed for one in self.standing):
            self._next = float("-inf")

    def _patience(self) -> float:
        now = self.clock.now()
        dues = [(one.due - now).total_seconds() + JUST_OVER_S for one in self.standing if one.due and not one.late]
        dues += [AGAIN_S for one in self.standing if one.late]
        return min([max(due, JUST_OVER_S) for due in dues] + [LONGEST_S])

    def _judge(self, feeds: Sequence[Feed]) -> None:
        from inboxd.operate.arrivals import expected, note  # noqa: PLC0415 - SQLAlchemy, for those who expect something

        now = self.clock.now()
        note(self.store, feeds, stamp(now))
        found = expected(self.store, feeds, now)
        self.standing = tuple(self._turned(one) for one in found)

    def _turned(self, one: Expected) -> Expected:
        """Say it if a feed has become late, or is so no more; return how it stands then."""
        if one.late and one.said is None and one.due is not None:
            due = stamp(one.due)
            last = None if one.last is None else stamp(one.last.at)
            since = f"nothing has arrived since {last}" if last else "nothing has ever arrived"
            self._say(Event.FEED_LATE, one, due, {"due": due, "last_arrival": last, "reason": since})
            return replace(one, said=due)
        if not one.late and one.said is not None and (one.due is None or stamp(one.due) > one.said):
            values: dict[str, object] = {"due": one.said}
            if one.last is not None:
                late_s = round((one.last.at - moment(one.said)).total_seconds(), 3)
                values |= {"run_id": one.last.run_id, "file": one.last.file_name, "late_s": late_s}
            self._say(Event.FEED_ARRIVED, one, None, values)
            return replace(one, said=None)
        return one

    def _say(self, event: Event, one: Expected, late_at: str | None, values: Mapping[str, object]) -> None:
        """Note it, with its notices; say it unless another host was first to."""
        from inboxd.operate.arrivals import turn  # noqa: PLC0415 - as above

        line = {"feed": one.feed, **values}
        notices = self.tell(event, stamp(self.clock.now()), {"level": event.level, **line})
        if turn(self.store, one, late_at, [asdict(notice) for notice in notices]):
            emit(self.log, event, **line, **NOTICED)
            self.announced()
