"""How far long work is, phase by phase, and what is left undone where somebody ends it."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from daemons import Home, record
from inboxd.cli import load, progress, run_cli
from inboxd.cli.ending import open_standard_streams
from inboxd.cli.progress import Progress
from inboxd.outcomes import Edge, Step
from inboxd.presence import Phase

FILES = ("a.json", "b.json", "c.json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three files to load."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(FILES):
        (tmp_path / name).write_text(json.dumps([record(name, ts=f"2026-01-1{number}T00:00:00Z")]), encoding="utf-8")
    open_standard_streams()
    return tmp_path


def test_a_file_is_read_then_written_then_committed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file goes through the three phases, so none stands at 100 % while there is work to do."""
    phases: list[Phase] = []
    monkeypatch.setattr(load, "progress_over", lambda _files: nullcontext(Progress(enter=phases.append)))
    assert run_cli(["load", *FILES]) == 0
    assert phases == [Phase.READING, Phase.WRITING, Phase.COMMITTING] * 3


def test_a_terminal_shows_the_phase_and_how_much_is_read(place: Path) -> None:
    """On a terminal a large file has a bar, with its own measure of bytes; nothing of it is in the output."""
    big = place / "big.json"
    pad = "x" * 10_000
    big.write_text("\n".join(json.dumps(record(f"k{number}", name=pad)) for number in range(1_000)), encoding="utf-8")
    home = Home(place)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "inboxd", "load", "big.json"],
        cwd=place,
        env={**home.environment(), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # as Linux says that nobody writes any more
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.stdout is not None
    with process, process.stdout:
        assert json.loads(process.stdout.read())["loaded"] == 1_000
    assert b"reading" in shown
    assert re.search(rb"(\S+ MiB) of \1", shown), shown[-300:]


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (Step.UPSERT, "nothing of b.json was loaded; loaded before it: 1, not begun: 1"),
        (Step.COMMIT, "b.json was being committed: load it again to be sure, a file that is loaded is a duplicate"),
    ],
)
def test_whoever_ends_a_load_is_told_what_was_left_undone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], at: Step, said: str
) -> None:
    """Ctrl-C names the file that it hit, how many are loaded before it, and how many were not begun; then 130."""
    hook = Progress.hook
    seen: list[Step] = []

    def interrupt(self: Progress, step: Step, edge: Edge) -> None:
        hook(self, step, edge)
        if edge is Edge.BEFORE and step is at:
            seen.append(step)
            if len(seen) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "hook", interrupt)
    assert run_cli(["load", *FILES]) == 130
    assert f"inboxd: interrupted: {said}" in capfd.readouterr().err
    with closing(sqlite3.connect(place / "data" / "inboxd.db")) as connection:
        assert connection.execute("SELECT key FROM target").fetchall() == [("a.json",)]
    monkeypatch.setattr(Progress, "hook", hook)
    assert run_cli(["load", *FILES]) == 0


def test_whoever_ends_another_command_is_told_that_nothing_is_half_done(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command that writes says so when it is ended, by Ctrl-C or by TERM."""
    for ending, code in ((KeyboardInterrupt(), 130), (SystemExit(143), 143)):

        def end(*_arguments: object, ending: BaseException = ending) -> None:
            raise ending

        monkeypatch.setattr("inboxd.store.sqlite.SqliteStore.set_watermark", end)
        try:
            ended = run_cli(["watermark", "set", "events", "2026-01-15T00:00:00Z"])
        except SystemExit as exit_:
            ended = int(str(exit_.code))
        assert ended == code
        assert "interrupted: what was begun and not committed is rolled back" in capfd.readouterr().err


def test_a_small_file_has_no_bar() -> None:
    """What is done before a bar could be seen has none."""
    assert progress.LONG > 1 << 20
