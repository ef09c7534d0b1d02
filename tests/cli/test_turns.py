"""Commands that write beside a program that holds the database: they say that they wait, and wait for 30 s."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from daemons import Home, eventually, record
from inboxd import store as stores
from inboxd.cli import run_cli
from inboxd.store.postgres import TAKE_TURN
from inboxd.store.sqlite_driver import driver
from stores import MakeUrl

COMMANDS: Final = {
    "load": ("load", "more.json"),
    "watermark set": ("watermark", "set", "events", "2026-01-01T00:00:00Z"),
    "watermark reset": ("watermark", "reset", "events"),
    "db upgrade": ("db", "upgrade"),
    "runs import": ("runs", "import", "runs.json"),
    "doctor --mend": ("doctor", "--mend"),
    "dead-letters replay": ("dead-letters", "replay"),
    "undo": ("undo", "1"),
    "retry": ("retry", "bad.json"),
}
WAITS: Final = "waiting for a turn, 30 s at most"


@pytest.fixture
def home(tmp_path: Path, make_url: MakeUrl) -> Home:
    """Return a place where a file was loaded, with a dead letter, and another failed, on each database."""
    config = '[feeds.events]\nlate = "merge"\nundo = true\nmax_future = "3650d"\n'
    home = Home(tmp_path / "home", f'{config}extra = "reject"', env={"INBOXD_DATABASE__URL": make_url()})
    home.drop("a.json", [record("a"), {**record("b"), "unexpected": 1}])
    home.drop("bad.json", "[")
    home.call("run", "--once")
    (home.path / "inboxd.toml").write_text(config)
    (home.path / "more.json").write_text(json.dumps([record("c")]))
    job = {"job_name": "other", "status": "success", "started_at": "2026-01-01T00:00:00Z"}
    (home.path / "runs.json").write_text(json.dumps([job]))
    return home


@contextmanager
def held(url: str, *, fresh: bool = False) -> Iterator[Callable[[], object]]:
    """Hold what every command that writes needs; lends what lets it go. ``fresh``: of a database without tables."""
    if url.startswith("sqlite"):
        with closing(driver.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield lambda: connection.execute("ROLLBACK")
        return
    with closing(psycopg.connect(url)) as session:
        lock = "SELECT pg_advisory_lock(0x696E626F7864)" if fresh else "LOCK TABLE etl_runs, watermarks"
        session.execute(lock.encode())
        yield session.close


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "db upgrade"])
def test_a_command_that_writes_says_that_it_waits_and_goes_on_in_its_turn(home: Home, command: str) -> None:
    """Beside a program that holds the database for longer than a daemon's file waits, the command ends well."""
    with held(home.env["INBOXD_DATABASE__URL"]) as let_go:
        _ends_well_after(home, COMMANDS[command], let_go)


def test_an_upgrade_waits_for_its_turn(tmp_path: Path, make_url: MakeUrl) -> None:
    """Two upgrades at once: the second says that it waits, and finds the work done."""
    home = Home(tmp_path / "home", env={"INBOXD_DATABASE__URL": make_url()})
    with held(home.env["INBOXD_DATABASE__URL"], fresh=True) as let_go:
        _ends_well_after(home, COMMANDS["db upgrade"], let_go)


def _ends_well_after(
    home: Home, arguments: tuple[str, ...], let_go: Callable[[], object], *, code: int | None = None
) -> None:
    errors_file = home.path / "told"
    with errors_file.open("wb") as errors:
        running = subprocess.Popen(
            [*home.command, *arguments], cwd=home.path, env=home.environment(), stdout=errors, stderr=errors
        )
    try:
        eventually(lambda: WAITS in errors_file.read_text() or running.poll() is not None, "it says that it waits")
        assert running.poll() is None, errors_file.read_text()
        let_go()
        ended = running.wait(60)
    finally:
        running.kill()
        running.wait()
    assert ended == (int("retry" in arguments) if code is None else code), errors_file.read_text()
    assert errors_file.read_text().count(WAITS) == 1


ORDERED: Final = """
[feeds.prices]
match = ["**"]
key = ["k"]
fields = { k = { type = "text" }, v = { type = "integer" } }
"""


@pytest.mark.postgres
def test_commands_wait_for_the_turn_of_an_ordered_feed(make_postgres_url: MakeUrl, tmp_path: Path) -> None:
    """While another host works on files of a feed whose last one wins, none is loaded, retried or replayed here."""
    home = Home(tmp_path, ORDERED, env={"INBOXD_DATABASE__URL": (url := make_postgres_url())})
    home.drop("bad.json", "[")
    home.drop("half.json", '[{"k": "a", "v": 1}, {"key": "b", "v": 2}]')
    home.run_once()
    (home.failed / "bad.json").write_text('[{"k": "c", "v": 3}]')
    (home.path / "more.json").write_text('[{"k": "d", "v": 4}]')
    (home.path / "inboxd.toml").write_text(
        ORDERED.replace('{ type = "text" }', '{ type = "text", coalesce = ["k", "key"] }')
    )
    for arguments in (("load", "more.json"), ("retry", "--yes", "bad.json"), ("dead-letters", "replay")):
        with closing(psycopg.connect(url, autocommit=True)) as other:
            assert other.execute(TAKE_TURN.encode(), ("prices",)).fetchone() == (True,)
            _ends_well_after(home, arguments, other.close, code=0)
    with closing(psycopg.connect(url)) as connection:
        found = connection.execute("SELECT k, v FROM prices ORDER BY k").fetchall()
    assert found == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]


@pytest.mark.parametrize("command", ["load", "dead-letters replay"])
def test_a_command_that_has_waited_in_vain_says_what_is_true_of_it(
    home: Home, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 69, nothing changed, and no word of trying again: nobody will."""
    monkeypatch.setattr(stores, "TURN_S", 0.3)
    monkeypatch.setenv("INBOXD_DATABASE__URL", home.env["INBOXD_DATABASE__URL"])
    monkeypatch.chdir(home.path)
    with held(home.env["INBOXD_DATABASE__URL"]):
        assert run_cli(list(COMMANDS[command])) == 69
    errors_file = capsys.readouterr().err
    assert "again" not in errors_file
    assert "holds" in errors_file
    assert home.json("runs", "list", "--status", "running", "--json") == {"runs": []}
