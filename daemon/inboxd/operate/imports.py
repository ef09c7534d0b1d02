"""``inboxd runs import``: the run records of other jobs, taken into the ledger so that one health feed covers all jobs.

The records are read as any file is, as a feed of their own, so that a bad one has the codes that a bad record always
has. Importing a file again changes nothing, and a run that was ``running`` then and has ended since is brought up to
date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from inboxd.model import Feed, Field, FieldType, Row, Scalar
from inboxd.outcomes import Reject, RunStatus
from inboxd.records.decode import Reading
from inboxd.records.unpack import ByteStream
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs

MAX_SIZE: Final = 1 << 30
"""Bytes of a file of run records, unpacked: millions of them. They are all held in memory, to be written at once."""
A_CENTURY_S: Final = 36_500 * 86_400.0
"""How far ahead of our clock another job's may be: its records poison nothing."""
NOT_COUNTED: Final = ("rows_rejected", "rows_skipped", "rows_stale", "rows_filtered", "rows_deleted")
"""What only inboxd's own runs count."""
ENDED_WHILE_RUNNING: Final = "invalid_finished_at"


def _number(name: str) -> Field:
    return Field(name, FieldType.INTEGER, (name,), name, default=0, minimum=0)


RUNS: Final = Feed(
    name="runs",
    match=(),
    table="etl_runs",
    key=("job_name",),
    cursor="started_at",
    max_future_s=A_CENTURY_S,
    fields=(
        Field("job_name", FieldType.TEXT, ("job_name",), "job_name"),
        Field("status", FieldType.TEXT, ("status",), "status", choices=tuple(RunStatus)),
        _number("rows_in"),
        _number("rows_out"),
        _number("duration_ms"),
        Field("started_at", FieldType.TIMESTAMP, ("started_at",), "started_at"),
        Field("finished_at", FieldType.TIMESTAMP, ("finished_at",), "finished_at", required=False),
    ),
)
"""What a run record is made of."""


@dataclass(frozen=True, slots=True)
class ImportFault:
    """A run record that was refused. ``record_no`` counts from 1."""

    record_no: int
    job_name: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: ``records = imported + updated + unchanged + rejected``."""

    records: int
    imported: int
    updated: int
    unchanged: int
    rejected: int
    errors: tuple[ImportFault, ...]


def import_runs(store: Store, stream: ByteStream, *, now: datetime) -> Imported:
    """Take in the good run records of a file in one transaction; raises ``FileFault`` if it is no such file."""
    rows: list[Row] = []
    faults: list[ImportFault] = []
    for batch in Reading(stream, RUNS, now=now, max_size=MAX_SIZE).batches():
        for row in batch.rows:
            fault = _contradiction(row)
            if fault is None:
                rows.append(row)
            else:
                faults.append(fault)
        faults += [_fault(reject) for reject in batch.rejects]
    faults.sort(key=lambda fault: fault.record_no)
    with store.writing() as connection:
        imported, updated = _write(connection, [row[:-1] for row in rows])
    return Imported(
        records=len(rows) + len(faults),
        imported=imported,
        updated=updated,
        unchanged=len(rows) - imported - updated,
        rejected=len(faults),
        errors=tuple(faults),
    )


def _fault(reject: Reject) -> ImportFault:
    return ImportFault(reject.record_no, reject.record_key, reject.code, reject.detail)


def _contradiction(row: Row) -> ImportFault | None:
    """Refuse what no single field shows: a run that is still running and has ended."""
    job_name, status, finished_at, record_no = str(row[0]), row[1], row[6], row[-1]
    if status != RunStatus.RUNNING.value or finished_at is None:
        return None
    detail = f"finished_at: {ENDED_WHILE_RUNNING} (a run that is still running has not finished)"
    return ImportFault(int(str(record_no)), job_name, ENDED_WHILE_RUNNING, detail)


def _write(connection: sa.Connection, rows: Sequence[tuple[Scalar, ...]]) -> tuple[int, int]:
    """Insert what is new and end what has ended; return how many of each."""
    new: list[dict[str, Scalar]] = []
    ended: list[dict[str, Scalar]] = []
    by_job: dict[str, list[tuple[Scalar, ...]]] = {}
    for row in rows:
        by_job.setdefault(str(row[0]), []).append(row)
    for job_name, of_job in by_job.items():
        known, running = _known(connection, job_name, [str(row[5]) for row in of_job])
        for row in of_job:
            if known[row] > 0:
                known[row] -= 1
                continue
            named = dict(zip((field.name for field in RUNS.fields), row, strict=True))
            runs = running.get(row[5], [])
            if runs and row[1] != RunStatus.RUNNING.value:
                ended.append({**named, "run": runs.pop()})
            else:
                new.append({**named, **dict.fromkeys(NOT_COUNTED)})
    if new:
        connection.execute(sa.insert(etl_runs), new)
    if ended:
        names = ("status", "rows_in", "rows_out", "duration_ms", "finished_at")
        statement = sa.update(etl_runs).where(etl_runs.c.id == sa.bindparam("run"))
        connection.execute(
            statement.values({name: sa.bindparam(f"new_{name}") for name in names}),
            [{"run": one["run"], **{f"new_{name}": one[name] for name in names}} for one in ended],
        )
    return len(new), len(ended)


def _known(
    connection: sa.Connection, job_name: str, started: Sequence[str]
) -> tuple[Counter[tuple[Scalar, ...]], dict[Scalar, list[int]]]:
    """Return the job's imported runs of that time, counted, and the ids of those that were still running."""
    columns = [etl_runs.c[field.name] for field in RUNS.fields]
    query = sa.select(etl_runs.c.id, *columns).where(
        etl_runs.c.job_name == job_name,
        etl_runs.c.started_at >= min(started),
        etl_runs.c.started_at <= max(started),
        etl_runs.c.rows_rejected.is_(None),
    )
    known: Counter[tuple[Scalar, ...]] = Counter()
    running: dict[Scalar, list[int]] = {}
    for run_id, *values in connection.execute(query):
        row = tuple(values)
        known[row] += 1
        if row[1] == RunStatus.RUNNING.value:
            running.setdefault(row[5], []).append(int(run_id))
    return known, running
