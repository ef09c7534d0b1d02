"""The contract of the modes of feeds, record by record: what a table must hold after some files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from inboxd.model import Feed, Gone
from mode_feeds import Record, StoredRow

KINDS: Final[dict[str, dict[str, object]]] = {
    "last one wins": {"cursor": False},
    "last one wins, remove": {"cursor": False, "deletes": Gone.REMOVE},
    "last one wins, mark": {"cursor": False, "deletes": Gone.MARK},
    "one cursor a file": {"cursor": True, "of_file": True},
    "remove": {"cursor": True, "deletes": Gone.REMOVE},
    "mark": {"cursor": True, "deletes": Gone.MARK},
    "one cursor a file, remove": {"cursor": True, "of_file": True, "deletes": Gone.REMOVE},
}


@dataclass
class Model:
    """The contract, record by record."""

    feed: Feed
    table: dict[str, StoredRow] = field(default_factory=dict)
    tombstones: dict[str, int] = field(default_factory=dict)

    @property
    def marks(self) -> bool:
        """Whether rows stay."""
        return self.feed.deletes is not None and self.feed.deletes.then is Gone.MARK

    def load(self, run: int, records: list[Record]) -> tuple[dict[int, str], int]:
        """Apply a file: of each record that is not stale its last step, and how many rows went."""
        if self.feed.cursor is None:
            return self._last_ones(run, records)
        fate: dict[int, str] = {}
        gone: set[str] = set()
        for number in self._winners(records):
            record = records[number]
            row, dead = self.table.get(record.key), self.tombstones.get(record.key)
            if record.deletion:
                if (row is None or record.cursor >= row.cursor) and (dead is None or record.cursor > dead):
                    self._bury(run, record, row, gone, fresh=row is not None and row.run == run and not row.marked)
                    fate[number] = "delete"
            elif (row is None or record.cursor > row.cursor) and (self.marks or dead is None or record.cursor > dead):
                self.table[record.key] = StoredRow(
                    record.value, record.cursor, run, marked=dead is not None and dead >= record.cursor
                )
                fate[number] = "load"
        return fate, len(gone)

    def _bury(self, run: int, record: Record, row: StoredRow | None, gone: set[str], *, fresh: bool) -> None:
        self.tombstones[record.key] = record.cursor
        if row is None:
            return
        if not row.marked and not (fresh and record.key not in self._before):
            gone.add(record.key)
        if self.marks:
            row.marked = True
        else:
            del self.table[record.key]

    def _winners(self, records: list[Record]) -> list[int]:
        """Return the records that stand among those of their file: upserts first, and of a key not both but marked."""
        self._before = {key for key, row in self.table.items() if not row.marked}
        later = self.feed.cursor_field.is_of_file
        best: dict[tuple[str, bool], int] = {}
        for number, record in enumerate(records):
            place = (record.key, record.deletion)
            kept = best.get(place)
            if (
                kept is None
                or record.cursor > records[kept].cursor
                or (later and record.cursor == records[kept].cursor)
            ):
                best[place] = number
        standing = []
        for (key, deletion), number in sorted(best.items(), key=lambda item: (item[0][1], item[1])):
            other = best.get((key, not deletion))
            if other is not None:
                if deletion and records[other].cursor > records[number].cursor:
                    continue
                if not deletion and not self.marks and records[other].cursor >= records[number].cursor:
                    continue
            standing.append(number)
        return standing

    def _last_ones(self, run: int, records: list[Record]) -> tuple[dict[int, str], int]:
        fate: dict[int, str] = {}
        gone = 0
        for number in {record.key: number for number, record in enumerate(records)}.values():
            record = records[number]
            row = self.table.get(record.key)
            if not record.deletion:
                if row is None or row.marked or row.value != record.value:
                    self.table[record.key] = StoredRow(record.value, record.cursor, run)
                    fate[number] = "load"
            elif row is not None and not row.marked:
                gone += 1
                fate[number] = "delete"
                if self.marks:
                    row.marked, row.run = True, run
                else:
                    del self.table[record.key]
        return fate, gone
