"""The statements of a file's transaction on PostgreSQL that all feeds have, written once per feed.

Kept to what Citus accepts with the target distributed by its key, and does well: INSERT … SELECT … ON CONFLICT from
local temporary tables, and inner joins of those with the target, for which it sends the temporary rows to the target's
nodes. It would fetch the whole target for an outer join, or for changing a local table by a join; and it has no CTE
that writes. Key order keeps two daemons from locking the same rows crosswise.

How the staged records become rows is for each kind of feed to say: ``postgres_newest``, ``postgres_changes``,
``postgres_append``.
"""

from __future__ import annotations

from inboxd.model import Feed, FieldType
from inboxd.store import dialects
from inboxd.store.dialects import POSTGRES
from inboxd.store.statements import Statements

quoted = POSTGRES.quoted


class FeedSql(Statements):
    """One feed's statements. ``slot`` keeps the temporary tables of feeds apart: they are made once per connection."""

    def __init__(self, feed: Feed, slot: int) -> None:
        super().__init__(feed, slot, POSTGRES, "")
        self.staging = f"staging_{slot}"
        self.key = ", ".join(map(quoted, feed.key))
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
        collation = POSTGRES.collation if self.types[name] == "text" and name in self.feed.key else ""
        return f"{dialects.quoted(name)} {self.types[name]}{collation}"

    def copy_rows(self) -> str:
        """Take staged rows."""
        return f"COPY {self.staging} ({', '.join(map(dialects.quoted, self.feed.row_columns))}) FROM STDIN"

    def copy_rejects(self) -> str:
        """Take staged rejects."""
        return f"COPY {self.rejects} (record_no, raw, record_key, cursor, code, detail, context) FROM STDIN"

    def image_value(self, name: str) -> str:
        """Return a column as it stands in an image: exact, and moments as canonical text."""
        value = super().image_value(name)
        if self.kinds[name] is FieldType.TIMESTAMP:
            return moment(value)
        return f"{value}::text" if self.types[name] in {"jsonb", "numeric"} else value

    def cursor_text(self) -> str:
        """Return the cursor of a change as tombstones have it."""
        return moment("cursor") if self.cursor_type == POSTGRES.types[FieldType.TIMESTAMP] else "cursor::text"

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


def moment(value: str) -> str:
    """Return an expression's moment as canonical text."""
    return POSTGRES.moment_text.format(value)
