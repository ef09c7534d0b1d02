"""Expected arrivals: when a feed is late, that it is told once, and what ends it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from daemons import Home, eventually, record
from inboxd.clock import stamp
from inboxd.log import open_log
from inboxd.model import Expect
from inboxd.operate.arrivals import expected, judge, note
from inboxd.outbox.arrivals import Arrivals
from inboxd.outbox.notices import rows
from inboxd.outcomes import Outcome, Verdict
from inboxd.store.database import Store
from inboxd.store.tables import etl_runs, expectations, notices
from receivers import program, received
from stores import OpenEmpty, make_feed

HOURLY: Final = Expect(every=3600.0)
DAILY: Final = Expect(by=time(6), timezone="Europe/Berlin")
"""In winter that is 05:00 UTC, in summer 04:00."""
SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """Return a moment of January 2026, in UTC: ``5 04:30`` is on the fifth."""
    day, _, clock = text.partition(" ")
    return datetime.fromisoformat(f"2026-01-{int(day):02}T{clock}:00+00:00")


@pytest.mark.parametrize(
    ("arrivals", "now", "late", "due"),
    [
        ([], "1 01:00", False, "1 01:00"),  # not yet: it is late only after that
        ([], "1 01:01", True, "1 01:00"),
        (["1 00:30"], "1 01:29", False, "1 01:30"),
        (["1 00:30"], "1 01:31", True, "1 01:30"),
        (["1 00:30", "1 01:45"], "1 01:50", False, "1 02:45"),
    ],
)
def test_every_counts_from_the_last_arrival_or_from_when_it_was_first_seen(
    arrivals: list[str], now: str, *, late: bool, due: str
) -> None:
    """With ``every`` a feed is late once so much time has passed since what came last."""
    assert judge(HOURLY, SINCE, [at(one) for one in arrivals], at(now)) == (late, at(due))


@pytest.mark.parametrize(
    ("arrivals", "now", "late", "due"),
    [
        ([], "1 04:59", False, "1 05:00"),
        ([], "1 05:01", True, "1 05:00"),
        (["1 04:30"], "1 05:01", False, "2 05:00"),
        (["1 04:30"], "2 05:01", True, "2 05:00"),
        (
            ["1 04:30", "1 05:30"],
            "2 05:01",
            False,
            "3 05:00",
        ),  # a day early is in time: it is since the deadline before
        (["1 05:30"], "1 06:00", False, "2 05:00"),  # came late, and ended it
        (["1 05:30"], "2 05:01", True, "2 05:00"),  # so it was the first's, and the second has none
        (["1 05:30", "2 04:00"], "2 05:01", False, "3 05:00"),
        ([], "3 05:01", True, "1 05:00"),  # one absence, since the first deadline that was missed
        (["3 06:00"], "3 07:00", False, "4 05:00"),
        (["3 06:00"], "4 05:01", True, "4 05:00"),
        (["1 04:00", "3 06:00", "3 06:01"], "4 05:01", False, "5 05:00"),
    ],
)
def test_a_deadline_has_the_arrivals_since_the_one_before(
    arrivals: list[str], now: str, *, late: bool, due: str
) -> None:
    """With ``by`` each deadline wants an arrival of its own; one that ends an absence counts for that deadline only."""
    assert judge(DAILY, SINCE, [at(one) for one in arrivals], at(now)) == (late, at(due))


def test_grace_is_not_late_yet_and_what_comes_in_it_is_the_deadlines() -> None:
    """Within ``grace`` nothing is late; what comes then is for the deadline that is over, and not for the next."""
    expect = replace(DAILY, grace=1800.0)
    assert judge(expect, SINCE, [], at("1 05:29")) == (False, at("1 05:30"))
    assert judge(expect, SINCE, [], at("1 05:31")) == (True, at("1 05:30"))
    assert judge(expect, SINCE, [at("1 05:20")], at("1 05:31")) == (False, at("2 05:30"))
    assert judge(expect, SINCE, [at("1 05:20")], at("2 05:31")) == (True, at("2 05:30"))


def test_deadlines_keep_their_days_and_follow_the_clocks_of_their_zone() -> None:
    """Only the days that are named have a deadline, and 06:00 stays 06:00 when the clocks change."""
    weekdays = replace(DAILY, days=(0, 1, 2, 3, 4))
    friday = datetime(2026, 3, 27, 5, tzinfo=UTC)
    arrived = [friday - timedelta(minutes=5)]
    monday = datetime(2026, 3, 30, 4, tzinfo=UTC)  # from Sunday on an hour earlier in UTC
    since = friday - timedelta(hours=12)
    assert judge(weekdays, since, arrived, friday + timedelta(days=2)) == (False, monday)
    assert judge(weekdays, since, arrived, monday + timedelta(minutes=1)) == (True, monday)


def test_a_time_that_the_clocks_leave_out_is_an_hour_later() -> None:
    """A deadline at 02:30 on the day on which 02:00 to 03:00 is left out is at 03:30."""
    early = replace(DAILY, by=time(2, 30))
    assert judge(early, datetime(2026, 3, 28, 12, tzinfo=UTC), [], datetime(2026, 3, 29, tzinfo=UTC)) == (
        False,
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    )


def insert(store: Store, **values: object) -> None:
    """Add a run that ended at ``finished_at``, loaded with one record unless told otherwise."""
    run: dict[str, object] = {
        "job_name": "events",
        "status": "success",
        "rows_in": 1,
        "rows_out": 1,
        "rows_rejected": 0,
        "rows_skipped": 0,
        "rows_stale": 0,
        "rows_filtered": 0,
        "rows_deleted": 0,
        "duration_ms": 1,
        "content_sha256": f"{values['finished_at']}".ljust(64, "0"),
        "started_at": values["finished_at"],
        **values,
    }
    with store.writing() as connection:
        connection.execute(etl_runs.insert(), [run])


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"rows_out": 0, "rows_skipped": 1}, True),
        ({"rows_out": 0, "rows_rejected": 1}, False),
        ({"rows_out": 0, "rows_filtered": 1}, False),
        ({"rows_in": 0, "rows_out": 0}, False),
        ({"rows_in": 0, "rows_out": 0, "duplicate_of": 1}, False),
        ({"rows_in": 0, "rows_out": 0, "status": "failure", "error_code": "invalid_json"}, False),
        ({"content_sha256": None}, False),
        ({"job_name": "others"}, False),
        ({"superseded_by": 1}, True),
    ],
)
def test_an_arrival_is_a_file_that_was_loaded_with_enough_records(
    open_empty: OpenEmpty, changes: dict[str, Any], *, counts: bool
) -> None:
    """Duplicates, failures, replays, filtered or rejected records are no arrival."""
    feed = replace(make_feed(), expect=HOURLY)
    store = open_empty(feed)
    insert(store, finished_at=stamp(SINCE))
    note(store, [feed], stamp(SINCE))
    insert(store, finished_at=stamp(SINCE + timedelta(minutes=30)), **changes)
    (found,) = expected(store, [feed], SINCE + timedelta(minutes=61))
    assert found.late is not counts


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.when = SINCE

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return self.when

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.when.timestamp()


def test_an_absence_is_told_once_by_all_hosts_together(open_empty: OpenEmpty, tmp_path: Path) -> None:
    """Late is said once per absence with its notice, a restart forgets nothing, and what ends it is said once, too."""
    feeds = (replace(make_feed(), expect=HOURLY), make_feed("calm"))
    store = open_empty(*feeds)
    clock = Clock()
    log = open_log(fmt="json", level="info", file=tmp_path / "log", out=None)

    def daemon() -> Arrivals:
        return Arrivals(store, log, clock, lambda event, when, values: rows(event, when, values, ["somebody"]))

    first, second = daemon(), daemon()
    for one in (first, second):
        assert one.look(feeds) > 0
    clock.when += timedelta(minutes=61)
    for one in (first, second, daemon()):
        one.look(feeds)
        assert [(found.feed, found.late) for found in one.standing] == [("events", True)]
    assert events(tmp_path) == ["feed_late"]
    insert(store, finished_at=stamp(clock.when))
    for one in (first, second):
        one.has_ended(Verdict(Outcome.LOADED, 1, "events", "a.json"))
        one.look(feeds)
        assert not one.standing[0].late
    assert events(tmp_path) == ["feed_late", "feed_arrived"]
    with store.reading() as connection:
        receivers_of = connection.execute(sa.select(notices.c.event).order_by(notices.c.number)).scalars().all()
        assert connection.execute(sa.select(expectations.c.late_at)).scalars().all() == [None]
    assert receivers_of == ["feed_late", "feed_arrived"]
    clock.when += timedelta(minutes=61)
    first.look(feeds)
    assert events(tmp_path) == ["feed_late", "feed_arrived", "feed_late"]


def events(folder: Path) -> list[str]:
    """Return the events of a log."""
    return [json.loads(line)["event"] for line in (folder / "log").read_text("utf-8").splitlines()]


def test_another_expectation_counts_from_when_it_is_first_seen(open_empty: OpenEmpty) -> None:
    """A setting that is changed begins anew; one that is the same after a restart does not."""
    feed = replace(make_feed(), expect=HOURLY)
    store = open_empty(feed)
    assert expected(store, [feed], SINCE) == []
    note(store, [feed], stamp(SINCE))
    note(store, [feed], stamp(SINCE + timedelta(hours=5)))
    assert expected(store, [feed], SINCE + timedelta(hours=2))[0].late
    changed = replace(feed, expect=replace(HOURLY, grace=1.0))
    note(store, [changed], stamp(SINCE + timedelta(hours=5)))
    assert not expected(store, [changed], SINCE + timedelta(hours=5, minutes=59))[0].late


def test_a_daemon_tells_of_a_late_feed_and_of_its_file(tmp_path: Path) -> None:
    """From the log to ``health``: a feed that is late is told of everywhere, until its file has come."""
    receiver_folder = tmp_path / "received"
    receiver_folder.mkdir()
    text = f"""
        [feeds.events]
        expect = {{ every = "1s" }}
        [[notify]]
        on = ["feed_late", "feed_arrived"]
        exec = {json.dumps(program(receiver_folder))}
        """
    with Home(tmp_path / "home", text) as home:
        home.start()
        eventually(lambda: home.lines("feed_late"), "feed_late")
        assert home.call("health").returncode == 1
        assert " is late by " in home.call("health", "--json").stderr
        assert "is late by" in home.call("status").stdout
        assert home.json("status", "--json")["expected"][0]["late"] is True
        home.drop("a.json", [record("a")])
        eventually(lambda: home.lines("feed_arrived"), "feed_arrived")
        eventually(
            lambda: [one["event"] for one in received(receiver_folder)][:2] == ["feed_late", "feed_arrived"],
            "the notices",
        )
        assert received(receiver_folder)[1]["file"] == "a.json"
    with Home(tmp_path / "calm", '[feeds.events]\nexpect = { every = "1h" }') as calm:
        calm.run_once()
        assert calm.call("health").returncode == 0
        assert calm.call("health", "--feed", "events").returncode == 0
