"""The page's questions to the database: read-only, bounded in time and in number, and backed by indexes."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from daemons import DEADLINE_S
from inboxd.clock import stamp
from inboxd.config import load_settings
from inboxd.model import Feed
from inboxd.operate.browse import last_change, last_successes
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.web import reader as reader_module
from inboxd.web.live import Answers
from inboxd.web.reader import Reader, Unanswered
from inboxd.web.views import Window, dead_letters_page, overview, record_page, run_page

pytestmark = pytest.mark.on_citus

FOR_EVER: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT SUM(i) FROM n"


@pytest.fixture
def url(make_url: Callable[[], str]) -> str:
    """Return a database with its tables, and some runs in it: on SQLite, and on PostgreSQL."""
    url = make_url()
    with open_store(url) as store:
        store.upgrade()
        with store.writing() as connection:
            for number in range(1, 60):
                when = stamp(datetime.now(UTC) - timedelta(minutes=number))
                connection.execute(
                    sa.text(
                        "INSERT INTO etl_runs"
                        " (job_name, status, rows_in, rows_out, duration_ms, started_at, finished_at)"
                        " VALUES ('events', 'success', 2, 2, :ms, :at, :at)"
                    ),
                    {"ms": number, "at": when},
                )
    return url


@pytest.fixture
def reader(url: str) -> Iterator[Reader]:
    """Return a reader of that database."""
    reader = Reader(url)
    yield reader
    reader.close()


@pytest.fixture
def feeds(tmp_path: Path) -> tuple[Feed, ...]:
    """Return the feeds there are without a config."""
    return load_settings(None, {}, tmp_path).feeds


def test_it_cannot_write(reader: Reader) -> None:
    """The page's connections are refused any change by the database itself."""

    def write(store: Store) -> None:
        with store.reading() as connection:
            connection.execute(sa.text("DELETE FROM etl_runs"))

    with pytest.raises(Unanswered) as refused:
        asyncio.run(reader.ask(write))
    assert refused.value.code == "read_only"
    assert asyncio.run(reader.ask(last_change))[0] == 59


def test_a_question_that_takes_too_long_is_given_up(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement without end is ended, says so in plain words, and the next question is answered."""
    monkeypatch.setattr(reader_module, "LONGEST_S", 0.2)

    def without_end(store: Store) -> None:
        with store.reading() as connection:
            connection.execute(sa.text(FOR_EVER))

    with pytest.raises(Unanswered) as given_up:
        asyncio.run(reader.ask(without_end))
    assert given_up.value.code == "too_slow"
    assert asyncio.run(reader.ask(last_change))


def test_closing_ends_what_is_being_asked(url: str) -> None:
    """An orderly stop does not wait for a long question."""
    reader = Reader(url)
    begun = threading.Event()

    async def scenario() -> str:
        def without_end(store: Store) -> None:
            begun.set()
            with store.reading() as connection:
                connection.execute(sa.text(FOR_EVER))

        answer = asyncio.ensure_future(reader.ask(without_end))
        await asyncio.to_thread(begun.wait)
        await asyncio.to_thread(reader.close)
        try:
            await answer
        except Unanswered as reason:
            return reason.code
        return "answered"

    assert asyncio.run(scenario()) == "stopping"


def test_questions_are_bounded_in_number(reader: Reader) -> None:
    """More questions than can wait are refused at once, instead of piling up."""
    finish = threading.Event()

    async def scenario() -> tuple[list[str], list[int]]:
        def until_shown(_store: Store) -> int:
            assert finish.wait(DEADLINE_S)
            return 1

        waiting = [asyncio.ensure_future(reader.ask(until_shown)) for _ in range(reader_module.MOST_WAITING)]
        await asyncio.sleep(0)  # each of them is begun; none can end
        try:
            refused = await asyncio.gather(*(reader.ask(until_shown) for _ in range(10)), return_exceptions=True)
        finally:
            finish.set()
        return [reason.code for reason in refused if isinstance(reason, Unanswered)], await asyncio.gather(*waiting)

    refused, answered = asyncio.run(scenario())
    assert refused == ["busy"] * 10
    assert answered == [1] * reader_module.MOST_WAITING


def test_the_same_question_is_asked_once_for_all(reader: Reader) -> None:
    """However many look at the same page at the same moment, the database is asked once; news are asked for anew."""
    asked = []

    async def scenario() -> None:
        answers = Answers(reader)

        def question(_store: Store) -> int:
            asked.append(1)
            return len(asked)

        assert await asyncio.gather(*(answers.get(("a",), question) for _ in range(20))) == [1] * 20
        answers.next_version()
        assert await answers.get(("a",), question) == 2
        assert await answers.get(("b",), question) == 3

    asyncio.run(scenario())


def test_an_error_is_not_kept_for_long(reader: Reader) -> None:
    """After a failed question the same one may succeed."""

    async def scenario() -> None:
        answers = Answers(reader)

        def fails(_store: Store) -> int:
            raise Unanswered("database_locked", "not now")

        with pytest.raises(Unanswered):
            await answers.get(("a",), fails)
        answers.next_version()
        assert await answers.get(("a",), lambda _store: 7) == 7

    asyncio.run(scenario())


def test_every_question_of_the_page_is_backed_by_an_index(tmp_path: Path, feeds: tuple[Feed, ...]) -> None:
    """No page scans the lineage or the dead letters; every run is read only for all time, and for a key's history.

    A key's history seeks in the lineage once a run, which is what an index on the lineage's keys would cost more than.
    """
    now = datetime.now(UTC)
    asked: list[tuple[str, object]] = []
    url = f"sqlite:///{tmp_path}/inboxd.db"
    with open_store(url) as store:
        store.upgrade()
        store.prepare(feeds)
    with open_store(url, readonly=True) as store:
        with store.reading() as connection:
            engine = connection.engine
            connection.execute(sa.text("SELECT 1"))

        def note(_c: object, _cursor: object, statement: str, values: object, *_rest: object) -> None:
            asked.append((statement, values))

        sa.event.listen(engine, "before_cursor_execute", note)
        for window in (Window.HOUR, Window.DAY, Window.WEEK):
            overview(store, feeds, window, now)
        run_page(store, 5, None)
        run_page(store, 5, ("key", 3))
        record_page(store, feeds, "user-1", None)
        dead_letters_page(store, feed=None, code=None, before=None)
        dead_letters_page(store, feed="events", code="invalid_value", before=9)
        last_change(store)
        last_successes(store, ["events"])
        sa.event.remove(engine, "before_cursor_execute", note)
        plans = _plans(store, asked)
    assert len(asked) > 20
    scans = [
        (statement, step)
        for statement, steps in plans
        for step in steps
        if re.match(r"SCAN (etl_runs|lineage_records|dead_letters)\b(?!.* USING (COVERING )?INDEX)", step)
        and not (step == "SCAN dead_letters" and "LIMIT" in statement)  # newest first, by rowid, to the page's end
        and not (step == "SCAN etl_runs" and "LIMIT" in statement)  # the newest run, by rowid
        and not (step == "SCAN etl_runs" and "lineage_records.record_key = ?" in statement)
    ]
    assert scans == []


def _plans(store: Store, asked: list[tuple[str, object]]) -> list[tuple[str, list[str]]]:
    found = []
    with store.reading() as connection:
        for statement, values in asked:
            if not statement.startswith(("SELECT", "WITH")):
                continue
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()  # type: ignore[arg-type]
            found.append((statement, [str(row[3]) for row in rows]))
    return found


def test_every_page_can_be_asked_of_both_databases(url: str, feeds: tuple[Feed, ...]) -> None:
    """What each page shows comes from SQLite and from PostgreSQL alike."""
    with open_store(url) as store:
        store.prepare(feeds)
    now = datetime.now(UTC)
    with open_store(url, readonly=True) as store:
        for window in Window:
            found = overview(store, feeds, window, now)
            assert found.trend.total.runs == 59
            assert found.trend.p50_ms == 30
            assert found.recent[0].duration_ms == 1
            assert found.feeds[0].last_success is not None
        page = run_page(store, 1, ("a", 1))
        assert page is not None
        assert page.run.job_name == "events"
        assert run_page(store, 1_000, None) is None
        assert record_page(store, feeds, "nobody", None) == []
        assert dead_letters_page(store, feed=None, code=None, before=None).dead_letters == []
