"""What a crash left, put right: claims without a verdict, verdicts without a move, runs without a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Final

from inboxd.clock import Clock, stamp
from inboxd.errors import INTERRUPTED, FileFault
from inboxd.events import Event
from inboxd.inbox.claim import Claim, split_logged
from inboxd.inbox.left import claims, looked_at, without_line
from inboxd.log import Logger, emit
from inboxd.model import Feed, printable
from inboxd.outcomes import Counts, Outcome, RunStart, RunStatus, Verdict
from inboxd.pending import PendingFile
from inboxd.store.base import NoticeRow, RunEnd, RunRow
from inboxd.store.cursors import from_run
from inboxd.store.database import Store

POISON: Final = "poison"
POISON_AFTER: Final = 3
"""So many crashes in the middle of one claim, and the file goes to ``failed/``: it must not hold a daemon in a loop."""
SHARED_GRACE_S: Final = 60.0
"""On a shared inbox an empty claim may be another daemon's, just being made or just being left."""
UNBEGUN_GRACE_S: Final = 5.0
"""A claim without a run may be another daemon's that is about to begin it: milliseconds, if its database is well."""
LOOK_AGAIN_S: Final = 0.1
"""How soon it is searched again while a drain has nothing else to wait for."""
LOOK_EVERY_S: Final = 2.0
"""How often a shared inbox is searched for the claims of daemons that have died."""


@dataclass(frozen=True, slots=True)
class LeftMoved:
    """A file that was moved, and whose claim a crash left; ``told``: its verdict is in the log."""

    claim_id: str
    verdict: Verdict
    logged: bool


@dataclass(slots=True)
class Recovery:
    """Compares the folder ``.claimed`` with the ledger. ``shared``: other daemons may own some of the claims."""

    store: Store
    root: Callable[[], str]
    match: Callable[[str], Feed | None]
    clock: Clock
    host: str
    log: Logger
    shared: bool = False
    is_logged: Callable[[int], bool] = lambda _run_id: False
    """Whether a run's verdict is in the log: a crash may have come right after it, and it is said only once."""
    notices: Callable[[Verdict, str], tuple[NoticeRow, ...]] = lambda _verdict, _at: ()
    """What is told of a file that has ended at that moment."""
    waiting: bool = False
    """Whether the last look left a claim alone that may be nobody's, but is too young to tell."""
    elsewhere: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of each feed the oldest file (mtime, name) that the last look left to another daemon, or to time."""
    _next_look: float = 0.0
    _unbegun: dict[str, float] = field(default_factory=dict)
    """When (monotonic seconds) each claim without a run was first seen."""

    def at_start(self) -> Iterator[PendingFile]:
        """Mark the runs whose daemon is gone, and yield every claim it left with what is to be done."""
        self.store.interrupt_abandoned(stamp(self.clock.now()))
        if not self.shared:
            self._interrupt_unbegun()
        yield from self.left(())

    def _interrupt_unbegun(self) -> None:
        """Write the ``interrupted`` row of the file in whose transaction, which its run begins with, a crash came.

        That is the oldest claim without a run: those after it were claimed ahead, and nobody had touched them.
        """
        found = (claim for claim in claims(self.root()) if not claim.retry and not claim.logged)
        claim = min((claim for claim in found if not self.store.runs_of_claim(claim.id)), key=_by_id, default=None)
        if claim is not None:
            self.store.begin(self._start_of(claim, self._feed_of(claim)))
            self.store.take_over(claim.id, stamp(self.clock.now()))

    def _start_of(self, claim: Claim, feed: str) -> RunStart:
        return RunStart(feed, stamp(self.clock.now()), self.host, printable(claim.name), claim.size, claim.id)

    def left(self, mine: Container[str]) -> Iterator[PendingFile]:
        """Yield the claims, oldest first, that are not ``mine`` and that no living daemon works on."""
        self.waiting = False
        self.elsewhere.clear()
        found = sorted(claims(self.root()), key=lambda claim: (claim.mtime_ns, claim.name))
        self._unbegun = {claim.id: self._unbegun[claim.id] for claim in found if claim.id in self._unbegun}
        for claim in found:
            if claim.id in mine:
                continue
            pending = self._pending(claim)
            if pending is not None:
                yield pending
            elif claim.there():
                self.elsewhere.setdefault(self._feed_of(claim), (claim.mtime_ns, claim.name))

    def left_moved(self, mine: Container[str] = ()) -> Iterator[LeftMoved]:
        """Yield what is known of files that were moved just before a crash; their claims are forgotten with it."""
        for own in without_line(self.root(), ours=lambda own: split_logged(own)[0] not in mine and self._is_left(own)):
            claim_id, logged = split_logged(own)
            verdict = _ended(self.store.runs_of_claim(claim_id))
            if verdict is not None:
                yield LeftMoved(claim_id, verdict, logged or self.is_logged(verdict.run_id))
            self.store.let_go(claim_id)

    def _is_left(self, own: str) -> bool:
        """Tell whether an empty claim is a dead daemon's. One without a run is old: else another is just making it."""
        if not self.shared:
            return True
        claim_id, _logged = split_logged(own)
        if not self.store.runs_of_claim(claim_id):
            return self.clock.now().timestamp() - looked_at(self.root(), own).st_mtime > SHARED_GRACE_S
        if not self.store.take_over(claim_id, stamp(self.clock.now())):
            return False
        try:
            looked_at(self.root(), own)
        except FileNotFoundError:
            self.store.let_go(claim_id)  # its daemon has just told the verdict, or removed the folder
            return False
        return True

    @property
    def due(self) -> float | None:
        """When (monotonic seconds) a shared inbox is next to be searched for what dead daemons left."""
        return self._next_look if self.shared else None

    def hasten(self) -> None:
        """Look again soon: somebody waits for what was too young to tell."""
        self._next_look = min(self._next_look, self.clock.monotonic() + LOOK_AGAIN_S)

    def is_due(self) -> bool:
        """Tell whether it is time for a look, and set the time of the next."""
        now = self.clock.monotonic()
        if not self.shared or now < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY_S
        return True

    def _pending(self, claim: Claim) -> PendingFile | None:
        if self.shared and not self._taken_over(claim):
            return None
        runs = self.store.runs_of_claim(claim.id)
        feed = runs[0].job_name if runs else self._feed_of(claim)
        pending = PendingFile(claim, feed, stamp(self.clock.now()), retry=claim.retry, found=True)
        pending.first_mtime = runs[0].file_mtime if runs else None
        pending.verdict = _ended(runs)
        pending.recovered = pending.verdict is not None and pending.verdict.outcome is not Outcome.FAILED
        pending.logged = pending.verdict is not None and (claim.logged or self.is_logged(pending.verdict.run_id))
        if pending.verdict is None and sum(run.error_code == INTERRUPTED for run in runs) >= POISON_AFTER:
            msg = f"the daemon died {POISON_AFTER} times while it worked on this file"
            fault = FileFault(POISON, msg, "look at the log before each start; then retry the file")
            pending.verdict = self.fail(claim, feed, fault)
        elif pending.verdict is None:
            emit(self.log, Event.FILE_RETRIED, file=claim.name, feed=feed, interrupted=len(runs))
        return pending

    def _taken_over(self, claim: Claim) -> bool:
        """Make ours a claim whose daemon is dead; tell whether it is."""
        if not self.store.runs_of_claim(claim.id) and self._is_young(claim):
            self.waiting = True
            return False
        if not self.store.take_over(claim.id, stamp(self.clock.now())):
            return False
        if claim.there():
            return True
        self.store.let_go(claim.id)  # its daemon was just done with it
        return False

    def _is_young(self, claim: Claim) -> bool:
        """Judge by the file's own time, and by ours: the clock of another host or of a file server may be off."""
        now = self.clock.monotonic()
        seen = self._unbegun.setdefault(claim.id, now)
        try:
            age_s = self.clock.now().timestamp() - looked_at(self.root(), claim.id).st_ctime
        except FileNotFoundError:
            return True
        return now - seen < UNBEGUN_GRACE_S and age_s < UNBEGUN_GRACE_S

    def still_ours(self, claim: Claim) -> bool:
        """Tell whether no other daemon has taken this claim over while the database was out of reach."""
        return not self.shared or self.store.keep(claim.id)

    def verdict_of(self, claim: Claim) -> Verdict | None:
        """Return how the ledger says this claim ended, or ``None`` while it has not."""
        return _ended(self.store.runs_of_claim(claim.id))

    def fail(self, claim: Claim, feed: str, fault: FileFault) -> Verdict:
        """Record a failure of a claim outside of the pipeline, and return its verdict."""
        run_id = self.store.begin(self._start_of(claim, feed))
        verdict = Verdict(
            outcome=Outcome.FAILED,
            run_id=run_id,
            feed=feed,
            file_name=printable(claim.name),
            size=claim.size,
            error_code=fault.code,
            error=fault.message,
            hint=fault.hint,
        )
        now = stamp(self.clock.now())
        self.store.fail(run_id, RunEnd(verdict, now, self.notices(verdict, now)))
        return verdict

    def _feed_of(self, claim: Claim) -> str:
        feed = self.match(claim.name)
        return feed.name if feed else ""


def _by_id(claim: Claim) -> str:
    """Ids sort by the time of the claim."""
    return claim.id


def _ended(runs: list[RunRow]) -> Verdict | None:
    """Return the verdict of the run of a claim that ended otherwise than by an interruption."""
    for run in runs:
        if run.status is RunStatus.SUCCESS:
            return _verdict(run, Outcome.LOADED if run.duplicate_of is None else Outcome.DUPLICATE)
        if run.status is RunStatus.FAILURE and run.error_code != INTERRUPTED:
            return _verdict(run, Outcome.FAILED)
    return None


def _verdict(run: RunRow, outcome: Outcome) -> Verdict:
    counts = Counts(*(getattr(run, name) or 0 for name in Counts.__slots__))
    report = json.loads(run.report) if run.report else {}  # a run of an earlier version has none
    return Verdict(
        outcome=outcome,
        run_id=run.id,
        feed=run.job_name,
        file_name=run.file_name or "",
        counts=counts,
        duration_ms=run.duration_ms,
        size=run.file_size or 0,
        sha256=run.content_sha256,
        watermark=from_run(run.watermark),
        duplicate_of=run.duplicate_of,
        error_code=run.error_code,
        error=run.error,
        hint=report.get("hint", ""),
        place=tuple(report["place"]) if report.get("place") else None,
        details=report.get("details"),
    )
