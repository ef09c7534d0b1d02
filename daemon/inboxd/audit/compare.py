"""What was derived, compared with what the database has, on one consistent view of it."""

from __future__ import annotations

from collections.abc import Sequence

from inboxd.audit.check import Kept
from inboxd.audit.ledger import Ledger, TableRow
from inboxd.audit.report import TableReport
from inboxd.audit.rules import ident_of, is_marked, not_compared, rises
from inboxd.audit.scratch import Scratch
from inboxd.audit.versions import GRAVES, ROWS, State, Version
from inboxd.model import Cursor, Feed, Mode


def compare(
    feeds: Sequence[Feed], ledger: Ledger, scratch: Scratch, report: TableReport, kept: Kept, doubtful: set[str]
) -> None:
    """Compare rows, tombstones, watermarks, and who resolved which dead letter.

    ``doubtful`` are the feeds of which a run with a scope is not proved.
    """
    comparison = _Comparison(feeds, ledger, scratch, report, doubtful)
    comparison.rows()
    comparison.tombstones(kept)
    comparison.watermarks()
    comparison.dead_letters()


class _Comparison:
    def __init__(
        self, feeds: Sequence[Feed], ledger: Ledger, scratch: Scratch, report: TableReport, doubtful: set[str]
    ) -> None:
        self._feeds = feeds
        self._doubtful = doubtful
        self._feed = feeds[0]
        self._ledger = ledger
        self._scratch = scratch
        self._report = report

    def _file_of(self, run_id: int) -> str | None:
        run = self._ledger.run(run_id) if run_id else None
        return None if run is None else run.file_name

    def rows(self) -> None:
        for row in self._ledger.table_rows(self._feeds):
            self._report.rows += 1
            ident = ident_of(self._feed, row.values, row.run, row.number)
            self._scratch.see(ROWS, ident)
            self._row(ident, row, self._scratch.top(ROWS, ident))
        for ident, version in self._scratch.unseen(ROWS):
            what = f"run {version.run} wrote the row, and it is not there" if version.run else "its row is not there"
            file = self._file_of(version.run)
            self._report.differs("row_missing", what, key=ident, run=version.run or None, file=file)

    def _row(self, ident: str, row: TableRow, derived: Version) -> None:
        append = self._feed.mode is Mode.APPEND
        proven = self._scratch.is_proven(row.run)
        if derived.state is State.UNKNOWN or (append and derived.state is State.NONE and proven is False):
            if proven is False or row.run == derived.run or self._may_be_of(row.run, derived):
                self._report.rows_unproven += 1
                return
            what = f"it says that run {row.run} wrote it, which is not so by that run's file"
            self._report.differs("row_unexpected", what, key=ident, run=row.run, file=self._file_of(row.run))
        elif derived.state is State.NONE:
            what = "there is a row, and by the files there is none"
            self._report.differs("row_unexpected", what, key=ident, run=row.run, file=self._file_of(row.run))
        else:
            self._values(ident, row, derived)

    def _may_be_of(self, run_id: int, derived: Version) -> bool:
        """Tell whether a row may be of an earlier run than the last that says something of its key.

        All that came before a run of which not even the keys are known is forgotten. The last may have said the same
        again, or lost to a tombstone: only where the cursor rises has it written the row, or a run that is not proved.
        """
        said = derived.commit_no if derived.run == 0 or not rises(self._feeds) else 0
        run = self._ledger.run(run_id)
        return run is not None and (run.commit_no or 0) < max(said, self._scratch.base.commit_no)

    def _values(self, ident: str, row: TableRow, derived: Version) -> None:
        wrong: list[str] = []
        known = derived.values or {}
        alike = not_compared(self._feed) if not derived.run else set()
        for name, value in row.values.items():
            if value != known.get(name) and name not in alike:
                wrong.append(f"{name} is {_shown(value)}, and by its file {_shown(known.get(name))}")
        if derived.run not in {0, row.run}:
            wrong.append(f"it says run {row.run}, and by the files run {derived.run} wrote it")
        marked = is_marked(self._feed, derived, self._scratch.top(GRAVES, ident))
        if marked is not None and marked != row.marked:
            wrong.append(f"it is {'' if row.marked else 'not '}marked as deleted, and by the files it is the other way")
        if wrong:
            run = derived.run or row.run
            self._report.differs("row_changed", "; ".join(wrong), key=ident, run=run, file=self._file_of(run))

    def tombstones(self, kept: Kept) -> None:
        if self._feed.deletes is None or self._feed.cursor is None:
            return
        for key, cursor, run in self._ledger.tombstones(self._feed.table):
            self._report.tombstones += 1
            self._scratch.see(GRAVES, key)
            derived = self._scratch.top(GRAVES, key)
            if derived.state is State.NONE:
                what = f"run {run} left a tombstone, and by the files there is none"
                self._report.differs("tombstone", what, key=key, run=run, file=self._file_of(run))
            elif derived.state is State.ROW and (cursor, run) != (str(derived.cursor), derived.run):
                what = f"it is of run {run} ({cursor}), and by the files of run {derived.run} ({derived.cursor})"
                self._report.differs("tombstone", what, key=key, run=derived.run, file=self._file_of(derived.run))
        if kept.tombstones is not None:
            return
        for key, version in self._scratch.unseen(GRAVES):
            what = f"run {version.run} left a tombstone, and it is not there"
            self._report.differs("tombstone", what, key=key, run=version.run, file=self._file_of(version.run))

    def watermarks(self) -> None:
        there = {row.name: row for row in self._ledger.watermarks()}
        for feed in self._feeds:
            for name in self._scratch.names(feed.name):
                derived, row = self._scratch.reached(name), there.pop(name, None)
                if derived is None:
                    continue
                if row is not None and row.run_id is None:
                    self._report.notes.append(f"the watermark of {name} was set by hand")
                elif (row.value if row else None) != str(derived) and not (
                    row and self._is_in_doubt(feed, row.value, derived)
                ):
                    value = row.value if row else "not there"
                    what = f"the watermark of {name} is {value}, and by the files {derived}"
                    hint = "" if row else " (unless somebody reset it)"
                    self._report.differs("watermark", what + hint, run=row.run_id if row else None)
            for name in [name for name in there if name == feed.name or name.startswith(f"{feed.name} [")]:
                row = there.pop(name)
                if row.run_id is not None and self._scratch.is_proven(row.run_id) is not False:
                    what = f"the watermark of {name} is {row.value}, and by the files there is none"
                    self._report.differs("watermark", what, run=row.run_id, file=self._file_of(row.run_id))

    def _is_in_doubt(self, feed: Feed, value: str, derived: Cursor) -> bool:
        """Tell whether a run of which nothing is proved may have brought a scope further than is known."""
        return feed.name in self._doubtful and (int(value) if isinstance(derived, int) else value) > derived  # type: ignore[operator] # of one type

    def dead_letters(self) -> None:
        for run, number, key, resolved_by in self._ledger.all_dead_letters(self._feeds):
            found = self._scratch.dead_letter(run, number)
            if found is None or not found[1] or resolved_by == 0 or resolved_by == found[0]:
                continue
            said = "open" if resolved_by is None else f"resolved by run {resolved_by}"
            true = "open" if found[0] is None else f"resolved by run {found[0]}"
            what = f"that of record {number} is {said}, and by the files {true}"
            self._report.differs("dead_letter_resolved", what, key=key, run=run, file=self._file_of(run))


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"  # noqa: PLR2004 - as much as a line has room for
