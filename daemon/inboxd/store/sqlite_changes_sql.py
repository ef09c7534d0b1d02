"""The statements of feeds on SQLite of which what is to be changed is found out first; see ``sqlite_changes``.

``winners``: of each key the record that stands among those of the file (with ``mark`` and a cursor, the upsert and the
deletion that do). ``changes``: those of them that change something, and the keys that a snapshot has not, as deletions
numbered after the file's last record. ``met`` tells what a change meets: 0 no row, 1 a row that lives, 2 a marked one.
"""

from __future__ import annotations

from collections.abc import Sequence

from inboxd.model import FieldType
from inboxd.store.changes import OUTDATED, compared, keeps_marks, last_wins
from inboxd.store.feed_tables import marks, quoted
from inboxd.store.sqlite_sql import FeedSql, Part


class ChangesSql(FeedSql):
    """One feed's statements."""

    @property
    def changes(self) -> str:
        """The table of what is to be changed."""
        return f"scratch.changes_{self.slot}"

    def create_tables(self) -> list[str]:
        """Return what is made once."""
        keys = ", ".join(f"k{i} {self.types[name]} NOT NULL" for i, name in enumerate(self.feed.key))
        cursor = self.types[self.feed.cursor] if self.feed.cursor is not None else ""
        unique = f"PRIMARY KEY ({self._unique()})) WITHOUT ROWID"
        winners = f"{keys}, deletion INTEGER, cursor {cursor}, record_no INTEGER, {unique}"
        changes = (
            f"{keys}, deletion INTEGER, cursor {cursor}, record_key TEXT, record_no INTEGER, met INTEGER, {unique}"
        )
        made = [(self.winners, winners), (self.changes, changes)]
        made += [
            (self.origins, "record_key TEXT, record_no INTEGER PRIMARY KEY, run_id INTEGER, original INTEGER)"),
            (self.outdated, "record_no INTEGER PRIMARY KEY)"),
        ]
        return [*super().create_tables(), *(f"CREATE TABLE {name} ({columns}" for name, columns in made)]

    @property
    def origins(self) -> str:
        """The table of where a replay's records came from."""
        return f"scratch.origins_{self.slot}"

    @property
    def outdated(self) -> str:
        """The table of a replay's records that are stale from the start."""
        return f"scratch.outdated_{self.slot}"

    def find_outdated(self) -> str:
        """Find the records whose key was applied later."""
        rule = OUTDATED.format(
            origins=self.origins, runs="main.etl_runs", lineage="main.lineage_records", table=":table"
        )
        return f"INSERT INTO {self.outdated} {rule}"

    def _unique(self) -> str:
        return f"{self.key_columns()}, deletion" if keeps_marks(self.feed) else self.key_columns()

    def _keys(self, alias: str) -> str:
        return ", ".join(f"{alias}.{quoted(name)}" for name in self.feed.key)

    def _deletion(self, alias: str) -> str:
        return f"{alias}.{quoted(self.own.deletion)}" if self.feed.deletes else "0"

    def _of_source(self, part: Part, more: Sequence[str] = ()) -> str:
        cursor = () if self.feed.cursor is None else (self.feed.cursor,)
        deletion = (self.own.deletion,) if self.feed.deletes else ()
        return self.source(part, (*self.feed.key, *cursor, *deletion, self.feed.record_key_column, *more))

    def _staged(self, name: str) -> str:
        return f"s.{name}" if name != "NULL" else name

    def find_winners(self, part: Part) -> str:
        """Keep the record of each key that stands; parts are given in file order, so of equals the first is there."""
        ranked = ["cursor", "deletion"] if self.feed.cursor is not None else []
        if last_wins(self.feed):
            ranked.append("record_no")
        better = " > ".join(f"({', '.join(f'{alias}.{name}' for name in ranked)})" for alias in ("excluded", "w"))
        return (
            f"INSERT INTO {self.winners} AS w SELECT {self._keys('s')}, {self._deletion('s')}, "
            f"{self._staged(self.cursor)}, s.{self.number} "
            f"FROM {self._of_source(part)} "
            f"WHERE s.{self.number} NOT IN (SELECT record_no FROM {self.outdated}) {self.in_order(part)} "
            f"ON CONFLICT ({self._unique()}) DO UPDATE SET cursor = excluded.cursor, deletion = excluded.deletion, "
            f"record_no = excluded.record_no WHERE {better}"
        )

    def decide(self, part: Part, *, force: bool, table: bool) -> str:
        """Find the winners that change something. Without a table there is no row to meet."""
        key = f"t.{quoted(self.feed.key[0])}"
        marked = f"t.{quoted(self.own.deleted_at)} IS NOT NULL" if marks(self.feed) else "FALSE"
        met = f"CASE WHEN {key} IS NULL THEN 0 WHEN {marked} THEN 2 ELSE 1 END"
        joins, applies = self._rule(key, marked, force=force)
        if not table:
            empty = ", ".join(f"NULL AS {quoted(name)}" for name in (*self.feed.columns, self.own.deleted_at))
            target = f"(SELECT {empty} LIMIT 0)"
        else:
            target = f"main.{self.target}"
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in self.feed.key)
        own_winner = f" AND w.deletion = {self._deletion('s')}" if keeps_marks(self.feed) else ""
        return (
            f"INSERT INTO {self.changes} SELECT {self._keys('s')}, {self._deletion('s')}, "
            f"{self._staged(self.cursor)}, s.{self.record_key}, s.{self.number}, {met} "
            f"FROM {self._of_source(part, self.feed.columns)} CROSS JOIN {self.winners} AS w LEFT JOIN {target} AS t "
            f"ON {same}{joins} WHERE {self.same_key('w', 's')} AND w.record_no = s.{self.number}{own_winner} "
            f"AND CASE WHEN {applies} THEN TRUE ELSE FALSE END {self.in_order(part)}"
        )

    def _rule(self, key: str, marked: str, *, force: bool) -> tuple[str, str]:
        """Return the joins and the condition that tell whether a winner applies."""
        if self.feed.cursor is None:
            names = compared(self.feed)
            differs = "FALSE"
            if names:
                differs = " IS NOT ".join(f"({', '.join(f'{a}.{quoted(name)}' for name in names)})" for a in "ts")
            upsert = f"{key} IS NULL OR {marked} OR {differs}"
            return "", self._either(f"{key} IS NOT NULL AND NOT {marked}", upsert)
        above = ">=" if force else ">"
        newer = f"({key} IS NULL OR s.{self.cursor} {above} t.{self.cursor})"
        if self.feed.deletes is None:
            return "", newer
        join = f" LEFT JOIN main.tombstones AS d ON d.table_name = :table AND d.record_key = s.{self.record_key}"
        dead = f"CAST(d.cursor AS {self._cursor_kind})"
        over = f"(d.cursor IS NULL OR s.{self.cursor} {{above}} {dead})"
        deletion = f"({key} IS NULL OR s.{self.cursor} >= t.{self.cursor}) AND {over.format(above=above)}"
        if keeps_marks(self.feed):
            same = " AND ".join(f"u.k{i} = w.k{i}" for i in range(len(self.feed.key)))
            newest = f"SELECT 1 FROM {self.winners} AS u WHERE {same} AND u.deletion = 0 AND u.cursor > w.cursor"
            return join, self._either(f"{deletion} AND NOT EXISTS ({newest})", newer)
        return join, self._either(deletion, f"{newer} AND {over.format(above='>')}")

    def _either(self, deletion: str, upsert: str) -> str:
        return f"CASE WHEN {self._deletion('s')} THEN {deletion} ELSE {upsert} END" if self.feed.deletes else upsert

    @property
    def _cursor_kind(self) -> str:
        return "INTEGER" if self.feed.cursor_field.type is FieldType.INTEGER else "TEXT"

    # What a snapshot has not

    def absent_keys(self) -> str:
        """Return the keys of the rows that live in the scope, and that no record has; in key order."""
        alive = f" AND t.{quoted(self.own.deleted_at)} IS NULL" if marks(self.feed) else ""
        scope = "".join(f" AND t.{quoted(name)} IS :scope{i}" for i, name in enumerate(self.feed.scope))
        return (
            f"SELECT {self._keys('t')} FROM main.{self.target} AS t WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.winners} AS w WHERE {self.same_key('w', 't')}){alive}{scope} "
            f"ORDER BY {self._keys('t')}"
        )

    def add_absent(self) -> str:
        """Take a key that is absent among the changes."""
        keys = ", ".join("?" for _ in self.feed.key)
        return f"INSERT INTO {self.changes} VALUES ({keys}, 1, NULL, ?, ?, 1)"

    def lineage_of_absent(self) -> str:
        """Write the lineage of the absent."""
        return (
            "INSERT INTO main.lineage_records (run_id, record_key, record_no, outcome) "
            f"SELECT :run, record_key, record_no, 5 FROM {self.changes} WHERE record_no > :last ORDER BY record_key"
        )

    def count_live(self) -> str:
        """Count the rows that live, in the scope if there is one, but no further than asked for."""
        alive = f" AND t.{quoted(self.own.deleted_at)} IS NULL" if marks(self.feed) else ""
        scope = "".join(f" AND t.{quoted(name)} IS :scope{i}" for i, name in enumerate(self.feed.scope))
        inner = f"SELECT 1 FROM main.{self.target} AS t WHERE TRUE{alive}{scope} LIMIT :enough"
        return f"SELECT COUNT(*) FROM ({inner})"

    # Counting and applying

    def count_changes(self) -> str:
        """Count the records that apply, the rows that go, the deletions and the new rows; and the largest cursor."""
        of_file = "record_no <= :last"
        return (
            f"SELECT COUNT(*) FILTER (WHERE {of_file}), COUNT(*) FILTER (WHERE deletion AND met = 1), "
            f"COUNT(*) FILTER (WHERE deletion AND {of_file}), COUNT(*) FILTER (WHERE NOT deletion AND met = 0), "
            f"MAX(cursor) FROM {self.changes}"
        )

    def deleted_keys(self) -> str:
        """Return the first keys whose rows go."""
        return f"SELECT record_key FROM {self.changes} WHERE deletion AND met = 1 ORDER BY 1 LIMIT :limit"

    def save_images(self) -> str:
        """Keep the rows that are about to change, and note those that are not there yet."""
        key = f"t.{quoted(self.feed.key[0])}"
        return (
            "INSERT INTO main.before_images (run_id, table_name, record_key, image) "
            f"SELECT :run, :table, c.record_key, CASE WHEN {key} IS NOT NULL THEN {self.image()} END "
            f"FROM {self.changes} AS c LEFT JOIN main.{self.target} AS t ON {self.same_key('c', 't')} "
            f"{'WHERE NOT c.deletion' if keeps_marks(self.feed) else ''}"
        )

    def save_tombstones(self) -> str:
        """Keep the tombstones that are about to change, as images of that table's rows."""
        image = "json_object('cursor', d.cursor, 'run_id', d.run_id, 'deleted_at', d.deleted_at)"
        return (
            "INSERT INTO main.before_images (run_id, table_name, record_key, image) "
            f"SELECT :run, 'tombstones', c.record_key, CASE WHEN d.cursor IS NOT NULL THEN {image} END "
            f"FROM {self.changes} AS c LEFT JOIN main.tombstones AS d "
            "ON d.table_name = :table AND d.record_key = c.record_key WHERE c.deletion"
        )

    def bury(self) -> str:
        """Write the tombstones of the deletions."""
        return (
            "INSERT INTO main.tombstones (table_name, record_key, cursor, run_id, deleted_at) "
            f"SELECT :table, record_key, cursor, :run, :now FROM {self.changes} WHERE deletion "
            "ON CONFLICT (table_name, record_key) DO UPDATE "
            "SET cursor = excluded.cursor, run_id = excluded.run_id, deleted_at = excluded.deleted_at"
        )

    def delete(self, part: Part) -> str:
        """Take the rows of deletions out, or mark them."""
        keys = ", ".join(map(quoted, self.feed.key))
        bounds = part.bounds((*(f"k{i}" for i in range(len(self.feed.key))), "record_no"))
        chosen = f"SELECT {self.key_columns()} FROM {self.changes} WHERE {' AND '.join(('deletion', *bounds))}"
        head = f"DELETE FROM main.{self.target}"
        if marks(self.feed):
            own = [(self.own.deleted_at, ":now"), (self.own.updated_at, ":now")]
            if not keeps_marks(self.feed):  # there the row is still that of its upsert
                own.append((self.own.run_id, ":run"))
            head = f"UPDATE main.{self.target} SET " + ", ".join(f"{quoted(name)} = {value}" for name, value in own)
        return f"{head} WHERE ({keys}) IN ({chosen})"

    def upsert(self, part: Part) -> str:
        """Write the rows of upserts. With ``mark`` a row below its tombstone is marked from the start."""
        more: tuple[str, ...] = ()
        join = ""
        if keeps_marks(self.feed):
            more = (f"CASE WHEN CAST(d.cursor AS {self._cursor_kind}) >= s.{self.cursor} THEN d.deleted_at END",)
            join = f"LEFT JOIN main.tombstones AS d ON d.table_name = :table AND d.record_key = s.{self.record_key} "
        elif marks(self.feed):
            more = ("NULL",)
        return (
            f"{self.insert_into_target(more)} FROM {self.source(part)} CROSS JOIN {self.changes} AS c {join}"
            f"WHERE {self.same_key('c', 's')} AND c.record_no = s.{self.number} AND NOT c.deletion "
            f"{self.in_order(part)} {self.on_conflict('TRUE')}"
        )

    def lineage(self, part: Part) -> str:
        """Write what became of the staged records."""
        join = f"LEFT JOIN {self.changes} AS c ON {self.same_key('c', 's')} AND c.record_no = s.{self.number}"
        return self.insert_lineage(part, "CASE WHEN c.record_no IS NULL THEN 1 WHEN c.deletion THEN 4 ELSE 0 END", join)
