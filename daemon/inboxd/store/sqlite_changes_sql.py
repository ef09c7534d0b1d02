"""The statements of feeds on SQLite of which what is to be changed is found out first; see ``sqlite_changes``.

``winners``: of each key the record that stands among those of the file (with ``mark`` and a cursor, the upsert and the
deletion that do). ``changes``: those of them that change something, and the keys that a snapshot has not, as deletions
numbered after the file's last record. ``met`` tells what a change meets: 0 no row, 1 a row that lives, 2 a marked one.
"""

from __future__ import annotations

from collections.abc import Sequence

from inboxd.store.changes import compared, keeps_marks, last_wins
from inboxd.store.dialects import quoted
from inboxd.store.feed_tables import marks
from inboxd.store.sqlite_sql import FeedSql, Part


class ChangesSql(FeedSql):
    """One feed's statements."""

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

    def _unique(self) -> str:
        return f"{self.key_columns()}, deletion" if keeps_marks(self.feed) else self.key_columns()

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
            f"INSERT INTO {self.winners} AS w SELECT {self.keys('s')}, {self._deletion('s')}, "
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
            target = f"{self.target}"
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in self.feed.key)
        own_winner = f" AND w.deletion = {self._deletion('s')}" if keeps_marks(self.feed) else ""
        return (
            f"INSERT INTO {self.changes} SELECT {self.keys('s')}, {self._deletion('s')}, "
            f"{self._staged(self.cursor)}, s.{self.record_key}, s.{self.number}, {met} "
            f"FROM {self._of_source(part, self.feed.columns)} CROSS JOIN {self.winners} AS w LEFT JOIN {target} AS t "
            f"ON {same}{joins} WHERE {self.key_is('w', 's')} AND w.record_no = s.{self.number}{own_winner} "
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
        dead = f"CAST(d.cursor AS {self.cursor_type})"
        over = f"(d.cursor IS NULL OR s.{self.cursor} {{above}} {dead})"
        deletion = f"({key} IS NULL OR s.{self.cursor} >= t.{self.cursor}) AND {over.format(above=above)}"
        if keeps_marks(self.feed):
            same = " AND ".join(f"u.k{i} = w.k{i}" for i in range(len(self.feed.key)))
            newest = f"SELECT 1 FROM {self.winners} AS u WHERE {same} AND u.deletion = 0 AND u.cursor > w.cursor"
            return join, self._either(f"{deletion} AND NOT EXISTS ({newest})", newer)
        return join, self._either(deletion, f"{newer} AND {over.format(above='>')}")

    def _either(self, deletion: str, upsert: str) -> str:
        return f"CASE WHEN {self._deletion('s')} THEN {deletion} ELSE {upsert} END" if self.feed.deletes else upsert

    # What a snapshot has not

    def absent_keys(self) -> str:
        """Return the keys of the rows that live in the scope, and that no record has; in key order."""
        return (
            f"SELECT {self.keys('t')} FROM {self.target} AS t WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.winners} AS w WHERE {self.key_is('w', 't')}) AND {self.live()} "
            f"ORDER BY {self.keys('t')}"
        )

    def in_scope(self, place: int, name: str) -> str:
        """Return the condition of the rows with the scope's value of a field."""
        return f"t.{quoted(name)} IS :scope{place}"

    def add_absent(self) -> str:
        """Take a key that is absent among the changes."""
        keys = ", ".join("?" for _ in self.feed.key)
        return f"INSERT INTO {self.changes} VALUES ({keys}, 1, NULL, ?, ?, 1)"

    # Applying

    def save_images(self) -> str:
        """Keep the rows that are about to change, and note those that are not there yet."""
        key = f"t.{quoted(self.feed.key[0])}"
        return (
            "INSERT INTO main.before_images (run_id, table_name, record_key, image) "
            f"SELECT :run, :table, c.record_key, CASE WHEN {key} IS NOT NULL THEN {self.image()} END "
            f"FROM {self.changes} AS c LEFT JOIN {self.target} AS t ON {self.key_is('c', 't')} "
            f"{'WHERE NOT c.deletion' if keeps_marks(self.feed) else ''}"
        )

    def delete(self, part: Part) -> str:
        """Take the rows of deletions out, or mark them."""
        keys = ", ".join(map(quoted, self.feed.key))
        bounds = part.bounds((*(f"k{i}" for i in range(len(self.feed.key))), "record_no"))
        chosen = f"SELECT {self.key_columns()} FROM {self.changes} WHERE {' AND '.join(('deletion', *bounds))}"
        head = f"DELETE FROM {self.target}"
        if marks(self.feed):
            own = [(self.own.deleted_at, ":now"), (self.own.updated_at, ":now")]
            if not keeps_marks(self.feed):  # there the row is still that of its upsert
                own.append((self.own.run_id, ":run"))
            head = f"UPDATE {self.target} SET " + ", ".join(f"{quoted(name)} = {value}" for name, value in own)
        return f"{head} WHERE ({keys}) IN ({chosen})"

    def upsert(self, part: Part) -> str:
        """Write the rows of upserts. With ``mark`` a row below its tombstone is marked from the start."""
        more: tuple[str, ...] = ()
        join = ""
        if keeps_marks(self.feed):
            more = (f"CASE WHEN CAST(d.cursor AS {self.cursor_type}) >= s.{self.cursor} THEN d.deleted_at END",)
            join = f"LEFT JOIN main.tombstones AS d ON d.table_name = :table AND d.record_key = s.{self.record_key} "
        elif marks(self.feed):
            more = ("NULL",)
        return (
            f"{self.insert_into_target(more)} FROM {self.source(part)} CROSS JOIN {self.changes} AS c {join}"
            f"WHERE {self.key_is('c', 's')} AND c.record_no = s.{self.number} AND NOT c.deletion "
            f"{self.in_order(part)} {self.on_conflict()}"
        )

    def lineage(self, part: Part) -> str:
        """Write what became of the staged records."""
        join = f"LEFT JOIN {self.changes} AS c ON {self.key_is('c', 's')} AND c.record_no = s.{self.number}"
        return self.insert_lineage(part, "CASE WHEN c.record_no IS NULL THEN 1 WHEN c.deletion THEN 4 ELSE 0 END", join)
