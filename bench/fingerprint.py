"""What a load left in a database, in a form in which any two databases can be compared with each other.

Order does not matter and memory is flat: each table is its number of rows and the sum of its rows' hashes.
Runs under the interpreter that has the database's driver: ``python bench/fingerprint.py sqlite:///PATH TABLE…``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b

QUESTIONS = {
    "target": "SELECT key, name, value, ts FROM target",
    "lineage": "SELECT record_key, step FROM lineage",
}
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{6})?(?:Z|\+00:00)?")
"""A moment in UTC, as text that any of the programs leaves."""


def fingerprint(url: str, tables: Iterable[str]) -> dict[str, list[int]]:
    """Return for each table ``[rows, sum of hashes]``."""
    with _open(url) as ask:
        return {table: _summed(ask(QUESTIONS[table])) for table in tables}  # type: ignore[operator]


@contextmanager
def _open(url: str) -> Iterator[object]:
    kind, _, place = url.partition("://")
    if kind == "sqlite":
        import sqlite3  # noqa: PLC0415 - each driver lives in an environment of its own

        connection = sqlite3.connect(f"file:{place}?mode=ro", uri=True)
        try:
            yield connection.execute
        finally:
            connection.close()
    elif kind == "duckdb":
        import duckdb  # noqa: PLC0415 - the same

        with duckdb.connect(place, read_only=True) as database:
            yield lambda question: _fetched(database.execute(question))
    else:
        import psycopg  # noqa: PLC0415 - the same

        with psycopg.connect(url) as session, session.cursor("fingerprint") as cursor:
            cursor.itersize = 10_000
            yield cursor.execute


def _fetched(result: object) -> Iterator[tuple[object, ...]]:
    while rows := result.fetchmany(10_000):  # type: ignore[attr-defined]  # DuckDB's result, which has no iterator
        yield from rows


def _summed(rows: Iterable[tuple[object, ...]]) -> list[int]:
    count = total = 0
    for row in rows:
        text = "\x1f".join(map(_spelled, row))
        total += int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
        count += 1
    return [count, total % 2**64]


def _spelled(value: object) -> str:
    """Return a value in one spelling: moments in UTC with microseconds, numbers as doubles."""
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, int | float):
        return repr(float(value))
    moment = MOMENT.fullmatch(str(value))
    return f"{moment[1]}T{moment[2]}{moment[3] or '.000000'}Z" if moment else str(value)


if __name__ == "__main__":
    print(json.dumps(fingerprint(sys.argv[1], sys.argv[2:])))
