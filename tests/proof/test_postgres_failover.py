"""A primary that dies, and its standby, which takes over: what a daemon makes of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from clusters import PASSWORD, Cluster, PostgresHome, Standby, binaries
from daemons import eventually, record, suspend
from inboxd.store import postgres_driver

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.xdist_group("postgres-failover")]

CONFIG = """
[inbox]
settle = "0ms"
[feeds.events]
late = "merge"
"""
RECORDS = 20


class Pair:
    """A primary and its standby."""

    def __init__(self, stack: ExitStack) -> None:
        self.primary = Cluster(_folder(stack), binaries())
        self.primary.start()
        self.standby = Standby(_folder(stack), binaries(), primary=self.primary)
        self.standby.start()
        stack.callback(self.end)

    def end(self) -> None:
        """Stop what still runs."""
        for server in (self.standby, self.primary):
            with suppress(psutil.NoSuchProcess):  # the test has killed it
                server.kill()

    def set(self, server: Cluster, setting: str, value: str) -> None:
        """Change one server's configuration."""
        with server.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def streams(self, condition: str) -> bool:
        """Tell what the primary knows of its standby."""
        with self.primary.connect() as connection:
            found = connection.execute(f"SELECT 1 FROM pg_stat_replication WHERE {condition}".encode())
            return found.fetchone() is not None

    def standby_answers(self) -> bool:
        """Tell whether the standby takes connections."""
        with suppress(psycopg.OperationalError), self.standby.connect() as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        return False

    def is_level(self) -> bool:
        """Tell whether the standby has all that the primary has."""
        return self.streams("replay_lsn = pg_current_wal_lsn()")

    def url(self, database: str) -> str:
        """Return the URL that names both."""
        hosts = ",".join(f"{server.listen}:{server.port}" for server in (self.primary, self.standby))
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"


def _folder(stack: ExitStack) -> Path:
    folder = Path("/tmp") / f"ixb-{os.getpid()}-{os.urandom(3).hex()}"  # noqa: S108 - short, for the socket's path
    folder.mkdir()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return two servers of the test's own."""
    with ExitStack() as stack:
        yield Pair(stack)


@pytest.fixture
def home(pair: Pair, tmp_path: Path) -> Iterator[PostgresHome]:
    """Return a place for a daemon that is told of both servers, its password in a file."""
    with pair.primary.connect() as connection:
        connection.execute("CREATE DATABASE inboxd")
    eventually(pair.is_level, "the standby has it, too")
    (tmp_path / "secret").write_text(PASSWORD)
    env = {"INBOXD_DATABASE__PASSWORD_FILE": str(tmp_path / "secret")}
    with PostgresHome(tmp_path, CONFIG, url=pair.url("inboxd"), env=env, password=PASSWORD) as home:
        yield home


def drop(home: PostgresHome, numbers: range) -> None:
    """Drop files: each has keys of its own, and one that all share."""
    for number in numbers:
        ts = f"2026-01-15T10:30:{number:02}Z"
        own = [record(f"{number:02}-{place:02}", ts=ts) for place in range(RECORDS - 1)]
        home.drop(f"{number:02}.json", [*own, record("shared", ts=ts, value=number)])


def everything_once(home: PostgresHome, files: int) -> None:
    """Hold that all that was dropped is there, and nothing twice."""
    assert home.query("SELECT status, duplicate_of, COUNT(*) FROM etl_runs GROUP BY 1, 2") == [("success", None, files)]
    assert home.query("SELECT COUNT(*) FROM target") == [(files * (RECORDS - 1) + 1,)]
    assert home.query("SELECT value FROM target WHERE key = 'shared'") == [(files - 1,)]
    assert home.query("SELECT COUNT(*), COUNT(DISTINCT (run_id, record_no)) FROM lineage_records") == [
        (files * RECORDS, files * RECORDS)
    ]
    assert sorted(path.name for path in home.processed.iterdir()) == [f"{number:02}.json" for number in range(files)]
    assert list(home.failed.iterdir()) == []


@pytest.mark.parametrize("arrives", [False, True])
def test_a_daemon_goes_on_with_the_standby_and_nothing_is_lost_or_doubled(
    home: PostgresHome,
    pair: Pair,
    arrives: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The primary dies in the middle of a COMMIT, which the standby then has, or not; with it promoted all goes on."""
    pair.set(pair.primary, "synchronous_standby_names", "standby")
    eventually(lambda: pair.streams("sync_state = 'sync'"), "the standby is synchronous")
    home.start()
    drop(home, range(20))
    eventually(lambda: len(home.verdicts()) > 5, "files flow")
    receiver = next(each for each in pair.standby.processes() if "walreceiver" in " ".join(each.cmdline()))
    suspend(receiver.pid)  # from here on nothing is acknowledged
    drop(home, range(20, 30))
    eventually(lambda: _commits(pair), "the daemon is in a COMMIT that waits for the standby")
    answer = len(home.verdicts())
    pair.primary.kill()
    if arrives:
        receiver.send_signal(signal.SIGCONT)  # reads what was sent: the daemon was not told of a COMMIT that counts
    else:
        receiver.kill()  # what was sent is lost with it; its server starts anew
    eventually(pair.standby_answers, "the standby answers")
    eventually(lambda: home.lines("file_deferred"), "the daemon has noticed")
    drop(home, range(30, 40))
    pair.standby.promote()
    eventually(lambda: len(home.verdicts()) >= 40, "the rest is loaded")
    assert answer < 30
    assert home.stop() == 0
    everything_once(home, 40)
    assert set(Counter(str(line["file"]) for line in home.verdicts()).values()) == {1}
    assert {line["error_code"] for line in home.lines("file_deferred")} <= {"connection_lost", "database_unavailable"}
    shown = home.output() + (home.path / "data" / "inboxd.log").read_text()
    assert PASSWORD not in shown
    assert quote(PASSWORD, safe="") not in shown


def _commits(pair: Pair) -> bool:
    with pair.primary.connect() as connection:
        waits = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'inboxd%' AND wait_event = 'SyncRep'"
        return connection.execute(waits).fetchone() is not None


def test_commits_that_an_asynchronous_standby_never_saw_are_found_and_loaded_again(
    home: PostgresHome, pair: Pair
) -> None:
    """Files whose commit died with the primary: ``doctor`` names them, ``retry --all`` loads them, and only them."""
    home.start()
    drop(home, range(5))
    eventually(lambda: len(home.verdicts()) == 5, "five files are loaded")
    eventually(pair.is_level, "the standby has them")
    pair.set(pair.standby, "primary_conninfo", "")
    eventually(lambda: not pair.streams("TRUE"), "the standby hears no more")
    drop(home, range(5, 10))
    eventually(lambda: len(home.verdicts()) == 10, "five more are loaded")
    pair.primary.kill()
    pair.standby.promote()
    drop(home, range(10, 12))
    eventually(lambda: len(home.verdicts()) == 12, "the daemon goes on by itself")
    found = home.call("doctor")
    assert found.returncode == 1
    answer = next(line for line in found.stdout.splitlines() if "not in the ledger" in line)
    assert "5 files: " in answer
    assert all(f"{number:02}.json" in answer for number in range(5, 10))
    done = home.json("retry", "--all", "--json")
    assert sorted((one["file"], one["status"]) for one in done["files"]) == [
        (f"{number:02}.json", "success") for number in range(5, 10)
    ]
    assert home.call("doctor").returncode == 0
    everything_once(home, 12)


def test_a_session_on_a_server_that_became_a_standby_is_given_up(home: PostgresHome, pair: Pair) -> None:
    """A connection to a server that takes no writes is not kept: the next one may lead to the server that does."""
    home.url = pair.url("inboxd").replace("?target_session_attrs=read-write", "")
    home.start()
    pair.set(pair.primary, "default_transaction_read_only", "on")
    drop(home, range(1))
    eventually(lambda: home.lines("file_deferred"), "the file waits")
    with pair.primary.connect() as connection:
        daemons = "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'inboxd@%'"
        kept = f"SELECT 1 FROM ({daemons}) s WHERE query LIKE 'INSERT INTO etl_runs%'"
        eventually(lambda: connection.execute(kept.encode()).fetchone() is None, "the session is given up")
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
    assert home.verdict("00.json")["event"] == "file_loaded"
    assert {line["error_code"] for line in home.lines("file_deferred")} == {"read_only"}


def test_a_question_whether_the_server_is_at_work_goes_to_the_same_server(home: PostgresHome, pair: Pair) -> None:
    """Of several servers in the URL the one is asked that the session is on, whichever comes first."""
    url = pair.url("inboxd").replace("read-write", "standby").replace("@", f":{quote(PASSWORD, safe='')}@", 1)
    with postgres_driver.connect(url, readonly=True, tick=lambda: None) as connection:
        assert connection.info.port == pair.standby.port
        assert connection.probe is not None
        with psycopg.connect(connection.probe._conninfo) as other:
            assert other.info.port == pair.standby.port
