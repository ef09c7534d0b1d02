"""What was staged of one file on SQLite, and the statements that read it slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from inboxd.model import Feed, FieldType, Scalar
from inboxd.outcomes import Batch
from inboxd.store.canonical_json import canonical_json
from inboxd.store.sqlite_driver import SqliteFaults, driver
from inboxd.store.sqlite_sql import FeedSql, Part
from inboxd.store.staged import Staged

CHUNK_BYTES: Final = 3 << 18
"""From so many bytes of a file (unpacked) on, so after one window, what has come is sorted. Smaller chunks are staged
faster, in the processor's cache, but make more runs: to read slices of them, ten million records took 53 s with one
window a chunk, 49 s with two."""
RUNS_OF_SMALL_CHUNKS: Final = 64
"""Then a file is large, and its chunks are of two windows."""
SAMPLE_RECORDS: Final = 512
SAMPLE_BYTES: Final = 3 << 14
"""A slice is made of parts of so many records or bytes at most: after as many of a sorted chunk a slice may end."""
SAMPLES: Final = 16
"""So many parts change the target in one statement. SQLite keeps each page's former content in memory until it ends."""
MOST_SAMPLES: Final = 128
"""So many at most where there are many runs: a slice that takes few records of each seeks more than it reads."""
GOLDEN_RATIO: Final = 0.618_033_988_749
"""Its multiples, without their whole parts, spread evenly however many there are (Knuth, TAOCP 3, 6.4)."""
KEYS_AT_ONCE: Final = 8_192
"""Rows deleted in one statement."""
READ_AT_ONCE: Final = 500
"""Sorted runs in one statement: SQLite takes no more SELECTs in a compound."""


class Staging(Staged):
    """One file's records on their way to the scratch file and out of it. Owned by the thread of its transaction."""

    def __init__(
        self, connection: driver.Connection, faults: SqliteFaults, sql: FeedSql, values: dict[str, object]
    ) -> None:
        super().__init__(connection, sql.feed, values)
        self._faults = faults
        self._sql = sql
        self._json = _json_places(sql.feed) if sql.feed.ordered else ()
        self._chunk: list[list[Scalar]] = [[] for _ in sql.columns]
        self._chunk_bytes = 0
        self._samples: list[tuple[Any, ...]] = []
        self._runs = 0
        self._used: set[str] = set()
        self.bytes = 0

    @property
    def is_small(self) -> bool:
        """Tell whether the scratch file is worth keeping: it does not shrink when it is emptied."""
        return self._runs <= 1 and self.bytes < 2 * CHUNK_BYTES

    def take(self, batch: Batch) -> None:
        """Take one window of records; full chunks are sorted and written to the scratch file."""
        for staged, more in zip(self._chunk, batch.columns, strict=False):  # there are none where no record is good
            staged.extend(more)
        self._chunk_bytes += batch.size
        self.bytes += batch.size
        self.filtered += batch.filtered
        if batch.rejects:
            with self._faults:
                self._begin()
                rejects = (
                    (r.record_no, r.raw, r.record_key, r.cursor, r.code, r.detail, r.context) for r in batch.rejects
                )
                self._connection.executemany(self._sql.stage_rejects(), rejects)
            self.rejects += len(batch.rejects)
        if self._chunk_bytes >= CHUNK_BYTES * (1 if self._runs < RUNS_OF_SMALL_CHUNKS else 2):
            self._write_chunk()

    def _write_chunk(self) -> None:
        columns, size = self._chunk, self._chunk_bytes
        self._chunk, self._chunk_bytes = [[] for _ in columns], 0
        number = len(columns[0])
        if not number:
            return
        self.extent.add(columns)
        self.scopes.add(columns)
        for place in self._json:
            columns[place] = [None if text is None else canonical_json(str(text)) for text in columns[place]]
        order = self._order(columns, number)
        every = max(1, min(SAMPLE_RECORDS, number * SAMPLE_BYTES // max(1, size)))
        self._runs += 1
        # Chunks are much alike: without a start of its own for each, all samples would lie around the same few places.
        sampled = order[int(self._runs * GOLDEN_RATIO % 1 * every) :: every]
        self._samples += zip(*([columns[place][i] for i in sampled] for place in self._sql.order_places), strict=True)
        self.records += number
        with self._faults:
            self._begin()
            if self._runs > 1:
                self._connection.execute(self._sql.create_run(self._runs))
            self._insert(columns, order)

    def _order(self, columns: Sequence[Sequence[Scalar]], number: int) -> list[int]:
        """Return the places of the records by key, then number: sorting is stable, and they are in file order."""
        if not self._sql.key_places:
            return list(range(number))
        first, *others = (columns[place] for place in self._sql.key_places)
        keys: Sequence[Any] = list(zip(first, *others, strict=True)) if others else first
        return sorted(range(number), key=keys.__getitem__)

    def _insert(self, columns: Sequence[Sequence[Scalar]], order: list[int]) -> None:
        """Insert the records in this order, many at once, their values one behind the other; the last ones singly."""
        if len(order) > 1:
            pick = itemgetter(*order)
            columns = [pick(column) for column in columns]
        at_once = self._sql.rows_at_once
        whole = len(order) // at_once * at_once
        if whole:
            width = len(columns)
            values: list[Scalar] = [None] * (width * whole)
            for place, column in enumerate(columns):
                values[place::width] = column[:whole]
            step = at_once * width
            parts = (values[at : at + step] for at in range(0, len(values), step))
            self._connection.executemany(self._sql.stage(self._runs, at_once), parts)
        if whole < len(order):
            rest = columns if not whole else [column[whole:] for column in columns]
            self._connection.executemany(self._sql.stage(self._runs, 1), zip(*rest, strict=True))

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")

    def end(self) -> None:
        """Write what is left: from here on the scratch file has everything."""
        self._write_chunk()
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    # Reading it

    def parts(self, *, low: bool = False, high: bool = False, numbered: bool = False) -> Iterator[Part]:
        """Yield the runs to read in one statement, in file order."""
        for first in range(1, self._runs + 1, READ_AT_ONCE):
            yield Part(first, min(first + READ_AT_ONCE - 1, self._runs), low, high, numbered)

    def single_runs(self) -> Iterator[Part]:
        """Yield the runs one by one, in file order."""
        return (Part(number, number) for number in range(1, self._runs + 1))

    def change_slices(self, statement: Callable[[Part], str]) -> int:
        """Change a table one slice of the keys after the other; returns how many rows that touched."""
        touched = 0
        for values, low, high, numbered in self._slices():
            for part in self.parts(low=low, high=high, numbered=numbered):
                touched += self._connection.execute(statement(part), values).rowcount
        return touched

    def count_slices(self, statement: Callable[[Part], str]) -> int:
        """Add up what a statement counts in each slice of the keys."""
        found = 0
        for values, low, high, numbered in self._slices():
            for part in self.parts(low=low, high=high, numbered=numbered):
                found += int(self._connection.execute(statement(part), values).fetchone()[0])
        return found

    def change_keys(self, table: str, keys: str, statement: Callable[[Part], str]) -> int:
        """Change the target for the deletions in a table beside the staged records, so many keys at once.

        Returns how many rows that touched.
        """
        touched = 0
        low: tuple[Any, ...] | None = None
        while True:
            part = Part(1, 1, low=low is not None)
            bounds = "".join(f" AND {bound}" for bound in part.bounds((*keys.split(", "), "")))
            following = (
                f"SELECT {keys} FROM {table} WHERE deletion{bounds} ORDER BY {keys} LIMIT 1 OFFSET {KEYS_AT_ONCE}"
            )
            high = self._connection.execute(following, {**self.values, **_bound("low", low)}).fetchone()
            values = {**self.values, **_bound("low", low), **_bound("high", high)}
            changing = statement(Part(1, 1, low is not None, high is not None))
            touched += int(self._connection.execute(changing, values).rowcount)
            if high is None:
                return touched
            low = high

    def fill(self, table: str, statement: Callable[[Part], str]) -> int:
        """Fill one of the tables beside the staged records, slice by slice."""
        self._used.add(table)
        return self.change_slices(statement)

    def insert_from(self, table: str, statement: str) -> None:
        """Fill one of the tables beside the staged records with one statement."""
        self._used.add(table)
        self.change(statement)

    def insert_many(self, table: str, statement: str, rows: Iterator[tuple[object, ...]]) -> int:
        """Fill one of the tables beside the staged records with rows of our own."""
        self._used.add(table)
        return int(self._connection.executemany(statement, rows).rowcount)

    def _slices(self) -> Iterator[tuple[dict[str, object], bool, bool, bool]]:
        """Yield each slice's parameters, whether it has a lower and an upper end, and whether they are numbered."""
        ends, numbered = self._slice_ends()
        for low, high in zip([None, *ends], [*ends, None], strict=True):
            values = {**self.values, **_bound("low", low), **_bound("high", high)}
            yield values, low is not None, high is not None, numbered

    def _slice_ends(self) -> tuple[Sequence[tuple[Any, ...]], bool]:
        """Return where slices of the key's range end, and whether that is told by record numbers as well."""
        size = self._samples_a_slice()
        ends = sorted(self._samples)[size - 1 :: size]
        keys = [end[:-1] for end in ends]
        if len(set(keys)) == len(keys):
            return keys, False  # a key alone is compared faster
        return ends, True

    def _samples_a_slice(self) -> int:
        """Return how many parts make up a slice: more the more runs, unless the target's pages are many.

        Records that lie far from each other in the target change a page each, and a statement's pages are in memory.
        """
        wanted = min(self._runs // 4, MOST_SAMPLES)
        if wanted <= SAMPLES:
            return SAMPLES
        pages = int(self._connection.execute("PRAGMA main.page_count").fetchone()[0])
        return max(SAMPLES, min(wanted, SAMPLES * self.records // pages))

    def empty(self) -> None:
        """Empty the tables of the scratch file that were used."""
        if self._runs:
            self._connection.execute(self._sql.empty_first_run)
        if self.rejects:
            self._used.add(self._sql.rejects)
        for table in self._used:
            self._connection.execute(f"DELETE FROM {table}")


def _json_places(feed: Feed) -> tuple[int, ...]:
    """Return where in a row JSON stands."""
    names = {field.name for field in feed.fields if field.type is FieldType.JSON} | {feed.own_columns.extra}
    return tuple(place for place, name in enumerate(feed.columns) if name in names)


def _bound(end: str, record: tuple[Any, ...] | None) -> dict[str, object]:
    """Return the parameters of a slice's end."""
    return {f"{end}{place}": value for place, value in enumerate(record or ())}
