"""Moving over: a SQLite database with all that inboxd remembers, into an empty PostgreSQL database.

Everything is copied in one transaction of the target and read back in it, table by table, before it commits: what was
read must have the count and the checksum of what was sent. Whatever goes wrong leaves the target as empty as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa

from inboxd.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_SOFTWARE, FileFault, OperatorFault
from inboxd.model import Feed, FieldType, own_columns
from inboxd.store.dialects import quoted
from inboxd.store.feed_tables import own_types
from inboxd.store.ledger import canonical
from inboxd.store.tables import metadata

if TYPE_CHECKING:
    from inboxd.store.database import Store
    from inboxd.store.postgres_import import PostgresImport

LEDGER: Final = tuple(table for table in metadata.sorted_tables if table.name not in {"lineage", "feed_columns"})
"""All but the view."""
NUMBERED: Final = {"etl_runs": "id", "dead_letters": "id", "notices": "number"}
"""Tables whose rows the database numbers. No number is given twice: it is in the names of archived files."""
ROWS_AT_ONCE: Final = 5_000
DIGEST_BYTES: Final = 16


class Target(Protocol):
    """What a database must be able to do to be copied into: the store on PostgreSQL."""

    def importing(self) -> AbstractContextManager[PostgresImport]:
        """Begin a durable transaction to fill empty tables in; committed at the block's end or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """What of a table arrived. ``checksum`` (hex) is of its values, whatever the order of the rows."""

    table: str
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class _Table:
    """One table to be copied. ``json`` are the columns whose value counts, not its spelling."""

    name: str
    columns: tuple[str, ...]
    json: frozenset[str] = frozenset()


class Checksum:
    """Counts rows, and sums their hashes: equal for equal sets of rows, in any order."""

    def __init__(self, table: _Table) -> None:
        self._json = [place for place, name in enumerate(table.columns) if name in table.json]
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[object]) -> None:
        """Take one more row into account."""
        values = [_comparable(value) for value in row]
        for place in self._json:
            text = values[place]
            values[place] = None if text is None else spelled(text)
        digest = hashlib.blake2b("\x1f".join(map(repr, values)).encode(), digest_size=DIGEST_BYTES).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % (1 << 8 * DIGEST_BYTES)
        self.rows += 1

    @property
    def digest(self) -> str:
        """The sum, in hex."""
        return f"{self._sum:0{2 * DIGEST_BYTES}x}"


def copy(
    source: Store, target: Target, feeds: Sequence[Feed], *, progress: Callable[[int], None] = lambda _rows: None
) -> list[CopiedTable]:
    """Copy all tables of ``source`` into the empty ``target``, and prove that they arrived.

    ``progress`` is told how many more rows were copied or read back. Raises ``OperatorFault``: ``target_not_empty``,
    ``schema_mismatch``, ``copy_refused`` (a value that PostgreSQL does not take), ``copy_differs``.
    """
    with source.reading() as reading:
        tables = [
            *_feed_tables(reading, feeds),
            *(_Table(str(each.name), tuple(map(str, each.c.keys()))) for each in LEDGER),
        ]
        try:
            with target.importing() as importing:
                names = [table.name for table in tables]
                importing.lock(names)
                _refuse_rows(importing, names)
                copied = [_copy(reading, importing, table, progress) for table in tables]
                _continue_ids(reading, importing)
                importing.analyze(names)
                return copied
        except FileFault as fault:
            hint = "nothing was copied; mend the value in the source, or report this"
            raise OperatorFault("copy_refused", fault.message, hint, exit_code=EXIT_FAILED) from fault


def rows_in(source: Store, feeds: Sequence[Feed]) -> int:
    """Count the rows that are to be copied."""
    with source.reading() as reading:
        names = [table.name for table in _feed_tables(reading, feeds)] + [each.name for each in LEDGER]
        return sum(_number(reading, f"SELECT COUNT(*) FROM {quoted(name)}") for name in names)  # noqa: S608 - quoted


def _copy(
    reading: sa.Connection, importing: PostgresImport, table: _Table, progress: Callable[[int], None]
) -> CopiedTable:
    sent, arrived = Checksum(table), Checksum(table)
    importing.fill(table.name, table.columns, _counted(_rows_of(reading, table), sent, progress))
    for _ in _counted(importing.read(table.name, table.columns, as_text=table.json), arrived, progress):
        pass
    if (sent.rows, sent.digest) != (arrived.rows, arrived.digest):
        message = f"{table.name}: {sent.rows} rows were sent and {arrived.rows} arrived, or not as they were sent"
        raise OperatorFault("copy_differs", message, "nothing was copied; please report this", exit_code=EXIT_SOFTWARE)
    return CopiedTable(table.name, sent.rows, sent.digest)


def _counted(
    rows: Iterator[tuple[object, ...]], checksum: Checksum, progress: Callable[[int], None]
) -> Iterator[tuple[object, ...]]:
    reported = 0
    for row in rows:
        checksum.add(row)
        if checksum.rows - reported >= ROWS_AT_ONCE:
            progress(checksum.rows - reported)
            reported = checksum.rows
        yield row
    progress(checksum.rows - reported)


def _rows_of(reading: sa.Connection, table: _Table) -> Iterator[tuple[object, ...]]:
    """Yield a table's rows, without the U+0000 that SQLite's text can hold: the store writes them so, too."""
    names = ", ".join(map(quoted, table.columns))
    with reading.exec_driver_sql(f"SELECT {names} FROM {quoted(table.name)}") as result:  # noqa: S608 - quoted
        for rows in result.partitions(ROWS_AT_ONCE):
            for row in rows:
                yield tuple(value.replace("\0", "\\u0000") if isinstance(value, str) else value for value in row)


def _feed_tables(reading: sa.Connection, feeds: Sequence[Feed]) -> list[_Table]:
    """Return the feeds' tables as the source has them; raises if it has one that no feed names."""
    wanted: dict[str, set[str]] = {}
    json_columns: dict[str, set[str]] = {}
    for feed in feeds:
        wanted.setdefault(feed.table, set()).update(feed.columns, own_types(feed))
        found = {field.name for field in feed.fields if field.type is FieldType.JSON}
        json_columns.setdefault(feed.table, set()).update(found | {feed.own_columns.extra})
    shapes = _shapes(reading)
    problems = [f"no feed of the config fills table {name!r}" for name in shapes.keys() - wanted.keys()]
    for name, columns in shapes.items():
        unknown = set(columns) - wanted.get(name, set(columns))
        problems += [f"table {name!r} has the column {each!r}, which its feed does not name" for each in unknown]
    if problems:
        hint = "copy with the config that the source was filled with, and change it afterwards"
        raise OperatorFault("schema_mismatch", "; ".join(sorted(problems)), hint, exit_code=EXIT_CONFIG)
    return [_Table(name, shapes[name], frozenset(json_columns[name])) for name in sorted(shapes)]


def _shapes(reading: sa.Connection) -> Mapping[str, tuple[str, ...]]:
    """Return the columns of the tables that feeds fill: those with the two columns that inboxd adds."""
    inspector = sa.inspect(reading)
    ours = {table.name for table in LEDGER}
    own, aside = own_columns(()), own_columns(("run_id", "updated_at"))
    shapes: dict[str, tuple[str, ...]] = {}
    for name in inspector.get_table_names():
        columns = tuple(str(column["name"]) for column in inspector.get_columns(name))
        if (
            name not in ours
            and {*columns} & {own.run_id, aside.run_id}
            and {*columns} & {own.updated_at, aside.updated_at}
        ):
            shapes[str(name)] = columns
    return shapes


def _refuse_rows(importing: PostgresImport, names: Sequence[str]) -> None:
    filled = [name for name in names if not importing.is_empty(name)]
    if filled:
        message = f"the target is not empty: there are rows in {', '.join(filled)}"
        hint = "copy into a new database; nothing was changed"
        raise OperatorFault("target_not_empty", message, hint, exit_code=EXIT_FAILED)


def _continue_ids(reading: sa.Connection, importing: PostgresImport) -> None:
    for table, column in NUMBERED.items():
        used = _number(reading, f"SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = '{table}'")  # noqa: S608
        last = max(used, _number(reading, f"SELECT COALESCE(MAX({column}), 0) FROM {quoted(table)}"))  # noqa: S608 - quoted
        if last:
            importing.continue_numbers(table, column, last)
    last = _number(reading, "SELECT COALESCE(MAX(commit_no), 0) FROM etl_runs")
    if last:
        importing.continue_numbers("etl_runs", "commit_no", last)


def _number(reading: sa.Connection, query: str) -> int:
    return int(reading.exec_driver_sql(query).scalar_one())


def _comparable(value: object) -> object:
    """Return a value as both databases can be brought to say it: moments as text, booleans as numbers."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, int | float | str | None) else canonical(value)


def spelled(text: object) -> str:
    """Return the JSON value of a text in one spelling: ``jsonb`` keeps neither white space nor the order of names."""
    value = json.loads(str(text), parse_float=_exact, parse_int=_exact)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _exact(text: str) -> Any:  # noqa: ANN401 - json takes whatever stands for a number
    """Return a number as its sign, digits and exponent: 1e2, 100 and 100.0 are one to ``jsonb``, and so to us."""
    sign, digits, exponent = Decimal(text).as_tuple()
    significant = "".join(map(str, digits)).lstrip("0")
    shortest = significant.rstrip("0")
    return {"sign": sign if shortest else 0, "digits": shortest, "e": _power(exponent, significant, shortest)}


def _power(exponent: object, significant: str, shortest: str) -> int:
    return int(str(exponent)) + len(significant) - len(shortest) if shortest else 0
