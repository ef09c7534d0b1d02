"""What every table looks like at three widths, kept as text: a change of it is seen, and meant.

``pytest tests/cli/test_golden.py --golden`` writes the files anew.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import string
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons import Home, record
from inboxd.cli import run_cli
from inboxd.cli.ending import open_standard_streams
from inboxd.cli.layout import GAP, LEAST, Column, lay_out, wrapped
from inboxd.clock import SystemClock
from inboxd.words import middle
from places import ROOT

GOLDEN: Final = Path(__file__).parent / "golden"
WIDTHS: Final = (60, 80, 120)
NOW: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG: Final = "orders/2026/an-export-with-a-rather-long-name-2026-01-15T103000Z.json"
CONFIG: Final = '[feeds.events]\nlate = "merge"\nundo = true\n'
COMMANDS: Final = {
    "help": "--help",
    "status": "status",
    "health": "health --since 24h",
    "runs-list": "runs list",
    "explain-key": "explain user-0000123",
    "explain-run": "explain --run 1",
    "explain-file": "explain --file bad.json",
    "dead-letters-list": "dead-letters list",
    "dead-letters-replay": "dead-letters replay",
    "watermark-show": "watermark show",
    "check": f"check inbox/{LONG}",
    "retry": "retry bad.json",
    "undo": "undo 1 --dry-run",
    "doctor": "doctor",
    "mistyped-command": "stauts",
    "mistyped-feed": "runs list --feed evnts",
    "mistyped-time": "health --since yesterday",
    "unknown-run": "undo 99",
}


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A folder with an inbox, three runs, dead letters and files that wait; its path is always as long."""
    folder = Path(tempfile.mkdtemp(prefix="inboxd-golden-", dir="/tmp"))
    with Home(folder, CONFIG) as home:
        home.drop(LONG, [record("user-0000123"), record("b", value="x", name=""), record("c")])
        home.run_once()
        home.drop("bad.json", b"[1,")
        home.run_once()
        late = [record("user-0000123", ts="2026-01-16T00:00:00Z", value=2), record("c", ts="2026-01-14T00:00:00Z")]
        home.drop("c.json", late)
        home.run_once()
        home.drop(LONG, [record("d"), {"key": "e"}])
        home.drop("notes that no feed takes.txt", b"x")
        for path in home.inbox.rglob("*.json"):
            os.utime(path, (NOW.timestamp() - 300, NOW.timestamp() - 300))
    times = "started_at = ?, finished_at = ?, duration_ms = 20 * id"
    with closing(sqlite3.connect(home.database)) as connection, connection:
        for run, (began, ended) in enumerate((("04-29", "04-29"), ("05-01", "05-01"), ("05-01", "05-01")), 1):
            moments = (f"2026-{began}T08:00:0{run}.000000Z", f"2026-{ended}T08:00:0{run}.500000Z")
            connection.execute(f"UPDATE etl_runs SET {times} WHERE id = ?", (*moments, run))
        connection.execute("UPDATE etl_runs SET host = 'host', claim = '20260501T080000000000-0123456789ab' || id")
        connection.execute("UPDATE etl_runs SET file_mtime = '2026-05-01T08:00:00.000000Z'")
        for table, column in (("dead_letters", "created"), ("target", "updated_at"), ("watermarks", "updated_at")):
            connection.execute(f"UPDATE {table} SET {column} = '2026-05-01T08:00:01.500000Z'")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place(template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh copy of the template, as the working folder, at a time that stands still."""
    folder = Path(tempfile.mkdtemp(prefix="inboxd-golden-", dir="/tmp"))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(SystemClock, "now", lambda _self: NOW)
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    open_standard_streams()
    yield folder
    shutil.rmtree(folder)


def steady(text: str, folder: Path) -> str:
    """Return what was printed without what differs from machine to machine, nothing of it of another length."""
    text = text.replace(str(folder), f"/srv/{'x' * (len(str(folder)) - 5)}")
    text = text.replace(folder.name[-8:], "x" * 8)  # what is left of it in a name that was shortened
    text = re.sub(r"[0-9]+(?= MiB free)", lambda found: "9" * len(found[0]), text)
    text = re.sub(r"(?<=sqlite )[0-9.]+", "3.x", text)
    text = re.sub(r"(?<=the oldest ).+(?= old)", "N s", text)
    text = re.sub(r"(?<=size) +age|(?<=89 B) +[0-9].*", "  N s", text)  # how long a file waits, by the real clock
    return re.sub(r"\b[0-9]+ (?:ms|s)\b", "N s", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_table_looks_as_it_was_meant_to(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    name: str,
) -> None:
    """At 60, 80 and 120 columns: no line is longer (but for a command, to be copied), and all is as it was meant."""
    shown = []
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        capfd.readouterr()
        code = run_cli(shlex.split(COMMANDS[name]))
        out, err = (steady(text, place) for text in capfd.readouterr())
        if name != "help":
            assert all(len(line) <= width or line.startswith("  inboxd ") for line in out.splitlines()), out
        shown.append(f"--- {width} columns, exit code {code}\n{out}" + (f"--- standard error\n{err}" if err else ""))
    text = "\n".join(shown)
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("--golden"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text("utf-8"), f"if that is meant: pytest {Path(__file__).relative_to(ROOT)} --golden"


def test_there_is_a_golden_file_for_each_command_and_no_other() -> None:
    """Nothing is kept that no test looks at."""
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(COMMANDS)


WORD = st.text(st.sampled_from(string.ascii_letters), min_size=1, max_size=9)
TEXT = st.lists(WORD, max_size=12).map(" ".join)
NAME = st.text(string.ascii_letters + string.digits, max_size=70)
NUMBER = st.integers(0, 10**12).map(str)
RUN = st.integers(1, 10**12).map(str)


@given(rows=st.lists(st.tuples(RUN, NAME, TEXT, NUMBER, NUMBER), min_size=1, max_size=5), width=st.integers(60, 160))
def test_no_table_breaks_a_word_or_a_number(rows: list[tuple[str, ...]], width: int) -> None:
    """Whatever is in it: it fits, each number is whole or not there, each word is whole but for one cut at its end."""
    columns = (
        Column("run", number=True),
        Column("file", cut="middle"),
        Column("why", cut="end", below=True),
        Column("rows", number=True, goes=2),
        Column("ms", number=True, goes=1),
    )
    lines = [
        "".join(before + cell for before, cell in line) for line in lay_out(columns, [[*row] for row in rows], width)
    ]
    assert all(len(line) <= width for line in lines)
    numbers = {cell for row in rows for at, cell in enumerate(row) if at in {0, 3, 4}}
    words = {word for row in rows for word in row[2].split()} | {row[1] for row in rows}
    for line in lines[1:]:
        for token in line.split():
            assert token in numbers or token in words or "…" in token
    assert [line.split()[0] for line in lines[1:] if not line.startswith("    ") or line.split()[0] in numbers]


@given(rows=st.lists(st.tuples(NUMBER, NAME, TEXT), min_size=1, max_size=5))
def test_a_pipe_gets_everything(rows: list[tuple[str, ...]]) -> None:
    """Where there is no width nothing is left out and nothing shortened: one row, one line."""
    columns = (Column("run", number=True), Column("file", cut="middle", goes=1), Column("why", cut="end", below=True))
    lines = lay_out(columns, [[*row] for row in rows], None)
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert "".join(before + cell for before, cell in line).split() == " ".join(row).split()


@given(name=NAME, width=st.integers(LEAST, 40))
def test_a_name_is_shortened_in_its_middle(name: str, width: int) -> None:
    """Its beginning and its end are what tells files apart."""
    short = middle(name, width)
    assert len(short) == min(len(name), width)
    if short != name:
        begin, end = short.split("…")
        assert name.startswith(begin)
        assert name.endswith(end)
        assert len(end) >= len(begin) >= width // 4 - GAP


def test_a_code_before_a_name_stays_whole() -> None:
    """Of ``invalid_json: NAME`` the name is shortened, as long as there is room for any of it."""
    for width, begins in ((60, "invalid_json: xxxx"), (24, "invalid_json: x")):
        _, line = lay_out((Column("what", cut="middle"),), [[f"invalid_json: {'x' * 80}.json"]], width)
        assert line[0][1].startswith(begins)
        assert line[0][1].endswith("x.json")
        assert len(line[0][1]) == width


def test_a_long_word_does_not_stand_in_the_way_of_a_sentence() -> None:
    """A path longer than the terminal is shortened, the words around it are whole."""
    lines = wrapped(f"look at /srv/{'x' * 80}/end.json for more", 40)
    assert all(len(line) <= 40 for line in lines)
    assert " ".join(lines).startswith("look at /srv/xxx")
    assert " ".join(lines).endswith("/end.json for more")


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": ""}, True),
    ],
)
def test_colour_is_where_it_is_wanted(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    environment: dict[str, str],
    coloured: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """NO_COLOR takes it away, FORCE_COLOR and CLICOLOR_FORCE bring it to a pipe, else a terminal has it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    capfd.readouterr()
    assert run_cli(["runs", "list"]) == 0
    assert ("\x1b[" in capfd.readouterr().out) is coloured
