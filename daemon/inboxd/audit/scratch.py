"""What was derived so far, in a scratch file: memory stays flat however large the table is.

A key's row is a stack of versions, each by one run: an undo takes its run's version out, wherever it is, and what is on
top is the row. A marked one has the values of that below. One that says *again* what is so already counts from when the
version below is taken out. Of a key that was met before the audit could begin, or that a run changed whose file is
gone, the top is *unknown*.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from inboxd.audit.judge import Kind, Verdict
from inboxd.audit.versions import NOTHING, Staged, State, Version, staged_of, version_of
from inboxd.model import Cursor
from inboxd.outcomes import UNREADABLE_KEY, LineageStep
from inboxd.store.base import RunRow

_TABLES: Final = """
CREATE TABLE versions (kind TEXT, ident TEXT, place INTEGER, run INTEGER, commit_no INTEGER, number INTEGER, state TEXT,
    cursor, marked INTEGER, content TEXT, again INTEGER, PRIMARY KEY (kind, ident, place)) WITHOUT ROWID;
CREATE TABLE staged (number INTEGER PRIMARY KEY, kind TEXT, ident TEXT, record_key TEXT, cursor, code TEXT, raw TEXT,
    content TEXT, came_commit INTEGER, came_number INTEGER, outcome TEXT);
CREATE INDEX staged_by_ident ON staged (ident);
CREATE TABLE best (ident TEXT, slot INTEGER, number INTEGER, PRIMARY KEY (ident, slot)) WITHOUT ROWID;
CREATE TABLE dead_letters (run INTEGER, number INTEGER, feed TEXT, record_key TEXT, resolved_by INTEGER, sure INTEGER,
    PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE INDEX dead_letters_of_key ON dead_letters (feed, record_key);
CREATE TABLE marks (name TEXT, run INTEGER, value, PRIMARY KEY (name, run)) WITHOUT ROWID;
CREATE INDEX marks_by_value ON marks (name, value);
CREATE TABLE lineage (number INTEGER, record_key TEXT, outcome TEXT, PRIMARY KEY (number, record_key)) WITHOUT ROWID;
CREATE INDEX lineage_of_key ON lineage (record_key);
CREATE TABLE seen (kind TEXT, ident TEXT, PRIMARY KEY (kind, ident)) WITHOUT ROWID;
CREATE TABLE runs (id INTEGER PRIMARY KEY, feed TEXT, commit_no INTEGER, proven INTEGER, content TEXT,
    ended_by INTEGER);
CREATE INDEX runs_that_stand ON runs (feed, content) WHERE ended_by IS NULL;
"""
_VERSION: Final = "SELECT ident, place, run, commit_no, number, state, cursor, marked, content FROM versions"
_TOP: Final = f"{_VERSION} WHERE kind = ? AND ident = ? AND NOT again ORDER BY place DESC LIMIT 1"
_NEXT_TOP: Final = f"{_VERSION} WHERE kind = ? AND ident > ? AND NOT again ORDER BY ident, place DESC LIMIT 1"
_BELOW: Final = f"{_VERSION} WHERE kind = ? AND ident = ? AND NOT again AND NOT marked ORDER BY place DESC LIMIT 1"

_NEXT_OF_KEY: Final = (
    "SELECT v.run, v.state FROM versions AS v JOIN runs AS r ON r.id = v.run JOIN runs AS mine "
    "ON mine.feed = r.feed AND mine.commit_no < r.commit_no "
    "WHERE v.kind IN ('row', 'tombstone') AND v.ident = ? AND NOT v.again AND mine.id = ? ORDER BY r.commit_no LIMIT 1"
)
"""The next run of a run's feed that has made something of a key."""


class Scratch:
    """The derived state of one table. ``history``: a run will be undone, so older versions are kept."""

    def __init__(self, folder: Path, *, history: bool) -> None:
        self._file = folder / "audit.db"
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        self.history = history
        self.base = NOTHING
        """What a key is of which there is no version."""
        self._any_unknown = False
        self._run("PRAGMA journal_mode = OFF")
        self._run("PRAGMA synchronous = OFF")
        self._connection.executescript(_TABLES)
        if history:
            self._run("CREATE INDEX versions_of_run ON versions (run)")

    def close(self) -> None:
        """Let go of the file, and remove it."""
        self._connection.close()
        self._file.unlink()

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _one(self, statement: str, *values: object) -> tuple[object, ...] | None:
        found: tuple[object, ...] | None = self._run(statement, *values).fetchone()
        return found

    def _count(self, statement: str, *values: object) -> int:
        found = self._one(statement, *values)
        return 0 if found is None else int(str(found[0] or 0))

    # The records of one run

    def stage(self, verdict: Verdict, ident: str, came: tuple[int, int] | None = None) -> None:
        """Take one judged record of the run at hand."""
        about = (verdict.number, verdict.kind.value, ident, verdict.key, verdict.cursor, verdict.code)
        raw = verdict.raw if verdict.kind is Kind.REJECT else ""
        more = (raw, json.dumps(verdict.values), *(came or (None, None)))
        self._run("INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", *about, *more)

    def clear(self) -> None:
        """Forget the run before."""
        self._run("DELETE FROM lineage")
        self.unstage()

    def unstage(self) -> None:
        """Forget the records of the run."""
        self._run("DELETE FROM staged")
        self._run("DELETE FROM best")

    def staged(self, kind: Kind | None = None) -> Iterator[Staged]:
        """Yield the records in file order, all or those of a kind; what is decided meanwhile does no harm."""
        last = -1
        statement = "SELECT * FROM staged WHERE number > ? AND kind = COALESCE(?, kind) ORDER BY number LIMIT 1"
        while row := self._one(statement, last, kind):
            found = staged_of(row)
            last = found.number
            yield found

    def record(self, number: int) -> Staged | None:
        """Return one record."""
        row = self._one("SELECT * FROM staged WHERE number = ?", number)
        return None if row is None else staged_of(row)

    def furthest(self) -> Cursor | None:
        """Return the largest cursor of the records that apply."""
        row = self._one("SELECT MAX(cursor) FROM staged WHERE outcome IN ('load', 'delete')")
        value = None if row is None else row[0]
        return value if isinstance(value, int | str) else None

    def absent_count(self) -> int:
        """Return how many keys a snapshot has not."""
        return self._count("SELECT COUNT(*) FROM staged WHERE kind = ?", Kind.ABSENT)

    def is_absent(self, ident: str) -> bool:
        """Tell whether a key is one of those that a snapshot has not."""
        return self._one("SELECT 1 FROM staged WHERE kind = ? AND ident = ?", Kind.ABSENT, ident) is not None

    def any_future(self) -> bool:
        """Tell whether a record was refused for its time."""
        return self._one("SELECT 1 FROM staged WHERE code LIKE 'future%' LIMIT 1") is not None

    def decide(self, number: int, outcome: LineageStep | None) -> None:
        """Say what becomes of a record."""
        self._run("UPDATE staged SET outcome = ? WHERE number = ?", outcome, number)

    def restart(self) -> None:
        """Let nothing be decided yet of the run's records."""
        self._run("DELETE FROM best")
        self._run("DELETE FROM staged WHERE kind = ?", Kind.ABSENT)
        self._run("UPDATE staged SET outcome = NULL")

    def add_absent(self, number: int, ident: str) -> None:
        """Note a key that a snapshot has not, numbered after the file's last record."""
        about = (number, Kind.ABSENT.value, ident, ident, LineageStep.DELETE.value)
        self._run("INSERT INTO staged VALUES (?, ?, ?, ?, NULL, '', '', '{}', NULL, NULL, ?)", *about)

    def counts(self) -> dict[str | None, int]:
        """Return how many of the records became what."""
        found = self._run("SELECT outcome, COUNT(*) FROM staged GROUP BY 1")
        return {outcome: int(number) for outcome, number in found}

    def lead(self, ident: str, slot: int, number: int) -> None:
        """Let a record be the one that stands for its key."""
        self._run("INSERT OR REPLACE INTO best VALUES (?, ?, ?)", ident, slot, number)

    def leader(self, ident: str, slot: int) -> Staged | None:
        """Return the record that stands for a key so far."""
        statement = "SELECT s.* FROM best AS b JOIN staged AS s ON s.number = b.number WHERE b.ident = ? AND b.slot = ?"
        row = self._one(statement, ident, slot)
        return None if row is None else staged_of(row)

    def leaders(self) -> Iterator[Staged]:
        """Yield the records that stand, in file order."""
        last = -1
        statement = (
            "SELECT s.* FROM staged AS s WHERE s.number > ? AND EXISTS "
            "(SELECT 1 FROM best AS b WHERE b.ident = s.ident AND b.number = s.number) ORDER BY s.number LIMIT 1"
        )
        while row := self._one(statement, last):
            found = staged_of(row)
            last = found.number
            yield found

    def leads(self, ident: str) -> bool:
        """Tell whether any record of the run has the key."""
        return self._one("SELECT 1 FROM best WHERE ident = ?", ident) is not None

    # What the ledger tells of the run

    def tell(self, number: int, key: str, outcome: LineageStep) -> None:
        """Take a line of the run's lineage as the database has it."""
        self._run("INSERT OR REPLACE INTO lineage VALUES (?, ?, ?)", number, key, outcome)

    def lineage_of(self, number: int, key: str) -> LineageStep | None:
        """Return what the database says became of a record."""
        row = self._one("SELECT outcome FROM lineage WHERE number = ? AND record_key = ?", number, key)
        return None if row is None else LineageStep(str(row[0]))

    def lineage_of_key(self, key: str) -> LineageStep | None:
        """Return what the database says became of a key, whatever the number."""
        row = self._one("SELECT outcome FROM lineage WHERE record_key = ? ORDER BY number DESC LIMIT 1", key)
        return None if row is None else LineageStep(str(row[0]))

    def lineage_count(self) -> int:
        """Return how many lines the database has."""
        return self._count("SELECT COUNT(*) FROM lineage")

    def lineage_keys(self, *outcomes: LineageStep) -> Iterator[str]:
        """Yield the keys of which the database says one of these."""
        chosen = ", ".join(f"'{one.value}'" for one in outcomes)
        found = self._run(f"SELECT DISTINCT record_key FROM lineage WHERE outcome IN ({chosen})")  # noqa: S608 - our words
        yield from (str(key) for (key,) in found)

    def lineage_beyond(self) -> Iterator[tuple[int, str, LineageStep]]:
        """Yield the lines of the database that no record of the file explains; not those of absent keys."""
        statement = (
            "SELECT number, record_key, outcome FROM lineage AS t WHERE NOT EXISTS "
            "(SELECT 1 FROM staged AS s WHERE s.number = t.number AND s.record_key = t.record_key)"
        )
        for number, key, outcome in self._run(statement).fetchall():
            yield int(number), str(key), LineageStep(outcome)

    # Rows and tombstones

    def top(self, kind: str, ident: str) -> Version:
        """Return what a key's row or tombstone is now."""
        row = self._one(_TOP, kind, ident)
        return self.base if row is None else self._unmarked(kind, *version_of(row))

    def _unmarked(self, kind: str, ident: str, version: Version) -> Version:
        """Give a row that is marked the values of what was marked, which an undo may have changed since."""
        if not version.marked or not self.history:
            return version
        row = self._one(_BELOW, kind, ident)
        below = self.base if row is None else version_of(row)[1]
        return replace(version, state=below.state, values=below.values)

    def push(self, kind: str, ident: str, version: Version, *, again: bool = False) -> None:
        """Let a run make something new of a key; or (``again``) say what is so already."""
        if again and not self.history:
            return
        self._any_unknown = self._any_unknown or version.state is State.UNKNOWN
        place = 0
        if self.history:
            statement = "SELECT COALESCE(MAX(place), 0) + 1 FROM versions WHERE kind = ? AND ident = ?"
            place = self._count(statement, kind, ident)
        content = None if version.values is None else json.dumps(version.values)
        about = (version.run, version.commit_no, version.number, version.state, version.cursor, version.marked, content)
        row = (kind, ident, place, *about, again)
        self._run("INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)

    def take_out(self, run: int) -> tuple[int, int]:
        """Take a run's versions out; return of how many keys, and of how many of them they were the last word.

        Where the next one up says the same again, it counts from here on.
        """
        keys = self._count("SELECT COUNT(DISTINCT ident) FROM versions WHERE run = ? AND NOT again", run)
        of_rows = (
            "SELECT COUNT(*) FROM versions AS v WHERE run = ? AND NOT again "
            "AND place = (SELECT MAX(place) FROM versions AS w WHERE w.kind = v.kind AND w.ident = v.ident) "
            "AND (kind = 'row' OR NOT EXISTS "
            "(SELECT 1 FROM versions AS w WHERE w.run = v.run AND w.kind = 'row' AND w.ident = v.ident))"
        )
        last = self._count(of_rows, run)
        self._run(
            "UPDATE versions SET again = 0 WHERE again AND (kind, ident, place) IN (SELECT v.kind, v.ident, "
            "(SELECT MIN(place) FROM versions AS w WHERE w.kind = v.kind AND w.ident = v.ident AND w.place > v.place) "
            "FROM versions AS v WHERE v.run = ? AND NOT v.again)",
            run,
        )
        self._run("DELETE FROM versions WHERE run = ?", run)
        return keys, last

    @property
    def unsure(self) -> bool:
        """Whether there may be a key of which nothing is known."""
        return self._any_unknown or self.base.state is State.UNKNOWN

    def forget(self, commit_no: int) -> None:
        """Let every key be unknown from this run on."""
        self.base = Version(0, commit_no, 0, State.UNKNOWN)
        self._run("DELETE FROM versions")

    def tops(self, kind: str) -> Iterator[tuple[str, Version]]:
        """Yield each key with what it is now, in the order of keys."""
        ident = ""
        while row := self._one(_NEXT_TOP, kind, ident):
            ident, version = version_of(row)
            yield ident, self._unmarked(kind, ident, version)

    def see(self, kind: str, ident: str) -> None:
        """Note that the database has a key."""
        self._run("INSERT OR IGNORE INTO seen VALUES (?, ?)", kind, ident)

    def unseen(self, kind: str) -> Iterator[tuple[str, Version]]:
        """Yield the keys that have a row, or a tombstone, which the database has not."""
        for ident, version in self.tops(kind):
            missing = version.state is State.ROW and not self._one(
                "SELECT 1 FROM seen WHERE kind = ? AND ident = ?", kind, ident
            )
            if missing:
                yield ident, version

    # Runs, dead letters, watermarks

    def note_run(self, run: RunRow, *, proven: bool) -> None:
        """Note that a run was gone through, and whether its file proves it.

        It ends the run that it undoes, or that had loaded its content: what that one had refused comes again.
        """
        loaded = run.content_sha256 is not None and run.duplicate_of is None
        content = f"{run.content_sha256} {run.variant}" if loaded else None
        about = (run.id, run.job_name, run.commit_no, proven, content)
        same = "SELECT id FROM runs WHERE feed = ? AND content = ? AND ended_by IS NULL AND id <> ?"
        ended = [int(str(row[0])) for row in self._run(same, run.job_name, content, run.id).fetchall()]
        for other in [*ended, *([] if run.undo_of is None else [run.undo_of])]:
            self._run("UPDATE runs SET ended_by = ? WHERE id = ?", run.id, other)
            self._run("UPDATE dead_letters SET resolved_by = ? WHERE run = ? AND resolved_by IS NULL", run.id, other)
        self._run("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, NULL)", *about)

    def is_proven(self, run: int) -> bool | None:
        """Tell whether all that a run did was derived from its file; ``None``: it is no run of the table."""
        row = self._one("SELECT proven FROM runs WHERE id = ?", run)
        return None if row is None else bool(row[0])

    def add_dead_letter(self, run: int, number: int, feed: str, key: str, *, sure: bool = True) -> None:
        """Note a dead letter; ``sure``: who resolves it is known from here on."""
        self._run("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, NULL, ?)", run, number, feed, key, sure)

    def resolve_key(self, run: int, feed: str, key: str) -> None:
        """Resolve the open dead letters of a key by a run that applied it; those of none that can be read stay."""
        statement = (
            "UPDATE dead_letters SET resolved_by = ? "
            "WHERE feed = ? AND record_key = ? AND record_key <> ? AND run <> ? AND resolved_by IS NULL"
        )
        self._run(statement, run, feed, key, UNREADABLE_KEY, run)

    def resolve_dead_letter(self, by: int, run: int, number: int) -> None:
        """Resolve one dead letter: it was replayed."""
        self._run("UPDATE dead_letters SET resolved_by = ? WHERE run = ? AND number = ?", by, run, number)

    def doubt_key(self, feed: str, key: str) -> None:
        """Let nobody say any more who resolved the open dead letters of a key: perhaps the run at hand applied it."""
        statement = "UPDATE dead_letters SET sure = 0 WHERE feed = ? AND record_key = ? AND resolved_by IS NULL"
        self._run(statement, feed, key)

    def doubt_dead_letters(self, feed: str) -> None:
        """Let nobody say any more who resolved the open dead letters of a feed."""
        self._run("UPDATE dead_letters SET sure = 0 WHERE feed = ? AND resolved_by IS NULL", feed)

    def undo_dead_letters(self, run: int, by: int, *, by_key: bool) -> None:
        """Say who has resolved the dead letters now that a run had resolved which is undone; most are open again.

        ``by_key``: unless a later run has applied their key. Those of a run that was ended itself do not open again. To
        be called when the run's versions are taken out, and before ``note_run`` of the undo.
        """
        passed_on = (
            "UPDATE dead_letters SET resolved_by = "
            "(SELECT CASE ended_by WHEN ?1 THEN ?2 ELSE ended_by END FROM runs AS r WHERE r.id = dead_letters.run) "
            "WHERE resolved_by = ?1 AND run IN (SELECT id FROM runs WHERE ended_by IS NOT NULL)"
        )
        self._run(passed_on, run, by)
        had = self._run("SELECT run, number, record_key FROM dead_letters WHERE resolved_by = ?", run).fetchall()
        for of_run, number, key in had:
            found = self._one(_NEXT_OF_KEY, key, run) if by_key and key != UNREADABLE_KEY else None
            other, state = found or (None, State.ROW)
            statement = "UPDATE dead_letters SET resolved_by = ?, sure = sure AND ? WHERE run = ? AND number = ?"
            self._run(statement, other, state != State.UNKNOWN, of_run, number)

    def dead_letter(self, run: int, number: int) -> tuple[int | None, bool] | None:
        """Return which run resolved a dead letter, and whether that is sure; ``None`` if there is no such letter."""
        row = self._one("SELECT resolved_by, sure FROM dead_letters WHERE run = ? AND number = ?", run, number)
        return None if row is None else (None if row[0] is None else int(str(row[0])), bool(row[1]))

    def mark(self, name: str, run: int, value: Cursor) -> None:
        """Note that a run reached so far."""
        self._run("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", name, run, value)

    def unmark(self, run: int) -> None:
        """Forget what a run reached."""
        self._run("DELETE FROM marks WHERE run = ?", run)

    def reached(self, name: str) -> Cursor | None:
        """Return how far the runs that stand have reached."""
        row = self._one("SELECT MAX(value) FROM marks WHERE name = ?", name)
        value = None if row is None else row[0]
        return value if isinstance(value, int | str) else None

    def names(self, feed: str) -> Iterator[str]:
        """Yield the names of a feed's watermarks."""
        statement = "SELECT DISTINCT name FROM marks WHERE name = ? OR substr(name, 1, ?) = ?"
        yield from (str(name) for (name,) in self._run(statement, feed, len(feed) + 2, f"{feed} ["))

    def dead_letters_without(self, run: int) -> Iterator[Staged]:
        """Yield the refused records of the run at hand that have no dead letter."""
        statement = (
            "SELECT * FROM staged AS s WHERE kind = ? AND outcome = 'reject' AND NOT EXISTS "
            "(SELECT 1 FROM dead_letters AS l WHERE l.run = ? AND l.number = s.number)"
        )
        yield from map(staged_of, self._run(statement, Kind.REJECT, run))
