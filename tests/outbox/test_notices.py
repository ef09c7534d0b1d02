"""Notices: who must know of an event is told at least once, in order, with one id, and never in the way of a file."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from crashing import crash
from daemons import Home, eventually, record
from inboxd.clock import stamp
from inboxd.config import NotifySettings
from inboxd.log import open_log
from inboxd.outbox.courier import LEAST_FAILURES, Courier
from inboxd.outbox.delivery import Delivery
from inboxd.outbox.notices import rows
from inboxd.outcomes import Edge, Step
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.store.tables import notices
from receivers import Server, program, received, server
from stores import MakeUrl

ON: Final = '["file_failed", "all_rejected", "file_loaded", "config_rejected"]'
BROKEN: Final = '[{"key": '
HUNDRED_S: Final = 100.0


def config(*receivers: str, more: str = "") -> str:
    """Return a config that tells these of everything."""
    return "\n".join([more, *(f"[[notify]]\non = {ON}\n{receiver}\n" for receiver in receivers)])


@pytest.fixture
def receiver() -> Iterator[Server]:
    """Return a server that takes notices."""
    with server() as found:
        yield found


class Clock:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.passed = 0.0

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        """Return what the pauses are measured by."""
        self.passed += HUNDRED_S  # no pause is longer
        return self.passed


@contextmanager
def courier(
    url: str, receivers: list[NotifySettings], log: Path, clock: Clock | None = None
) -> Iterator[tuple[Courier, Clock]]:
    """Return a courier that has not begun yet, with a clock by which no pause lasts."""
    chosen = clock or Clock()
    lines = open_log(fmt="json", level="info", file=log, out=None)

    def opened(tick: Callable[[], None]) -> Store:
        return open_store(url, tick=tick)

    found = Courier(opened, lambda: receivers, lines, chosen, Delivery(0.5))
    try:
        yield found, chosen
    finally:
        found.stop()


def prepared(url: str) -> str:
    """Give a database its tables."""
    with open_store(url) as store:
        store.upgrade()
    return url


def kept(url: str) -> list[tuple[str, bool, bool, int]]:
    """Return what the database has of each notice: its receiver, whether it was delivered or dropped, the attempts."""
    columns = notices.c
    query = sa.select(columns.target, columns.delivered_at, columns.dropped_at, columns.attempts)
    with open_store(url, readonly=True) as store, store.reading() as connection:
        found = connection.execute(query.order_by(columns.number)).all()
    return [(target, at is not None, dropped is not None, attempts) for target, at, dropped, attempts in found]


def test_a_file_that_failed_is_told_with_what_its_line_says(tmp_path: Path, receiver: Server) -> None:
    """A notice has an id, the event, when, run, feed and file, and what the log says of it."""
    with Home(tmp_path, config(f'url = "{receiver.url}"')) as home:
        home.start()
        home.drop("a/broken.json", BROKEN)
        notice = eventually(lambda: receiver.notices[:1], "a notice")[0]
        line = home.verdict("a/broken.json")
        assert list(notice)[:6] == ["id", "event", "at", "run_id", "feed", "file"]
        same = {name: value for name, value in line.items() if name not in {"timestamp", "archived"}}
        assert {name: notice[name] for name in same} == same
        eventually(lambda: home.query("SELECT 1 FROM notices WHERE delivered_at IS NOT NULL"), "its row")
        (row,) = home.query("SELECT id, event, run_id, feed, attempts, json_extract(body, '$.id') FROM notices")
        assert row == (notice["id"], "file_failed", line["run_id"], "events", 1, notice["id"])


def test_a_file_that_loaded_nothing_is_told(tmp_path: Path) -> None:
    """A file of which every record is rejected is told as such, beside its being loaded; each is one event."""
    receiver_folder = tmp_path / "received"
    receiver_folder.mkdir()
    with Home(tmp_path / "home", config(f"exec = {json.dumps(program(receiver_folder))}")) as home:
        home.drop("a.json", [record("a", value="none")])
        assert home.run_once() == 0
    assert [notice["event"] for notice in received(receiver_folder)] == ["file_loaded", "all_rejected"]
    assert received(receiver_folder)[1]["rows_rejected"] == 1


def test_what_no_file_tells_is_told_too(tmp_path: Path, receiver: Server) -> None:
    """A config that is refused is told at once, whatever the level of the log is."""
    with Home(tmp_path, config(f'url = "{receiver.url}"', more='[log]\nlevel = "error"\nformat = "json"')) as home:
        home.start(wait=False)
        eventually((tmp_path / "data" / "inboxd.state.json").exists, "the daemon")
        (tmp_path / "inboxd.toml").write_text("[inbox]\npaht = 1\n")
        assert home.process is not None
        home.process.send_signal(1)
        notice = eventually(lambda: receiver.notices, "a notice")[0]
        assert (notice["event"], notice["error_code"]) == ("config_rejected", "invalid_config")


@pytest.mark.slow
def test_crashes_lose_no_notice_and_double_no_event(tmp_path: Path) -> None:
    """Killed at any moment, while the receiver hangs or refuses, too: each file is told at least once, by one id."""
    receiver_folder = tmp_path / "received"
    receiver_folder.mkdir()
    chance = random.Random(19)
    with Home(tmp_path / "home", config(f"exec = {json.dumps(program(receiver_folder))}")) as home:
        home.start()
        for number in range(40):
            home.drop(f"{number}.json", BROKEN + str(number))
            if chance.random() < 0.3:
                trouble = receiver_folder / chance.choice(["hang", "refuse", "nothing"])
                trouble.touch()
                least = chance.randint(0, number)
                eventually(partial(_has_done, home, receiver_folder, least), "some work")
                home.kill()
                trouble.unlink()
                home.start()
        eventually(lambda: not home.query("SELECT 1 FROM notices WHERE delivered_at IS NULL"), "all to be told")
        eventually(lambda: len({line["file"] for line in home.verdicts()}) == 40, "all verdicts")
        eventually(
            lambda: {one["file"] for one in received(receiver_folder)} == {f"{n}.json" for n in range(40)}, "all files"
        )
    found = received(receiver_folder)
    assert len({(one["file"], one["id"]) for one in found}) == 40
    assert len({one["id"] for one in found}) == 40


def _has_done(home: Home, receiver_folder: Path, least: int) -> bool:
    return len(home.verdicts()) + len(received(receiver_folder)) > least


@pytest.mark.crash
@pytest.mark.parametrize("edge", Edge)
@pytest.mark.parametrize("step", [Step.RECORD, Step.COMMIT, Step.ARCHIVE])
def test_a_notice_is_written_with_its_file_or_not_at_all(tmp_path: Path, step: Step, edge: Edge) -> None:
    """A crash around COMMIT leaves a run with its notice or neither, and the next start makes one of both."""
    receiver_folder = tmp_path / "received"
    receiver_folder.mkdir()
    with Home(tmp_path / "home", config(f"exec = {json.dumps(program(receiver_folder))}")) as home:
        home.drop("a.json", [record("a")])
        crash(home, step, edge)
        loaded = home.query("SELECT id FROM etl_runs WHERE status = 'success'")
        assert len(home.query("SELECT id FROM notices")) == len(loaded)
        home.run_once()
        assert len(home.query("SELECT id FROM notices")) == 1
    assert {one["file"] for one in received(receiver_folder)} == {"a.json"}
    assert len({one["id"] for one in received(receiver_folder)}) == 1


def test_a_receiver_that_refuses_gets_everything_in_order_later(tmp_path: Path) -> None:
    """What a receiver does not take is tried again, and nothing that comes later overtakes it."""
    receiver_folder = tmp_path / "received"
    receiver_folder.mkdir()
    (receiver_folder / "refuse").touch()
    with Home(tmp_path / "home", config(f"exec = {json.dumps(program(receiver_folder))}")) as home:
        home.start()
        for number in range(3):
            home.drop(f"{number}.json", BROKEN + str(number))
            home.verdict(f"{number}.json")
        refused = eventually(lambda: home.lines("notice_deferred")[2:], "three refusals")[0]
        assert refused["attempt"] == 3
        assert "exit 3" in refused["reason"]
        (receiver_folder / "refuse").unlink()
        eventually(lambda: len(received(receiver_folder)) == 3, "three notices")
    assert [one["file"] for one in received(receiver_folder)] == ["0.json", "1.json", "2.json"]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_receiver_that_hangs_holds_up_nothing_else(tmp_path: Path, receiver: Server, *, killed: bool) -> None:
    """While one receiver hangs, files are loaded, and the daemon stops in order; a kill then loses no notice either."""
    receiver.hanging.set()
    with Home(tmp_path, config(f'url = "{receiver.url}"')) as home:
        home.start()
        for number in range(5):
            home.drop(f"{number}.json", [record(str(number))])
            assert home.verdict(f"{number}.json")["event"] == "file_loaded"
        if killed:
            home.kill()
        else:
            assert home.stop() == 0
            assert home.lines("daemon_stopped")
        assert len(home.query("SELECT 1 FROM notices WHERE delivered_at IS NULL")) == 5
        receiver.hanging.clear()
        home.start()
        names = [f"{number}.json" for number in range(5)]
        eventually(lambda: [one["file"] for one in receiver.notices][-5:] == names, "the next start's, in order")


def test_a_locked_database_is_told_of_while_it_is_locked(tmp_path: Path, receiver: Server) -> None:
    """A file that waits for longer than it may is told of also where the database is what it waits for, once."""
    text = f'[[notify]]\nurl = "{receiver.url}"\ndeferred_for = "1s"\n'
    with Home(tmp_path, text) as home:
        home.start()
        home.drop("first.json", [record("a")])
        home.verdict("first.json")
        with closing(sqlite3.connect(home.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
            notice = eventually(lambda: receiver.notices, "a notice")[0]
            other.execute("ROLLBACK")
        assert (notice["event"], notice["file"]) == ("file_deferred", "b.json")
        assert notice["error_code"] == "database_locked"
        assert notice["waited_s"] >= 1
        assert home.verdict("b.json")["event"] == "file_loaded"
        eventually(lambda: home.query("SELECT 1 FROM notices WHERE delivered_at IS NOT NULL"), "its row")
        home.stop()
    assert len(receiver.notices) == 1


def test_receivers_do_not_wait_for_each_other(make_url: MakeUrl, tmp_path: Path, receiver: Server) -> None:
    """One that refuses keeps its own notices, in its own order; the other has all of them, under the same ids."""
    url = prepared(make_url())
    refusing = NotifySettings("refusing", frozenset(), exec=("/bin/false",))
    taking = NotifySettings("taking", frozenset(), url=receiver.url)
    with courier(url, [refusing, taking], tmp_path / "log") as (found, _):
        for number in range(3):
            found.post(rows("test", stamp(datetime.now(UTC)), {"number": number}, ["refusing", "taking"]))
        found.start()
        eventually(lambda: len(receiver.notices) == 3, "three notices")
    assert [one["number"] for one in receiver.notices] == [0, 1, 2]
    assert sorted(target for target, delivered, _, _ in kept(url) if delivered) == ["taking"] * 3
    assert [target for target, delivered, _, _ in kept(url) if not delivered] == ["refusing"] * 3


def test_what_nobody_takes_for_a_day_is_given_up_and_said(make_url: MakeUrl, tmp_path: Path) -> None:
    """After a day of failures a notice is dropped, with a line; one that was never tried is not, whatever the clock."""
    url = prepared(make_url())
    (tmp_path / "refuse").touch()
    one = NotifySettings("one", frozenset(), exec=tuple(program(tmp_path)))
    log = tmp_path / "log"
    with courier(url, [one], log) as (found, clock):
        found.post(rows("test", stamp(clock.now()), {}, ["one"]))
        clock.ahead = timedelta(days=2)
        found.start()

        def dropped() -> list[dict[str, object]]:
            found.wake()  # by its clock no pause lasts
            return [line for line in _lines(log) if line["event"] == "notice_dropped"]

        line = eventually(dropped, "a line")[0]
        assert (line["to"], line["of"]) == ("one", "test")
        (row,) = kept(url)
        assert row[1:3] == (False, True)
        assert row[3] >= LEAST_FAILURES
        (tmp_path / "refuse").unlink()
        found.post(rows("test", stamp(clock.now()), {"second": True}, ["one"]))
        assert eventually(lambda: received(tmp_path), "the next one")[0]["second"] is True


def _lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.postgres
def test_several_hosts_tell_each_event_once(make_postgres_url: MakeUrl, tmp_path: Path, receiver: Server) -> None:
    """Daemons that share a database deliver each notice once between them, in order, whoever wrote it."""
    url = prepared(make_postgres_url())
    one = NotifySettings("one", frozenset(), url=receiver.url)
    with (
        courier(url, [one], tmp_path / "a") as (first, _),
        courier(url, [one], tmp_path / "b") as (second, _),
        courier(url, [one], tmp_path / "c") as (third, _),
    ):
        couriers = (first, second, third)
        for each in couriers:
            each.start()
        for number in range(60):
            couriers[number % 3].post(rows("test", stamp(datetime.now(UTC)), {"number": number}, ["one"]))
        eventually(lambda: len(receiver.notices) >= 60, "all notices")
        eventually(lambda: all(delivered for _, delivered, _, _ in kept(url)), "all rows")
    assert sorted(notice["number"] for notice in receiver.notices) == list(range(60))


def test_a_daemon_that_died_leaves_its_notices_to_another(make_url: MakeUrl, tmp_path: Path, receiver: Server) -> None:
    """A notice in the database is delivered by whoever comes next."""
    url = prepared(make_url())
    one = NotifySettings("one", frozenset(), url=receiver.url)
    receiver.hanging.set()
    with courier(url, [one], tmp_path / "a") as (first, _):
        first.post(rows("test", stamp(datetime.now(UTC)), {}, ["one"]))
        first.start()
        eventually(lambda: first.delivery._connection, "a delivery")
    receiver.hanging.clear()
    with courier(url, [one], tmp_path / "b") as (second, _):
        second.start()
        eventually(lambda: any(delivered for _, delivered, _, _ in kept(url)), "its row")
    assert len({notice["id"] for notice in receiver.notices}) == 1


def test_the_command_tells_who_can_be_reached(tmp_path: Path, receiver: Server) -> None:
    """``notify test`` hands a notice to each receiver, says who took it, exits 1 if one did not, shows no secret."""
    with Home(tmp_path, config(f'url = "{receiver.url}"', 'exec = ["/bin/false"]')) as home:
        done = home.call("notify", "test")
        assert done.returncode == 1
        assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == ["taken", "exit 1"]
        assert receiver.notices[0]["event"] == "test"
        assert "s3cret" not in done.stdout + home.call("config", "show").stdout
    with Home(tmp_path / "nobody") as home:
        assert home.call("notify", "test").returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('on = ["file_faild"]\nexec = ["/bin/true"]', "notify[0].on[0]"),
        ('on = ["notice_dropped"]\nexec = ["/bin/true"]', "is not an event that notices are sent of"),
        ('on = ["file_failed"]', "needs either exec or url"),
        ('on = ["file_failed"]\nexec = ["/bin/true"]\nurl = "https://a/b"', "needs either exec or url"),
        ('exec = ["/bin/true"]', "receives nothing"),
        ('on = ["file_failed"]\nurl = "ftp://a/b"', "notify[0].url"),
        ('on = ["file_failed"]\nurl = "https://me:pass@a/b"', "notify[0].url"),
        ('on = ["file_failed"]\nexec = ["/bin/true"]\nheaders_file = "x"', "notify[0].headers_file"),
        (
            'on = ["file_failed"]\nexec = ["/bin/true"]\n[[notify]]\non = ["bug"]\nexec = ["/bin/true"]',
            "receives notices twice",
        ),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A config that would tell nobody, or of nothing, is refused with its key and line."""
    with Home(tmp_path, f"[[notify]]\n{text}\n") as home:
        done = home.call("config", "check")
        assert done.returncode == 78
        assert said in done.stderr
        assert "inboxd.toml:" in done.stderr
        assert "pass@" not in done.stderr
