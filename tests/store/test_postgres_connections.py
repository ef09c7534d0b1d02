"""Connections that end in the middle of something, and secrets that stay secret."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from clusters import PASSWORD, Cluster, PostgresHome, binaries
from daemons import eventually, record
from inboxd.inbox.claim import new_claim_id
from inboxd.store import postgres_driver

pytestmark = pytest.mark.postgres

FILE = [record("a"), record("b"), record("a", ts="2026-01-16T00:00:00Z", value=2)]
MANY = 60_000
"""Records whose staging takes long enough to be met in it."""
GATE = """
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_xact_lock_shared(4242); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON etl_runs DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'success') EXECUTE FUNCTION gate()
"""
REFUSE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF nextval('refusals') <= 3 THEN RAISE 'could not serialize access' USING ERRCODE = '{state}'; END IF;
    RETURN NULL;
  END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER {when} DEFERRABLE INITIALLY {deferral} FOR EACH ROW EXECUTE FUNCTION refuse()
"""
"""Fails three transactions: a sequence counts those that were rolled back, too."""
STOPS_WITHIN_S = 10.0
"""What a stop may take: systemd's patience with it, and the contract's word."""


@pytest.fixture(scope="module")
def cluster(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a server that may be stopped: the session's own is everybody's."""
    assert postgres_server
    folder = Path("/tmp") / f"ixb-{os.getpid()}-{os.urandom(3).hex()}"  # noqa: S108 - short, for the socket's path
    folder.mkdir()
    cluster = Cluster(folder, binaries())
    cluster.start()
    yield cluster
    with suppress(AssertionError):  # a test may have left it stopped
        cluster.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path) -> Iterator[PostgresHome]:
    """Return a place for a daemon, its password in a file."""
    name = f"inboxd_{os.urandom(4).hex()}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = cluster.url.replace("/postgres?", f"/{name}")
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    env = {"INBOXD_DATABASE__PASSWORD_FILE": str(tmp_path / "secret")}
    with PostgresHome(tmp_path, url=url, env=env, password=PASSWORD) as home:
        yield home


def sessions(home: PostgresHome, condition: str, *, end: bool = False) -> list[tuple[object, ...]]:
    """Return (and end) the daemon's sessions for which the condition holds."""
    what = "pg_terminate_backend(pid)" if end else "pid"
    return home.query(
        f"SELECT {what} FROM pg_stat_activity"
        f" WHERE datname = current_database() AND application_name LIKE 'inboxd%' AND {condition}"
    )


def waiting(home: PostgresHome, statement: str) -> bool:
    """Tell whether the daemon's session waits for a lock in a statement that begins so."""
    return bool(sessions(home, f"wait_event_type = 'Lock' AND query LIKE '{statement}%'"))


def loaded_once(home: PostgresHome, name: str, rows: int) -> None:
    """Hold that a file was loaded, and once."""
    line = home.verdict(name)
    assert (line["event"], line["rows_in"]) == ("file_loaded", rows)
    assert home.query("SELECT COUNT(*), SUM(rows_in) FROM etl_runs WHERE status = 'success'") == [(1, rows)]
    assert home.query("SELECT COUNT(*) FROM lineage_records") == [(rows,)]
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]
    assert [path.name for path in home.processed.iterdir()] == [name]
    assert len(home.verdicts(name)) == 1


def test_a_session_ended_in_the_middle_of_staging_loads_nothing_and_then_everything(home: PostgresHome) -> None:
    """``pg_terminate_backend`` during COPY: the file waits, staging is made anew, and it is loaded once."""
    home.start()
    home.drop("a.json", [record(f"k{number}") for number in range(MANY)])
    eventually(lambda: sessions(home, "query LIKE 'COPY%'", end=True), "staging has begun")
    loaded_once(home, "a.json", MANY)
    assert [line["error_code"] for line in home.lines("file_deferred")] == ["connection_lost"]


def test_a_session_ended_during_commit_is_an_unknown_outcome_that_the_ledger_decides(home: PostgresHome) -> None:
    """``pg_terminate_backend`` during COMMIT: the ledger says that it did not count, and the file is loaded once."""
    home.start()
    with psycopg.connect(home.url, password=PASSWORD, autocommit=True) as gate:
        gate.execute(GATE)
        gate.execute("SELECT pg_advisory_lock(4242)")
        home.drop("a.json", FILE)
        eventually(lambda: waiting(home, "COMMIT"), "it is committing")
        assert sessions(home, "query = 'COMMIT'", end=True)
        eventually(lambda: home.lines("file_deferred"), "the file waits")
    loaded_once(home, "a.json", 3)


def test_files_wait_for_a_server_that_is_stopped(home: PostgresHome, cluster: Cluster) -> None:
    """A server that stops and comes back, orderly or not: files wait, are never failed, and are loaded once."""
    home.start()
    for number, mode in enumerate(("fast", "immediate"), start=1):
        cluster.stop(mode)
        home.drop(f"{number}.json", [record("a", ts=f"2026-01-1{number}T00:00:00Z")])
        eventually(lambda number=number: len(home.lines("file_deferred")) >= number, "the file waits")  # type: ignore[misc]  # a default binds it
        cluster.start()
        assert home.verdict(f"{number}.json")["event"] == "file_loaded"
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'success'") == [(2,)]
    assert list(home.failed.iterdir()) == []
    assert home.stop() == 0


def test_a_deadlock_is_tried_again_as_a_whole(home: PostgresHome) -> None:
    """A daemon that the server picks as a deadlock's victim rolls its file back, and loads it once."""
    home.start()
    home.drop("a.json", [record("a", ts="2026-01-01T00:00:00Z"), record("b", ts="2026-01-01T00:00:00Z")])
    home.verdict("a.json")
    with psycopg.connect(home.url, password=PASSWORD) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE target SET value = 0 WHERE key = 'b'")
        home.drop("b.json", FILE)
        eventually(lambda: waiting(home, "INSERT"), "the daemon has row a, and waits for row b")
        other.execute("UPDATE target SET value = 0 WHERE key = 'a'")
    assert home.verdict("b.json")["event"] == "file_loaded"
    assert {line["error_code"] for line in home.lines("file_deferred")} == {"serialization"}
    assert [row[:3] for row in home.rows()] == [("a", "Alice", 2.0), ("b", "Alice", 1.5)]


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.parametrize(
    ("when", "deferral"),
    [("INSERT ON target", "IMMEDIATE"), ("UPDATE ON etl_runs", "DEFERRED")],
    ids=["upsert", "commit"],
)
def test_a_transaction_that_cannot_be_serialized_is_tried_again_as_a_whole(
    home: PostgresHome, state: str, when: str, deferral: str
) -> None:
    """40001 (and 40P01), from a statement or from COMMIT itself: rolled back, tried again with pauses, loaded once."""
    home.start()
    with psycopg.connect(home.url, password=PASSWORD, autocommit=True) as other:
        other.execute(REFUSE.format(state=state, when=when, deferral=deferral).encode())
    home.drop("a.json", FILE)
    loaded_once(home, "a.json", 3)
    assert [line["error_code"] for line in home.lines("file_deferred")] == ["serialization"] * 3
    assert home.query("SELECT last_value > 3 FROM refusals") == [(True,)]
    assert home.query("SELECT status, rows_in, rows_out, rows_stale FROM etl_runs") == [("success", 3, 2, 1)]


@pytest.mark.parametrize(
    ("setting", "code"), [("lock_timeout", "database_locked"), ("statement_timeout", "database_unavailable")]
)
def test_a_time_out_of_the_servers_is_waited_out(home: PostgresHome, setting: str, code: str) -> None:
    """Time-outs that an administrator sets, for the user or in the URL, hold a file up and never fail it."""
    home.url += f"?options={quote(f'-c {setting}=300ms')}"
    home.start()
    with psycopg.connect(home.url, password=PASSWORD) as other:
        other.execute("LOCK TABLE target IN ACCESS EXCLUSIVE MODE")
        home.drop("a.json", FILE)
        eventually(lambda: home.lines("file_deferred"), "the file waits")
    loaded_once(home, "a.json", 3)
    assert {line["error_code"] for line in home.lines("file_deferred")} == {code}


def test_a_stop_ends_a_statement_that_would_take_longer(home: PostgresHome) -> None:
    """TERM while the server is at work: the statement is cancelled, the file goes back to the inbox, exit code 0."""
    home.start()
    with psycopg.connect(home.url, password=PASSWORD) as other:
        other.execute("LOCK TABLE target IN ACCESS EXCLUSIVE MODE")
        home.drop("a.json", FILE)
        eventually(lambda: waiting(home, "INSERT"), "the upsert waits")
        assert home.process is not None
        home.process.send_signal(signal.SIGTERM)
        assert home.process.wait(STOPS_WITHIN_S) == 0
        home.process = None
    assert [path.name for path in home.inbox.iterdir() if path.is_file()] == ["a.json"]
    assert home.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]
    assert home.run_once() == 0
    loaded_once(home, "a.json", 3)


def test_a_stop_does_not_wait_for_a_server_that_is_gone(home: PostgresHome, cluster: Cluster) -> None:
    """TERM while files wait for the database: exit code 0 in time; the next start goes on with them."""
    home.start()
    cluster.stop()
    try:
        home.drop("a.json", FILE)
        eventually(lambda: home.lines("file_deferred"), "the file waits")
        assert home.process is not None
        home.process.send_signal(signal.SIGTERM)
        assert home.process.wait(STOPS_WITHIN_S) == 0
        home.process = None
    finally:
        cluster.start()
    assert home.run_once() == 0
    loaded_once(home, "a.json", 3)


def test_the_watchdog_hears_of_a_long_statement(home: PostgresHome, tmp_path: Path) -> None:
    """While the server works on a statement the service manager is told that the daemon lives."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        home.env = {**home.env, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        home.start()
        with psycopg.connect(home.url, password=PASSWORD) as other:
            other.execute("LOCK TABLE target IN ACCESS EXCLUSIVE MODE")
            home.drop("a.json", FILE)
            eventually(lambda: waiting(home, "INSERT"), "the upsert waits")
            manager.setblocking(False)  # what came before the wait does not count
            with suppress(BlockingIOError):
                while manager.recv(4096):
                    pass
            manager.settimeout(30)
            heard = 0
            while heard < 3:
                heard += b"WATCHDOG=1" in manager.recv(4096)
            assert waiting(home, "INSERT")
        loaded_once(home, "a.json", 3)


def test_a_session_that_the_server_has_forgotten_is_not_waited_for(
    home: PostgresHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When something in between keeps a dead connection open, the server is asked, and the file is tried again."""
    monkeypatch.setattr(postgres_driver, "PROBE_EVERY_S", 0.2)
    url = home.url.replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@")
    with psycopg.connect(home.url, password=PASSWORD, autocommit=True) as idle:
        working = postgres_driver.connect(url, readonly=False, tick=lambda: None)
        assert working.execute("SELECT pg_sleep(1)").rowcount == 1  # asked several times, and found at work
        assert working.probe is not None
        working.probe = postgres_driver.Probe(url, idle.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            working.execute("SELECT pg_sleep(60)")
        assert working.closed


@pytest.mark.parametrize(
    ("url", "timeout"),
    [
        ("postgresql://u@a/d", 4),
        ("postgresql://u@a:1,b:2/d?target_session_attrs=read-write", 2),
        ("postgresql://u@/d?host=/run/a,/run/b,/run/c", 2),
        ("postgresql://u@a,b/d?connect_timeout=9", 9),
    ],
)
def test_connecting_to_one_of_several_hosts_takes_no_longer(
    monkeypatch: pytest.MonkeyPatch, url: str, timeout: int
) -> None:
    """The patience with servers out of reach is for all of a URL's hosts together, unless the URL says otherwise."""
    tried: list[str] = []

    def refuse(conninfo: str, **_settings: object) -> None:
        tried.append(conninfo)
        raise psycopg.OperationalError

    monkeypatch.setattr(postgres_driver.TickingConnection, "connect", refuse)
    with pytest.raises(psycopg.OperationalError):
        postgres_driver.connect(url, readonly=False)
    assert int(str(conninfo_to_dict(tried[0])["connect_timeout"])) == timeout


def password_file(home: PostgresHome, password: str) -> dict[str, str]:
    """Give the password as ``database.password_file``."""
    (home.path / "secret").write_text(password)
    return {"INBOXD_DATABASE__PASSWORD_FILE": str(home.path / "secret")}


def credential(home: PostgresHome, password: str) -> dict[str, str]:
    """Give the password as systemd does."""
    (home.path / "inboxd-database-password").write_text(password)
    return {"CREDENTIALS_DIRECTORY": str(home.path)}


def pgpassfile(home: PostgresHome, password: str) -> dict[str, str]:
    """Give the password as libpq's own file."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    (home.path / "pgpass").write_text(f"*:*:*:*:{escaped}\n")
    (home.path / "pgpass").chmod(0o600)
    return {"PGPASSFILE": str(home.path / "pgpass")}


@pytest.mark.parametrize("way", [password_file, credential, pgpassfile])
def test_a_password_is_taken_from_where_secrets_are_kept(
    home: PostgresHome, way: Callable[[PostgresHome, str], dict[str, str]]
) -> None:
    """From a file, a systemd credential or PGPASSFILE; it is not in the log, the output, the state file or ``ps``."""
    home.env = way(home, PASSWORD)
    home.start("--http", "127.0.0.1:0")
    assert home.process is not None
    shown = Path(f"/proc/{home.process.pid}/cmdline").read_bytes()
    shown += Path(f"/proc/{home.process.pid}/environ").read_bytes()
    home.drop("a.json", FILE)
    loaded_once(home, "a.json", 3)
    shown += b"".join(path.read_bytes() for path in (home.path / "data").glob("inboxd.*"))
    shown += home.output().encode() + home.call("status", "--json").stdout.encode()
    shown += home.call("config", "show").stdout.encode()
    assert home.stop() == 0
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret.encode() not in shown


@pytest.mark.parametrize("way", [password_file, credential, pgpassfile])
def test_a_wrong_password_is_not_shown_either(
    home: PostgresHome, way: Callable[[PostgresHome, str], dict[str, str]]
) -> None:
    """A password that the server refuses ends the start with exit code 69 and a hint, and is nowhere to be read."""
    home.env = way(home, "wr0ng/pass")
    done = home.call("run", "--once")
    assert done.returncode == 69, done.stderr
    assert "access_denied" in done.stderr or "password" in done.stderr
    for secret in ("wr0ng/pass", "wr0ng%2Fpass"):
        assert secret not in done.stdout + done.stderr


def test_a_stop_while_the_ledger_is_locked_is_a_stop(home: PostgresHome) -> None:
    """TERM while any question waits for a lock: exit code 0, the line, and what was claimed is there for the next."""
    (home.inbox / ".claimed").mkdir(mode=0o700)
    (home.inbox / ".claimed" / new_claim_id()).mkdir()  # another daemon's, or a crash's: it is asked about
    with psycopg.connect(home.url, password=PASSWORD) as other:
        home.start()
        other.execute("LOCK TABLE etl_runs IN ACCESS EXCLUSIVE MODE")
        eventually(lambda: waiting(home, "SELECT"), "a question waits")
        home.drop("a.json", FILE)
        assert home.process is not None
        home.process.send_signal(signal.SIGTERM)
        assert home.process.wait(STOPS_WITHIN_S) == 0, home.output()
        home.process = None
    assert home.lines("daemon_stopped")
    assert home.run_once() == 0
    loaded_once(home, "a.json", 3)


def test_a_stop_gives_back_what_was_claimed_once_the_ledger_answers(home: PostgresHome) -> None:
    """The time that a question took leaves some for putting things back."""
    home.start()
    with psycopg.connect(home.url, password=PASSWORD) as other:
        other.execute("LOCK TABLE target IN ACCESS EXCLUSIVE MODE")
        home.drop("a.json", FILE)
        eventually(lambda: waiting(home, "INSERT"), "the upsert waits")
        assert home.process is not None
        home.process.send_signal(signal.SIGTERM)
        eventually(lambda: not waiting(home, "INSERT"), "the upsert was given up")
        assert home.process.wait(STOPS_WITHIN_S) == 0
        home.process = None
    assert [path.name for path in home.inbox.iterdir() if path.is_file()] == ["a.json"]
    assert home.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]
