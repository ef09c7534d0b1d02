"""A database that a released inboxd made and filled is migrated, and nothing in it is lost."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
import pytest

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.store.schema import EARLIER, HEAD
from stores import MakeUrl, OpenEmpty, query

RELEASED: Final = Path(__file__).parent / "released"
"""What the first version made of the same files, an undo, a forced reload and an import, as SQL."""

pytestmark = pytest.mark.every_version

MakeReleased = Callable[..., Store]


@pytest.fixture
def open_released(make_url: MakeUrl) -> MakeReleased:
    """Return an opener of a database as the first version left it; ``also`` is run in it first."""

    def open_it(*also: str) -> Store:
        url = make_url()
        if url.startswith("sqlite"):
            with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
                connection.executescript((RELEASED / "first.sqlite.sql").read_text(encoding="utf-8"))
                connection.executescript("; ".join(also))
            connection.close()
        else:
            with psycopg.connect(url, autocommit=True) as server:
                # One by one: Citus takes no script of several statements on a table that is distributed.
                for statement in (RELEASED / "first.postgres.sql").read_text(encoding="utf-8").split(";\n"):
                    server.execute(statement.encode())
                for statement in also:
                    server.execute(statement.encode())
        return open_store(url)

    return open_it


def everything(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Return what the first version's tables and views hold, column by column as it had them."""
    columns = {
        "etl_runs": "id, job_name, status, rows_in, rows_out, rows_rejected, rows_skipped, rows_stale, duration_ms, "
        "started_at, finished_at, file_name, file_size, content_sha256, watermark, error_code, error, duplicate_of, "
        "superseded_by, undo_of, claim, host",
        "dead_letters": "id, raw, error, created, run_id, feed, record_no, record_key, detail, resolved_by",
        "lineage": "id, record_key, step, detail, created, run_id, record_no",
        "lineage_records": "run_id, record_key, record_no, outcome, detail",
        "watermarks": "name, value, run_id, updated_at",
        "before_images": "run_id, table_name, record_key, image",
        "run_log": "id, status, staged, loaded, rejected, duration_ms, created",
        "target": "key, name, value, ts, run_id, updated_at",
        "orders": "region, no, version, paid, run_id, updated_at",
    }
    return {table: query(store, f"SELECT {names} FROM {table} ORDER BY 1, 2, 3") for table, names in columns.items()}


def test_a_database_of_the_first_version_is_migrated_with_its_data(open_released: MakeReleased) -> None:
    """After the upgrade every row that there was is there, and the new columns say what the old rows can say."""
    with open_released() as store:
        before = everything(store)
        assert store.upgrade()
        assert store.schema_current()
        assert everything(store) == before
        assert len(before["etl_runs"]) == 11
        counted = query(store, "SELECT DISTINCT rows_filtered, rows_deleted, variant FROM etl_runs WHERE host = 'here'")
        assert counted == [(0, 0, "")]
        imported = "SELECT DISTINCT rows_filtered, rows_deleted, commit_no FROM etl_runs WHERE job_name = 'nightly'"
        assert query(store, imported) == [(None, None, None)]
        ordered = query(store, "SELECT id FROM etl_runs WHERE commit_no IS NOT NULL ORDER BY finished_at, id")
        numbered = query(store, "SELECT id, commit_no FROM etl_runs WHERE commit_no IS NOT NULL ORDER BY commit_no")
        assert numbered == [(run, place) for place, (run,) in enumerate(ordered, 1)]
        assert len(numbered) == 9
        assert not store.upgrade()


def test_a_migrated_database_works_on(open_released: MakeReleased) -> None:
    """New runs are numbered after the old ones, also after those that were given a number and are gone."""
    with open_released("DELETE FROM etl_runs WHERE id = 11") as store:
        store.upgrade()
        with store.writing() as connection:
            connection.exec_driver_sql(
                "INSERT INTO etl_runs (job_name, status, started_at) VALUES ('new', 'running', '2026-01-01T00:00:00Z')"
            )
        assert query(store, "SELECT MAX(id) FROM etl_runs") == [(12,)]


def test_what_somebody_added_to_the_ledger_stays(open_released: MakeReleased) -> None:
    """A column, an index and a view of the operator's own come through the migration."""
    mine = (
        "ALTER TABLE etl_runs ADD COLUMN note TEXT",
        "CREATE INDEX mine ON etl_runs (note)",
        "CREATE VIEW ours AS SELECT id, note FROM etl_runs",
        "UPDATE etl_runs SET note = 'kept' WHERE id = 1",
    )
    with open_released(*mine) as store:
        store.upgrade()
        assert query(store, "SELECT note FROM ours WHERE id = 1") == [("kept",)]
        with store.writing() as connection:
            connection.exec_driver_sql("DROP INDEX mine")


@pytest.mark.parametrize("name", ["tombstones", "notices", "expectations"])
def test_a_table_that_has_a_new_name_of_ours_is_left_alone(open_released: MakeReleased, name: str) -> None:
    """A feed's table with a name that inboxd needs now is named, and nothing is changed."""
    with open_released(f"CREATE TABLE {name} (id INTEGER)") as store:
        with pytest.raises(OperatorFault) as caught:
            store.upgrade()
        assert (caught.value.code, caught.value.exit_code) == ("schema_mismatch", EXIT_CONFIG)
        assert name in caught.value.message
        assert query(store, "SELECT version_num FROM alembic_version") == [("0001",)]
        assert not store.schema_current()


SCHEMA_ON_SQLITE: Final = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
SCHEMA_ON_POSTGRES: Final = """
SELECT 'column', c.relname || '.' || a.attnum || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
       a.attnotnull, a.attidentity, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid))
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relkind IN ('r', 'v', 'S') AND c.relnamespace = 'public'::regnamespace
 UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
 UNION ALL
SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
 UNION ALL
SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'
 UNION ALL
SELECT 'sequence', sequencename, concat_ws(' ', data_type, start_value, increment_by, cycle)
  FROM pg_sequences WHERE schemaname = 'public'
"""


def schema(store: Store) -> dict[tuple[str, str], str]:
    """Return everything that a database has but feeds' tables, word for word; white space does not count."""
    on_sqlite = store.identity().startswith("sqlite")
    rows = query(store, SCHEMA_ON_SQLITE if on_sqlite else SCHEMA_ON_POSTGRES)
    own = re.compile(r"(orders|target)(_pkey|\b)|citus_")
    return {
        (str(kind), str(name)): re.sub(r"\s*([(),])\s*", r"\1", " ".join(str(text).replace('"', "").split()))
        for kind, name, text in rows
        if own.match(str(name)) is None
    }


def test_a_migrated_database_is_as_if_it_were_new(open_released: MakeReleased, open_empty: OpenEmpty) -> None:
    """Columns and their order, types, defaults, checks, indexes and views: an upgrade makes what a new database has."""
    with open_released() as store:
        store.upgrade()
        migrated = schema(store)
    new = schema(open_empty())
    assert migrated == new
    assert len(new) > 20


def test_the_newest_revision_is_the_one_tested_here() -> None:
    """A further migration needs a further look at what the released versions left."""
    assert HEAD == "0002"
    assert set(EARLIER) == {"0001"}
