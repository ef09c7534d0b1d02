"""Dead letters: the records that were refused, found again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import sqlalchemy as sa

from inboxd.errors import EXIT_USAGE, OperatorFault
from inboxd.model import Feed, origin_of
from inboxd.store.database import Store
from inboxd.store.tables import dead_letters, etl_runs

DISMISSED: Final = 0
"""``resolved_by`` of a dead letter that a person has put aside: it is the number of no run."""
PAGE: Final = 1_000
"""Letters fetched at once where all of them are wanted; each holds a record of up to 16 MiB, and most of 100 bytes."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, with the file it came in. ``raw`` is the record's exact source text."""

    id: int
    feed: str
    run_id: int
    file_name: str | None
    record_no: int
    record_key: str
    code: str
    detail: str | None
    created: str
    resolved_by: int | None
    context: str | None
    """What the record was read with from outside of it: a JSON object from path to value."""
    raw: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant. ``since`` (included) and ``until`` (not included) are canonical moments."""

    feed: str | None = None
    code: str | None = None
    run: int | None = None
    since: str | None = None
    until: str | None = None
    resolved: bool | None = False
    """``False``: only those still open; ``True``: only the resolved; ``None``: all."""
    ids: tuple[int, ...] = ()


ALL_OPEN: Final = Filter()


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How many unresolved dead letters of a feed have a code."""

    feed: str
    code: str
    count: int


def dead_letter_query(raw: sa.ColumnElement[str] = dead_letters.c.raw) -> sa.Select[tuple[object, ...]]:
    """Return the query for ``DeadLetter``s, still to be narrowed and ordered; ``raw`` may be a part of the text."""
    columns = dead_letters.c
    return sa.select(
        columns.id,
        columns.feed,
        columns.run_id,
        etl_runs.c.file_name,
        columns.record_no,
        columns.record_key,
        columns.error.label("code"),
        columns.detail,
        columns.created,
        columns.resolved_by,
        columns.context,
        raw.label("raw"),
    ).select_from(dead_letters.outerjoin(etl_runs, etl_runs.c.id == columns.run_id))


def list_dead_letters(store: Store, wanted: Filter, *, limit: int = 100, after: int = 0) -> list[DeadLetter]:
    """Return dead letters, oldest first, those with an id above ``after``: the last one's id leads to the next page."""
    with store.reading() as connection:
        return _page(connection, wanted, limit, after)


def dead_letter_pages(store: Store, wanted: Filter) -> Iterator[list[DeadLetter]]:
    """Yield all dead letters that are meant, oldest first, a page at a time: memory stays flat."""
    after = 0
    while True:
        with store.reading() as connection:
            page = _page(connection, wanted, PAGE, after)
        if not page:
            return
        yield page
        after = page[-1].id


def dead_letters_of_key(
    connection: sa.Connection, key: str, of_table: sa.ColumnElement[bool], limit: int
) -> list[DeadLetter]:
    """Return the dead letters of a key of a table's runs, the newest last, resolved or not."""
    query = dead_letter_query().where(dead_letters.c.record_key == key, of_table)
    found = connection.execute(query.order_by(dead_letters.c.id.desc()).limit(limit))
    return [DeadLetter(**row) for row in found.mappings()][::-1]


def count_open(store: Store, wanted: Filter = ALL_OPEN) -> list[CodeCount]:
    """Count the open dead letters that are meant by feed and code, the most frequent first."""
    feed, code, count = dead_letters.c.feed, dead_letters.c.error, sa.func.count()
    query = sa.select(feed, code, count).where(*_where(wanted)).group_by(feed, code).order_by(count.desc(), feed, code)
    with store.reading() as connection:
        return [CodeCount(str(name), str(error), int(number)) for name, error, number in connection.execute(query)]


def feeds_with_dead_letters(store: Store, wanted: Filter) -> list[str]:
    """Return the names of the feeds that have such dead letters."""
    with store.reading() as connection:
        query = sa.select(dead_letters.c.feed).where(*_where(wanted)).distinct().order_by(dead_letters.c.feed)
        return [str(name) for name in connection.execute(query).scalars()]


def dismiss(store: Store, wanted: Filter) -> int:
    """Mark open dead letters as dealt with, though no run did it; returns how many."""
    statement = sa.update(dead_letters).where(*_where(replace(wanted, resolved=False)))
    with store.writing() as connection:
        return connection.execute(statement.values(resolved_by=DISMISSED)).rowcount


def settle_ended(store: Store, feed: str) -> None:
    """Resolve a feed's open dead letters of runs that were undone or superseded, as such a run's end itself does now.

    Version 1.0.0 left them open where a run was superseded; replayed, an append feed's would be there twice.
    """
    letter, undoing = dead_letters.c, etl_runs.alias("undoing")
    by = (
        sa.select(sa.func.coalesce(undoing.c.id, etl_runs.c.superseded_by))
        .select_from(etl_runs.outerjoin(undoing, undoing.c.undo_of == etl_runs.c.superseded_by))
        .where(etl_runs.c.id == letter.run_id)
        .scalar_subquery()
    )
    ended = sa.select(etl_runs.c.id).where(etl_runs.c.superseded_by.is_not(None))
    such = (letter.feed == feed, letter.resolved_by.is_(None), letter.run_id.in_(ended))
    with store.reading() as connection:
        if connection.execute(sa.select(letter.id).where(*such).limit(1)).first() is None:
            return
    with store.writing() as connection:
        connection.execute(sa.update(dead_letters).where(*such).values(resolved_by=by))


def of_feed(wanted: Filter, feed: str) -> Filter:
    """Return the same filter for one feed alone."""
    return replace(wanted, feed=feed)


def export_line(dead_letter: DeadLetter, feed: Feed | None) -> str:
    """Return the record as one line, ready to be mended: to be dropped into the inbox again, or replayed.

    A line break of the source text stands between tokens (inside a string JSON forbids it), so it may become a space.
    A feed that takes its records from inside a document gets each record in such a document. A record that was read
    with something from outside of it says nothing by itself: it goes with the number of its dead letter.
    """
    record = dead_letter.raw.replace("\r", " ").replace("\n", " ")
    if dead_letter.context is not None or (feed is not None and _reads_around(feed)):
        return f'{{"letter":{dead_letter.id},"record":{record}}}'
    path = feed.records if feed is not None else ()
    if not path:
        return record
    wrapped = f"[{record}]"
    for name in reversed(path):
        wrapped = "{" + json.dumps(name, ensure_ascii=False) + ":" + wrapped + "}"
    return wrapped


def _reads_around(feed: Feed) -> bool:
    return bool(feed.explode or feed.shape) or any(origin_of(path) is not None for path in feed.paths)


class _Edited(msgspec.Struct):
    letter: int
    record: msgspec.Raw


def edited_records(lines: Iterable[bytes]) -> dict[int, str]:
    """Return the records of a mended export by the numbers of their dead letters; raises ``OperatorFault``."""
    found: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            edited = msgspec.json.decode(line, type=_Edited)
            record = bytes(edited.record).decode()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"line {number} is no mended dead letter: {error}"
            hint = 'each line is {"letter": id, "record": …}, as `inboxd dead-letters export` writes them'
            raise OperatorFault("invalid_edit", message, hint, exit_code=EXIT_USAGE) from error
        if edited.letter in found:
            message = f"line {number} is for a dead letter that a line before it is for, too"
            raise OperatorFault("invalid_edit", message, "leave one of them in", exit_code=EXIT_USAGE)
        found[edited.letter] = record
    return found


def not_open(store: Store, wanted: Filter, ids: Iterable[int]) -> list[int]:
    """Return which of these dead letters are none that are meant and open."""
    with store.reading() as connection:
        return sorted({*ids} - {*connection.execute(sa.select(dead_letters.c.id).where(*_where(wanted))).scalars()})


def _page(connection: sa.Connection, wanted: Filter, limit: int, after: int) -> list[DeadLetter]:
    query = (
        dead_letter_query().where(*_where(wanted), dead_letters.c.id > after).order_by(dead_letters.c.id).limit(limit)
    )
    return [DeadLetter(**row) for row in connection.execute(query).mappings()]


def _where(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    columns = dead_letters.c
    where: list[sa.ColumnElement[bool]] = []
    if wanted.feed is not None:
        where.append(columns.feed == wanted.feed)
    if wanted.code is not None:
        where.append(columns.error == wanted.code)
    if wanted.run is not None:
        where.append(columns.run_id == wanted.run)
    if wanted.since is not None:
        where.append(columns.created >= wanted.since)
    if wanted.until is not None:
        where.append(columns.created < wanted.until)
    if wanted.resolved is not None:
        where.append(columns.resolved_by.is_not(None) if wanted.resolved else columns.resolved_by.is_(None))
    if wanted.ids:
        where.append(columns.id.in_(wanted.ids))
    return where
