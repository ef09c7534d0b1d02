"""The statements of feeds on PostgreSQL of which what is to be changed is found out first; see ``postgres_changes``.

``winners`` and ``changes`` are as on SQLite. ``met`` has what the winners meet in the target: an inner join, for which
Citus sends them to the target's nodes; all that is decided from it is between tables of the coordinator.
"""

from __future__ import annotations

from inboxd.model import FieldType
from inboxd.store.changes import compared, keeps_marks, last_wins
from inboxd.store.dialects import POSTGRES
from inboxd.store.feed_tables import marks
from inboxd.store.postgres_sql import FeedSql, quoted


class ChangesSql(FeedSql):
    """One feed's statements."""

    @property
    def met(self) -> str:
        """The table of the rows that the winners meet."""
        return f"met_{self.slot}"

    @property
    def present(self) -> str:
        """The table into which a distributed target's keys are gathered."""
        return f"present_{self.slot}"

    def temporary(self) -> list[tuple[str, str]]:
        """Return the temporary tables with their columns."""
        keys = ", ".join(
            f"k{i} {self.types[name]}{POSTGRES.collation if self.types[name] == 'text' else ''}"
            for i, name in enumerate(self.feed.key)
        )
        winners = f'{keys}, deletion boolean, cursor {self.cursor_type}, record_key text COLLATE "C", record_no bigint'
        return [
            *super().temporary(),
            (self.winners, winners),
            (self.met, f"record_no bigint, cursor {self.cursor_type}, same boolean, marked boolean"),
            (self.changes, f"{winners}, met integer"),
            (self.origins, 'record_key text COLLATE "C", record_no bigint, run_id bigint, original bigint'),
            (self.outdated, "record_no bigint"),
            *([(self.present, keys)] if self.feed.absent else []),
        ]

    def copy_origins(self) -> str:
        """Take where a replay's records came from."""
        return f"COPY {self.origins} (record_key, record_no, run_id, original) FROM STDIN"

    def _deletion(self) -> str:
        return f"s.{quoted(self.own.deletion)}" if self.feed.deletes else "FALSE"

    def find_winners(self) -> str:
        """Keep the record of each key that stands."""
        deletion = self._deletion()
        cursor = f"s.{self.cursor}" if self.feed.cursor is not None else f"NULL::{self.cursor_type}"
        distinct = f"{self.keys('s')}, {deletion}" if keeps_marks(self.feed) else self.keys("s")
        ranked = [f"{cursor} DESC"] if self.feed.cursor is not None else []
        if self.feed.cursor is not None and self.feed.deletes:
            ranked.append(f"{deletion} DESC")
        number = f"s.{self.number} DESC" if last_wins(self.feed) else f"s.{self.number}"
        return (
            f"INSERT INTO {self.winners} SELECT DISTINCT ON ({distinct}) {self.keys('s')}, {deletion}, {cursor}, "
            f"s.{self.record_key}, s.{self.number} FROM {self.staging} s "
            f"WHERE s.{self.number} NOT IN (SELECT record_no FROM {self.outdated}) "
            f"ORDER BY {', '.join([distinct, *ranked, number])}"
        )

    def meet(self) -> str:
        """Find the rows that the winners meet, and whether they say the same."""
        same = "FALSE"
        source, joined = f"{self.winners} s", self.key_is("s", "t")
        number = "s.record_no"
        if self.feed.ordered:
            chosen = f"SELECT s.* FROM {self.staging} s JOIN {self.winners} w ON w.record_no = s.{self.number}"
            source, joined, number = f"({chosen}) s", self.same_key, f"s.{self.number}"
            differs = " OR ".join(
                f"t.{self._comparable(name)} IS DISTINCT FROM s.{self._comparable(name)}"
                for name in compared(self.feed)
            )
            same = f"NOT ({differs})" if differs else "TRUE"
        cursor = f"t.{self.cursor}" if self.feed.cursor is not None else "NULL"
        marked = f"t.{quoted(self.own.deleted_at)} IS NOT NULL" if marks(self.feed) else "FALSE"
        return (
            f"INSERT INTO {self.met} SELECT {number}, {cursor}, {same}, {marked} "
            f"FROM {source} JOIN {self.target} t ON {joined}"
        )

    def _comparable(self, name: str) -> str:
        """Return a column as it is compared: 1.0 and 1.00 are two decimals."""
        return f"{quoted(name)}::text" if self.kinds[name] is FieldType.DECIMAL else quoted(name)

    def decide(self, *, force: bool) -> str:
        """Find the winners that change something."""
        join, applies = self._rule(force=force)
        return (
            f"INSERT INTO {self.changes} "
            "SELECT w.*, CASE WHEN m.record_no IS NULL THEN 0 WHEN m.marked THEN 2 ELSE 1 END "
            f"FROM {self.winners} w LEFT JOIN {self.met} m ON m.record_no = w.record_no{join} WHERE {applies}"
        )

    def _rule(self, *, force: bool) -> tuple[str, str]:
        """Return the joins and the condition that tell whether a winner applies."""
        if self.feed.cursor is None:
            upsert = "m.record_no IS NULL OR m.marked OR NOT m.same"
            return "", self._either("m.record_no IS NOT NULL AND NOT m.marked", upsert)
        above = ">=" if force else ">"
        newer = f"(m.record_no IS NULL OR w.cursor {above} m.cursor)"
        if self.feed.deletes is None:
            return "", newer
        join = " LEFT JOIN tombstones d ON d.table_name = %(table)s::text AND d.record_key = w.record_key"
        over = f"(d.cursor IS NULL OR w.cursor {{above}} d.cursor::{self.cursor_type})"
        deletion = f"(m.record_no IS NULL OR w.cursor >= m.cursor) AND {over.format(above=above)}"
        if keeps_marks(self.feed):
            same = " AND ".join(f"u.k{i} = w.k{i}" for i in range(len(self.feed.key)))
            newest = f"SELECT 1 FROM {self.winners} u WHERE {same} AND NOT u.deletion AND u.cursor > w.cursor"
            return join, self._either(f"{deletion} AND NOT EXISTS ({newest})", newer)
        return join, self._either(deletion, f"{newer} AND {over.format(above='>')}")

    def _either(self, deletion: str, upsert: str) -> str:
        if not self.feed.deletes:
            return upsert
        return f"(w.deletion AND {deletion} OR NOT w.deletion AND ({upsert}))"

    # What a snapshot has not

    def gather_present(self) -> str:
        """Bring the keys of a distributed target to the coordinator."""
        return f"INSERT INTO {self.present} SELECT {self.keys('t')} FROM {self.target} t WHERE {self.live()}"

    def absent_keys(self, *, gathered: bool) -> str:
        """Return the keys of the rows that live in the scope, and that no record has; in key order."""
        if gathered:
            same = " AND ".join(f"w.k{i} = t.k{i}" for i in range(len(self.feed.key)))
            keys, source, live = self.key_columns(), self.present, "TRUE"
        else:
            same = self.key_is("w", "t")
            keys, source, live = self.keys("t"), self.target, self.live()
        absent = f"NOT EXISTS (SELECT 1 FROM {self.winners} w WHERE {same})"
        return f"SELECT {keys} FROM {source} t WHERE {live} AND {absent} ORDER BY {keys}"

    def copy_absent(self) -> str:
        """Take absent keys among the changes."""
        return f"COPY {self.changes} ({self.key_columns()}, deletion, record_key, record_no, met) FROM STDIN"

    # Applying

    def save_images(self) -> str:
        """Keep the rows that are about to change."""
        return (
            "INSERT INTO before_images (run_id, table_name, record_key, image) "
            f"SELECT %(run)s::bigint, %(table)s::text, c.record_key, {self.image()} "
            f"FROM {self.changes} c JOIN {self.target} t ON {self.key_is('c', 't')}{self._imaged()}"
        )

    def save_absences(self) -> str:
        """Note the keys that have no row yet: those that have no image by now."""
        return (
            "INSERT INTO before_images (run_id, table_name, record_key) "
            f"SELECT %(run)s::bigint, %(table)s::text, c.record_key FROM {self.changes} c WHERE TRUE"
            f"{self._imaged(' AND')} ON CONFLICT DO NOTHING"
        )

    def _imaged(self, word: str = " WHERE") -> str:
        """Return the condition of the changes whose rows are kept: what marks a row leaves it that of its upsert."""
        return f"{word} NOT c.deletion" if keeps_marks(self.feed) else ""

    def delete(self) -> str:
        """Take the rows of deletions out, or mark them."""
        where = f"c.deletion AND {self.key_is('c', 't')}"
        if not marks(self.feed):
            return f"DELETE FROM {self.target} t USING {self.changes} c WHERE {where}"
        own = [(self.own.deleted_at, "%(now)s::timestamptz"), (self.own.updated_at, "%(now)s::timestamptz")]
        if not keeps_marks(self.feed):  # there the row is still that of its upsert
            own.append((self.own.run_id, "%(run)s::bigint"))
        assignments = ", ".join(f"{quoted(name)} = {value}" for name, value in own)
        return f"UPDATE {self.target} t SET {assignments} FROM {self.changes} c WHERE {where}"

    def upsert(self) -> str:
        """Write the rows of upserts. With ``mark`` a row below its tombstone is marked from the start."""
        more: tuple[str, ...] = ()
        join = ""
        if keeps_marks(self.feed):
            more = (f"CASE WHEN d.cursor::{self.cursor_type} >= s.{self.cursor} THEN d.deleted_at END",)
            join = f" LEFT JOIN tombstones d ON d.table_name = %(table)s::text AND d.record_key = s.{self.record_key}"
        elif marks(self.feed):
            more = ("NULL::timestamptz",)
        return (
            f"{self.insert_into_target(more)} FROM {self.staging} s "
            f"JOIN {self.changes} c ON c.record_no = s.{self.number} AND NOT c.deletion{join} "
            f"ORDER BY {self.keys('s')} {self.on_conflict()}"
        )

    def lineage(self) -> str:
        """Write what became of the staged records."""
        outcome = "CASE WHEN c.record_no IS NULL THEN 1 WHEN c.deletion THEN 4 ELSE 0 END"
        return self.insert_lineage(outcome, f"LEFT JOIN {self.changes} c ON c.record_no = s.{self.number}")
