"""What signals do, whenever they come."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import Home, eventually, record
from inboxd.signals import Signals

WAITING = """
import os, signal, sys, time
from inboxd.cli import COMMANDS, LazyGroup, cli, main
found = LazyGroup.get_command
def slowly(self, context, name):
    print("importing", flush=True)
    time.sleep(float(os.environ["SLOWLY"]))
    return found(self, context, name)
LazyGroup.get_command = slowly
sys.argv[0] = "inboxd"
main()
"""
"""A command whose import takes its time: what comes before it is the window in which a HUP used to kill."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a home for a daemon."""
    with Home(tmp_path / "home") as home:
        yield home


def _slow(home: Home, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments],
        cwd=home.path,
        env={**home.environment(), "SLOWLY": "0.5"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
    return process


def test_a_hangup_before_the_daemon_stands_is_no_reason_to_die(home: Home) -> None:
    """HUP means: read the config anew. It is not read yet, so there is nothing to do."""
    home.drop("a.json", [record("a")])
    with _slow(home, "run", "--once") as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert home.verdicts("a.json")[0]["event"] == "file_loaded"


def test_a_hangup_ends_any_other_command(home: Home) -> None:
    """Whoever closes the terminal wants no command to go on unseen."""
    fifo = home.path / "slow.toml"
    os.mkfifo(fifo)
    with (
        subprocess.Popen(
            [*home.command, "--config", str(fifo), "status"], cwd=home.path, env=home.environment()
        ) as process,
        fifo.open("w"),
    ):  # opened once the command reads it
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_start_is_heard_when_the_daemon_stands(home: Home, number: signal.Signals) -> None:
    """A stop that comes while the config is read ends the daemon in order; a HUP has it read again.

    A pipe that was given by hand is read once: the second time nobody may be there who writes to it.
    """
    fifo = home.path / "slow.toml"
    os.mkfifo(fifo)
    process = home.process = subprocess.Popen(
        [*home.command, "--config", str(fifo), "run"], cwd=home.path, env=home.environment()
    )
    with fifo.open("w") as config:  # opened once the daemon reads it
        process.send_signal(number)
        config.write("[feeds.events]\n")
    if number is signal.SIGHUP:
        eventually(lambda: home.lines("daemon_started"), "daemon_started")
        rejected = eventually(lambda: home.lines("config_rejected"), "the reload")[0]
        assert "it is a pipe, not a regular file" in rejected["error"]
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    home.process = None
    assert home.lines("daemon_stopped")


def _on_a_terminal(home: Home, *, nohup: bool = False, **more: str) -> tuple[int, int]:
    """Start a daemon in a session of its own on a terminal; return its pid and the terminal's other end."""
    pid, master = pty.fork()
    if pid == 0:
        if nohup:  # all that the command of this name does about it
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.chdir(home.path)
        command = [*home.command, "run"]
        os.execvpe(command[0], command, {**home.environment(), **more})  # noqa: S606 - the child of a fork
    eventually(lambda: home.lines("daemon_started"), "daemon_started")
    return pid, master


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return None if found == 0 else os.waitstatus_to_exitcode(status) + 1


def test_closing_the_terminal_ends_a_daemon_that_was_started_from_it(home: Home) -> None:
    """It ends as by TERM, and does not go on where nobody sees it."""
    pid, master = _on_a_terminal(home)
    os.close(master)
    assert eventually(lambda: _ended(pid), "the end") == 1
    assert home.lines("daemon_stopped")[0]["reason"] == "SIGHUP"


def test_a_hangup_from_a_terminal_that_is_still_there_is_a_reload(home: Home) -> None:
    """``kill -HUP`` has the config read again, as it does everywhere."""
    pid, master = _on_a_terminal(home)
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: home.lines("config_reloaded"), "the reload")
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: _ended(pid), "the end") == 1
    os.close(master)


@pytest.mark.parametrize("how", ["nohup", "service manager"])
def test_a_daemon_that_is_to_outlive_its_terminal_does(home: Home, how: str) -> None:
    """Under nohup, or a service manager, a HUP is a reload even where the terminal is gone."""
    more = {"NOTIFY_SOCKET": str(home.path / "manager")} if how == "service manager" else {}
    pid, master = _on_a_terminal(home, nohup=how == "nohup", **more)
    os.close(master)
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: home.lines("config_reloaded"), "the reload")
    home.drop("a.json", [record("a")])
    assert home.verdict("a.json")["event"] == "file_loaded"
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: _ended(pid), "the end") == 1


def test_signals_after_the_end_are_harmless() -> None:
    """A second TERM may come when everything is closed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        signals = Signals.installed({})
        signals.close()
        signals.close()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert signals.is_stopping()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_stop_while_the_database_is_held_at_the_start_is_a_stop(home: Home) -> None:
    """TERM while a start waits for another program's lock: exit code 0 and ``daemon_stopped``, no traceback."""
    home.call("db", "upgrade", check=True)
    with sqlite3.connect(home.database, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        home.drop("a.json", [record("a")])
        home.start(wait=False)
        assert home.process is not None
        lock = home.path / "data" / "inboxd.db.lock"
        eventually(lambda: lock.exists() and lock.stat().st_size, "the daemon has its lock")
        assert home.stop() == 0, home.output()
    other.close()
    assert home.lines("daemon_stopped")
    assert [path.name for path in home.inbox.iterdir() if path.is_file()] == ["a.json"]
