"""The statements of a file's transaction on SQLite that all feeds have, written once per feed.

What was staged lies in sorted *runs*, tables ``WITHOUT ROWID`` keyed by (key, record number). They are applied in
*slices* of the key's range, which walks the target's tree in key order, once, and keeps memory flat: SQLite's sorter
keeps everything in memory in the build that pysqlite3 ships (TEMP_STORE=3), and so does a statement that changes a
table with every page's former content. A slice is sorted, not merged: merging hundreds of runs takes longer.

How the staged records become rows is for each kind of feed to say: ``sqlite_newest``, ``sqlite_changes``,
``sqlite_append``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from inboxd.model import Feed, Mode
from inboxd.store.dialects import SQLITE, quoted
from inboxd.store.statements import Statements

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

    def bounds(self, names: Sequence[str]) -> list[str]:
        """Return the conditions that keep a table's rows to the slice; ``names`` are its key columns and number."""
        chosen = names if self.numbered else names[:-1]
        return [
            f"({', '.join(chosen)}) {operator} ({', '.join(f':{end}{i}' for i in range(len(chosen)))})"
            for end, operator, wanted in (("low", ">", self.low), ("high", "<=", self.high))
            if wanted
        ]


class FeedSql(Statements):
    """One feed's statements. ``slot`` keeps the staging tables of feeds apart, so that no file needs DDL."""

    def __init__(self, feed: Feed, slot: int) -> None:
        super().__init__(feed, slot, SQLITE, "scratch.")
        self.columns = feed.row_columns
        self.rows_at_once = max(1, PARAMETERS_AT_ONCE // len(self.columns))
        order_key = () if feed.mode is Mode.APPEND else feed.key  # what lies in the target by its number is staged so
        self.key_places = tuple(map(self.columns.index, order_key))
        self.order_places = (*self.key_places, self.columns.index(self.own.record_no))
        self.order = tuple(map(quoted, (*order_key, self.own.record_no)))
        self.empty_first_run = f"DELETE FROM {self.run_table(1)}"
        # Each is asked for with the same few arguments for every file, so each text is built once.
        self.stage: Callable[[int, int], str] = lru_cache(8)(self._stage)

    def create_tables(self) -> list[str]:
        """Return what is made once: the first run, the rejects, and whatever else the kind of feed needs."""
        return [self.create_run(1), self.create_rejects()]

    def run_table(self, number: int) -> str:
        """Return the name of a sorted run; the first is number 1."""
        return f"scratch.staging_{self.slot}_{number}"

    def create_run(self, number: int) -> str:
        """Return the table of one sorted run."""
        columns = ", ".join(f"{quoted(name)} {self.types[name]}" for name in self.columns)
        return f"CREATE TABLE {self.run_table(number)} ({columns}, PRIMARY KEY ({', '.join(self.order)})) WITHOUT ROWID"

    def create_rejects(self) -> str:
        """Return the table of the staged rejects; its cursor column keeps whatever type it is given."""
        columns = (
            "record_no INTEGER PRIMARY KEY, raw TEXT, record_key TEXT, cursor, code TEXT, detail TEXT, context TEXT"
        )
        return f"CREATE TABLE {self.rejects} ({columns})"

    def _stage(self, number: int, rows: int) -> str:
        """Insert rows. What fails is rolled back with its transaction, so no statement has to be undone alone.

        SQLite keeps no journal for a statement that may end half-done: a million rows then take a sixth less.
        """
        marks = f"({', '.join('?' * len(self.columns))})"
        return f"INSERT OR FAIL INTO {self.run_table(number)} VALUES {', '.join([marks] * rows)}"

    def stage_rejects(self) -> str:
        """Insert the fields of a ``Reject``."""
        names = "record_no, raw, record_key, cursor, code, detail, context"
        return f"INSERT INTO {self.rejects} ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)"

    def source(self, part: Part, columns: Sequence[str] = ()) -> str:
        """Return staged records as a table expression, in no order if there are several runs."""
        wanted = dict.fromkeys((*columns, *self.feed.key, self.own.record_no))
        bounds = part.bounds(self.order)
        chosen, where = ", ".join(map(quoted, wanted)) if columns else "*", f" WHERE {' AND '.join(bounds)}"
        runs = range(part.first, part.last + 1)
        if len(runs) == 1 and not bounds:
            return f"{self.run_table(part.first)} AS s"
        selects = " UNION ALL ".join(
            f"SELECT {chosen} FROM {self.run_table(number)}{where if bounds else ''}" for number in runs
        )
        return f"({selects}) AS s"

    def in_order(self, part: Part) -> str:
        """Return the clause that puts the records of a part into key order; a run alone has it.

        The unary plus keeps SQLite from merging.
        """
        return "" if part.first == part.last else f"ORDER BY {', '.join(f'+s.{name}' for name in self.order)}"

    def insert_lineage(self, part: Part, outcome: str, joins: str = "") -> str:
        """Write what became of staged records."""
        cursor = () if self.feed.cursor is None else (self.feed.cursor,)
        names = (*self.feed.key, *cursor, self.feed.record_key_column)
        return (
            "INSERT INTO main.lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT :run, s.{self.record_key}, s.{self.number}, {outcome} FROM {self.source(part, names)} {joins} "
            f"{self.in_order(part)}"
        )

    def count_repeated(self, part: Part) -> str:
        """Count the records with the key, and the cursor if there is one, of another one of the part."""
        cursor = () if self.feed.cursor is None else (self.feed.cursor,)
        names = (*self.feed.key, *cursor)
        alike = ", ".join(f"s.{quoted(name)}" for name in dict.fromkeys(names))
        groups = f"SELECT COUNT(*) AS n FROM {self.source(part, names)} GROUP BY {alike} HAVING COUNT(*) > 1"
        return f"SELECT COALESCE(SUM(n - 1), 0) FROM ({groups})"
