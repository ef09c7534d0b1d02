"""One claimed file: tried, and then finished, deferred, or given back."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inboxd.clock import Clock
from inboxd.errors import RUN_TAKEN, DatabaseFault, FileFault, Interrupted, TransientFault
from inboxd.events import Event
from inboxd.inbox.archive import Archive, Place
from inboxd.inbox.claim import forget, release
from inboxd.inbox.faults import CHANGED_WHILE_READING, GONE, transient_fault
from inboxd.inbox.left import is_kept
from inboxd.inbox.reports import complete_report, remove_orphans, write_report
from inboxd.inbox.scan import Inbox
from inboxd.inbox.source import Source
from inboxd.log import Logger, emit
from inboxd.model import Feed, printable
from inboxd.moved import Moved, MovedFiles
from inboxd.outcomes import Edge, Hook, Outcome, Step, Verdict
from inboxd.pending import PendingFile, PendingFiles, pause_after
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.recovery import LeftMoved, Recovery
from inboxd.store.database import Store
from inboxd.verdicts import log_verdict, report_of


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
        name = outcome.value
        setattr(self, name, getattr(self, name) + 1)

    @property
    def total(self) -> int:
        """All files that ended."""
        return self.loaded + self.duplicate + self.failed


@dataclass(slots=True, kw_only=True)
class Attempts:
    """What a daemon does with the files it has claimed. Everything in it is owned by the loop's thread.

    But for one thing: while moved files are being made durable, which is waiting for the disk, the loop goes on with
    the next ones (``MovedFiles``). There are none when the loop waits or looks for claims.
    """

    folders: Folders
    store: Store
    pipeline: Pipeline
    recovery: Recovery
    log: Logger
    clock: Clock
    hook: Hook
    on_verdict: Callable[[Verdict], None] = lambda _verdict: None
    pending: PendingFiles = field(default_factory=PendingFiles)
    tally: Tally = field(default_factory=Tally)
    database_attempts: int = 0
    database_due: float = 0.0
    """Until then (monotonic seconds) the database is left in peace."""
    lost: bool = False
    """The inbox is gone, or cannot be watched."""
    reading: tuple[PendingFile, Source] | None = None
    """What is being worked on, for those who ask how far it is."""
    moved: MovedFiles = field(default_factory=MovedFiles)

    def attempt(self, pending: PendingFile) -> None:
        """Process a claimed file once; afterwards it is done, or held with a pause.

        Raises ``Interrupted``; then it is held, and the stop puts it back to where it was.
        """
        try:
            self._attempt(pending)
        except Interrupted:
            self.pending.add(pending)
            raise
        finally:
            self.reading = None

    def _attempt(self, pending: PendingFile) -> None:
        try:
            if pending.attempts and self._settled_meanwhile(pending):
                return
            feed = self._feed_of(pending)
            if feed is None:
                self._without_feed(pending)
                return
            verdict = self.pipeline.process(self._job(pending, feed))
        except TransientFault as fault:
            self._defer(pending, fault)
        except (OSError, MemoryError) as error:  # also from reading our own code: never what is in the file
            trouble = error if isinstance(error, OSError) else OSError(errno.ENOMEM, str(error))
            self._defer(
                pending, transient_fault(trouble, f"working on {printable(pending.claim.name)}", pending.claim.path)
            )
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - one file's bug must not hold up all the others
            self._bug(pending, error)
        else:
            self._end_database_pause()
            self.finish(pending, verdict)

    def _feed_of(self, pending: PendingFile) -> Feed | None:
        """Return the feed that a file was taken for or, where a reload has removed that, the one it has now."""
        for feed in self.folders.feeds:
            if feed.name == pending.feed:
                return feed
        return self.folders.match(pending.claim.name)

    def _job(self, pending: PendingFile, feed: Feed) -> Job:
        claim = pending.claim
        limit = self.pipeline.max_file_size
        return Job(
            feed=feed,
            file_name=printable(claim.name),
            size=claim.size,
            open=lambda: self._opened(pending, claim.source(max_size=limit, tick=self.pipeline.progress)),
            claim=claim.id,
            facts=facts_of(feed, claim.name, claim.mtime_ns, first_mtime=pending.first_mtime),
            ignore_watermark=pending.retry,
            careful=pending.found,
        )

    def _opened(self, pending: PendingFile, source: Source) -> Source:
        self.reading = (pending, source)
        return source

    def _settled_meanwhile(self, pending: PendingFile) -> bool:
        """After a lost connection the ledger knows whether the COMMIT went through; ask it before trying again."""
        found = self.recovery.verdict_of(pending.claim)
        if found is None:
            return False
        self._end_database_pause()
        if self.recovery.shared and not self.lost and not pending.claim.there():
            self._yield(pending)  # another daemon asked the ledger first, and has moved the file
            return True
        self.finish(pending, found)
        return True

    def finish(self, pending: PendingFile, verdict: Verdict) -> None:
        """Move a file whose verdict is committed, and say the verdict, once.

        The claim's folder goes last, when the move is durable. Until then its name tells the next start, after a
        crash, whether the verdict was said.
        """
        pending.verdict = verdict
        archived: Place | None = None
        gone = False
        try:
            self.hook(Step.ARCHIVE, Edge.BEFORE)
            archived = self._archive(pending, verdict)
            self.hook(Step.ARCHIVE, Edge.AFTER)
        except Interrupted:
            self.pending.add(pending)  # a stop does not wait for a long copy; the next start makes it anew
        except TransientFault as fault:
            gone = self._is_gone(pending, fault)
            if not gone:
                self._hold(pending, fault)
        self._say(pending, verdict, archived)
        if gone:
            emit(self.log, Event.FILE_GONE, run_id=verdict.run_id, feed=pending.feed, file=pending.claim.name)
            self._done_with(pending)
        elif archived is not None:
            self.pending.remove(pending)
            self.moved.add(Moved(pending, archived))
        self._settle_moved()

    def put_away(self) -> None:
        """Wait until every file that was moved is durably where it was moved to."""
        self._settle_moved(wait=True)

    def _settle_moved(self, *, wait: bool = False) -> None:
        for moved, fault in self.moved.ended(wait=wait):
            if fault is None:
                self.store.let_go(moved.pending.claim.id)
            elif self._is_gone(moved.pending, fault):  # whoever reads the log may have moved it on, folder and all
                self._done_with(moved.pending)
            else:
                self._hold(moved.pending, fault)

    def _done_with(self, pending: PendingFile) -> None:
        self.pending.remove(pending)
        forget(pending.claim)
        self.store.let_go(pending.claim.id)

    def _say(self, pending: PendingFile, verdict: Verdict, archived: Place | None) -> None:
        if pending.logged:
            if archived is not None and not pending.place_logged:
                about = {"run_id": verdict.run_id, "feed": verdict.feed, "file": verdict.file_name}
                emit(self.log, Event.FILE_ARCHIVED, **about, archived=archived.path)
                pending.place_logged = True
            return
        log_verdict(self.log, verdict, archived=archived.path if archived else None, recovered=pending.recovered)
        pending.logged, pending.place_logged = True, archived is not None
        pending.claim.mark_logged()
        self.tally.count(verdict.outcome)
        self.on_verdict(verdict)

    def _archive(self, pending: PendingFile, verdict: Verdict) -> Place:
        """Move a file, unless an earlier call has, and write the report of a failed one."""
        archive = self.folders.archive
        failed = verdict.outcome is Outcome.FAILED
        if pending.archived is None:
            folder = archive.failed if failed else archive.processed
            pending.archived = archive.move(pending.claim, folder, verdict.run_id)
        if failed:
            write_report(pending.archived, report_of(verdict))
        if pending.retry:  # the command that took it out of failed/ was killed, and left its report there
            remove_orphans(archive.failed, verdict.file_name)
        return pending.archived

    def finish_left(self, left: LeftMoved) -> None:
        """See to what a crash, after a move, left out or behind: the report, parts of a copy, the verdict's line."""
        verdict, archive = left.verdict, self.folders.archive
        if verdict.outcome is Outcome.FAILED:
            place = archive.find(verdict.file_name, verdict.run_id)
            if place is not None:
                complete_report(place, report_of(verdict))
        remove_orphans(archive.failed, verdict.file_name)
        archive.settle(left.claim_id, verdict.file_name, verdict.run_id)  # the claim is forgotten next
        if not left.logged:
            log_verdict(self.log, verdict, archived=None, recovered=verdict.outcome is not Outcome.FAILED)

    def _defer(self, pending: PendingFile, fault: TransientFault) -> None:
        """Let the file wait until a transient fault has passed, and everything else too where it is the database's."""
        if fault.code == CHANGED_WHILE_READING and self._let_settle_again(pending):
            return
        if fault.code == RUN_TAKEN:
            self._yield(pending)
            return
        if self._is_gone(pending, fault) and self._forget(pending):
            return
        if isinstance(fault, DatabaseFault):
            self._pause_database()
        self._hold(pending, fault)

    def _hold(self, pending: PendingFile, fault: TransientFault) -> None:
        pending.attempts += 1
        pending.keep_fault(fault)
        pause = pause_after(pending.attempts)
        pending.due = self.clock.monotonic() + pause
        self.pending.add(pending)
        emit(
            self.log,
            Event.FILE_DEFERRED,
            feed=pending.feed,
            file=pending.claim.name,
            run_id=pending.verdict.run_id if pending.verdict else None,
            error_code=fault.code,
            error=fault.message,
            hint=fault.hint or None,
            attempt=pending.attempts,
            retry_in_s=round(pause, 3),
        )

    def _let_settle_again(self, pending: PendingFile) -> bool:
        self.folders.inbox.resettle(pending.claim.name)
        if not self._put_back(pending):
            return False
        emit(
            self.log,
            Event.FILE_UNSETTLED,
            file=pending.claim.name,
            reason="changed while it was read; it settles again",
        )
        return True

    def _without_feed(self, pending: PendingFile) -> None:
        """Put a file of a feed that the config has no more back: it is left alone, as any that no feed matches."""
        if not self._put_back(pending):
            msg = (
                f"no feed matches {printable(pending.claim.name)} any more, and it could not be put back into the inbox"
            )
            self._hold(
                pending,
                TransientFault(
                    "no_feed", msg, "put the feed back into the config, or see whether its name is taken in the inbox"
                ),
            )

    def _put_back(self, pending: PendingFile) -> bool:
        """Give a claim up, and its file back to the inbox; tell whether that was possible."""
        try:
            self.store.drop_claim(pending.claim.id)
        except TransientFault:
            return False
        if not release(self.folders.inbox.root, [pending.claim]):
            return False
        self.pending.remove(pending)
        self.store.let_go(pending.claim.id)
        return True

    def lost_to_another(self, pending: PendingFile) -> bool:
        """Tell whether another daemon took this file over meanwhile; then it is no longer of our concern."""
        try:
            if self.lost or self.recovery.still_ours(pending.claim):
                return False
        except TransientFault:
            return False  # nobody can tell before the database is back
        self._yield(pending)
        return True

    def _yield(self, pending: PendingFile) -> None:
        """Leave a file to the daemon that has it by now. Should that one die, it is found again like any other."""
        self.pending.remove(pending)
        self.store.let_go(pending.claim.id)
        emit(self.log, Event.FILE_TAKEN_OVER, feed=pending.feed, file=pending.claim.name)

    def _is_gone(self, pending: PendingFile, fault: TransientFault) -> bool:
        """Tell whether somebody took a claimed file, and not the whole inbox, away: it is in vain to try again."""
        return fault.code == GONE and not self.lost and is_kept(self.folders.inbox.root) and not pending.claim.there()

    def _forget(self, pending: PendingFile) -> bool:
        """Let go of a claim whose file is gone; tell whether the database let us."""
        try:
            self.store.drop_claim(pending.claim.id)
        except TransientFault:
            return False
        self.store.let_go(pending.claim.id)
        self.pending.remove(pending)
        emit(self.log, Event.FILE_GONE, feed=pending.feed, file=pending.claim.name)
        return True

    def _bug(self, pending: PendingFile, error: Exception) -> None:
        """Our own fault: the file goes to ``failed/`` as ``internal_error`` with the traceback in the log."""
        emit(self.log, Event.BUG, file=pending.claim.name, feed=pending.feed, traceback=traceback.format_exc())
        fault = FileFault(
            "internal_error", f"{type(error).__name__}: {error}", "please report this with the log's line"
        )
        try:
            self.finish(pending, self.recovery.fail(pending.claim, pending.feed, fault))
        except TransientFault as transient:
            self._defer(pending, transient)

    def _pause_database(self) -> None:
        self.database_attempts += 1
        self.database_due = self.clock.monotonic() + pause_after(self.database_attempts)

    def _end_database_pause(self) -> None:
        self.database_attempts, self.database_due = 0, 0.0

    def database_pauses(self) -> bool:
        """Tell whether the database is left in peace for now."""
        return self.clock.monotonic() < self.database_due
