"""What people ask of a large ledger on PostgreSQL is answered from indexes, as the server itself plans it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import sqlalchemy as sa

from clusters import new_database
from inboxd.operate.browse import last_change, last_successes, newest_dead_letters, recent_runs, records_of
from inboxd.operate.dead_letters import count_open
from inboxd.operate.explain import explain, explain_file, explain_run
from inboxd.operate.health import health
from inboxd.operate.hosts import hosts
from inboxd.operate.trend import trend
from inboxd.outcomes import RunStatus
from inboxd.store import open_store
from inboxd.store.database import Store
from stores import make_feed

pytestmark = pytest.mark.postgres

FEED: Final = make_feed("events")
BULK: Final = make_feed("bulk", table="events")
RUNS: Final = 20_000
"""A file every half hour for more than a year; a day is a four-hundredth of it."""
LARGE: Final = 400
"""As many of them are of a thousand records, and of another feed."""
FILL: Final = f"""
INSERT INTO etl_runs (job_name, status, rows_in, rows_out, duration_ms, started_at, finished_at, file_name,
                      content_sha256, claim, host, commit_no)
SELECT 'events', 'success', 10, 10, mod(n, 50), began, began, 'a/' || n || '.json',
       repeat('0', 59) || to_char(n, 'FM00000'), 'claim-' || n, 'host-' || mod(n, 3), n
  FROM generate_series(1, {RUNS}) n CROSS JOIN LATERAL (SELECT now() - ({RUNS} - n) * interval '30 min') t (began);
UPDATE etl_runs SET job_name = 'bulk', rows_in = 1000, rows_out = 1000 WHERE mod(id, {RUNS // LARGE}) = 0;
INSERT INTO lineage_records (run_id, record_key, record_no, outcome)
SELECT id, 'key-' || mod(id * 7 + k, 5000), k, 0 FROM etl_runs, generate_series(1, 1000) k WHERE job_name = 'bulk';
UPDATE lineage_records
   SET outcome = 1, record_key = CASE WHEN record_no > 50 THEN 'nobody-' || record_no ELSE record_key END
 WHERE run_id = {RUNS - RUNS // LARGE} AND record_no <= 100;
INSERT INTO dead_letters (raw, error, created, run_id, feed, record_no, record_key, resolved_by)
SELECT '{{}}', 'missing_at', now(), n, 'events', 1, 'bad-' || n, CASE WHEN mod(n, 100) <> 0 THEN 1 END
  FROM generate_series(1, {RUNS}) n;
INSERT INTO events (k0, value, at, run_id, updated_at)
SELECT 'key-' || n, n, now(), {RUNS}, now() FROM generate_series(1, 5000) n;
ANALYZE etl_runs, lineage_records, dead_letters, events
"""
READ_WHOLE: Final = re.compile(r"Seq Scan on (etl_runs|lineage_records|dead_letters|events)\b")


class Asked:
    """The statements that are put to a store, each with the server's plan of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements: list[tuple[str, Any]] = []  # Any: whatever the driver is handed
        with store.reading() as connection:
            self._engine = connection.engine

    def __enter__(self) -> list[tuple[str, Any]]:
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        return self._statements

    def __exit__(self, *_raised: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, values: object, *_rest: object) -> None:
        self._statements.append((statement, values))


@pytest.fixture(scope="module")
def ledger(postgres_server: str) -> Iterator[Store]:
    """Return a reader of a large ledger."""
    with new_database(postgres_server) as url:
        with open_store(url) as store:
            store.upgrade()
            store.prepare([FEED])
            with store.writing() as connection:
                for statement in FILL.split(";\n"):
                    connection.exec_driver_sql(statement)
        with open_store(url, readonly=True) as store:
            yield store


def plans(store: Store, asked: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Return each question with the server's plan of it; those to the catalog are not ours."""
    explained: list[tuple[str, str]] = []
    with store.reading() as connection:
        for statement, values in asked:
            if "pg_catalog" not in statement:
                lines = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars()
                explained.append((statement, "\n".join(map(str, lines))))
    return explained


def ask_everything(store: Store) -> None:
    """Ask what the page, ``explain``, ``health``, ``status`` and the metrics ask."""
    now = datetime.now(UTC)
    for hours in (1.0, 24.0, 168.0):
        trend(store, now=now, hours=hours, buckets=24)
        health(store, now=now, hours=hours, limit=10)
        recent_runs(store, now=now, hours=hours, limit=20)
    hosts(store, now=now)
    last_change(store)
    last_successes(store, ["events"])
    store.run(7)
    store.runs(limit=20)
    store.runs(before=RUNS, limit=50)
    store.runs(job="events", status=RunStatus.SUCCESS, before=RUNS, limit=50)
    explain_run(store, [BULK], RUNS)
    records_of(store, RUNS, after=None, limit=50)
    records_of(store, RUNS, after=("key-3", 1), limit=50)
    newest_dead_letters(store, limit=50)
    newest_dead_letters(store, feed="events", code="missing_at", before=RUNS, limit=50)
    newest_dead_letters(store, run=7, limit=50)
    count_open(store)


def test_questions_to_a_large_ledger_are_answered_from_indexes(ledger: Store) -> None:
    """No table is read whole for the page, ``health``, ``status``, a run's records or the dead letters."""
    with Asked(ledger) as asked:
        ask_everything(ledger)
    found = plans(ledger, asked)
    assert len(found) > 30
    assert [(statement, plan) for statement, plan in found if READ_WHOLE.search(plan)] == []


def test_a_keys_history_is_sought_run_by_run(ledger: Store) -> None:
    """``explain`` reads the runs of a feed and seeks a key, or a run's losers, in them: never all of the lineage."""
    with Asked(ledger) as asked:
        explain(ledger, [BULK], "key-7")
        explain_file(ledger, [FEED], "a/7.json")
        explained = explain_run(ledger, [BULK], RUNS - RUNS // LARGE)
    assert explained is not None
    assert sum(entry.lost_to is not None for entry in explained.records) == 50
    found = plans(ledger, asked)
    whole = [(statement, plan) for statement, plan in found if READ_WHOLE.search(plan)]
    assert [(statement, plan) for statement, plan in whole if "Seq Scan on etl_runs" not in plan] == []
    assert any("lineage_records_pkey" in plan for _, plan in found)
