"""One run as its file has it, compared with what the ledger says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from inboxd.audit.judge import Kind
from inboxd.audit.ledger import Ledger
from inboxd.audit.report import TableReport
from inboxd.audit.scratch import Scratch
from inboxd.audit.versions import ROWS, State, Version
from inboxd.clock import moment
from inboxd.model import Cursor, Feed, Gone, Late
from inboxd.outcomes import LineageStep
from inboxd.store.base import RunRow


@dataclass(frozen=True, slots=True)
class Kept:
    """What may be missing: files of other hosts, and what is older than it is kept (seconds; ``None`` for ever)."""

    now: datetime
    """By which what is older than it is kept may be gone."""
    host: str | None = None
    """The host whose archive this is; ``None``: there is no other."""
    files: float | None = None
    lineage: float | None = None
    dead_letters: float | None = None
    tombstones: float | None = None

    def may_be_gone(self, kept: float | None, run: RunRow) -> bool:
        """Tell whether what is kept so long may have been removed of a run."""
        return kept is not None and moment(run.finished_at or run.started_at) + timedelta(seconds=kept) < self.now


@dataclass(slots=True)
class Derived:
    """What one run did, as its file says."""

    filtered: int = 0
    deleted: int | None = 0
    watermark: Cursor | None = None
    mark: str = ""
    """The name of the watermark; ``""``: the feed has none."""


class Check:
    """Compares one run after another; what differs is in the report."""

    def __init__(self, ledger: Ledger, scratch: Scratch, report: TableReport, kept: Kept) -> None:
        self._ledger = ledger
        self._scratch = scratch
        self._report = report
        self._kept = kept

    def run(self, run: RunRow, feed: Feed, derived: Derived) -> None:
        """Compare counts, watermark, lineage and dead letters of a run that was decided, and not yet applied."""
        for what in self.differences(run, derived):
            hint = ""
            if what.startswith("rows_skipped") and feed.late is Late.SKIP:
                hint = " (or the watermark was set by hand before: then audit --since this run)"
            self._report.differs("count", what + hint, run=run.id, file=run.file_name)
        self._lineage(run, feed)
        if run.content_sha256 is not None:
            self._dead_letters(run, feed)

    def _counts(self, run: RunRow, derived: Derived) -> Iterator[tuple[str, int | None, int | None]]:
        """Yield each count as the ledger has it, and as it was derived; ``None`` where that is not known."""
        found = self._scratch.counts()
        unknown = None in found
        absent = self._scratch.absent_count()
        number = {step: found.get(step, 0) for step in LineageStep}
        applied = number[LineageStep.LOAD] + number[LineageStep.DELETE] - absent
        rejected = number[LineageStep.REJECT]
        total = sum(found.values()) - absent + derived.filtered
        replay = run.content_sha256 is None
        yield "rows_in", run.rows_in - (run.rows_rejected or 0 if replay else 0), total
        yield "rows_out", run.rows_out, None if unknown else applied
        yield "rows_rejected", run.rows_rejected, None if replay else rejected
        yield "rows_skipped", run.rows_skipped, number[LineageStep.SKIP]
        yield "rows_stale", run.rows_stale, None if unknown else number[LineageStep.STALE]
        yield "rows_filtered", run.rows_filtered, derived.filtered
        yield "rows_deleted", run.rows_deleted, None if unknown else derived.deleted

    def differences(self, run: RunRow, derived: Derived) -> list[str]:
        """Return where the counts and the watermark of a run are not those of its file."""
        counts = [
            f"{name} is {recorded}, and by its file {found}"
            for name, recorded, found in self._counts(run, derived)
            if found is not None and recorded is not None and recorded != found
        ]
        reached = None if derived.watermark is None else str(derived.watermark)
        if None not in self._scratch.counts() and run.watermark != reached:
            counts.append(f"its watermark is {run.watermark}, and by its file {reached}")
        return counts

    def _lineage(self, run: RunRow, feed: Feed) -> None:
        there, expected = self._scratch.lineage_count(), sum(self._scratch.counts().values())
        if there < expected and self._kept.may_be_gone(self._kept.lineage, run):
            self._report.lineage_thinned += 1
            return
        for one in self._scratch.staged():
            self._report.lineage += 1
            absent = one.kind is Kind.ABSENT  # numbered as each database sorts
            recorded = (
                self._scratch.lineage_of_key(one.key) if absent else self._scratch.lineage_of(one.number, one.key)
            )
            if one.outcome is not None and recorded is not one.outcome:
                what = f"record {one.number} is {recorded or 'not'} in the lineage, and by its file {one.outcome}"
                self._report.differs("lineage", what, key=one.key, run=run.id, file=run.file_name)
        for number, key, step in self._scratch.lineage_beyond():
            if self._scratch.is_absent(key):
                continue
            if step is LineageStep.DELETE and self._scratch.top(ROWS, key).state is State.UNKNOWN:
                state = State.NONE if feed.absent is Gone.REMOVE else State.UNKNOWN
                self._scratch.push(ROWS, key, Version(run.id, run.commit_no or 0, number, state))
                continue
            what = f"record {number} is {step} in the lineage, and not in its file"
            self._report.differs("lineage", what, key=key, run=run.id, file=run.file_name)

    def _dead_letters(self, run: RunRow, feed: Feed) -> None:
        """Compare the dead letters of a run, but for who resolves them, which is known in the end."""
        for letter in self._ledger.dead_letters(run=run.id):
            self._report.dead_letters += 1
            one = self._scratch.record(letter.record_no)
            if one is None or one.outcome is not LineageStep.REJECT:
                kind, what = "dead_letter_unexpected", f"record {letter.record_no} has one, and was not refused"
                self._report.differs(kind, what, key=letter.record_key, run=run.id, file=run.file_name)
                continue
            self._scratch.add_dead_letter(run.id, one.number, feed.name, one.key)
            said, true = (letter.record_key, letter.error, letter.raw), (one.key, one.code, one.raw)
            if said != true:
                wrong = [name for name, a, b in zip(("key", "code", "raw"), said, true, strict=True) if a != b]
                what = f"that of record {one.number} differs in {' and '.join(wrong)}"
                if "code" in wrong:
                    what += f": {letter.error}, and by its file {one.code}"
                self._report.differs("dead_letter_changed", what, key=one.key, run=run.id, file=run.file_name)
        if self._kept.may_be_gone(self._kept.dead_letters, run):
            return
        for one in self._scratch.dead_letters_without(run.id):
            what = f"record {one.number} was refused ({one.code}), and has none"
            self._report.differs("dead_letter_missing", what, key=one.key, run=run.id, file=run.file_name)
