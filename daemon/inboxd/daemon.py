"""The loop: wake → scan → claim → pipeline → archive, and the pauses after the world's faults."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final

from inboxd.clock import Clock, stamp
from inboxd.errors import RUN_TAKEN, DatabaseFault, FileFault, Interrupted, WorldFault
from inboxd.held import Held, HeldFiles, pause_after
from inboxd.inbox.archive import Archive
from inboxd.inbox.claim import CLAIMED, Claim, Source, forget, new_claim_id, release, take
from inboxd.inbox.faults import GONE, NOT_MOVABLE, world_fault
from inboxd.inbox.notices import Notice
from inboxd.inbox.scan import Candidate, Inbox, Survey
from inboxd.inbox.watch import Watch
from inboxd.log import Event, Logger, emit
from inboxd.model import Edge, Feed, Hook, Late, Outcome, Step, Verdict, printable
from inboxd.operate.retention import Retention
from inboxd.pipeline import Job, Pipeline
from inboxd.presence import Published
from inboxd.recovery import Recovery
from inboxd.store.base import Store
from inboxd.verdicts import log_verdict, report_of
from inboxd.wake import Wake

LONGEST_WAIT_S: Final = 20.0
"""The loop comes round at least this often; more often where the service manager's watchdog asks for it."""
LOST_WAIT_S: Final = 1.0
"""How often an inbox that is gone is looked for."""
LOOK_UP_S: Final = 1.0
"""How long a list of ready files is worked on before looking up from it."""


@dataclass(slots=True)
class Folders:
    """The loop's hands on the filesystem; replaced as one when the config is loaded anew."""

    inbox: Inbox
    archive: Archive
    feeds: Sequence[Feed]
    match: Callable[[str], Feed | None]
    rescan_s: float


@dataclass(slots=True)
class Tally:
    """What this daemon has done since it started."""

    loaded: int = 0
    duplicate: int = 0
    failed: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add one file that ended."""
        setattr(self, outcome.value, getattr(self, outcome.value) + 1)

    @property
    def total(self) -> int:
        """All files that ended."""
        return self.loaded + self.duplicate + self.failed


@dataclass(slots=True)
class Daemon:
    """One daemon on one inbox and one store. Everything in it is owned by the thread that calls ``run``."""

    folders: Folders
    watch: Watch
    store: Store
    pipeline: Pipeline
    recovery: Recovery
    retention: Retention
    log: Logger
    clock: Clock
    wake: Wake
    hook: Hook
    stopping: Callable[[], bool]
    on_pass: Callable[[Daemon], None] = lambda _daemon: None
    """Called after every pass and every file: state file, sd_notify, a config to be loaded anew."""
    on_verdict: Callable[[Verdict], None] = lambda _verdict: None
    longest_wait_s: float = LONGEST_WAIT_S
    held: HeldFiles = field(default_factory=HeldFiles)
    tally: Tally = field(default_factory=Tally)
    survey: Survey = field(default_factory=Survey)
    database_attempts: int = 0
    database_due: float = 0.0
    lost: bool = False
    published: Published = field(default_factory=Published)
    """The one thing here that other threads may read."""

    def run(self, ready: Callable[[], None]) -> None:
        """Take files until asked to stop. ``ready`` is called once, when the inbox is watched and was first scanned."""
        self._start()
        self._look()
        ready()
        while not self.stopping():
            if not self._pass() and not self._tidy():
                self.wake.wait(self._patience())
        self._leave()

    def drain(self) -> int:
        """Take what is there, and what is just being completed (``run --once``); return how many files wait still."""
        self._start()
        while not self.stopping():
            progressed = self._pass()
            if progressed:
                continue
            if self.database_attempts or not (self.survey.settling or self._coming() or self.recovery.waiting):
                break
            self.recovery.hasten()
            self.wake.wait(self._patience())
        self._tidy(whole=True)
        waiting = len(self.held)
        self._leave()
        return waiting

    def _coming(self) -> bool:
        return any(held.attempts <= 1 for held in self.held)

    def _start(self) -> None:
        self._notice(self.watch.start())
        self._say_unsaid()
        for held in self.recovery.at_start():
            self.held.add(held)

    def _say_unsaid(self) -> None:
        for verdict in self.recovery.unsaid(self.held):
            if verdict.outcome is Outcome.FAILED:
                self._report_again(verdict)
            if not self.recovery.said(verdict.run_id):
                log_verdict(self.log, verdict, archived=None, recovered=verdict.outcome is not Outcome.FAILED)

    def _pass(self) -> bool:
        """Do everything that can be done now; tell whether anything was."""
        self._look()
        if self.recovery.is_due():
            self._take_over(self.recovery.left)
        if self.database_attempts > 1:  # perhaps only one file's doing, such as a disk too small for it: let others try
            done = self._take_new() + self._go_on_with_held()
        else:
            done = self._go_on_with_held() + self._take_new()
        self.on_pass(self)
        return bool(done)

    def _take_over(self, found: Callable[[HeldFiles], Iterable[Held]]) -> None:
        """Hold the claims that nobody works on any more, and say what nobody said."""
        with suppress(WorldFault):  # it is asked again in the next pass
            self._say_unsaid()
            for held in found(self.held):
                self.held.add(held)

    def _take_new(self) -> int:
        done = 0
        looked_up = self.clock.monotonic()
        for candidate in self._in_turn(self.survey.ready):
            if self.stopping() or self._database_pauses():
                break
            done += self._take(candidate)
            self.on_pass(self)
            if self.clock.monotonic() > looked_up + LOOK_UP_S:  # a long list must not hold up what is due meanwhile
                self._notice(self.watch.check())
                done += self._go_on_with_held()
                looked_up = self.clock.monotonic()
        return done

    def _in_turn(self, ready: Sequence[Candidate]) -> Sequence[Candidate]:
        """Let the feeds go last of which the database has refused a file: perhaps it is only that feed's table."""
        if not self.database_attempts:
            return ready
        refused = {feed.name for feed in self.folders.feeds if self.held.blocks(feed.name)}
        return sorted(ready, key=lambda candidate: candidate.feed in refused)

    def _look(self) -> None:
        """See what is in the inbox, and say once what will be left alone."""
        self._notice(self.watch.check())
        try:
            self.survey = self.folders.inbox.survey(without=self._blocked())
        except WorldFault:  # the watch has said that the inbox is lost, and why
            self.survey = Survey()
        self._notice(self.survey.notices)

    def _blocked(self) -> frozenset[str]:
        """Return the ordered feeds of which an older file waits for the database: newer ones must not overtake it."""
        return frozenset(
            feed.name for feed in self.folders.feeds if feed.late is Late.SKIP and self.held.blocks(feed.name)
        )

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
        except WorldFault as fault:
            emit(self.log, Event.RETENTION_FAILED, error_code=fault.code, error=fault.message, hint=fault.hint or None)
            return False
        if removed:
            emit(self.log, Event.RETENTION_APPLIED, **asdict(removed))
        return self.clock.monotonic() >= self.retention.due

    def _go_on_with_held(self) -> int:
        done = 0
        for held in self.held.due(self.clock.monotonic()):
            if self.stopping():
                break
            if held.attempts and self._lost_to_another(held):
                continue
            if held.verdict is not None:
                self._finish(held, held.verdict)
                done += 1
            elif not self._database_pauses():
                self._attempt(held)
                done += 1
        return done

    def _database_pauses(self) -> bool:
        return self.clock.monotonic() < self.database_due

    def _take(self, candidate: Candidate) -> bool:
        """Claim a file and take it all the way; tell whether there was anything to do."""
        feed = self.folders.match(candidate.name)
        if feed is None or feed.name in self._blocked():
            return False
        try:
            self.hook(Step.CLAIM, Edge.BEFORE)
            claim = take(self.folders.inbox.root, candidate, new_claim_id())
            self.hook(Step.CLAIM, Edge.AFTER)
        except WorldFault as fault:
            self._not_taken(candidate, feed, fault)
            return False
        if claim is None:  # gone, or changed since and put back: that rename in is ours, and proves nothing
            self.folders.inbox.resettle(candidate.name)
            return False
        self._attempt(Held(claim, feed.name, self._now()))
        return True

    def _not_taken(self, candidate: Candidate, feed: Feed, fault: WorldFault) -> None:
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

    def _attempt(self, held: Held) -> None:
        """Process a claimed file once; afterwards it is done, or held with a pause."""
        try:
            if held.attempts and self._settled_meanwhile(held):
                return
            feed = self._feed_of(held)
            if feed is None:
                self._without_feed(held)
                return
            verdict = self.pipeline.process(self._job(held, feed))
        except Interrupted:
            self._give_back(held)
        except WorldFault as fault:
            self._defer(held, fault)
        except (OSError, MemoryError) as error:  # also from reading our own code: never what is in the file
            trouble = error if isinstance(error, OSError) else OSError(errno.ENOMEM, str(error))
            self._defer(held, world_fault(trouble, f"working on {printable(held.claim.name)}", held.claim.path))
        except Exception as error:  # noqa: BLE001 - one file's bug must not hold up all the others
            self._bug(held, error)
        else:
            self._database_is_well()
            self._finish(held, verdict)

    def _feed_of(self, held: Held) -> Feed | None:
        """Return the feed that a file was taken for or, where a reload has removed that, the one it has now."""
        for feed in self.folders.feeds:
            if feed.name == held.feed:
                return feed
        return self.folders.match(held.claim.name)

    def _without_feed(self, held: Held) -> None:
        """Put a file of a feed that the config has no more back: it is left alone, as any that no feed matches."""
        if not self._put_back(held):
            msg = f"no feed matches {printable(held.claim.name)} any more, and it could not be put back into the inbox"
            self._hold(
                held,
                WorldFault(
                    "no_feed", msg, "put the feed back into the config, or see whether its name is taken in the inbox"
                ),
            )

    def _put_back(self, held: Held) -> bool:
        """Give a claim up, and its file back to the inbox; tell whether that was possible."""
        try:
            self.store.drop_claim(held.claim.id)
        except WorldFault:
            return False
        if not release(self.folders.inbox.root, held.claim):
            return False
        self.held.remove(held)
        self.store.let_go(held.claim.id)
        return True

    def _job(self, held: Held, feed: Feed) -> Job:
        claim = held.claim
        limit = self.pipeline.max_file_size
        return Job(
            feed=feed,
            file_name=printable(claim.name),
            size=claim.size,
            open=lambda: Source(claim.path, max_size=limit, tick=self.pipeline.progress, name=claim.name),
            claim=claim.id,
            ignore_watermark=held.retry,
        )

    def _lost_to_another(self, held: Held) -> bool:
        """Tell whether another daemon took this file over meanwhile; then it is no longer of our concern."""
        try:
            if self.lost or self.recovery.still_ours(held.claim):
                return False
        except WorldFault:
            return False  # nobody can tell before the database is back
        self._yield(held)
        return True

    def _yield(self, held: Held) -> None:
        """Leave a file to the daemon that has it by now. Should that one die, it is found again like any other."""
        self.held.remove(held)
        self.store.let_go(held.claim.id)
        emit(self.log, Event.FILE_TAKEN_OVER, feed=held.feed, file=held.claim.name)

    def _settled_meanwhile(self, held: Held) -> bool:
        """After a lost connection the ledger knows whether the COMMIT went through; ask it before trying again."""
        found = self.recovery.verdict_of(held.claim)
        if found is None:
            return False
        self._database_is_well()
        if self.recovery.shared and not self.lost and not os.path.lexists(held.claim.path):
            self._yield(held)  # another daemon asked the ledger first, and has moved the file
            return True
        self._finish(held, found)
        return True

    def _finish(self, held: Held, verdict: Verdict) -> None:
        """Move a file whose verdict is committed, and say the verdict, once.

        The claim's folder goes last: it is what tells the next start, after a crash, that the verdict was not said.
        """
        held.verdict = verdict
        archived: str | None = None
        gone = False
        try:
            self.hook(Step.ARCHIVE, Edge.BEFORE)
            archived = self._archive(held.claim, verdict)
            self.hook(Step.ARCHIVE, Edge.AFTER)
        except Interrupted:
            self.held.add(held)  # a stop does not wait for a long copy; the next start makes it anew
        except WorldFault as fault:
            gone = self._is_gone(held, fault)
            if not gone:
                self._hold(held, fault)
        self._say(held, verdict, archived)
        if gone:
            emit(self.log, Event.FILE_GONE, run_id=verdict.run_id, feed=held.feed, file=held.claim.name)
        if archived is not None or gone:
            self.held.remove(held)
            forget(held.claim)
            self.store.let_go(held.claim.id)

    def _say(self, held: Held, verdict: Verdict, archived: str | None) -> None:
        if held.said:
            return
        log_verdict(self.log, verdict, archived=archived, recovered=held.recovered)
        held.said = True
        self.tally.count(verdict.outcome)
        self.on_verdict(verdict)

    def _archive(self, claim: Claim, verdict: Verdict) -> str:
        archive = self.folders.archive
        if verdict.outcome is not Outcome.FAILED:
            return str(archive.put(claim, archive.processed, verdict.run_id))
        path = archive.put(claim, archive.failed, verdict.run_id)
        archive.report(path, report_of(verdict))
        return str(path)

    def _report_again(self, verdict: Verdict) -> None:
        """Write the report that a crash, between the move to ``failed/`` and it, left out."""
        path = self.folders.archive.find(verdict.file_name, verdict.run_id)
        if path is not None and not self.folders.archive.has_report(path):
            self.folders.archive.report(path, report_of(verdict))

    def _defer(self, held: Held, fault: WorldFault) -> None:
        """Let the file wait for the world, and everything else too where the database is at fault."""
        if fault.code == "changed_while_reading" and self._let_settle_again(held):
            return
        if fault.code == RUN_TAKEN:
            self._yield(held)
            return
        if self._is_gone(held, fault) and self._forget(held):
            return
        if isinstance(fault, DatabaseFault):
            self._database_is_ill()
        self._hold(held, fault)

    def _is_gone(self, held: Held, fault: WorldFault) -> bool:
        """Tell whether somebody took a claimed file, and not the whole inbox, away: it is in vain to try again."""
        there = os.path.lexists(f"{self.folders.inbox.root}/{CLAIMED}") and not self.lost
        return fault.code == GONE and there and not os.path.lexists(held.claim.path)

    def _forget(self, held: Held) -> bool:
        """Let go of a claim whose file is gone; tell whether the database let us."""
        try:
            self.store.drop_claim(held.claim.id)
        except WorldFault:
            return False
        self.store.let_go(held.claim.id)
        self.held.remove(held)
        emit(self.log, Event.FILE_GONE, feed=held.feed, file=held.claim.name)
        return True

    def _let_settle_again(self, held: Held) -> bool:
        self.folders.inbox.resettle(held.claim.name)
        if not self._put_back(held):
            return False
        emit(self.log, Event.FILE_UNSETTLED, file=held.claim.name, reason="changed while it was read; it settles again")
        return True

    def _hold(self, held: Held, fault: WorldFault) -> None:
        held.attempts += 1
        held.fault = fault
        pause = pause_after(held.attempts)
        held.due = self.clock.monotonic() + pause
        self.held.add(held)
        emit(
            self.log,
            Event.FILE_DEFERRED,
            feed=held.feed,
            file=held.claim.name,
            run_id=held.verdict.run_id if held.verdict else None,
            error_code=fault.code,
            error=fault.message,
            hint=fault.hint or None,
            attempt=held.attempts,
            retry_in_s=round(pause, 3),
        )

    def _database_is_ill(self) -> None:
        self.database_attempts += 1
        self.database_due = self.clock.monotonic() + pause_after(self.database_attempts)

    def _database_is_well(self) -> None:
        self.database_attempts, self.database_due = 0, 0.0

    def _bug(self, held: Held, error: Exception) -> None:
        """Our own fault: the file goes to ``failed/`` as ``internal_error`` with the traceback in the log."""
        emit(self.log, Event.BUG, file=held.claim.name, feed=held.feed, traceback=traceback.format_exc())
        fault = FileFault(
            "internal_error", f"{type(error).__name__}: {error}", "please report this with the log's line"
        )
        try:
            self._finish(held, self.recovery.fail(held.claim, held.feed, fault))
        except WorldFault as world:
            self._defer(held, world)

    def _give_back(self, held: Held) -> None:
        """Keep a file that an orderly stop interrupted: ``_leave`` puts it back to where it was."""
        self.held.add(held)

    def _leave(self) -> None:
        """Nothing of this daemon stays claimed or ``running`` after an orderly stop."""
        self.watch.stop()
        for held in self.held:
            if held.verdict is not None:
                continue  # committed: the next start only moves it
            try:
                self.store.drop_claim(held.claim.id)
            except (DatabaseFault, Interrupted):
                break  # the next start finds the claims; to ask again for each would take longer than a stop may
            except WorldFault:
                continue  # it is another daemon's by now
            release(self.folders.inbox.root, held.claim)
            self.held.remove(held)

    def _patience(self) -> float:
        """Return how long nothing can be due (seconds)."""
        now = self.clock.monotonic()
        due = [now + (LOST_WAIT_S if self.lost else min(self.folders.rescan_s, self.longest_wait_s))]
        times = (self.survey.next_due, self.held.next_due(self.database_due), self.retention.due, self.recovery.due)
        due += [when for when in times if when is not None]
        if self.survey.ready and self._database_pauses():
            due.append(self.database_due)
        return max(min(due) - now, 0.0)

    def _now(self) -> str:
        return stamp(self.clock.now())
