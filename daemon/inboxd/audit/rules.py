"""Which of a run's records apply, and what they make of rows and tombstones, one key at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inboxd.audit.judge import Kind, key_text
from inboxd.audit.scratch import Scratch
from inboxd.audit.versions import GRAVES, NOTHING, ROWS, Staged, State, Version
from inboxd.model import Cursor, Feed, Gone, Mode, Origin, Scalar, origin_of
from inboxd.outcomes import LineageStep

_APPLIED: Final = (LineageStep.LOAD, LineageStep.DELETE)


@dataclass(frozen=True, slots=True)
class Work:
    """The run whose records are staged. ``scope``: of a snapshot, the values of its scope."""

    run: int
    commit_no: int
    watermark: Cursor | None = None
    """At or below which a record is skipped."""
    force: bool = False
    scope: tuple[Scalar, ...] | None = None
    skipped: bool = False
    """Whether the snapshot is older than what was applied, so that it tells nothing."""


def ident_of(feed: Feed, values: dict[str, Scalar], run: int, number: int) -> str:
    """Return what tells a row from others: its key, or its run and number in an append feed."""
    if feed.mode is Mode.APPEND:
        return f"[{run},{number}]"
    return key_text([values[name] for name in feed.key])


def keeps_marks(feed: Feed) -> bool:
    """Tell whether a key's upsert and its deletion both stand: then a row is marked while its tombstone is above it."""
    return feed.deletes is not None and feed.deletes.then is Gone.MARK and feed.cursor is not None


def is_marked(feed: Feed, row: Version, grave: Version) -> bool | None:
    """Tell whether a row counts as deleted; ``None`` where that is not known."""
    if not keeps_marks(feed):
        return row.marked
    if grave.state is State.UNKNOWN:
        return None
    return grave.state is State.ROW and not _above(row.cursor, grave.cursor)


def rises(feeds: Sequence[Feed]) -> bool:
    """Tell whether the cursor of a key never falls in the table of these feeds: none deletes, the newest one wins."""
    return all(feed.cursor is not None and feed.deletes is None for feed in feeds)


def not_compared(feed: Feed) -> set[str]:
    """Return the fields that two records are not compared by: what comes from the file alone, and the number."""
    return {
        each.name
        for each in feed.fields
        if all(origin_of(path) is Origin.FILE for path in each.paths)
        or (each.paths == ((Origin.RECORD, "no"),) and not each.unit)
    }


def _above(value: Cursor | None, other: Cursor | None) -> bool:
    """Compare two cursors of a feed, both texts or both numbers."""
    return value > other  # type: ignore[operator] # of one type


class Rules:
    """The rules of one feed, over what is staged and what was derived before."""

    def __init__(self, feed: Feed, scratch: Scratch, *, fading: bool = False, rising: bool = False) -> None:
        """Take the feed.

        ``fading``: tombstones are removed when they are old, so where one stood the ledger says. ``rising``: the cursor
        of a key never falls (see ``rises``).
        """
        self._feed = feed
        self._scratch = scratch
        self._fading = fading
        self._rising = rising
        self._by_number = feed.cursor is None or feed.cursor_field.is_of_file
        self._alike = not_compared(feed)
        self.deleted: int | None = 0
        """Rows that go; ``None`` where it is not known whether some were there."""

    def decide(self, work: Work) -> None:
        """Say of each staged record what becomes of it."""
        self._scratch.restart()
        self.deleted = 0
        last = 0
        for one in self._scratch.staged():
            last = one.number
            skipped = work.watermark is not None and one.cursor is not None and not _above(one.cursor, work.watermark)
            if skipped or one.kind is Kind.REJECT:
                self._scratch.decide(one.number, LineageStep.SKIP if skipped else LineageStep.REJECT)
                continue
            append = self._feed.mode is Mode.APPEND
            self._scratch.decide(one.number, LineageStep.LOAD if append else LineageStep.STALE)
            if not append and not self._is_outdated(one):
                self._contend(one)
        for one in self._scratch.leaders():
            self._scratch.decide(one.number, self._outcome(one, work))
        if self._feed.mode is Mode.SNAPSHOT:
            self._find_absent(work, last)

    def skip(self) -> None:
        """Skip everything: the snapshot is older than what was applied."""
        self._scratch.restart()
        self.deleted = 0
        for one in self._scratch.staged():
            self._scratch.decide(one.number, LineageStep.SKIP)

    def _is_outdated(self, one: Staged) -> bool:
        """Tell whether a replayed record's key was applied after it was refused; only order says so in such a feed."""
        if not self._feed.ordered:
            return False
        row = self._scratch.top(ROWS, one.ident)
        return row.run != 0 and one.came is not None and (row.commit_no, row.number) > one.came

    def _contend(self, one: Staged) -> None:
        slot = int(keeps_marks(self._feed) and one.kind is Kind.DELETION)
        leader = self._scratch.leader(one.ident, slot)
        if leader is None or self._rank(one) > self._rank(leader):
            self._scratch.lead(one.ident, slot, one.number)

    def _rank(self, one: Staged) -> tuple[Cursor | int | bool, ...]:
        number = (one.number,) if self._by_number else ()
        return number if one.cursor is None else (one.cursor, one.kind is Kind.DELETION, *number)

    def _outcome(self, one: Staged, work: Work) -> LineageStep | None:
        """Say what becomes of the record that stands for its key; the ledger does where nobody knows what it meets."""
        row, grave = self._scratch.top(ROWS, one.ident), self._scratch.top(GRAVES, one.ident)
        buried = self._feed.deletes is not None and self._feed.cursor is not None
        deletes = one.kind is Kind.DELETION
        doubtful = grave.state is State.UNKNOWN or (self._fading and grave.state is State.ROW)
        if row.state is State.UNKNOWN or (buried and doubtful):
            recorded = self._scratch.lineage_of(one.number, one.key)
            if deletes and recorded is not LineageStep.STALE:
                self.deleted = None
            if recorded in {*_APPLIED, LineageStep.STALE}:
                return recorded
            return LineageStep.STALE if self._loses_anyway(one, row, work) else None
        if self._feed.cursor is None:
            alive = row.state is State.ROW and not row.marked
            applies = alive if deletes else not alive or self._differs(one, row)
        else:
            applies = self._is_newer(one, row, grave, work)
        if not applies:
            return LineageStep.STALE
        if deletes and self.deleted is not None and row.state is State.ROW and not is_marked(self._feed, row, grave):
            self.deleted += 1
        return LineageStep.DELETE if deletes else LineageStep.LOAD

    def _loses_anyway(self, one: Staged, row: Version, work: Work) -> bool:
        """Tell whether a record is stale whatever an unknown row is: its cursor is at least that of a record before."""
        if not self._rising or row.state is not State.UNKNOWN or row.cursor is None:
            return False
        return _above(row.cursor, one.cursor) or (row.cursor == one.cursor and not work.force)

    def _is_newer(self, one: Staged, row: Version, grave: Version, work: Work) -> bool:
        deletes, there = one.kind is Kind.DELETION, row.state is State.ROW
        above_row = not there or _above(one.cursor, row.cursor)
        if (deletes or work.force) and there and one.cursor == row.cursor:
            above_row = True
        if self._feed.deletes is None or (keeps_marks(self._feed) and not deletes):
            return above_row
        above_grave = grave.state is not State.ROW or _above(one.cursor, grave.cursor)
        if deletes and work.force and grave.state is State.ROW and one.cursor == grave.cursor:
            above_grave = True
        if deletes and keeps_marks(self._feed):
            upsert = self._scratch.leader(one.ident, 0)
            return above_row and above_grave and not (upsert and _above(upsert.cursor, one.cursor))
        return above_row and above_grave

    def _differs(self, one: Staged, row: Version) -> bool:
        old = row.values or {}
        return any(value != old.get(name) for name, value in one.values.items() if name not in self._alike)

    def _find_absent(self, work: Work, last: int) -> None:
        """Find the rows in scope that live, and of which the file has no record."""
        scope = dict(zip(self._feed.scope, work.scope or (), strict=False))
        for ident, row in self._scratch.tops(ROWS):
            if row.state is State.NONE or row.marked or self._scratch.leads(ident):
                continue
            if row.state is State.UNKNOWN:
                self.deleted = None
                continue
            if any((row.values or {}).get(name) != value for name, value in scope.items()):
                continue
            last += 1
            self._scratch.add_absent(last, ident)
            self.deleted = None if self.deleted is None else self.deleted + 1
        if self._scratch.base.state is State.UNKNOWN:
            self.deleted = None

    def apply(self, work: Work) -> Iterator[str]:
        """Let the records that apply do so; yield the keys of those."""
        for one in self._scratch.staged():
            if one.outcome is None:
                self._scratch.push(ROWS, one.ident, _version(work, one, State.UNKNOWN))
                self._scratch.doubt_key(self._feed.name, one.key)
            elif one.outcome is LineageStep.LOAD:
                self._load(work, one)
                yield one.key
            elif one.outcome is LineageStep.DELETE:
                self._delete(work, one)
                if one.kind is not Kind.ABSENT:
                    yield one.key
        if self._feed.cursor is None and self._scratch.unsure:
            self._learn(work)
        if self._feed.mode is Mode.UPSERT and self._feed.cursor is None:
            self._say_again(work)

    def _load(self, work: Work, one: Staged) -> None:
        old = self._scratch.top(ROWS, one.ident).values or {}
        self._scratch.push(ROWS, one.ident, _version(work, one, State.ROW, values={**old, **one.values}))

    def _delete(self, work: Work, one: Staged) -> None:
        row = self._scratch.top(ROWS, one.ident)
        if self._feed.cursor is not None and one.kind is Kind.DELETION:
            self._scratch.push(GRAVES, one.ident, _version(work, one, State.ROW))
        if keeps_marks(self._feed):
            return
        stays = (self._feed.absent or (self._feed.deletes and self._feed.deletes.then)) is Gone.MARK
        if not stays:
            self._scratch.push(ROWS, one.ident, _version(work, one, State.NONE))
        elif row.state is State.ROW:
            self._scratch.push(ROWS, one.ident, _version(work, one, State.ROW, marked=True, values=row.values))
        else:
            self._scratch.push(ROWS, one.ident, _version(work, one, State.UNKNOWN))

    def _say_again(self, work: Work) -> None:
        """Note what files say of rows that are so already: without the run before, it would be theirs."""
        for one in self._scratch.leaders():
            if one.outcome is LineageStep.STALE and one.came is None:
                marks, deletes = self._feed.deletes, one.kind is Kind.DELETION
                stays = not deletes or (marks is not None and marks.then is Gone.MARK)
                values = {**(self._scratch.top(ROWS, one.ident).values or {}), **one.values}
                version = _version(work, one, State.ROW if stays else State.NONE, marked=deletes, values=values)
                self._scratch.push(ROWS, one.ident, version, again=True)

    def _learn(self, work: Work) -> None:
        """Learn what unknown rows are from records that were stale: they are equal to what they met."""
        for one in self._scratch.leaders():
            equal = one.kind is Kind.ROW and one.outcome is LineageStep.STALE
            if equal and self._scratch.top(ROWS, one.ident).state is State.UNKNOWN:
                version = Version(0, work.commit_no, one.number, State.ROW, values=one.values)
                self._scratch.push(ROWS, one.ident, version)
        if self._feed.mode is Mode.SNAPSHOT and not self._feed.scope and self._feed.absent is Gone.REMOVE:
            if work.skipped:
                return
            for ident, row in self._scratch.tops(ROWS):
                if row.state is State.UNKNOWN and not self._scratch.leads(ident):
                    self._scratch.push(ROWS, ident, Version(0, work.commit_no, 0, State.NONE))
            self._scratch.base = NOTHING


def _version(
    work: Work, one: Staged, state: State, *, marked: bool = False, values: dict[str, Scalar] | None = None
) -> Version:
    return Version(work.run, work.commit_no, one.number, state, one.cursor, marked, values)
