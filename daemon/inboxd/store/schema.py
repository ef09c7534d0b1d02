"""The control tables: made, or brought to this version from an earlier one, in the caller's transaction and lock.

It speaks to the database by its own driver, as each first start does this: to import SQLAlchemy takes 0.1 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.store.dialects import COMMITS, POSTGRES, Dialect

HEAD: Final = "0002"
"""The revision that ``control_tables.sql`` makes. ``alembic_version`` has it, for Alembic kept these tables once."""
Run = Callable[..., Sequence[tuple[Any, ...]]]  # Any: whatever the columns hold
"""Runs a statement with its parameters, and returns its rows, if it has any."""


def statements(dialect: Dialect) -> dict[str, str]:
    """Return the script's statements as a database takes them, by the name of what each makes, in order."""
    script = resources.files("inboxd.store").joinpath("control_tables.sql").read_text(encoding="utf-8")
    for word in ("identity", "stamp", "collation", "without_rowid"):
        script = script.replace(f"{{{word}}}", getattr(dialect, word))
    named = re.finditer(r"^CREATE (?:UNIQUE )?\w+(?: IF NOT EXISTS)? (\w+).*?(?=;$)", script, re.MULTILINE | re.DOTALL)
    return {found[1]: found[0] for found in named}


def columns(statement: str) -> dict[str, str]:
    """Return the columns of a table in the script: each name, and what stands after it."""
    return dict(re.findall(r"^ {4}(?!CONSTRAINT|PRIMARY)(\w+) (.+?),?$", statement, re.MULTILINE))


def is_current(run: Run, dialect: Dialect) -> bool:
    """Tell whether the control tables are of this version of inboxd; raises ``OperatorFault`` if they are newer."""
    return _revision(run, dialect) == HEAD


def upgrade(run: Run, dialect: Dialect) -> bool:
    """Bring the control tables to ``HEAD``; tells whether anything was to do, which others may have done meanwhile."""
    revision = _revision(run, dialect)
    if revision == HEAD:
        return False
    if revision is None:
        for statement in statements(dialect).values():
            run(statement)
        if dialect is POSTGRES:
            run(f"CREATE SEQUENCE {COMMITS} OWNED BY etl_runs.commit_no")
        run(f"INSERT INTO alembic_version (version_num) VALUES ('{HEAD}')")
    else:
        EARLIER[revision](run, dialect)
        run(f"UPDATE alembic_version SET version_num = '{HEAD}'")
    return True


def _revision(run: Run, dialect: Dialect) -> str | None:
    if not run(dialect.is_there, "alembic_version"):
        return None
    found = run("SELECT version_num FROM alembic_version")
    revision = str(found[0][0]) if found else None
    if revision not in {None, HEAD, *EARLIER}:
        message = (
            f"the database's schema is revision {revision!r}; this version of inboxd knows none later than {HEAD!r}"
        )
        raise OperatorFault("schema_newer", message, "run the newer inboxd that made it", exit_code=EXIT_CONFIG)
    return revision


NEW_TABLES: Final = ("tombstones", "notices", "expectations", "feed_columns")
NEW_COLUMNS: Final = (
    *("rows_filtered", "rows_deleted", "commit_no", "file_mtime"),
    *("variant", "report", "file_removed", "table_name"),
)
OLD_SUM: Final = "rows_in = rows_out + rows_rejected + rows_skipped + rows_stale"
OLD_TOGETHER: Final = (
    "(rows_rejected IS NULL) = (rows_skipped IS NULL) AND (rows_rejected IS NULL) = (rows_stale IS NULL)"
)
OLD_SIGNS: Final = (
    "rows_in >= 0 AND rows_out >= 0 AND duration_ms >= 0 "
    "AND COALESCE(rows_rejected, 0) >= 0 AND COALESCE(rows_skipped, 0) >= 0 AND COALESCE(rows_stale, 0) >= 0"
)
CHECKS: Final = {  # name: what it said, what is added to it
    "run_accounts_for_every_record": (f"rows_rejected IS NULL OR {OLD_SUM}", " + rows_filtered"),
    "run_counts_together": (
        OLD_TOGETHER,
        " AND (rows_rejected IS NULL OR rows_filtered IS NOT NULL AND rows_deleted IS NOT NULL)",
    ),
    "run_counts_not_negative": (
        OLD_SIGNS,
        " AND COALESCE(rows_filtered, 0) >= 0 AND COALESCE(rows_deleted, 0) >= 0",
    ),
}
NUMBER_COMMITS: Final = """
UPDATE etl_runs SET commit_no = ordered.place
  FROM (SELECT id AS run, ROW_NUMBER() OVER (ORDER BY finished_at, id) AS place
          FROM etl_runs WHERE finished_at IS NOT NULL AND rows_rejected IS NOT NULL) AS ordered
 WHERE etl_runs.id = ordered.run
"""
"""Runs that came to no end have no place in the order, nor have imported ones, which touched nothing."""


def _from_0001(run: Run, dialect: Dialect) -> None:
    """Add filtered and deleted records, the order of commits, tombstones and notices, and number the old commits."""
    made = statements(dialect)
    taken = [table for table in sorted(NEW_TABLES) if run(dialect.is_there, table)]
    if taken:
        raise _mismatch(
            f"inboxd has tables of its own called {', '.join(taken)} now, and there are others of these names"
        )
    run("DROP INDEX etl_runs_loaded_once")
    for name in NEW_COLUMNS:
        run(f"ALTER TABLE etl_runs ADD COLUMN {name} {columns(made['etl_runs'])[name]}")
    run("UPDATE etl_runs SET rows_filtered = NULL, rows_deleted = NULL WHERE rows_rejected IS NULL")
    run(NUMBER_COMMITS)
    if dialect is POSTGRES:
        for name, (old, more) in CHECKS.items():
            run(f"ALTER TABLE etl_runs DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({old}{more})")
        run(f"CREATE SEQUENCE {COMMITS} OWNED BY etl_runs.commit_no")
        run(f"SELECT setval('{COMMITS}', (SELECT COALESCE(MAX(commit_no), 0) + 1 FROM etl_runs), FALSE)")
    else:
        _rebuild_runs(run)
    run("ALTER TABLE dead_letters ADD COLUMN context TEXT")
    run("DROP VIEW lineage")
    for name in ("etl_runs_loaded_once", "etl_runs_commit", "lineage", *NEW_TABLES, "notices_open"):
        run(made[name])


EARLIER: Final = {"0001": _from_0001}
"""From each revision that a released version made, how to ``HEAD``."""


def _rebuild_runs(run: Run) -> None:
    """Change the checks in the one way SQLite has: a new table takes the rows, the number of ids given, and the name.

    The table's own text is changed, so that columns which somebody added by hand stay; so do indexes and triggers.
    """
    objects = run("SELECT type, sql FROM sqlite_schema WHERE tbl_name = 'etl_runs' AND sql IS NOT NULL ORDER BY rowid")
    (text,) = (sql for kind, sql in objects if kind == "table")
    for old, more in CHECKS.values():
        if f"({old})" not in text:
            raise _mismatch(f"etl_runs was changed by hand: it has no CHECK ({old})")
        text = text.replace(f"({old})", f"({old}{more})")
    run("PRAGMA legacy_alter_table = ON")  # views and triggers name the table, which is gone for a moment
    try:
        run("CREATE TABLE etl_runs_next " + text[text.index("(") :])
        run("INSERT INTO etl_runs_next SELECT * FROM etl_runs")
        run("DELETE FROM sqlite_sequence WHERE name = 'etl_runs_next'")
        run("UPDATE sqlite_sequence SET name = 'etl_runs_next' WHERE name = 'etl_runs'")
        run("DROP TABLE etl_runs")
        run("ALTER TABLE etl_runs_next RENAME TO etl_runs")
    finally:
        run("PRAGMA legacy_alter_table = OFF")
    for kind, sql in objects:
        if kind != "table":
            run(sql)


def _mismatch(message: str) -> OperatorFault:
    hint = "nothing was changed; give your table another name, or put inboxd's table back as it was"
    return OperatorFault("schema_mismatch", message, hint, exit_code=EXIT_CONFIG)
