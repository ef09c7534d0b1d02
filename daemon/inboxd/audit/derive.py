"""One table derived anew: run after run in the order of commits, each compared with what the ledger says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from inboxd.audit.archive import Archive
from inboxd.audit.check import Check, Derived, Kept
from inboxd.audit.content import Unreadable, content_of
from inboxd.audit.documents import Reading, Record
from inboxd.audit.judge import Judge, Kind, as_array
from inboxd.audit.ledger import DeadLetterRow, Ledger
from inboxd.audit.report import TableReport
from inboxd.audit.rules import Rules, Work, ident_of, rises
from inboxd.audit.scratch import Scratch
from inboxd.audit.values import members
from inboxd.audit.versions import GRAVES, ROWS, UNKNOWN, State, Version
from inboxd.clock import moment
from inboxd.model import Cursor, Feed, FieldType, Late, Mode, Origin, Path, Scalar, names_of, origin_of, spelled
from inboxd.outcomes import LineageStep
from inboxd.store.base import RunRow

_RETRY: Final = "-retry"
"""How the id of a claim ends that ``inboxd retry`` made: such a file is read without the watermark."""
_APPLIED: Final = (LineageStep.LOAD, LineageStep.DELETE)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a file was read: by what clock, and whether with ``--force``."""

    now: datetime
    force: bool


class Derivation:
    """The derivation of one table, and what became of it so far."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        ledger: Ledger,
        archive: Archive,
        scratch: Scratch,
        report: TableReport,
        kept: Kept,
    ) -> None:
        self._feeds = {feed.name: feed for feed in feeds}
        self._all = feeds
        self._ledger = ledger
        self._archive = archive
        self._scratch = scratch
        self._report = report
        self._kept = kept
        self._check = Check(ledger, scratch, report, kept)
        self.doubtful: set[str] = set()
        """Feeds with scopes of which a run is not proved: how far its scope had come is not known."""
        self.last = 0
        """The commit number of the last run that was gone through."""

    def go_on(self, since: int, progress: Callable[[int], None]) -> None:
        """Go through the runs that are new; those below commit number ``since`` are taken as they are."""
        for run in self._ledger.runs(self._all, self.last):
            self.last = run.commit_no or 0
            if self.last < since:
                self._take_as_it_is(run)
            elif run.undo_of is not None:
                self._undo(run, run.undo_of)
            else:
                self._report.runs += 1
                self._go_through(run)
            progress(run.rows_in)

    def _take_as_it_is(self, run: RunRow) -> None:
        self._scratch.base = UNKNOWN
        if run.undo_of is not None:
            self._scratch.unmark(run.undo_of)
        self._reach_as_recorded(run)
        self._scratch.note_run(run, proven=False)

    def _reach_as_recorded(self, run: RunRow) -> None:
        """Take a watermark from the ledger, which keeps it for ever, but does not say of which scope it is."""
        feed = self._feeds.get(run.job_name)
        if feed is None or run.watermark is None:
            return
        if feed.scope:
            self.doubtful.add(feed.name)
        else:
            name = feed.name if feed.cursor is not None else f"{feed.name} []"
            self._scratch.mark(name, run.id, _cursor(feed, run.watermark))

    def _go_through(self, run: RunRow) -> None:
        if run.duplicate_of is not None:
            self._check_duplicate(run, run.duplicate_of)
            return
        feed = self._feeds.get(run.job_name)
        self._scratch.clear()
        for number, key, step in self._ledger.lineage(run.id):
            self._scratch.tell(number, key, step)
        try:
            why = f"feed {run.job_name!r} is not in the config" if feed is None else self._prove(run, feed)
        except (OSError, Unreadable, ValueError, RecursionError) as error:
            why = "its file cannot be read as the config says"
            self._report.differs("file_unreadable", f"{why}: {error}", run=run.id, file=run.file_name)
        if why:
            self._leave(run, why)

    def _check_duplicate(self, run: RunRow, earlier: int) -> None:
        self._scratch.note_run(run, proven=True)
        first = self._ledger.run(earlier)
        same = first is not None and (first.job_name, first.content_sha256, first.variant) == (
            *(run.job_name, run.content_sha256, run.variant),
        )
        if not same:
            detail = f"it is called a duplicate of run {earlier}, which has other content"
            self._report.differs("duplicate", detail, run=run.id, file=run.file_name)

    # A run that proves itself by its file, or by its dead letters

    def _prove(self, run: RunRow, feed: Feed) -> str:
        """Derive one run and compare it; returns why that cannot be done, ``""`` if it was."""
        if run.content_sha256 is None:
            return self._prove_replay(run, feed)
        path = self._archive.find(run)
        if path is None:
            return self._why_gone(run)
        forced = feed.mode is not Mode.SNAPSHOT and self._ledger.is_reload(run)
        began, ended = moment(run.started_at), moment(run.finished_at or run.started_at)
        first = _Way(began, forced)
        work, derived = self._derive(run, feed, path, first)
        for way in self._other_ways(run, first, ended):
            if not self._check.differences(run, derived):
                break
            work, derived = self._derive(run, feed, path, way)
        self._conclude(run, feed, work, derived)
        if feed.mode is Mode.APPEND and run.claim is None:
            for other in self._ledger.same_content(run):
                self._scratch.take_out(other)
        return ""

    def _other_ways(self, run: RunRow, first: _Way, ended: datetime) -> Iterator[_Way]:
        """Yield how else a file may have been read; if none of the ways explains the run, it is the first in the end.

        The ledger does not tell ``--force``, and a deferred file is judged by a later clock than its run's start.
        """
        if run.claim is None and not first.force:
            yield _Way(first.now, force=True)
        if self._scratch.any_future():
            yield _Way(ended, first.force)
        yield first

    def _derive(self, run: RunRow, feed: Feed, path: str, way: _Way) -> tuple[Work, Derived]:
        derived, reading = self._stage(run, feed, path, way.now)
        return self._decide(run, feed, derived, reading, force=way.force), derived

    def _why_gone(self, run: RunRow) -> str:
        if run.claim is None:
            return "it was loaded by hand, from a file that is not there any more"
        if run.file_removed is not None or self._kept.may_be_gone(self._kept.files, run):
            return "its file was removed from the archive on purpose"
        if self._kept.host not in {None, run.host}:
            return f"its file is in the archive of host {run.host}"
        altered = self._archive.by_name(run)
        kind, what = ("file_missing", "its file is not in the archive, and nobody took note that it was removed")
        if altered is not None:
            kind, what = ("file_altered", f"{altered} has not the content that was loaded")
        self._report.differs(kind, what, run=run.id, file=run.file_name)
        return what

    def _stage(self, run: RunRow, feed: Feed, path: str, now: datetime) -> tuple[Derived, Reading]:
        """Read a file and judge its records."""
        judge, derived = Judge(feed, now), Derived()
        reading = Reading(feed, _of_file(feed, run), lambda: content_of(path))
        self._scratch.unstage()
        for record in reading.records():
            verdict = judge.judge(record)
            if verdict.kind is Kind.FILTERED:
                derived.filtered += 1
                continue
            refused = verdict.kind is Kind.REJECT
            ident = verdict.key if refused else ident_of(feed, verdict.values, run.id, verdict.number)
            self._scratch.stage(verdict, ident)
        derived.filtered += reading.filtered
        return derived, reading

    def _decide(self, run: RunRow, feed: Feed, derived: Derived, reading: Reading, *, force: bool) -> Work:
        rules = self._rules(feed)
        commit_no, watermark = run.commit_no or 0, None
        retried = run.claim is not None and run.claim.endswith(_RETRY)
        derived.mark = feed.name if feed.cursor is not None else ""
        if feed.mode is Mode.SNAPSHOT:
            return self._decide_snapshot(run, feed, derived, reading, rules)
        if feed.cursor is not None and feed.late is Late.SKIP and not retried and not force:
            watermark = self._scratch.reached(feed.name)
        work = Work(run.id, commit_no, watermark, force)
        rules.decide(work)
        derived.deleted = rules.deleted
        derived.watermark = self._scratch.furthest()
        return work

    def _decide_snapshot(self, run: RunRow, feed: Feed, derived: Derived, reading: Reading, rules: Rules) -> Work:
        judge = Judge(feed, moment(run.started_at))
        outside = Record("null", reading.first)
        as_of, scope = judge.moment(outside), judge.of_file(outside) if feed.scope else ()
        if scope is None:
            found = next((one for one in self._scratch.staged() if one.kind is Kind.ROW), None)
            scope = () if found is None else tuple(found.values[name] for name in feed.scope)
        derived.mark = f"{feed.name} {as_array(scope)}"
        reached = self._scratch.reached(derived.mark)
        old = reached is not None and as_of <= reached  # type: ignore[operator] # of one type
        if feed.name in self.doubtful:
            old = run.rows_in > 0 and run.rows_skipped == run.rows_in - (run.rows_filtered or 0)
        forced = run.claim is None and run.rows_skipped == 0
        work = Work(run.id, run.commit_no or 0, scope=scope, skipped=old and not forced)
        if work.skipped:
            rules.skip()
            return work
        rules.decide(work)
        derived.deleted, derived.watermark = rules.deleted, as_of
        return work

    def _prove_replay(self, run: RunRow, feed: Feed) -> str:
        """Derive a replay from the dead letters that it has resolved."""
        judge, derived, good = Judge(feed, moment(run.started_at)), Derived(), 0
        replayed: list[tuple[int, int]] = []
        for letter in self._ledger.dead_letters(resolved_by=run.id):
            record = _record_of(letter, good + 1)
            verdict = judge.judge(record)
            if verdict.kind is Kind.REJECT:  # resolved by its key
                continue
            good += 1
            replayed.append((letter.run_id, letter.record_no))
            if verdict.kind is Kind.FILTERED:
                derived.filtered += 1
                continue
            came = self._ledger.run(letter.run_id)
            ident = ident_of(feed, verdict.values, run.id, verdict.number)
            self._scratch.stage(verdict, ident, ((came and came.commit_no) or 0, letter.record_no))
        if good != run.rows_in - (run.rows_rejected or 0):
            return "the dead letters that it replayed were mended by hand, resolved anew, or are gone"
        rules, work = (
            self._rules(feed),
            Work(run.id, run.commit_no or 0),
        )
        rules.decide(work)
        derived.deleted = rules.deleted
        derived.mark = feed.name if feed.cursor is not None else ""
        derived.watermark = self._scratch.furthest() if feed.cursor is not None else None
        for of_run, number in replayed:
            self._scratch.resolve_dead_letter(run.id, of_run, number)
        self._conclude(run, feed, work, derived)
        return ""

    def _rules(self, feed: Feed) -> Rules:
        fading, rising = self._kept.tombstones is not None, rises(self._all)
        return Rules(feed, self._scratch, fading=fading, rising=rising)

    # What becomes of it

    def _conclude(self, run: RunRow, feed: Feed, work: Work, derived: Derived) -> None:
        """Compare what a run did with what the ledger says of it, and let it be done."""
        self._check.run(run, feed, derived)
        for key in self._rules(feed).apply(work):
            if feed.mode is not Mode.APPEND:
                self._scratch.resolve_key(run.id, feed.name, key)
        if None in self._scratch.counts():
            self._reach_as_recorded(run)
        elif derived.watermark is not None:
            self._scratch.mark(derived.mark, run.id, derived.watermark)
        self._scratch.note_run(run, proven=True)

    # A run of which nothing can be proved

    def _leave(self, run: RunRow, why: str) -> None:
        """Take what the ledger says a run did; of the keys that it changed nothing is known from here on."""
        self._report.leave(run.id, run.file_name, why)
        self._scratch.unstage()
        expected = run.rows_in - (run.rows_filtered or 0)
        if self._scratch.lineage_count() < expected - (run.rows_rejected or 0 if run.content_sha256 is None else 0):
            self._scratch.forget(run.commit_no or 0)
            for name in self._feeds:
                self._scratch.doubt_dead_letters(name)
        appends = self._all[0].mode is Mode.APPEND
        for key in () if appends else self._scratch.lineage_keys(*_APPLIED):
            version = Version(run.id, run.commit_no or 0, 0, State.UNKNOWN)
            self._scratch.push(ROWS, key, version)
            self._scratch.push(GRAVES, key, version)
            self._scratch.resolve_key(run.id, run.job_name, key)
        for letter in self._ledger.dead_letters(run=run.id):
            self._scratch.add_dead_letter(run.id, letter.record_no, run.job_name, letter.record_key, sure=False)
        for letter in self._ledger.dead_letters(resolved_by=run.id):
            self._scratch.resolve_dead_letter(run.id, letter.run_id, letter.record_no)
        self._reach_as_recorded(run)
        self._scratch.note_run(run, proven=False)

    # An undo

    def _undo(self, undo: RunRow, undone: int) -> None:
        known = self._scratch.is_proven(undone)
        keys, last = self._scratch.take_out(undone)
        for what, recorded, found in (("rows_in", undo.rows_in, keys), ("rows_out", undo.rows_out, last)):
            if known and self._scratch.base.state is not State.UNKNOWN and recorded != found:
                self._report.differs("count", f"{what} is {recorded}, and by the files {found}", run=undo.id)
        self._scratch.unmark(undone)
        self._scratch.undo_dead_letters(undone, undo.id, by_key=self._all[0].mode is not Mode.APPEND)
        self._scratch.note_run(undo, proven=True)


def _cursor(feed: Feed, text: str) -> Cursor:
    field = feed.as_of or feed.cursor_field
    return int(text) if field.type is FieldType.INTEGER else text


def _record_of(letter: DeadLetterRow, number: int) -> Record:
    kept = dict(members(letter.context)) if letter.context else {}
    return Record(letter.raw, {}, number=number, kept=kept)


def _of_file(feed: Feed, run: RunRow) -> Mapping[Path, str]:
    """Return what paths of the file lead to, as the ledger has them."""
    variant: dict[str, str | None] = json.loads(run.variant) if run.variant else {}
    name = run.file_name or ""
    facts = {"name": name.rpartition("/")[2], "path": name, "mtime": run.file_mtime}
    moments = feed.as_of.paths if feed.as_of else ()
    found: dict[Path, str] = {}
    for path in (*feed.paths, *moments):
        said: Scalar = None
        if origin_of(path) is Origin.FILE:
            said = variant.get(spelled(path)) or facts[names_of(path)[0]]
        elif origin_of(path) is Origin.CAPTURE:
            said = variant.get(spelled(path))
        if said is not None:
            found[path] = json.dumps(said)
    return found
