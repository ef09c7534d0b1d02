"""The story of one file: decode → stage → validate → upsert → advance → record → commit, or none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from inboxd.clock import EPOCH, Clock, moment, stamp
from inboxd.config import captures, catches
from inboxd.errors import DatabaseFault, FileFault, TransientFault
from inboxd.inbox.source import Source
from inboxd.model import Cursor, Feed, Late, Mode, printable
from inboxd.outcomes import Counts, Edge, Hook, Outcome, RunStart, Step, Verdict
from inboxd.records.decode import Reading
from inboxd.records.surroundings import NO_FACTS, FileFacts, variant_of
from inboxd.store.base import NoticeRow, RunEnd
from inboxd.store.cursors import furthest
from inboxd.store.database import Store
from inboxd.store.file import FileTransaction
from inboxd.store.snapshots import refuse_unfit, snapshot_of

LISTED_FAULTS = 100
"""How many rejected records a report or a command's output names; the counts are exact."""
SMALL = 64 << 10
"""Files of so many bytes at most, packed ones too, are done long before anybody could see them running: some 20 ms."""
HASHED_FIRST = 8 << 20
"""From so many bytes on a file that may be a duplicate is hashed before it is decoded: a tenth of the work (measured
on JSON), lost where it is none; below, asking the ledger for its size costs as much as is saved."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one file."""

    feed: Feed
    file_name: str
    size: int
    open: Callable[[], AbstractContextManager[Source]]
    claim: str | None = None
    facts: FileFacts = NO_FACTS
    """What fields can read of the file itself."""
    ignore_watermark: bool = False
    """``retry``: the file is read without the watermark."""
    careful: bool = False
    """A crash may have come from this file: its run is written before it is touched, so that the next is counted."""
    force: bool = False
    """``load --force``: without the watermark and the ledger, and an equal cursor is applied too."""


def facts_of(
    feed: Feed,
    name: str,
    mtime_ns: int,
    *,
    caught: Mapping[str, str] | None = None,
    first_mtime: str | None = None,
) -> FileFacts:
    """Return what fields can read of a file: its path in the inbox, its mtime, what its feed's ``match`` catches.

    ``caught``: the last of these, where the path is not the one in the inbox. ``first_mtime``: what the mtime was when
    the file was first claimed, where that is known; mending the file has changed it since. An mtime outside of the
    years 1 to 9999, which a sender may set, counts as not known.
    """
    caught = caught or (captures(feed, name) if catches(feed) else None) or {}
    mtime = first_mtime or ""
    with suppress(OverflowError):
        mtime = mtime or stamp(EPOCH + timedelta(microseconds=mtime_ns // 1_000))
    return FileFacts(printable(name), mtime, {each: printable(text) for each, text in caught.items()})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What every file's way needs: where the rows go, the time, and how much a file may hold (bytes, unpacked)."""

    store: Store
    clock: Clock
    host: str
    max_file_size: int
    hook: Hook = lambda _step, _edge: None
    progress: Callable[[], None] = lambda: None
    notices: Callable[[Verdict, str], tuple[NoticeRow, ...]] = lambda _verdict, _at: ()
    """What is told of a file that has ended at that moment."""
    _steps: Mapping[Step, _StepHook] = field(init=False)

    def __post_init__(self) -> None:
        """Make the steps' blocks once: each file enters eight."""
        object.__setattr__(self, "_steps", {step: _StepHook(self.hook, step) for step in Step})

    def process(self, job: Job) -> Verdict:
        """Take one file all the way, and say how it ended.

        Raises ``TransientFault`` when the file has to wait (its ``running`` row stays) and ``Interrupted`` when the
        daemon was asked to stop; in both cases nothing was loaded.
        """
        started, clock_start = self.clock.now(), self.clock.monotonic()
        attempt = _Attempt(self, job, self._start(job, started), started, clock_start)
        has_begun = False
        try:  # from here on: a signal may come as soon as the run's row is committed
            with self.step(Step.BEGIN):
                attempt.begin(small=job.size <= SMALL and not job.careful)
            has_begun = True
            return attempt.take_or_fail()
        except BaseException as error:
            waits = has_begun and isinstance(error, TransientFault) and not isinstance(error, DatabaseFault)
            with suppress(TransientFault):
                attempt.leave(waits=waits, ended=not isinstance(error, Exception))
            raise

    def _start(self, job: Job, started: datetime) -> RunStart:
        mtime, variant = job.facts.mtime or None, variant_of(job.feed, job.facts)
        return RunStart(job.feed.name, stamp(started), self.host, job.file_name, job.size, job.claim, mtime, variant)

    def reading(self, job: Job, source: Source, now: datetime) -> Reading:
        """Return the reading of a file's records."""
        return Reading(source, job.feed, now=now, max_size=self.max_file_size, facts=job.facts, again=source.again)

    def step(self, step: Step) -> _StepHook:
        """Return a block that calls the hook at both edges of a step."""
        return self._steps[step]


@dataclass(slots=True)
class _Attempt:
    """One attempt's facts, so that the story below needs no other arguments."""

    pipeline: Pipeline
    job: Job
    start: RunStart
    started: datetime
    clock_start: float
    begun: int = 0
    """The run whose row is committed; 0 while there is none."""
    run_id: int = 0
    """The run, once there is one; it may end with the transaction that it began with."""

    def begin(self, *, small: bool = False) -> None:
        """Write that the work begins; for a ``small`` file perhaps only with all else it does."""
        self.begun = self.run_id = self.pipeline.store.begin(self.start, small=small)

    def leave(self, *, waits: bool, ended: bool) -> None:
        """See to the ``running`` row of a file that has not ended: one that ``waits`` has it, no command's keeps it.

        ``ended``: by a signal, so there may be a row of which nobody knows yet.
        """
        if self.job.claim is None:
            if self.begun or ended:
                self.pipeline.store.drop(self.start)
        elif waits and not self.begun:
            self.begin()

    def take_or_fail(self) -> Verdict:
        """Load a file, or record that its own fault kept it out."""
        try:
            with self.job.open() as source:
                try:
                    return self.take(source)
                except FileFault as fault:
                    return self.fail(fault, _hash_of(source, fault))
        except FileFault as fault:  # it could not even be opened
            return self.fail(fault, None)

    def take(self, source: Source) -> Verdict:
        """Load a file, unless it is a large one that is known by its hash."""
        return self._known(source) or self._load(source)

    def _known(self, source: Source) -> Verdict | None:
        """End a large duplicate at the cost of its hash. A run must have loaded as many bytes, or it is none."""
        if self.job.size < HASHED_FIRST or not self._may_be_duplicate():
            return None
        with self._transaction() as tx:
            if not tx.has_loaded(self.job.size):
                return None
        verdict = self._duplicate_by(source.drain())
        if verdict is None:
            source.rewind()
        return verdict

    def _may_be_duplicate(self) -> bool:
        """Tell whether the same content again changes nothing, whatever else there is."""
        return not self.job.force and self.job.feed.mode is not Mode.SNAPSHOT

    def _duplicate_by(self, sha256: str) -> Verdict | None:
        """End a file as a duplicate if its content was loaded."""
        with self._transaction() as tx:
            self.run_id = tx.lock()
            earlier = tx.duplicate_of(sha256)
            return None if earlier is None else self._duplicate(tx, sha256, earlier)

    def _load(self, source: Source) -> Verdict:
        """Everything a file does to the database, in one transaction."""
        feed, step = self.job.feed, self.pipeline.step
        with self._transaction() as tx:
            reading = self.pipeline.reading(self.job, source, self.started)
            with step(Step.STAGE):
                self._stage(reading, tx)
            with step(Step.SEAL):
                sha256 = source.seal()
            with step(Step.LOCK):
                self.run_id = tx.lock()
            if feed.mode is Mode.SNAPSHOT:
                return self._load_snapshot(tx, reading, sha256)
            earlier = None if self.job.force else tx.duplicate_of(sha256)
            if earlier is not None:
                return self._duplicate(tx, sha256, earlier)
            self._refuse_a_wrong_clock(tx)
            with step(Step.UPSERT):
                counts = tx.upsert(None if reads_all(self.job) else tx.watermark())
                self._refuse_too_many_rejected(tx, counts)
            with step(Step.ADVANCE):
                watermark = tx.advance(furthest(self.job.feed, self.started)) if feed.cursor is not None else None
            return self._loaded(tx, sha256, counts, watermark)

    def _load_snapshot(self, tx: FileTransaction, reading: Reading, sha256: str) -> Verdict:
        """Do the same with everything there is: what is older than what was applied is skipped whole."""
        job, step = self.job, self.pipeline.step
        snapshot = snapshot_of(job.feed, reading, tx, self.started)
        tx.cover(snapshot.scope or ())
        old = snapshot.is_old(tx.watermark()) and not job.force
        earlier = tx.duplicate_of(sha256) if old else None
        if earlier is not None:
            return self._duplicate(tx, sha256, earlier)
        self._refuse_a_wrong_clock(tx)
        with step(Step.UPSERT):
            if old:
                return self._loaded(tx, sha256, tx.skip(), None)
            rejected = sum(tx.rejected_counts().values())
            refuse_unfit(job.feed, tx, snapshot, records=tx.staged(), rejected=rejected)
            counts = tx.upsert(None)
        with step(Step.ADVANCE):
            tx.mark(snapshot.as_of)
        return self._loaded(tx, sha256, counts, snapshot.as_of)

    def _transaction(self) -> AbstractContextManager[FileTransaction]:
        job = self.job
        open_transaction = self.pipeline.store.transaction
        return open_transaction(self.begun, job.feed, force=job.force, variant=self.start.variant, start=self.start)

    def _loaded(self, tx: FileTransaction, sha256: str, counts: Counts, watermark: Cursor | None) -> Verdict:
        errors = _errors(tx, counts)
        verdict = self._verdict(Outcome.LOADED, sha256, counts=counts, watermark=watermark, errors=errors)
        again = repeated(self.job.feed, tx, counts.rows_stale)
        return self._commit(tx, replace(verdict, keys_repeat=again) if again else verdict)

    def _stage(self, reading: Reading, tx: FileTransaction) -> None:
        for batch in reading.batches():
            tx.stage(batch)
            self.pipeline.progress()

    def _duplicate(self, tx: FileTransaction, sha256: str, earlier: int) -> Verdict:
        verdict = self._verdict(Outcome.DUPLICATE, sha256, duplicate_of=earlier)
        if self.job.feed.ordered and tx.followed(earlier):
            verdict = replace(verdict, content_returned=True)
        return self._commit(tx, verdict)

    def _commit(self, tx: FileTransaction, verdict: Verdict) -> Verdict:
        with self.pipeline.step(Step.RECORD):
            tx.record(self._end(verdict))
        with self.pipeline.step(Step.COMMIT):
            tx.commit()
        return verdict

    def fail(self, fault: FileFault, sha256: str | None) -> Verdict:
        """Record that the file's own fault kept it out; unless its content was loaded before, under another config."""
        duplicate = self._duplicate_by(sha256) if sha256 is not None and self._may_be_duplicate() else None
        if duplicate is not None:
            return duplicate
        if not self.begun:
            self.begin()
        verdict = self._verdict(Outcome.FAILED, sha256, fault=fault)
        self.pipeline.store.fail(self.run_id, self._end(verdict))
        return verdict

    def _refuse_a_wrong_clock(self, tx: FileTransaction) -> None:
        """Wait where the clock is far behind the last run: every new record would look as if from the future."""
        last = tx.last_finished_at()
        if last is not None and self.started + timedelta(seconds=self.job.feed.max_future_s) < moment(last):
            msg = f"the clock says {stamp(self.started)}, but the last run ended at {last}"
            raise TransientFault("clock_behind", msg, "set the clock right; the file waits until then")

    def _refuse_too_many_rejected(self, tx: FileTransaction, counts: Counts) -> None:
        feed = self.job.feed
        considered = counts.rows_in - counts.rows_skipped - counts.rows_filtered
        if not feed.max_rejected.exceeded(counts.rows_rejected, considered):
            return
        faults = tx.first_faults(LISTED_FAULTS)
        details = {
            "counts": counts,
            "rejected_by_code": tx.rejected_counts(),
            "faults": [
                {"record_no": f.record_no, "key": f.record_key, "code": f.code, "detail": f.detail} for f in faults
            ],
        }
        msg = f"{counts.rows_rejected} of {considered} records were rejected, more than max_rejected allows"
        hint = f"mend the records and retry the file, or raise max_rejected of feed {feed.name!r}"
        raise FileFault("too_many_rejected", msg, hint, details=details)

    def _verdict(
        self,
        outcome: Outcome,
        sha256: str | None,
        *,
        counts: Counts | None = None,
        watermark: Cursor | None = None,
        errors: tuple[str, ...] = (),
        duplicate_of: int | None = None,
        fault: FileFault | None = None,
    ) -> Verdict:
        elapsed = self.pipeline.clock.monotonic() - self.clock_start
        return Verdict(
            outcome=outcome,
            run_id=self.run_id,
            feed=self.job.feed.name,
            file_name=self.job.file_name,
            counts=counts or Counts(),
            duration_ms=round(elapsed * 1000),
            size=self.job.size,
            sha256=sha256,
            watermark=watermark,
            duplicate_of=duplicate_of,
            errors=errors,
            error_code=fault.code if fault else None,
            error=fault.message if fault else None,
            hint=fault.hint if fault else "",
            place=(fault.place.line, fault.place.column, fault.place.byte) if fault and fault.place else None,
            details=fault.details if fault else None,
        )

    def _end(self, verdict: Verdict) -> RunEnd:
        now = stamp(self.pipeline.clock.now())
        return RunEnd(verdict, now, self.pipeline.notices(verdict, now))


def repeated(feed: Feed, tx: FileTransaction, stale: int) -> int:
    """Count the records whose key repeats; where none lost to another there are none, and nobody looks for them."""
    return tx.repeated() if stale or feed.deletes is not None else 0


def reads_all(job: Job) -> bool:
    """Tell whether the file is read without the watermark."""
    return job.force or job.ignore_watermark or job.feed.late is Late.MERGE


def _errors(tx: FileTransaction, counts: Counts) -> tuple[str, ...]:
    if not counts.rows_rejected:
        return ()
    return tuple(f"{fault.record_key}: {fault.code}" for fault in tx.first_faults(LISTED_FAULTS))


def _hash_of(source: Source, fault: FileFault) -> str | None:
    """Return the content's hash for the ledger; a file that is too large or unreadable is not read for it."""
    return None if fault.code in {"file_too_large", "unreadable"} else source.drain()


@dataclass(frozen=True, slots=True)
class _StepHook:
    hook: Hook
    step: Step

    def __enter__(self) -> None:
        self.hook(self.step, Edge.BEFORE)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.hook(self.step, Edge.AFTER)
