"""The statements of a file's transaction that are the same on both databases, written once per feed.

What differs is in ``sqlite_sql`` and ``postgres_sql``, and for each kind of feed in a module of its own; they say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inboxd.model import Feed, FieldType
from inboxd.store.dialects import Dialect
from inboxd.store.feed_tables import marks, own_types

OUTDATED: Final = (
    "SELECT DISTINCT o.record_no FROM {origins} o JOIN {runs} was ON was.id = o.run_id "
    "JOIN {runs} r ON r.table_name = {table} AND r.commit_no >= was.commit_no "
    "JOIN {lineage} l ON l.run_id = r.id AND l.record_key = o.record_key "
    "LEFT JOIN {runs} u ON u.id = r.superseded_by AND u.undo_of = r.id "
    "LEFT JOIN {images} b ON b.run_id = r.id AND b.table_name = {table} AND b.record_key = o.record_key "
    "WHERE r.undo_of IS NULL AND u.id IS NULL AND (l.outcome IN (0, 4) OR (l.outcome = 1 AND b.run_id IS NOT NULL)) "
    "AND (r.commit_no > was.commit_no OR l.record_no > o.original)"
)
"""The staged records of a replay whose key was applied later: by a later commit, or further down in their own file.

A record that said the same again was stale; it counts as applied where an undo has given it the row: it has an image.
"""


class Statements:
    """One feed's statements. ``scratch`` stands before the tables beside the target; ``slot`` tells feeds' apart."""

    def __init__(self, feed: Feed, slot: int, dialect: Dialect, scratch: str) -> None:
        self.feed = feed
        self.own = feed.own_columns
        self.slot = slot
        self.dialect = dialect
        self.rejects = f"{scratch}staged_rejects_{slot}"
        self.winners = f"{scratch}winners_{slot}"
        self.changes = f"{scratch}changes_{slot}"
        self.origins = f"{scratch}origins_{slot}"
        self.outdated = f"{scratch}outdated_{slot}"
        staged = {
            self.own.extra: FieldType.JSON,
            self.own.record_key: FieldType.TEXT,
            self.own.deletion: FieldType.BOOLEAN,
            self.own.record_no: FieldType.INTEGER,
        }
        fields = {field.name: field.type for field in (*feed.beside, *feed.fields)}
        self.kinds = staged | own_types(feed) | fields
        self.types = {name: dialect.types[kind] for name, kind in self.kinds.items()}
        quoted = dialect.quoted
        self.target = f"{dialect.schema}{quoted(feed.table)}"
        self.cursor = quoted(feed.cursor) if feed.cursor is not None else "NULL"
        self.cursor_type = self.types[feed.cursor] if feed.cursor is not None else "text"
        self.record_key = quoted(feed.record_key_column)
        self.number = quoted(self.own.record_no)
        self.run = quoted(self.own.run_id)

    def param(self, name: str) -> str:
        """Return a parameter; the watermark is of the cursor's type."""
        return self.dialect.param(name, self.cursor_type if name == "watermark" else "")

    def key_columns(self) -> str:
        """Return the columns ``k0 …`` that hold a key in the tables beside the staged records."""
        return ", ".join(f"k{i}" for i in range(len(self.feed.key)))

    def keys(self, alias: str) -> str:
        """Return the key's columns of a table with the feed's."""
        return ", ".join(f"{alias}.{self.dialect.quoted(name)}" for name in self.feed.key)

    def key_is(self, one: str, other: str) -> str:
        """Join a table with columns ``k0 …`` to one with the feed's columns."""
        return " AND ".join(f"{one}.k{i} = {other}.{self.dialect.quoted(name)}" for i, name in enumerate(self.feed.key))

    # The target

    def target_columns(self) -> tuple[str, ...]:
        """Return the columns of the target."""
        return (*self.feed.columns, *own_types(self.feed))

    def insert_into_target(self, more: Sequence[str] = (), *, distinct: str = "") -> str:
        """Return the head of an INSERT of staged records; ``more`` are the values of further columns of our own."""
        quoted = self.dialect.quoted
        own = (self.param("run"), self.param("now"), *more)
        values = ", ".join((*(f"s.{quoted(name)}" for name in self.feed.columns), *own))
        names = ", ".join(map(quoted, self.target_columns()))
        return f"INSERT INTO {self.target} AS t ({names}) SELECT {distinct} {values}"

    def on_conflict(self, condition: str = "") -> str:
        """Return the clause that replaces the row that is met, on a condition."""
        quoted = self.dialect.quoted
        changing = (quoted(name) for name in self.target_columns() if name not in self.feed.key)
        assignments = ", ".join(f"{name} = excluded.{name}" for name in changing)
        key = ", ".join(map(quoted, self.feed.key))
        where = f" WHERE {condition}" if condition else ""
        return f"ON CONFLICT ({key}) DO UPDATE SET {assignments}{where}"

    def image(self) -> str:
        """Return a row of the target as a JSON object, whole: an undo may have to put back what another feed filled."""
        names = (*self.target_columns(), *(field.name for field in self.feed.beside))
        pairs = (f"{self.dialect.literal(name)}, {self.image_value(name)}" for name in names)
        return self.dialect.json_object.format(", ".join(pairs))

    def image_value(self, name: str) -> str:
        """Return a column as it stands in an image."""
        return f"t.{self.dialect.quoted(name)}"

    # What a trigger or rule of the user's own left out without an error

    def unwritten_change(self) -> str:
        """Return the key of an upsert among the changes whose row is not this run's."""
        return (
            f"SELECT c.record_key FROM {self.changes} c WHERE NOT c.deletion AND NOT EXISTS (SELECT 1 FROM "
            f"{self.target} t WHERE {self.key_is('c', 't')} AND t.{self.run} = {self.param('run')}) LIMIT 1"
        )

    def undeleted_change(self) -> str:
        """Return the key of a deletion whose row is still there, and not marked."""
        marked = f" AND t.{self.dialect.quoted(self.own.deleted_at)} IS NULL" if marks(self.feed) else ""
        return (
            f"SELECT c.record_key FROM {self.changes} c JOIN {self.target} t ON {self.key_is('c', 't')}{marked} "
            "WHERE c.deletion LIMIT 1"
        )

    # Rejects

    def dead_letters(self) -> str:
        """Keep the rejects that are not skipped."""
        return (
            f"INSERT INTO {self.dialect.schema}dead_letters "
            "(raw, error, created, run_id, feed, record_no, record_key, detail, context) "
            f"SELECT raw, code, {self.param('now')}, {self.param('run')}, {self.param('feed')}, record_no, record_key, "
            f"detail, context FROM {self.rejects} WHERE {self._reject_not_skipped()} ORDER BY record_no"
        )

    def lineage_of_rejects(self) -> str:
        """Write the rejects' lineage, and that of those that were skipped instead."""
        kept = self._reject_not_skipped()
        return (
            f"INSERT INTO {self.dialect.schema}lineage_records (run_id, record_key, record_no, outcome, detail) "
            f"SELECT {self.param('run')}, record_key, record_no, CASE WHEN {kept} THEN 3 ELSE 2 END, "
            f"CASE WHEN {kept} THEN code END FROM {self.rejects}"
        )

    def skip_rejects(self) -> str:
        """Write the lineage of rejects that are all skipped."""
        return (
            f"INSERT INTO {self.dialect.schema}lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT {self.param('run')}, record_key, record_no, 2 FROM {self.rejects}"
        )

    def count_rejected(self) -> str:
        """Count the rejects that are not skipped, by code."""
        where = self._reject_not_skipped()
        return f"SELECT code, COUNT(*) FROM {self.rejects} WHERE {where} GROUP BY code ORDER BY 2 DESC, 1"

    def first_rejects(self) -> str:
        """Return the first rejects that are not skipped."""
        return (
            f"SELECT record_no, raw, record_key, cursor, code, detail, context FROM {self.rejects} "
            f"WHERE {self._reject_not_skipped()} ORDER BY record_no LIMIT {self.param('limit')}"
        )

    def _reject_not_skipped(self) -> str:
        watermark = self.param("watermark")
        return f"(cursor IS NULL OR {watermark} IS NULL OR cursor > {watermark})"

    # Watermarks

    def save_watermark(self) -> str:
        """Keep a scope's watermark as it is, as an image of that table's row."""
        updated_at = self.dialect.moment_text.format("w.updated_at")
        image = self.dialect.json_object.format(f"'value', w.value, 'run_id', w.run_id, 'updated_at', {updated_at}")
        schema, name = self.dialect.schema, self.param("name")
        return (
            f"INSERT INTO {schema}before_images (run_id, table_name, record_key, image) SELECT {self.param('run')}, "
            f"'watermarks', {name}, (SELECT {image} FROM {schema}watermarks w WHERE w.name = {name})"
        )

    def mark(self) -> str:
        """Make a scope's watermark this run's; it never goes back."""
        kind = self.dialect.types[(self.feed.as_of or self.feed.cursor_field).type]
        newer = f"CAST(excluded.value AS {kind}) > CAST(w.value AS {kind})"
        return (
            f"{self._insert_watermark('name')} SET value = CASE WHEN {newer} THEN excluded.value ELSE w.value END, "
            "run_id = excluded.run_id, updated_at = excluded.updated_at"
        )

    def advance(self) -> str:
        """Raise the watermark, whatever another daemon has made of it since it was read."""
        kind = self.cursor_type
        return (
            f"{self._insert_watermark('feed')} "
            "SET value = excluded.value, run_id = excluded.run_id, updated_at = excluded.updated_at "
            f"WHERE CAST(excluded.value AS {kind}) > CAST(w.value AS {kind})"
        )

    def _insert_watermark(self, name: str) -> str:
        values = ", ".join(map(self.param, (name, "reached", "run", "now")))
        return (
            f"INSERT INTO {self.dialect.schema}watermarks AS w (name, value, run_id, updated_at) VALUES ({values}) "
            "ON CONFLICT (name) DO UPDATE"
        )

    # Feeds of which it is found out first what a file changes

    def find_outdated(self) -> str:
        """Find the records whose key was applied later."""
        schema = self.dialect.schema
        rule = OUTDATED.format(
            origins=self.origins,
            runs=f"{schema}etl_runs",
            lineage=f"{schema}lineage_records",
            images=f"{schema}before_images",
            table=self.param("table"),
        )
        return f"INSERT INTO {self.outdated} {rule}"

    def live(self) -> str:
        """Return the condition of the target's rows that live, in the scope if there is one."""
        alive = [f"t.{self.dialect.quoted(self.own.deleted_at)} IS NULL"] if marks(self.feed) else []
        scope = (self.in_scope(place, name) for place, name in enumerate(self.feed.scope))
        return " AND ".join(("TRUE", *alive, *scope))

    def in_scope(self, place: int, name: str) -> str:
        """Return the condition of the rows with the scope's value of a field."""
        return f"t.{self.dialect.quoted(name)} = {self.dialect.param(f'scope{place}', self.types[name])}"

    def count_live(self, enough: int) -> str:
        """Count the rows that live, but no further than asked for; ``-1``: all of them."""
        limit = f" LIMIT {enough}" if enough >= 0 else ""
        return f"SELECT COUNT(*) FROM (SELECT 1 FROM {self.target} AS t WHERE {self.live()}{limit}) AS live"

    def count_changes(self) -> str:
        """Count the records that apply, the rows that go, the deletions and the new rows; and the largest cursor."""
        of_file = f"record_no <= {self.param('last')}"
        return (
            f"SELECT COUNT(*) FILTER (WHERE {of_file}), COUNT(*) FILTER (WHERE deletion AND met = 1), "
            f"COUNT(*) FILTER (WHERE deletion AND {of_file}), COUNT(*) FILTER (WHERE NOT deletion AND met = 0), "
            f"MAX(cursor) FROM {self.changes}"
        )

    def deleted_keys(self) -> str:
        """Return the first keys whose rows go."""
        return (
            f"SELECT record_key FROM {self.changes} WHERE deletion AND met = 1 ORDER BY 1 LIMIT {self.param('limit')}"
        )

    def lineage_of_absent(self) -> str:
        """Write the lineage of the absent."""
        return (
            f"INSERT INTO {self.dialect.schema}lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT {self.param('run')}, record_key, record_no, 5 FROM {self.changes} "
            f"WHERE record_no > {self.param('last')} ORDER BY record_key, record_no"
        )

    def save_tombstones(self) -> str:
        """Keep the tombstones that are about to change, as images of that table's rows."""
        schema, deleted_at = self.dialect.schema, self.dialect.moment_text.format("d.deleted_at")
        image = self.dialect.json_object.format(f"'cursor', d.cursor, 'run_id', d.run_id, 'deleted_at', {deleted_at}")
        return (
            f"INSERT INTO {schema}before_images (run_id, table_name, record_key, image) "
            f"SELECT {self.param('run')}, 'tombstones', c.record_key, CASE WHEN d.cursor IS NOT NULL THEN {image} END "
            f"FROM {self.changes} c LEFT JOIN {schema}tombstones d "
            f"ON d.table_name = {self.param('table')} AND d.record_key = c.record_key WHERE c.deletion"
        )

    def bury(self) -> str:
        """Write the tombstones of the deletions."""
        return (
            f"INSERT INTO {self.dialect.schema}tombstones (table_name, record_key, cursor, run_id, deleted_at) "
            f"SELECT {self.param('table')}, record_key, {self.cursor_text()}, {self.param('run')}, {self.param('now')} "
            f"FROM {self.changes} WHERE deletion ORDER BY record_key ON CONFLICT (table_name, record_key) DO UPDATE "
            "SET cursor = excluded.cursor, run_id = excluded.run_id, deleted_at = excluded.deleted_at"
        )

    def cursor_text(self) -> str:
        """Return the cursor of a change as tombstones have it."""
        return "cursor"
