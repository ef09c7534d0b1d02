from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psycopg
import pytest

from clusters import PostgresHome, new_database
from crashing import BAD, GOOD, crash, state
from daemons import Home, eventually, files_in, record
from inboxd.inbox.claim import new_claim_id
from inboxd.outcomes import Edge, Step
from inboxd.store.postgres import END_TURN, TAKE_TURN

pytestmark = pytest.mark.postgres

ORDERED = """
[feeds.prices]
match = ["prices/**"]
key = ["k"]
fields = { k = { type = "text" }, v = { type = "integer" } }
[feeds.events]
"""


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    """Return the URL of a new, empty database."""
    with new_database(postgres_server) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, url: str) -> Iterator[PostgresHome]:
    """Return a place for a daemon on PostgreSQL."""
    with PostgresHome(tmp_path, url=url) as home:
        yield home


@pytest.fixture(scope="module")
def calm(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return the state after a run in which nothing happened."""
    with new_database(postgres_server) as made:
        home = PostgresHome(tmp_path_factory.mktemp("calm"), url=made)
        home.drop("a.json", GOOD)
        assert home.run_once() == 0
        return state(home)


def test_a_daemon_on_postgresql_does_what_one_on_sqlite_does(home: PostgresHome, tmp_path: Path) -> None:
    """Loaded, duplicate, failed: the same lines, tables, counts and archives, and a clean stop."""
    files = {"a.json": GOOD, "b.json": GOOD, "bad.json": BAD}
    found = []
    with Home(tmp_path / "sqlite") as other:
        for each in (home, other):
            each.start()
            for name, content in files.items():
                each.drop(name, content)
                each.verdict(name)
            assert each.stop() == 0
            lines = [(line["event"], line["file"], line.get("rows_out")) for line in each.verdicts()]
            found.append((lines, state(each)))
    assert found[0] == found[1]
    assert [line[0] for line in found[0][0]] == ["file_loaded", "file_duplicate", "file_failed"]
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]


@pytest.mark.crash
@pytest.mark.parametrize("step", Step)
def test_a_crash_after_any_step_changes_nothing_in_the_end(
    home: PostgresHome, calm: dict[str, object], step: Step
) -> None:
    """A daemon killed after any step, which is before the next, and started again ends as one that was not killed."""
    home.drop("a.json", GOOD)
    crash(home, step, Edge.AFTER)
    assert home.run_once() == 0
    assert {**state(home), "inbox": calm["inbox"]} == calm
    assert not files_in(home.inbox)
    assert len(home.verdicts("a.json")) == 1


@pytest.mark.crash
@pytest.mark.parametrize("step", [Step.CLAIM, Step.STAGE, Step.COMMIT])
def test_a_living_daemon_takes_over_from_a_dead_one(home: PostgresHome, tmp_path: Path, step: Step) -> None:
    """On a shared inbox what a daemon leaves when it dies is done by another within seconds, with one verdict."""
    with PostgresHome(tmp_path, url=home.url, env={"INBOXD_LOG__FILE": "data/other.log"}) as dying:
        home.start()
        home.suspend()  # so that the other one gets the file
        dying.drop("a.json", GOOD)
        crash(dying, step, Edge.AFTER)
        home.resume()
        line = home.verdict("a.json")
    assert line["event"] == ("file_recovered" if step is Step.COMMIT else "file_loaded")
    assert home.query("SELECT COUNT(*), SUM(rows_in) FROM etl_runs WHERE status = 'success'") == [(1, len(GOOD))]
    assert [path.name for path in home.processed.iterdir()] == ["a.json"]


def test_a_living_daemons_claim_is_left_alone(home: PostgresHome) -> None:
    """A claim whose run another session has locked is not touched, however long that takes; freed, it is taken over."""
    home.start()
    claim = new_claim_id()
    path = home.inbox / ".claimed" / claim / "a.json"
    path.parent.mkdir(parents=True)
    with psycopg.connect(home.url) as other:
        other.execute(
            "INSERT INTO etl_runs (job_name, status, started_at, file_name, claim, host)"
            " VALUES ('events', 'running', now(), 'a.json', %s, 'elsewhere')",
            (claim,),
        )
        other.commit()
        other.execute("SELECT 1 FROM etl_runs WHERE claim = %s FOR UPDATE", (claim,))
        home.write("a.json", GOOD).rename(path)
        home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
        home.verdict("b.json")
        looks = home.query("SELECT COUNT(*) FROM etl_runs")
        with pytest.raises(AssertionError):
            eventually(lambda: not path.exists(), deadline_s=5.0)  # two looks and more
        assert home.query("SELECT COUNT(*) FROM etl_runs") == looks
        assert home.query("SELECT status FROM etl_runs WHERE claim = %s", claim) == [("running",)]
    home.verdict("a.json")
    assert home.query("SELECT status, error_code FROM etl_runs WHERE claim = %s ORDER BY id", claim) == [
        ("failure", "interrupted"),
        ("success", None),
    ]


def test_a_daemon_whose_file_was_taken_over_leaves_it_alone(home: PostgresHome, tmp_path: Path) -> None:
    """A daemon that lost its session finds its file done by another: it says no verdict and moves nothing."""
    with PostgresHome(tmp_path, url=home.url, env={"INBOXD_LOG__FILE": "data/other.log"}) as other:
        with psycopg.connect(home.url) as blocking:
            home.start()
            blocking.execute("LOCK TABLE target IN ACCESS EXCLUSIVE MODE")
            home.drop("a.json", GOOD)
            eventually(lambda: _waiting_for_a_lock(home.url), "the upsert waits")
            home.suspend()
            eventually(lambda: _end_daemons(home.url) and not _waiting_for_a_lock(home.url), "its session is gone")
        other.start(wait=False)
        eventually(lambda: _log(other, "other.log", "file_loaded"), "the other one loads it")
        home.resume()
        eventually(lambda: home.lines("file_taken_over"), "the first one yields")
        home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
        eventually(lambda: not files_in(home.inbox), "the next file is loaded")
        assert home.stop() == 0
    assert home.verdicts("a.json") == []
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE file_name = 'a.json' AND status = 'success'") == [(1,)]
    assert sorted(path.name for path in home.processed.iterdir()) == ["a.json", "b.json"]


def _log(home: Home, name: str, event: str) -> list[dict[str, object]]:
    path = home.path / "data" / name
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] == event]


def _waiting_for_a_lock(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found.fetchone() is not None


def _end_daemons(url: str) -> bool:
    """End the daemons' sessions, as a failover does."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'inboxd%'"
        )
        return bool(found.fetchall())


def test_a_claim_that_was_taken_over_waits_for_its_feeds_turn(url: str, tmp_path: Path) -> None:
    """While another daemon works on files of an ordered feed, what a dead one left of it waits, and nothing else."""
    with PostgresHome(tmp_path, ORDERED, url=url) as home, psycopg.connect(url, autocommit=True) as other:
        home.drop("prices/a.json", '[{"k": "x", "v": 1}]')
        crash(home, Step.STAGE, Edge.AFTER)
        take = partial(other.execute, TAKE_TURN.encode(), ("prices",))
        eventually(lambda: take().fetchone() == (True,), "the dead daemon's turn")
        home.start()
        for number in range(2):
            home.drop(f"{number}.json", json.dumps([record(f"k{number}")]))
            home.verdict(f"{number}.json")
        assert home.query("SELECT COUNT(*) FROM etl_runs WHERE job_name = 'prices' AND status = 'success'") == [(0,)]
        assert other.execute(END_TURN.encode(), ("prices",)).fetchone() == (True,)
        assert home.verdict("prices/a.json")["event"] == "file_loaded"
        assert home.stop() == 0


SHARED = """
[inbox]
path = "{inbox}"
[archive]
processed = "{archive}/processed"
failed = "{archive}/failed"
[feeds.prices]
match = ["prices/**"]
key = ["k"]
deletes = {{ from = "op", in = ["d"], then = "remove" }}
fields = {{ k = {{ type = "text" }}, v = {{ type = "integer" }} }}
[feeds.stock]
match = ["stock/{{no}}.json"]
mode = "snapshot"
as_of = {{ from = "$path.no", type = "integer" }}
key = ["k"]
absent = "remove"
max_deleted = "100%"
fields = {{ k = {{ type = "text" }}, v = {{ type = "integer" }} }}
"""
FILES = 40


@pytest.mark.slow
def test_hosts_that_share_an_inbox_apply_ordered_feeds_in_order(url: str, tmp_path: Path) -> None:
    """Killed in the middle of files and started again: the last file wins, of deletions and snapshots, too."""
    chance = random.Random(18)
    expected: dict[str, dict[str, int]] = {"prices": {}, "stock": {}}
    inbox = tmp_path / "inbox"
    with ExitStack() as stack:
        homes = []
        for name in ("one", "two"):
            config = SHARED.format(inbox=inbox, archive=tmp_path / f"archive-{name}")
            homes.append(stack.enter_context(PostgresHome(tmp_path / name, config, url=url)))
        for home in homes:
            home.start()
        for number in range(1, FILES + 1):
            feed = chance.choice(["prices", "stock"])
            keys = chance.sample("abcdef", 4)
            records = [{"k": key, "v": number} for key in keys]
            if feed == "prices":
                records = [one | ({"op": "d"} if chance.random() < 0.3 else {}) for one in records]
                for one in records:
                    expected[feed].pop(str(one["k"]), None)
                expected[feed] |= {str(one["k"]): number for one in records if "op" not in one}
            else:
                expected[feed] = dict.fromkeys(keys, number)
            (tmp_path / "part").write_text(json.dumps(records))
            os.utime(tmp_path / "part", (1_700_000_000 + number, 1_700_000_000 + number))
            (inbox / feed).mkdir(parents=True, exist_ok=True)
            (tmp_path / "part").rename(inbox / feed / f"{number}.json")
            if number % 10 == 0:
                homes[number // 10 % 2].kill()
                homes[number // 10 % 2].start()
        eventually(lambda: not files_in(inbox), "every file is taken", deadline_s=60)
        for home in homes:
            assert home.stop() == 0
        runs = homes[0].query("SELECT job_name, file_name FROM etl_runs WHERE status = 'success' ORDER BY commit_no")
        for feed, rows in expected.items():
            numbers = [int(name.removeprefix(f"{feed}/").removesuffix(".json")) for job, name in runs if job == feed]
            assert numbers == sorted(numbers)
            assert dict(homes[0].query(f"SELECT k, v FROM {feed}")) == rows


def test_two_daemons_start_at_once_on_an_empty_database(url: str, tmp_path: Path) -> None:
    """Migrations run once, under a lock: both daemons come up, and both load."""
    with ExitStack() as stack:
        homes = [stack.enter_context(PostgresHome(tmp_path / name, url=url)) for name in ("one", "two")]
        for home in homes:
            home.start(wait=False)
        for day, home in enumerate(homes, start=1):
            eventually(partial(home.lines, "daemon_started"), "both start")
            home.drop("a.json", [record(home.path.name, ts=f"2026-01-0{day}T00:00:00Z")])
            home.verdict("a.json")
            assert home.stop() == 0
        assert [row[0] for row in homes[0].rows()] == ["one", "two"]
        assert sum(len(home.lines("database_upgraded")) for home in homes) == 1


def test_an_older_daemon_refuses_a_newer_schema(home: PostgresHome) -> None:
    """A database that a later version has migrated is not written to: exit 78, and the message says what to do."""
    assert home.call("db", "upgrade").returncode == 0
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done = home.call("run", "--once")
    assert done.returncode == 78
    assert "9999" in done.stderr


def test_what_the_database_refuses_fails_its_file_alone(home: PostgresHome) -> None:
    """A key that the index cannot hold, or JSON that the server cannot parse, never wedges a feed."""
    config = """
[feeds.deep]
match = ["deep/**"]
key = ["key"]
cursor = "at"
[feeds.deep.fields]
key = { type = "text" }
at = { type = "integer" }
body = { type = "json", required = false }
"""
    (home.path / "inboxd.toml").write_text(config)
    home.start()
    with psycopg.connect(home.url, autocommit=True) as connection:  # what no validation of ours can foresee
        connection.execute("ALTER TABLE deep ADD CONSTRAINT picky CHECK (key <> 'refused')")
    home.drop("deep/bad.json", [{"key": "a", "at": 1}, {"key": "refused", "at": 2}])
    home.drop("deep/nested.json", json.dumps([{"key": "b", "at": 3, "body": 0}]).replace("0", "[" * 190 + "]" * 190))
    home.drop("deep/long.json", [{"key": "\u20ac" * 300 + "x" * 124, "at": 4}])
    home.drop("deep/good.json", [{"key": "c", "at": 5}])
    refused = home.verdict("deep/bad.json")
    assert (refused["event"], refused["error_code"]) == ("file_failed", "refused_by_database")
    for name in ("deep/nested.json", "deep/long.json", "deep/good.json"):
        assert home.verdict(name)["event"] == "file_loaded", home.verdict(name)
    assert home.stop() == 0


def test_status_lists_a_host_that_is_up_and_idle(home: PostgresHome) -> None:
    """A daemon is seen as long as its session lasts, before its first file, and after a lost connection too."""
    host = os.uname().nodename
    idle = {"host": host, "up": True, "running": 0, "successes": 0, "failures": 0, "last_run_at": None}
    home.start()
    assert home.json("status", "--json")["hosts"] == [idle]
    assert _end_daemons(home.url)
    home.drop("a.json", GOOD)
    at = home.verdict("a.json")["timestamp"]
    (listed,) = home.json("status", "--json")["hosts"]
    assert (listed["host"], listed["up"], listed["successes"]) == (host, True, 1)
    assert listed["last_run_at"] < at
    home.kill()
    eventually(lambda: home.json("status", "--json")["hosts"] == [{**listed, "up": False}], "its session is gone")
