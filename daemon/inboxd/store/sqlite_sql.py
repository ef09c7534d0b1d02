"""The statements of a file's transaction on SQLite, written once per feed.

What was staged lies in sorted *runs*, tables ``WITHOUT ROWID`` keyed by (key, record number). They are applied in
*slices* of the key's range, which walks the target's tree in key order, once, and keeps memory flat: SQLite's sorter
keeps everything in memory in the build that pysqlite3 ships (TEMP_STORE=3), and so does a statement that changes a
table with every page's former content. A slice is sorted, not merged: merging hundreds of runs takes longer.

``winners`` is needed only where two records of a file meet, or one meets a newer row: per key the record that a
record-by-record application would leave standing, the first in the file among those with the highest cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from inboxd import fieldtypes
from inboxd.model import EXTRA_COLUMN, RECORD_KEY_COLUMN, RECORD_NO_COLUMN, Feed, FieldType
from inboxd.store.feed_tables import OWN_COLUMNS, quoted

TYPES: Final = {kind: facts.sqlite for kind, facts in fieldtypes.TYPES.items()}

PARAMETERS_AT_ONCE: Final = 256
"""Values bound in one staging INSERT: with 50 rows of five, staging a million took 0.9 s, row by row 1.2 s."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which staged records a statement reads: of some sorted runs, first to last, all or a slice of the keys.

    The slice's ends, above ``low`` and up to ``high``, are bound as ``:low0 …`` and ``:high0 …`` where they are set.
    An end is a key; or, ``numbered``, a record's key and number: of one key there may be more records than fit into
    memory.
    """

    first: int
    last: int
    low: bool = False
    high: bool = False
    numbered: bool = False


class FeedSql:
    """One feed's statements. ``slot`` keeps the staging tables of feeds apart, so that no file needs DDL."""

    def __init__(self, feed: Feed, slot: int) -> None:
        self.feed = feed
        self.columns = feed.row_columns
        self.rows_at_once = max(1, PARAMETERS_AT_ONCE // len(self.columns))
        self.key_places = tuple(map(self.columns.index, feed.key))
        self.order_places = (*self.key_places, self.columns.index(RECORD_NO_COLUMN))
        self.rejects = f"scratch.staged_rejects_{slot}"
        self.winners = f"scratch.winners_{slot}"
        self._slot = slot
        self._types = {field.name: TYPES[field.type] for field in feed.fields}
        self._types.setdefault(EXTRA_COLUMN, TYPES[FieldType.JSON])
        self._types |= {RECORD_KEY_COLUMN: "TEXT", RECORD_NO_COLUMN: "INTEGER"}
        self._target = quoted(feed.table)
        self._cursor = quoted(feed.cursor_name)
        self._record_key = quoted(feed.record_key_column)
        self._list = ", ".join(map(quoted, self.columns))
        self.empty_first_run = f"DELETE FROM {self.run_table(1)}"
        self.advance = self._advance()
        # Each is asked for with the same few arguments for every file, so each text is built once.
        self.stage: Callable[[int, int], str] = lru_cache(8)(self._stage)
        self.upsert: Callable[[Part, bool, bool], str] = lru_cache(8)(self._upsert)
        self.lineage: Callable[[Part, bool], str] = lru_cache(8)(self._lineage)

    def _advance(self) -> str:
        """Raise the watermark. An integer's text is compared as a number."""
        kind = "INTEGER" if self.feed.cursor_field.type is FieldType.INTEGER else "TEXT"
        return (
            "INSERT INTO main.watermarks AS w (name, value, run_id, updated_at) VALUES (:feed, :reached, :run, :now) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value, run_id = excluded.run_id, "
            f"updated_at = excluded.updated_at WHERE CAST(excluded.value AS {kind}) > CAST(w.value AS {kind})"
        )

    def run_table(self, number: int) -> str:
        """Return the name of a sorted run; the first is number 1."""
        return f"scratch.staging_{self._slot}_{number}"

    def create_run(self, number: int) -> str:
        """Return the table of one sorted run."""
        columns = ", ".join(f"{quoted(name)} {self._types[name]}" for name in self.columns)
        key = ", ".join(map(quoted, (*self.feed.key, RECORD_NO_COLUMN)))
        return f"CREATE TABLE {self.run_table(number)} ({columns}, PRIMARY KEY ({key})) WITHOUT ROWID"

    def create_rejects(self) -> str:
        """Return the table of the staged rejects; its cursor column keeps whatever type it is given."""
        columns = "record_no INTEGER PRIMARY KEY, raw TEXT, record_key TEXT, cursor, code TEXT, detail TEXT"
        return f"CREATE TABLE {self.rejects} ({columns})"

    def create_winners(self) -> str:
        """Return the table of the winners."""
        keys = [f"k{i} {self._types[name]} NOT NULL" for i, name in enumerate(self.feed.key)]
        columns = f"{', '.join(keys)}, cursor {self._types[self.feed.cursor_name]}, record_key TEXT, record_no INTEGER"
        return f"CREATE TABLE {self.winners} ({columns}, PRIMARY KEY ({self._winner_key()})) WITHOUT ROWID"

    def _stage(self, number: int, rows: int) -> str:
        """Insert rows. What fails is rolled back with its transaction, so no statement has to be undone alone.

        SQLite keeps no journal for a statement that may end half-done: a million rows then take a sixth less.
        """
        marks = f"({', '.join('?' * len(self.columns))})"
        return f"INSERT OR FAIL INTO {self.run_table(number)} VALUES {', '.join([marks] * rows)}"

    def stage_rejects(self) -> str:
        """Insert the fields of a ``Reject``."""
        return (
            f"INSERT INTO {self.rejects} (record_no, raw, record_key, cursor, code, detail) VALUES (?, ?, ?, ?, ?, ?)"
        )

    def source(self, part: Part, columns: Sequence[str] = ()) -> str:
        """Return staged records as a table expression, in no order if there are several runs."""
        wanted = dict.fromkeys((*columns, *self.feed.key, RECORD_NO_COLUMN))
        chosen, where = ", ".join(map(quoted, wanted)) if columns else "*", self._bounds(part)
        runs = range(part.first, part.last + 1)
        if len(runs) == 1 and not where:
            return f"{self.run_table(part.first)} AS s"
        selects = " UNION ALL ".join(f"SELECT {chosen} FROM {self.run_table(number)}{where}" for number in runs)
        return f"({selects}) AS s"

    def _in_order(self, part: Part) -> str:
        """Return the clause that puts the records of a part into key order; a run alone has it.

        The unary plus keeps SQLite from merging.
        """
        if part.first == part.last:
            return ""
        return f"ORDER BY {', '.join(f'+s.{quoted(name)}' for name in (*self.feed.key, RECORD_NO_COLUMN))}"

    def _bounds(self, part: Part) -> str:
        names = (*self.feed.key, RECORD_NO_COLUMN) if part.numbered else self.feed.key
        bounds = [
            f"({', '.join(map(quoted, names))}) {operator} ({', '.join(f':{end}{i}' for i in range(len(names)))})"
            for end, operator, wanted in (("low", ">", part.low), ("high", "<=", part.high))
            if wanted
        ]
        return f" WHERE {' AND '.join(bounds)}" if bounds else ""

    def _upsert(self, part: Part, skipping: bool, force: bool) -> str:  # noqa: FBT001 - lru_cache's keys
        """Apply each key's first hit. It counts as many changes as records exactly if no two of them met."""
        where = f"s.{self._cursor} > :watermark" if skipping else "TRUE"
        newer = f"excluded.{self._cursor} {'>=' if force else '>'} t.{self._cursor}"
        return (
            f"{self._insert_select()} FROM {self.source(part)} WHERE {where} {self._in_order(part)} "
            f"{self._on_conflict(f'{newer} AND t.run_id IS NOT :run')}"
        )

    def upsert_winners(self, part: Part, *, force: bool) -> str:
        """Apply the winners that are newer than the row they meet."""
        newer = f"excluded.{self._cursor} {'>=' if force else '>'} t.{self._cursor}"
        return (
            f"{self._insert_select()} FROM {self.source(part)} CROSS JOIN {self.winners} AS w "
            f"WHERE {self._is_winner_of('s')} AND w.record_no = s.record_no {self._in_order(part)} "
            f"{self._on_conflict(newer)}"
        )

    def find_winners(self, part: Part, *, skipping: bool) -> str:
        """Keep each key's first record with the highest cursor; parts are given in file order."""
        names = (*self.feed.key, self.feed.cursor_name, self.feed.record_key_column)
        keys = ", ".join(f"s.{quoted(name)}" for name in self.feed.key)
        where = f"s.{self._cursor} > :watermark" if skipping else "TRUE"
        return (
            f"INSERT INTO {self.winners} AS w SELECT {keys}, s.{self._cursor}, s.{self._record_key}, s.record_no "
            f"FROM {self.source(part, names)} WHERE {where} {self._in_order(part)} "
            f"ON CONFLICT ({self._winner_key()}) DO UPDATE SET "
            "cursor = excluded.cursor, record_no = excluded.record_no WHERE excluded.cursor > w.cursor"
        )

    def count_winners(self) -> str:
        """Count the winners that stand in the target, and find their largest cursor."""
        return (
            f"SELECT COUNT(*), MAX(w.cursor) FROM {self.winners} AS w CROSS JOIN {self._target} AS t "
            f"WHERE {self._is_winner_of('t')} AND t.run_id = :run"
        )

    def classify_winners(self, *, force: bool) -> str:
        """Count the winners without a row, and those newer than their row."""
        newer = f"w.cursor {'>=' if force else '>'} t.{self._cursor}"
        return (
            f"SELECT COUNT(*) FILTER (WHERE t.{self._cursor} IS NULL), COUNT(*) FILTER (WHERE {newer}) "
            f"FROM {self.winners} AS w LEFT JOIN {self._target} AS t ON {self._is_winner_of('t')}"
        )

    def count_candidates(self) -> str:
        """Count the winners, all of them new, where the target is still to be made."""
        return f"SELECT COUNT(*), 0 FROM {self.winners}"

    def save_images(self, *, force: bool) -> str:
        """Keep the rows that the winners are about to replace, and note those that are not there yet."""
        newer = f"w.cursor {'>=' if force else '>'} t.{self._cursor}"
        names = (*self.feed.columns, *OWN_COLUMNS)
        pairs = ", ".join(f"'{name.replace(chr(39), chr(39) * 2)}', t.{quoted(name)}" for name in names)
        return (
            "INSERT INTO main.before_images (run_id, table_name, record_key, image) "
            "SELECT :run, :table, w.record_key, "
            f"CASE WHEN t.{self._cursor} IS NOT NULL THEN json_object({pairs}) END "
            f"FROM {self.winners} AS w LEFT JOIN {self._target} AS t ON {self._is_winner_of('t')} "
            f"WHERE t.{self._cursor} IS NULL OR {newer}"
        )

    def _lineage(self, part: Part, skipping: bool) -> str:  # noqa: FBT001 - lru_cache's keys
        """Write the lineage of records that were all loaded, but for the skipped."""
        outcome = f"CASE WHEN s.{self._cursor} > :watermark THEN 0 ELSE 2 END" if skipping else "0"
        return self._insert_lineage(part, outcome)

    def lineage_of_winners(self, part: Part) -> str:
        """Write the lineage of records of which some lost."""
        won = "w.record_no = s.record_no AND t.run_id = :run"
        joins = (
            f"LEFT JOIN {self.winners} AS w ON {self._is_winner_of('s')} "
            f"LEFT JOIN {self._target} AS t ON {self._is_winner_of('t')}"
        )
        # Outside the CASE a NULL watermark compares to NULL, which is not true: then nothing was skipped.
        outcome = f"CASE WHEN s.{self._cursor} <= :watermark THEN 2 WHEN {won} THEN 0 ELSE 1 END"
        return self._insert_lineage(part, outcome, joins)

    def count_skipped(self, part: Part) -> str:
        """Count the records at or below the watermark."""
        return (
            f"SELECT COUNT(*) FROM {self.source(part, (self.feed.cursor_name,))} WHERE s.{self._cursor} <= :watermark"
        )

    def dead_letters(self) -> str:
        """Keep the rejects that are not skipped."""
        return (
            "INSERT INTO main.dead_letters (raw, error, created, run_id, feed, record_no, record_key, detail) "
            f"SELECT raw, code, :now, :run, :feed, record_no, record_key, detail FROM {self.rejects} "
            f"WHERE {self._not_skipped()} ORDER BY record_no"
        )

    def lineage_of_rejects(self) -> str:
        """Write the rejects' lineage, and that of those that were skipped instead."""
        return (
            "INSERT INTO main.lineage_records (run_id, record_key, record_no, outcome, detail) "
            "SELECT :run, record_key, record_no, CASE WHEN cursor <= :watermark THEN 2 ELSE 3 END, "
            "CASE WHEN cursor <= :watermark THEN NULL ELSE code END "
            f"FROM {self.rejects}"
        )

    def count_rejected(self) -> str:
        """Count the rejects that are not skipped, by code."""
        return f"SELECT code, COUNT(*) FROM {self.rejects} WHERE {self._not_skipped()} GROUP BY code ORDER BY 2 DESC, 1"

    def first_rejects(self) -> str:
        """Return the first rejects that are not skipped."""
        return (
            f"SELECT record_no, raw, record_key, cursor, code, detail FROM {self.rejects} "
            f"WHERE {self._not_skipped()} ORDER BY record_no LIMIT :limit"
        )

    @staticmethod
    def _not_skipped() -> str:
        return "(cursor IS NULL OR :watermark IS NULL OR cursor > :watermark)"

    def _winner_key(self) -> str:
        return ", ".join(f"k{i}" for i in range(len(self.feed.key)))

    def _is_winner_of(self, alias: str) -> str:
        return " AND ".join(f"w.k{i} = {alias}.{quoted(name)}" for i, name in enumerate(self.feed.key))

    def _insert_select(self) -> str:
        names = ", ".join(map(quoted, (*self.feed.columns, *OWN_COLUMNS)))
        values = ", ".join(f"s.{quoted(name)}" for name in self.feed.columns)
        return f"INSERT INTO main.{self._target} AS t ({names}) SELECT {values}, :run, :now"

    def _on_conflict(self, condition: str) -> str:
        changing = [name for name in (*self.feed.columns, *OWN_COLUMNS) if name not in self.feed.key]
        assignments = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changing)
        key = ", ".join(map(quoted, self.feed.key))
        return f"ON CONFLICT ({key}) DO UPDATE SET {assignments} WHERE {condition}"

    def _insert_lineage(self, part: Part, outcome: str, joins: str = "") -> str:
        names = (*self.feed.key, self.feed.cursor_name, self.feed.record_key_column)
        return (
            "INSERT INTO main.lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT :run, s.{self._record_key}, s.record_no, {outcome} FROM {self.source(part, names)} {joins} "
            f"{self._in_order(part)}"
        )
