"""Faults that are planted in a database or an archive that was sound, each with what an audit must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TEN = "'2026-01-15T10:00:00.000000Z'"
RUN_OF_ONE = "(SELECT id FROM etl_runs WHERE file_name = 'merge/1.json')"
UNDONE = "(SELECT undo_of FROM etl_runs WHERE undo_of IS NOT NULL)"
ROW = "(key, name, value, ts, run_id, updated_at) VALUES"


@dataclass(frozen=True)
class Planted:
    """A fault, and what an audit must say of it."""

    what: str
    plant: str | Callable[[Path], object]
    """A statement, or what is done to the folder of processed files."""
    kind: str
    key: str | None = None
    file: str | None = None
    """The file that is named, where the fault is in what it did."""


PLANTED = (
    Planted(
        "a value of a row is changed", "UPDATE merge SET value = 9 WHERE key = 'a'", "row_changed", "a", "merge/2.json"
    ),
    Planted("a row is gone", "DELETE FROM merge WHERE key = 'b'", "row_missing", "b", "merge/1.json"),
    Planted("a row that no file has", f"INSERT INTO merge {ROW} ('z', 'n', 1, {TEN}, 1, '')", "row_unexpected", "z"),
    Planted(
        "a row names another run", "UPDATE merge SET run_id = 1 WHERE key = 'a'", "row_changed", "a", "merge/2.json"
    ),
    Planted(
        "an older record has won",
        f"UPDATE merge SET value = 1, ts = {TEN}, run_id = {RUN_OF_ONE} WHERE key = 'a'",
        "row_changed",
        "a",
        "merge/2.json",
    ),
    Planted(
        "a fact is there twice",
        "INSERT INTO facts (key, name, value, run_id, updated_at, record_no) "
        "SELECT key, name, value, run_id, updated_at, record_no + 10 FROM facts",
        "row_unexpected",
    ),
    Planted(
        "a row of an undone run is back",
        f"INSERT INTO merge {ROW} ('u', 'Ada', 1, {TEN}, {UNDONE}, '')",
        "row_unexpected",
        "u",
        "merge/undone.json",
    ),
    Planted("a deleted row is back", f"INSERT INTO removes {ROW} ('a', 'n', 1, {TEN}, 1, '')", "row_unexpected", "a"),
    Planted("a deleted row lost its mark", "UPDATE marks SET deleted_at = NULL", "row_changed", "a", "marks/1.json"),
    Planted(
        "a tombstone is gone",
        "DELETE FROM tombstones WHERE table_name = 'removes'",
        "tombstone",
        "a",
        "removes/1.json",
    ),
    Planted(
        "a count of loaded records is wrong",
        f"UPDATE etl_runs SET rows_out = rows_out - 1, rows_stale = rows_stale + 1 WHERE id = {RUN_OF_ONE}",
        "count",
        file="merge/1.json",
    ),
    Planted(
        "a count of deleted rows is wrong",
        "UPDATE etl_runs SET rows_deleted = 0 WHERE file_name = 'removes/1.json'",
        "count",
        file="removes/1.json",
    ),
    Planted(
        "a dead letter is missing",
        "DELETE FROM dead_letters WHERE record_key = 'bad'",
        "dead_letter_missing",
        "bad",
        "merge/1.json",
    ),
    Planted(
        "a dead letter of a good record",
        "INSERT INTO dead_letters (raw, error, created, run_id, feed, record_no, record_key) "
        f"VALUES ('{{}}', 'missing_key', '', {RUN_OF_ONE}, 'merge', 1, 'a')",
        "dead_letter_unexpected",
        "a",
        "merge/1.json",
    ),
    Planted(
        "the source of a dead letter is changed",
        "UPDATE dead_letters SET raw = '{}' WHERE record_key = 'bad'",
        "dead_letter_changed",
        "bad",
        "merge/1.json",
    ),
    Planted(
        "an open dead letter counts as resolved",
        "UPDATE dead_letters SET resolved_by = 1 WHERE record_key = 'bad'",
        "dead_letter_resolved",
        "bad",
        "merge/1.json",
    ),
    Planted("a watermark went back", f"UPDATE watermarks SET value = {TEN} WHERE name = 'skip'", "watermark"),
    Planted(
        "the lineage says stale of a loaded record",
        "UPDATE lineage_records SET outcome = 1 WHERE record_key = 'b' AND outcome = 0",
        "lineage",
        "b",
        "merge/1.json",
    ),
    Planted(
        "a line of the lineage is gone",
        "DELETE FROM lineage_records WHERE record_key = 'b'",
        "lineage",
        "b",
        "merge/1.json",
    ),
    Planted(
        "other content is called a duplicate",
        "UPDATE etl_runs SET duplicate_of = 1 WHERE duplicate_of IS NOT NULL",
        "duplicate",
        file="merge/again.json",
    ),
    Planted(
        "an archived file is altered",
        lambda processed: (processed / "merge" / "2.json").write_bytes(b"[]"),
        "file_altered",
        file="merge/2.json",
    ),
    Planted(
        "an archived file is gone",
        lambda processed: (processed / "merge" / "2.json").unlink(),
        "file_missing",
        file="merge/2.json",
    ),
)
