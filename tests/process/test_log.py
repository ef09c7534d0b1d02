from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemons import Home, eventually, record
from inboxd.events import Event
from inboxd.log import emit, open_log
from inboxd.outlets import LogFile, Relay
from places import SOURCE

BURST = 20_000
"""Lines: more than any pipe and any terminal holds."""


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """Return the lines of an output; each must be whole."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def everything_in(fd: int) -> bytes:
    """Return what can be read without waiting."""
    os.set_blocking(fd, False)
    found = b""
    while True:
        try:
            more = os.read(fd, 1 << 20)
        except (BlockingIOError, OSError):
            return found
        if not more:
            return found
        found += more


def burst(out: int | None, number: int = BURST, file: Path | None = None) -> None:
    """Write many lines."""
    log = open_log(fmt="json", level="info", file=file, out=out)
    for index in range(number):
        emit(log, Event.FILE_LOADED, file=f"{index}.json")


def test_a_pipe_that_nobody_reads_loses_lines_and_says_how_many() -> None:
    """Writing returns, whole lines are in the pipe, and once there is room again the gap is counted."""
    reader, writer = os.pipe()
    log = open_log(fmt="json", level="info", file=None, out=writer)
    for index in range(BURST):
        emit(log, Event.FILE_LOADED, file=f"{index}.json")
    assert os.get_blocking(writer), "the descriptor is shared with others, who did not ask for this"
    found = everything_in(reader)
    emit(log, Event.DAEMON_STOPPED, files=BURST)
    kept = lines_of(found + everything_in(reader))
    loaded = [line for line in kept if line["event"] == "file_loaded"]
    missing, stopped = kept[-2:]
    assert 1_000 < len(loaded) < BURST
    assert (missing["event"], missing["level"], missing["output"]) == (
        "log_lines_dropped",
        "warning",
        "standard output",
    )
    assert missing["lines"] + len(loaded) == BURST
    assert stopped["event"] == "daemon_stopped"
    os.close(reader)
    os.close(writer)


def test_a_socket_that_nobody_reads_loses_lines_and_says_how_many() -> None:
    """The journal is a socket: one that takes nothing does not stop the daemon."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = open_log(fmt="json", level="info", file=None, out=ours.fileno())
        for index in range(BURST):
            emit(log, Event.FILE_LOADED, file=f"{index}.json")
        found = everything_in(theirs.fileno())
        emit(log, Event.DAEMON_STOPPED, files=BURST)
        kept = lines_of(found + everything_in(theirs.fileno()))
    loaded = [line for line in kept if line["event"] == "file_loaded"]
    assert kept[-2]["lines"] + len(loaded) == BURST


def test_a_terminal_that_was_stopped_loses_lines_and_says_how_many() -> None:
    """Ctrl-S holds up the terminal, and nothing else."""
    master, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)
    log = open_log(fmt="json", level="info", file=None, out=terminal)
    for index in range(BURST):
        emit(log, Event.FILE_LOADED, file=f"{index}.json")
    termios.tcflow(terminal, termios.TCOON)
    found = everything_in(master)
    emit(log, Event.DAEMON_STOPPED, files=BURST)
    found += eventually(lambda: everything_in(master), "the last lines")
    assert b"log_lines_dropped" in found
    os.close(master)
    os.close(terminal)


def test_an_output_of_another_user_is_relayed_by_a_thread_that_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under ``sudo -u`` the terminal cannot be opened again: what it does not take is dropped all the same."""
    monkeypatch.setattr("inboxd.outlets.RELAYED", 10)
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    relay = Relay(writer)
    line = b"x" * 1023 + b"\n"
    taken = sum(relay.write(line) for _ in range(10 * size // len(line)))
    assert taken <= size // len(line) + 11
    found = b""
    while len(found) < taken * len(line):
        found += os.read(reader, 1 << 20)
    assert set(found.splitlines(keepends=True)) == {line}
    relay.end()
    os.close(reader)
    os.close(writer)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_does_not_fit_on_the_disk_is_not_there(tmp_path: Path) -> None:
    """A file that may not grow ends in a whole line; when it may again, it says how many are missing."""
    path = tmp_path / "inboxd.log"
    log = open_log(fmt="json", level="info", file=path, out=None)
    with largest_file(10_000):
        for index in range(200):
            emit(log, Event.FILE_LOADED, file=f"{index}.json")
        kept = lines_of(path.read_bytes())
    emit(log, Event.DAEMON_STOPPED, files=200)
    found = lines_of(path.read_bytes())
    assert found[: len(kept)] == kept
    missing, stopped = found[len(kept) :]
    assert (missing["event"], missing["output"], missing["lines"]) == ("log_lines_dropped", "log.file", 200 - len(kept))
    assert stopped["event"] == "daemon_stopped"


def test_redirected_output_that_was_cut_short_is_completed_first(tmp_path: Path) -> None:
    """A file that a shell opened is not cut back, it may be another's too: the rest of the line comes next."""
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = open_log(fmt="json", level="info", file=None, out=fd)
    with largest_file(10_000):
        for index in range(200):
            emit(log, Event.FILE_LOADED, file=f"{index}.json")
        assert not path.read_bytes().endswith(b"\n")
    emit(log, Event.DAEMON_STOPPED, files=200)
    found = lines_of(path.read_bytes())
    loaded = [line for line in found if line["event"] == "file_loaded"]
    assert found[-2]["lines"] + len(loaded) == 200
    os.close(fd)


def test_what_a_crash_left_of_a_line_is_gone_with_the_next_start(tmp_path: Path) -> None:
    """A power cut in the middle of a write leaves no line that cannot be read."""
    path = tmp_path / "inboxd.log"
    path.write_bytes(b'{"event":"file_loaded","file":"a"}\n{"event":"file_loa')
    emit(open_log(fmt="json", level="info", file=path, out=None), Event.DAEMON_STOPPED)
    assert [line["event"] for line in lines_of(path.read_bytes())] == ["file_loaded", "daemon_stopped"]


def test_a_piece_that_cannot_be_taken_back_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process has written behind the piece, or the file takes appending only, the next line is whole."""
    file = LogFile(tmp_path / "inboxd.log")
    assert file.write(b"one\n")

    def refuse(_fd: int, _size: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "ftruncate", refuse)
    with largest_file(6):
        assert not file.write(b"two\n")
    assert file.write(b"three\n")
    assert (tmp_path / "inboxd.log").read_bytes() == b"one\ntw\nthree\n"


def test_a_file_log_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    """log.file may name a pipe; one that nobody reads loses lines like standard output."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    burst(None, file=path)


def test_the_journal_is_told_how_bad_a_line_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """``journalctl -p err`` finds what failed; other outputs get plain lines."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log = open_log(fmt="auto", level="info", file=None, out=ours.fileno())
        for event in (Event.FILE_FAILED, Event.FILE_DEFERRED, Event.FILE_LOADED):
            emit(log, event, file="a.json")
        lines = everything_in(theirs.fileno()).splitlines()
        assert [line[: line.index(b"{")] for line in lines] == [b"<3>", b"<4>", b""]
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        emit(open_log(fmt="auto", level="info", file=None, out=ours.fileno()), Event.FILE_FAILED, file="a.json")
        assert everything_in(theirs.fileno()).startswith(b"{")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a home for a daemon."""
    with Home(tmp_path / "home") as home:
        yield home


def _started_on(home: Home, out: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inboxd", "run"]
    home.process = subprocess.Popen(command, cwd=home.path, env=home.environment(), stdout=out, stderr=out)
    eventually(lambda: home.lines("daemon_started"), "daemon_started")
    return home.process


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_loading_goes_on_and_stops_in_order_whoever_reads_the_output(home: Home, kind: str) -> None:
    """A pipe, a terminal or a socket that is full to the last byte changes nothing for files, nor for TERM."""
    reader, writer = full = OUTPUTS[kind]()
    process = _started_on(home, writer)
    for number in range(30):
        home.drop(f"{number}.json", [record(str(number))])
    eventually(lambda: len(home.verdicts()) == 30, "30 verdicts")
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    home.process = None
    assert home.lines("daemon_stopped")
    del reader
    for fd in full:
        os.close(fd)


def _filled(writer: int) -> None:
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"\n" * size)
        except BlockingIOError:
            continue
    os.set_blocking(writer, True)


def _full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    _filled(writer)
    return reader, writer


def _stopped_terminal() -> tuple[int, int]:
    master, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)
    return master, terminal


def _full_socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    _filled(ours.fileno())
    return theirs.detach(), ours.detach()


OUTPUTS: dict[str, Callable[[], tuple[int, int]]] = {
    "pipe": _full_pipe,
    "terminal": _stopped_terminal,
    "socket": _full_socket,
}


def test_a_reader_that_goes_away_is_no_reason_to_stop(home: Home) -> None:
    """``inboxd run | head -1`` goes on loading."""
    reader, writer = os.pipe()
    _started_on(home, writer)
    os.close(reader)
    os.close(writer)
    home.drop("a.json", [record("a")])
    assert home.verdict("a.json")["event"] == "file_loaded"


def test_a_daemon_without_standard_output_writes_into_no_file_by_mistake(home: Home) -> None:
    """Started with descriptor 1 closed, what is opened next gets that number: it must not get the lines."""
    command = ["sh", "-c", f'exec "{sys.executable}" -m inboxd run --once >&-']
    home.drop("a.json", [record("a")])
    done = subprocess.run(command, cwd=home.path, env=home.environment(), stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in home.rows()] == ["a"]
    assert SOURCE.exists()


def test_why_a_start_was_refused_is_an_error_in_the_journal(home: Home) -> None:
    """``journalctl -p err`` says why the service does not start."""
    (home.path / "inboxd.toml").write_text("[inbox]\nsettle = 'soon'\n")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = os.fstat(ours.fileno())
        environment = {**home.environment(), "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        command = [sys.executable, "-m", "inboxd", "run"]
        done = subprocess.run(command, cwd=home.path, env=environment, stderr=ours.fileno(), check=False)
        lines = everything_in(theirs.fileno()).splitlines()
    assert done.returncode == 78
    assert lines
    assert all(line.startswith(b"<3>") for line in lines)
