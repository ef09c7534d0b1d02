"""The statements of a file's transaction on PostgreSQL that all feeds have, written once per feed.

Kept to what Citus accepts with the target distributed by its key, and does well: INSERT … SELECT … ON CONFLICT from
local temporary tables, and inner joins of those with the target, for which it sends the temporary rows to the target's
nodes. It would fetch the whole target for an outer join, or for changing a local table by a join; and it has no CTE
that writes. Key order keeps two daemons from locking the same rows crosswise.

How the staged records become rows is for each kind of feed to say: ``postgres_newest``, ``postgres_changes``,
``postgres_append``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inboxd import fieldtypes
from inboxd.model import Feed, FieldType
from inboxd.store import feed_tables
from inboxd.store.feed_tables import own_types

TYPES: Final = {kind: facts.postgres for kind, facts in fieldtypes.TYPES.items()}
KEY_COLLATION: Final = ' COLLATE "C"'
"""Keys sort by code point, on SQLite too."""
MOMENT: Final = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''


def quoted(name: str) -> str:
    """Return an identifier for a statement with placeholders (which COPY and CREATE have not)."""
    return feed_tables.quoted(name).replace("%", "%%")


class FeedSql:
    """One feed's statements. ``slot`` keeps the temporary tables of feeds apart: they are made once per connection."""

    def __init__(self, feed: Feed, slot: int) -> None:
        self.feed = feed
        self.own = feed.own_columns
        self.slot = slot
        self.staging = f"staging_{slot}"
        self.rejects = f"staged_rejects_{slot}"
        self.winners = f"winners_{slot}"
        kinds = {field.name: field.type for field in feed.fields}
        staged = {
            self.own.extra: FieldType.JSON,
            self.own.record_key: FieldType.TEXT,
            self.own.deletion: FieldType.BOOLEAN,
            self.own.record_no: FieldType.INTEGER,
        }
        self.kinds = staged | own_types(feed) | kinds
        self.types = {name: TYPES[kind] for name, kind in self.kinds.items()}
        self.target = quoted(feed.table)
        self.cursor = quoted(feed.cursor) if feed.cursor is not None else "NULL"
        self.cursor_type = self.types[feed.cursor] if feed.cursor is not None else "text"
        self.record_key = quoted(feed.record_key_column)
        self.number = quoted(self.own.record_no)
        self.run = quoted(self.own.run_id)
        self.key = ", ".join(map(quoted, feed.key))
        self.staged_key = ", ".join(f"s.{quoted(name)}" for name in feed.key)
        self.same_key = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in feed.key)

    def create_temporary(self) -> str:
        """Make the staging tables of this connection."""
        return "; ".join(
            f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DELETE ROWS" for name, columns in self.temporary()
        )

    def temporary(self) -> list[tuple[str, str]]:
        """Return the temporary tables with their columns."""
        rejects = (
            f"record_no bigint, raw text, record_key text, cursor {self.cursor_type}, code text, detail text, "
            "context text"
        )
        columns = ", ".join(self.column(name) for name in self.feed.row_columns)
        return [(self.staging, columns), (self.rejects, rejects)]

    def column(self, name: str) -> str:
        """Return a column as a temporary table has it."""
        collation = KEY_COLLATION if self.types[name] == "text" and name in self.feed.key else ""
        return f"{feed_tables.quoted(name)} {self.types[name]}{collation}"

    def copy_rows(self) -> str:
        """Take staged rows."""
        return f"COPY {self.staging} ({', '.join(map(feed_tables.quoted, self.feed.row_columns))}) FROM STDIN"

    def copy_rejects(self) -> str:
        """Take staged rejects."""
        return f"COPY {self.rejects} (record_no, raw, record_key, cursor, code, detail, context) FROM STDIN"

    def target_columns(self) -> tuple[str, ...]:
        """Return the columns of the target."""
        return (*self.feed.columns, *own_types(self.feed))

    def insert_into_target(self, more: Sequence[str] = (), *, distinct: str = "") -> str:
        """Return the head of an INSERT of staged records; ``more`` are the values of further columns of our own."""
        own = ("%(run)s::bigint", "%(now)s::timestamptz", *more)
        values = ", ".join((*(f"s.{quoted(name)}" for name in self.feed.columns), *own))
        names = ", ".join(map(quoted, self.target_columns()))
        return f"INSERT INTO {self.target} AS t ({names}) SELECT {distinct} {values}"

    def on_conflict(self, condition: str = "") -> str:
        """Return the clause that replaces the row that is met, on a condition."""
        changing = [name for name in self.target_columns() if name not in self.feed.key]
        assignments = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in changing)
        where = f" WHERE {condition}" if condition else ""
        return f"ON CONFLICT ({self.key}) DO UPDATE SET {assignments}{where}"

    def image(self) -> str:
        """Return a row of the target as a JSON text."""
        return f"json_build_object({', '.join(map(self._image_pair, self.target_columns()))})::text"

    def _image_pair(self, name: str) -> str:
        kind = self.types[name]
        value = f"t.{quoted(name)}"
        if kind == TYPES[FieldType.TIMESTAMP]:
            value = moment(value)
        elif kind in {"jsonb", "numeric"}:
            value += "::text"
        literal = name.replace("'", "''").replace("%", "%%")
        return f"'{literal}', {value}"

    def insert_lineage(self, outcome: str, join: str) -> str:
        """Write in the order of the index: a million records took 2.4 s so, and 3.9 s as they came."""
        return (
            "INSERT INTO lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT %(run)s::bigint, s.{self.record_key}, s.{self.number}, {outcome} FROM {self.staging} s {join} "
            f"ORDER BY s.{self.record_key}, s.{self.number}"
        )

    def count_repeated(self) -> str:
        """Count the records with the key, and the cursor if there is one, of another one."""
        alike = self.key if self.feed.cursor is None else f"{self.key}, {self.cursor}"
        groups = f"SELECT COUNT(*) AS n FROM {self.staging} GROUP BY {alike} HAVING COUNT(*) > 1"
        return f"SELECT COALESCE(SUM(n - 1), 0)::bigint FROM ({groups}) repeated"

    def dead_letters(self) -> str:
        """Keep the rejects that are not skipped."""
        return (
            "INSERT INTO dead_letters (raw, error, created, run_id, feed, record_no, record_key, detail, context) "
            "SELECT raw, code, %(now)s::timestamptz, %(run)s::bigint, %(feed)s, record_no, record_key, detail, context "
            f"FROM {self.rejects} WHERE {self._reject_not_skipped()} ORDER BY record_no"
        )

    def lineage_of_rejects(self) -> str:
        """Write the rejects' lineage, and that of those that were skipped instead."""
        kept = self._reject_not_skipped()
        return (
            "INSERT INTO lineage_records (run_id, record_key, record_no, outcome, detail) SELECT %(run)s::bigint, "
            f"record_key, record_no, CASE WHEN {kept} THEN 3 ELSE 2 END, CASE WHEN {kept} THEN code END "
            f"FROM {self.rejects}"
        )

    def skip_rejects(self) -> str:
        """Write the lineage of rejects that are all skipped."""
        return (
            "INSERT INTO lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT %(run)s::bigint, record_key, record_no, 2 FROM {self.rejects}"
        )

    def count_rejected(self) -> str:
        """Count the rejects that are not skipped, by code."""
        where = self._reject_not_skipped()
        return f"SELECT code, COUNT(*) FROM {self.rejects} WHERE {where} GROUP BY code ORDER BY 2 DESC, 1"

    def first_rejects(self) -> str:
        """Return the first rejects that are not skipped."""
        return (
            f"SELECT record_no, raw, record_key, cursor, code, detail, context FROM {self.rejects} "
            f"WHERE {self._reject_not_skipped()} ORDER BY record_no LIMIT %(limit)s"
        )

    def _reject_not_skipped(self) -> str:
        watermark = f"%(watermark)s::{self.cursor_type}"
        return f"(cursor IS NULL OR {watermark} IS NULL OR cursor > {watermark})"

    def save_watermark(self) -> str:
        """Keep a scope's watermark as it is, as an image of that table's row."""
        image = f"json_build_object('value', w.value, 'run_id', w.run_id, 'updated_at', {moment('w.updated_at')})::text"
        return (
            "INSERT INTO before_images (run_id, table_name, record_key, image) SELECT %(run)s::bigint, 'watermarks', "
            f"%(name)s::text, (SELECT {image} FROM watermarks w WHERE w.name = %(name)s::text)"
        )

    def mark(self) -> str:
        """Make a scope's watermark this run's; it never goes back."""
        kind = TYPES[(self.feed.as_of or self.feed.cursor_field).type]
        return (
            "INSERT INTO watermarks AS w (name, value, run_id, updated_at) "
            "VALUES (%(name)s, %(reached)s, %(run)s::bigint, %(now)s::timestamptz) ON CONFLICT (name) DO UPDATE SET "
            f"value = CASE WHEN EXCLUDED.value::{kind} > w.value::{kind} THEN EXCLUDED.value ELSE w.value END, "
            "run_id = EXCLUDED.run_id, updated_at = EXCLUDED.updated_at"
        )

    def advance(self) -> str:
        """Raise the watermark, whatever another daemon has made of it since it was read."""
        kind = self.cursor_type
        return (
            "INSERT INTO watermarks AS w (name, value, run_id, updated_at) "
            "VALUES (%(feed)s, %(reached)s, %(run)s::bigint, %(now)s::timestamptz) ON CONFLICT (name) DO UPDATE "
            "SET value = EXCLUDED.value, run_id = EXCLUDED.run_id, updated_at = EXCLUDED.updated_at "
            f"WHERE EXCLUDED.value::{kind} > w.value::{kind}"
        )


def moment(value: str) -> str:
    """Return an expression's moment as canonical text."""
    return f"to_char({value} AT TIME ZONE 'UTC', {MOMENT})"
