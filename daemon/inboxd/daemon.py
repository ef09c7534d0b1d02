"""The loop: wake → scan → claim → pipeline → archive, and the pauses after transient faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice, takewhile
from typing import Final

from inboxd.attempts import Attempts
from inboxd.clock import stamp
from inboxd.errors import DatabaseFault, Interrupted, TransientFault
from inboxd.events import Event
from inboxd.inbox.ahead import sync_ahead
from inboxd.inbox.claim import Claim, Entrance, new_claim_id, release, take
from inboxd.inbox.faults import NOT_MOVABLE
from inboxd.inbox.notices import Notice
from inboxd.inbox.scan import Candidate, Survey
from inboxd.inbox.tree import Folder
from inboxd.inbox.watch import Watch
from inboxd.log import emit
from inboxd.model import Feed, Late
from inboxd.operate.retention import Retention
from inboxd.outcomes import Edge, Step
from inboxd.pending import FIRST_PAUSE_S, PendingFile, PendingFiles
from inboxd.presence import LONGEST_WAIT_S
from inboxd.wake import Wake

LOST_WAIT_S: Final = 1.0
"""How often an inbox that is gone is looked for."""
TURN_AGAIN_S: Final = 0.5
"""How soon an ordered feed's turn is asked for again while it is another daemon's."""
LOOK_UP_S: Final = 1.0
"""How long a list of ready files is worked on before looking up from it."""
AHEAD: Final = 16
"""So many files are claimed at once, that their contents may be made durable side by side."""
AHEAD_BYTES: Final = 1 << 20
"""A larger file is worked on for so long that those behind it may as well stay in the inbox."""


@dataclass(slots=True, kw_only=True)
class Daemon(Attempts):
    """One daemon on one inbox and one store. Everything in it is owned by the thread that calls ``run``."""

    watch: Watch
    retention: Retention
    wake: Wake
    stopping: Callable[[], bool]
    leaving: Callable[[], None] = lambda: None
    """Called before the claims are given back: a stop that was waiting has no time left for anything."""
    on_pass: Callable[[Daemon], None] = lambda _daemon: None
    """Called after every pass and every file: state file, sd_notify, a config to be loaded anew."""
    longest_wait_s: float = LONGEST_WAIT_S
    survey: Survey = field(default_factory=Survey)
    waiting: int = 0
    """How many claimed files waited still when a drain ended."""
    turns: set[str] = field(default_factory=set)
    """The ordered feeds whose files are this daemon's to claim, while any of them is at work or waits."""
    passed_over: set[str] = field(default_factory=set)
    """The feeds of which this pass left a file in the inbox: later ones of the same list must not overtake it."""
    open_inbox: Folder | None = None
    """The inbox, open from a look at it until its files are taken: meanwhile nobody can unmount it."""
    turnless: bool = False
    """Whether the last pass left files alone because it was another daemon's turn."""

    def run(self, ready: Callable[[], None]) -> None:
        """Take files until asked to stop. ``ready`` is called once, when the inbox is watched and was first scanned."""
        with self._orderly():
            self._begin(ready)
            while not self.stopping():
                if not self._pass() and not self._tidy():
                    self.wake.wait(self._patience(), self.watch.queue)

    def drain(self, ready: Callable[[], None]) -> None:
        """Take what is there, and what is just being completed (``run --once``)."""
        with self._orderly():
            self._begin(ready)
            while not self.stopping():
                if self._pass():
                    continue
                if self.database_attempts or not (self.survey.settling or self._coming() or self.recovery.waiting):
                    break
                self.recovery.hasten()
                self.wake.wait(self._patience(), self.watch.queue)
            self._tidy(whole=True)
            self.waiting = len(self.pending)

    @contextmanager
    def _orderly(self) -> Iterator[None]:
        """End in ``_leave`` whatever a stop came into: the wait for a lock can be in any question to the database.

        What ends the block by any other exception leaves the claims to the next start, as a crash does.
        """
        with suppress(Interrupted):
            yield
        self.leaving()
        self._leave()

    def _coming(self) -> bool:
        return any(pending.attempts <= 1 and not self._overtakes(pending) for pending in self.pending)

    def _begin(self, ready: Callable[[], None]) -> None:
        """Start, say so, and work on what the first look found: looking twice at a large backlog takes its time."""
        self._start()
        self._look()
        ready()
        self._work()

    def _start(self) -> None:
        self.moved.begin()
        self._notice(self.watch.start())
        self._end_left()
        for pending in self.recovery.at_start():
            self.pending.add(pending)

    def _end_left(self) -> None:
        """Do for files that a crash left moved what was still to be done: their reports, and their verdicts."""
        for left in self.recovery.left_moved(self.pending):
            self.finish_left(left)

    def _pass(self) -> bool:
        """Look what is there and work on it; tell whether anything was done."""
        self._look()
        return self._work()

    def _work(self) -> bool:
        """Do everything that can be done now; tell whether anything was."""
        self.turnless = False
        if self.recovery.is_due():
            self._take_over(self.recovery.left)
        if self.database_attempts > 1:  # perhaps only one file's doing, such as a disk too small for it: let others try
            done = self._take_new() + self._go_on_with_pending()
        else:
            done = self._go_on_with_pending() + self._take_new()
        self.put_away()
        self._end_turns()
        self.on_pass(self)
        return bool(done)

    def _take_over(self, found: Callable[[PendingFiles], Iterable[PendingFile]]) -> None:
        """Hold the claims that nobody works on any more, and say what nobody said."""
        with suppress(TransientFault):  # it is asked again in the next pass
            self.put_away()
            self._end_left()
            for pending in found(self.pending):
                self.pending.add(pending)

    def _take_new(self) -> int:
        done = 0
        self.passed_over.clear()
        looked_up = self.clock.monotonic()
        ready = deque(self._in_turn(self.survey.ready))
        entrance = self._entrance() if ready else None
        self.open_inbox = None
        claimed: deque[PendingFile] = deque()
        try:
            while self._claim_ahead(ready, claimed, entrance):
                done += self._go_on_with(claimed)
                self.on_pass(self)
                if self.clock.monotonic() > looked_up + LOOK_UP_S:  # a long list must not hold up what is due meanwhile
                    self._notice(self.watch.check())
                    done += self._go_on_with_pending()
                    looked_up = self.clock.monotonic()
                    entrance = self._entrance()
        finally:
            for pending in claimed:
                self.pending.add(pending)
        self.folders.archive.rest()
        return done

    def _claim_ahead(self, ready: deque[Candidate], claimed: deque[PendingFile], entrance: Entrance | None) -> bool:
        """Claim the next file, and small ones behind it whose contents become durable while others are worked on.

        Tell whether there is any. On a shared inbox only one is claimed: others would take the rest for a dead
        daemon's.
        """
        if len(claimed) > AHEAD // 2:
            return True
        most = 1 if self.recovery.shared else AHEAD
        known = len(claimed) or 1  # the first is read at once, and made durable by whoever reads it
        while ready and len(claimed) < most and not (claimed and ready[0].size > AHEAD_BYTES):
            if self.stopping() or self.database_pauses():
                break
            pending = self._take(ready.popleft(), entrance)
            if pending is not None:
                claimed.append(pending)
        following = [pending.claim for pending in islice(claimed, known, None)]
        if following:
            sync_ahead(self.moved.disk, following)
        return bool(claimed)

    def _go_on_with(self, claimed: deque[PendingFile]) -> bool:
        """Work on the first of the files just claimed, if nothing has come between; else it is held like others."""
        pending = claimed.popleft()
        if self.stopping() or self.database_pauses() or self._overtakes(pending):
            self.pending.add(pending)
            return False
        if pending.claim.size > AHEAD_BYTES:
            self.put_away()  # what was moved is not to wait for all of a large file
        self.attempt(pending)
        return True

    def _entrance(self) -> Entrance | None:
        """Open the inbox for the next files; where that fails, each file says why."""
        self.folders.archive.rest()
        with suppress(OSError, TransientFault):
            return Entrance(self.folders.inbox.root, self.open_inbox)
        return None

    def _in_turn(self, ready: Sequence[Candidate]) -> Sequence[Candidate]:
        """Let the feeds go last of which the database has refused a file: perhaps it is only that feed's table."""
        if not self.database_attempts:
            return ready
        refused = {feed.name for feed in self.folders.feeds if self.pending.blocks(feed.name)}
        return sorted(ready, key=lambda candidate: candidate.feed in refused)

    def _look(self) -> None:
        """See what is in the inbox, and say once what will be left alone."""
        self.open_inbox = None
        with suppress(OSError):  # the watch says why it cannot be opened
            self.open_inbox = Folder.root(self.folders.inbox.root, listed=True)
        self._notice(self.watch.check(self.open_inbox))
        try:
            self.survey = self.folders.inbox.survey(self.open_inbox, without=self._blocked())
        except TransientFault:  # the watch has said that the inbox is lost, and why
            self.survey = Survey()
        self._notice(self.survey.notices)

    def _blocked(self) -> frozenset[str]:
        """Return the feeds of which an older file waits: newer ones must not overtake it."""
        if not self.pending:
            return frozenset()
        return frozenset(
            feed.name for feed in self.folders.feeds if any(_blocks(pending, feed) for pending in self.pending)
        )

    def _overtakes(self, pending: PendingFile) -> bool:
        """Tell whether an older file of the feed waits that this one must not overtake.

        Those that were taken over from other daemons came in any order.
        """
        feed = self._feed_of(pending)
        older: Iterator[PendingFile] = takewhile(lambda other: other is not pending, self.pending)
        if feed is not None and feed.ordered and pending.claim.id in self.pending:
            older = (other for other in self.pending if other.place < pending.place)
        return feed is not None and any(_blocks(other, feed) for other in older)

    def _notice(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            event = Event(notice.event)
            if event is Event.INBOX_LOST:
                self.lost = True
            elif event is Event.INBOX_RESTORED:
                self.lost = False
                self._take_over(self.recovery.left)  # what was claimed in it is there again
            emit(self.log, event, file=notice.name or None, reason=notice.reason or None)

    def _tidy(self, *, whole: bool = False) -> bool:
        """Remove a little of what is old; tell whether there is more to do at once."""
        try:
            removed = self.retention.whole() if whole else self.retention.step()
        except TransientFault as fault:
            emit(self.log, Event.RETENTION_FAILED, error_code=fault.code, error=fault.message, hint=fault.hint or None)
            return False
        if removed:
            emit(self.log, Event.RETENTION_APPLIED, **asdict(removed))
        return self.clock.monotonic() >= self.retention.due

    def _go_on_with_pending(self) -> int:
        done = 0
        for pending in self.pending.due(self.clock.monotonic()):
            if self.stopping():
                break
            if pending.attempts and self.lost_to_another(pending):
                continue
            if pending.verdict is not None:
                self.finish(pending, pending.verdict)
                done += 1
            elif not self.database_pauses() and self._may_go_on(pending):
                self.attempt(pending)
                done += 1
        return done

    def _take(self, candidate: Candidate, entrance: Entrance | None) -> PendingFile | None:
        """Claim a file, if its turn has come and it is still there."""
        feed = self.folders.match(candidate.name)
        if feed is None:
            return None
        if feed.name in self.passed_over or not self._has_turn(feed) or feed.name in self._blocked():
            self.passed_over.add(feed.name)
            return None
        try:
            self.hook(Step.CLAIM, Edge.BEFORE)
            claim = take(self.folders.inbox.root, candidate, new_claim_id(), entrance)
            self.hook(Step.CLAIM, Edge.AFTER)
        except TransientFault as fault:
            self._not_taken(candidate, feed, fault)
            return None
        if claim is None:  # gone, or changed since and put back: that rename in is ours, and proves nothing
            self.folders.inbox.resettle(candidate.name)
            return None
        return PendingFile(claim, feed.name, self._now())

    def _may_go_on(self, pending: PendingFile) -> bool:
        """Tell whether it is this daemon's turn to work on a claimed file; else it is asked again a little later."""
        feed = self._feed_of(pending)
        if feed is None or (self._has_turn(feed, pending) and not self._overtakes(pending)):
            return True
        pending.due = self.clock.monotonic() + FIRST_PAUSE_S
        return False

    def _has_turn(self, feed: Feed, pending: PendingFile | None = None) -> bool:
        """Tell whether a file of this feed may be worked on: of an ordered one only by the daemon whose turn it is.

        What a daemon has left that had the turn before, and died, comes first: it is taken over here, or whoever has
        it already gets the turn. ``pending`` is a file that is claimed itself; then only an older one is let go first.
        """
        if not feed.ordered:
            return True
        with suppress(TransientFault):
            if not self.store.take_turn(feed.name):
                self.turnless = True
                return False
            elsewhere = self.recovery.elsewhere
            if self.recovery.shared and (feed.name not in self.turns or feed.name in elsewhere):
                self._take_over(self.recovery.left)
            self.turns.add(feed.name)
            other = elsewhere.get(feed.name)
            if other is None or (pending is not None and other > pending.place):
                return True
            self.turnless = True
            self.turns.discard(feed.name)
            self.store.end_turn(feed.name)
        return False

    def _end_turns(self) -> None:
        """Let other daemons have the ordered feeds of which no file waits here."""
        for name in [name for name in self.turns if not any(pending.feed == name for pending in self.pending)]:
            with suppress(TransientFault):
                self.store.end_turn(name)
            self.turns.discard(name)

    def _not_taken(self, candidate: Candidate, feed: Feed, fault: TransientFault) -> None:
        """Leave a file in the inbox for a while; what is not ours to move is said once, a disk in trouble each time."""
        inbox = self.folders.inbox
        first = inbox.set_aside(candidate, fault)
        about = {"feed": feed.name, "file": candidate.name, "error_code": fault.code, "error": fault.message}
        if fault.code != NOT_MOVABLE:
            aside = inbox.aside.get(candidate.name)
            pause = {"attempt": aside.attempts, "retry_in_s": round(aside.pause, 3)} if aside else {}
            emit(self.log, Event.FILE_DEFERRED, **about, hint=fault.hint or None, **pause)
        elif first:
            emit(self.log, Event.FILE_NOT_MOVABLE, **about, hint=fault.hint)

    def _leave(self) -> None:
        """Nothing of this daemon stays claimed or ``running`` after an orderly stop."""
        self.watch.stop()
        self.moved.close()
        given_up: list[Claim] = []
        for pending in self.pending:
            if pending.verdict is not None:
                continue  # committed: the next start only moves it
            try:
                self.store.drop_claim(pending.claim.id)
            except (DatabaseFault, Interrupted):
                break  # the next start finds the claims; to ask again for each would take longer than a stop may
            except TransientFault:
                continue  # it is another daemon's by now
            given_up.append(pending.claim)
            self.pending.remove(pending)
        release(self.folders.inbox.root, given_up)

    def _patience(self) -> float:
        """Return how long nothing can be due (seconds)."""
        now = self.clock.monotonic()
        due = [now + (LOST_WAIT_S if self.lost else min(self.folders.rescan_s, self.longest_wait_s))]
        times = (self.survey.next_due, self.pending.next_due(self.database_due), self.retention.due, self.recovery.due)
        due += [when for when in times if when is not None]
        if self.survey.ready and self.database_pauses():
            due.append(self.database_due)
        if self.turnless:
            due.append(now + TURN_AGAIN_S)
        return max(min(due) - now, 0.0)

    def _now(self) -> str:
        return stamp(self.clock.now())


def _blocks(pending: PendingFile, feed: Feed) -> bool:
    """Tell whether a file that waits holds up newer ones of a feed.

    Where the last file wins any wait counts, with ``late = "skip"`` that for the database.
    """
    if pending.feed != feed.name or pending.verdict is not None:
        return False
    return feed.ordered or (feed.late is Late.SKIP and isinstance(pending.fault, DatabaseFault))
