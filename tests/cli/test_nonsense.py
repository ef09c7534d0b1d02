"""Whatever a person types, or has: it ends in a sentence and a documented exit code, never in a bug that is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from commands import leaves
from daemons import Home, record
from inboxd.cli import cli, run_cli
from inboxd.cli.arguments import Guarded
from inboxd.cli.ending import open_standard_streams
from places import SOURCE
from requirements import tool
from stores import MakeUrl

DOCUMENTED: Final = {0, 1, 2, 69, 75, 77, 78, 130, 141}
NOT_UTF8: Final = os.fsdecode(b"\xff\xfe")
ON_POSTGRES: Final = ("explain", "watermark", "runs", "health", "dead-letters", "undo")
"""The commands that hand what was typed to a database: on the second one only they are tried."""
NONSENSE: Final = (
    "",
    " ",
    NOT_UTF8,
    "a\0b",
    "a\nb\x1b[31m",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "-1",
    "0",
    "1_0",
    "1e400",
    "nan",
    "inf",
    str(10**20),
    str(2**63),
    str(2**63 - 1),
    "9" * 5_000,
    "x" * 300,
    "[" * 50_000,
    '["a", "b", "c"]',
    '["\\ud800"]',
    "9999-99-99",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01",
    "99999999w",
    "24h",
    "%s {} $HOME '; DROP TABLE etl_runs; --",
    "sqlite:///",
    "sqlite:////dev/null/x.db",
    "postgresql://[",
    "postgresql://h:p:p@h:port/x?y",
    "http://h",
    "127.0.0.1:99999999",
    "/",
    "/dev/null",
    "/proc/self/mem",
)
CONFIG: Final = """
[feeds.numbers]
match = ["numbers/**"]
key = ["id"]
cursor = "day"
undo = true
fields = { id = { type = "integer" }, day = { type = "date" } }
[feeds.days]
match = ["days/**"]
key = ["day", "at"]
cursor = "n"
fields = { day = { type = "date" }, at = { type = "timestamp" }, n = { type = "integer" } }
[feeds.events]
"""
GOOD: Final[dict[str, list[str]]] = {
    "run": ["--once"],
    "load": ["a.json"],
    "check": ["a.json"],
    "init": ["a.json"],
    "explain": ["a"],
    "watermark set": ["events", "2026-01-15"],
    "watermark reset": ["events"],
    "runs import": ["runs.json"],
    "retry": ["a.json"],
    "undo": ["1"],
    "db copy": ["sqlite:///data/inboxd.db", "postgresql://nobody@127.0.0.1:1/none"],
}
"""Arguments with which a command gets to its work, in each of which nonsense then takes the place of one."""


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    """Yield every option and argument of every command that takes a value."""
    for name, command in [("", cli), *leaves()]:
        for parameter in command.params:
            if not (isinstance(parameter, click.Option) and parameter.is_flag):
                yield name, parameter


def lines_with(name: str, parameter: click.Parameter, nonsense: str) -> Iterator[list[str]]:
    """Yield command lines in which one thing is nonsense and the rest is good."""
    words, good = name.split(), GOOD.get(name, [])
    if not name:
        yield ["--config", nonsense, "status"]
    elif isinstance(parameter, click.Option):
        yield [*words, f"{parameter.opts[0]}={nonsense}", *good]
        if parameter.opts[0] in {"--run", "--file"}:
            yield [*words, f"{parameter.opts[0]}={nonsense}"]
    else:
        for place in range(max(1, len(good))):
            yield [*words, "--", *good[:place], nonsense, *good[place + 1 :]]


@pytest.fixture
def place(make_url: MakeUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, a database in which something is loaded, and samples; nothing of it matters."""
    url = make_url()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INBOXD_DATABASE__URL", url)
    (tmp_path / "inboxd.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "a.json").write_text(json.dumps([record("a"), record("b", value="x")]), encoding="utf-8")
    (tmp_path / "n.json").write_text('[{"id": 7, "day": "2026-01-15"}]', encoding="utf-8")
    (tmp_path / "runs.json").write_text("[]", encoding="utf-8")
    open_standard_streams()
    assert run_cli(["load", "a.json"]) == 0
    assert run_cli(["load", "n.json", "--feed", "numbers"]) == 0
    return tmp_path


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda text: ascii(text[:20]))
def test_nonsense_in_any_place_is_answered_with_a_sentence(
    place: Path, nonsense: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every option and argument of every command takes every nonsense, and none of it is a bug in inboxd."""
    capfd.readouterr()
    everything = os.environ["INBOXD_DATABASE__URL"].startswith("sqlite")
    for name, parameter in parameters():
        if not (everything or name.startswith(ON_POSTGRES)):
            continue
        for line in lines_with(name, parameter, nonsense):
            code = run_cli(line)
            _, err = capfd.readouterr()
            assert code in DOCUMENTED, (line, err)
            assert "Traceback" not in err, line
            assert code in {0, 1} or err.strip(), line


@pytest.mark.parametrize(
    "nonsense", [text for text in NONSENSE if "\0" not in text], ids=lambda text: ascii(text[:20])
)  # no variable holds U+0000
def test_nonsense_in_a_variable_is_answered_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], nonsense: str
) -> None:
    """A setting of any nonsense in the environment is a matter of the config."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    open_standard_streams()
    names = ("CONFIG", "INBOX__PATH", "INBOX__IGNORE", "INBOX__SETTLE", "INBOX__MAX_FILE_SIZE", "DATABASE__URL")
    for variable in (*names, "ARCHIVE__FAILED", "LOG__FILE", "LOG__LEVEL", "FEEDS__EVENTS__MATCH", "FEEDS__X__KEY"):
        with monkeypatch.context() as patch:
            patch.setenv(f"INBOXD_{variable}", nonsense)
            for command in (["config", "show"], ["status"], ["status", "--json"], ["doctor"]):
                code = run_cli(command)
                _, err = capfd.readouterr()
                assert code in DOCUMENTED, (variable, command, err)


def test_every_option_and_argument_has_a_type_that_guards() -> None:
    """No command takes raw text, numbers or paths: what a person types goes through one module."""
    raw = [
        f"{name} {parameter.name}"
        for name, parameter in parameters()
        if not isinstance(parameter.type, (Guarded, click.Choice))
    ]
    assert raw == []


def test_every_command_with_arguments_is_tried() -> None:
    """A command that needs arguments is in the table from which the nonsense is made."""
    needing = {name for name, parameter in parameters() if isinstance(parameter, click.Argument) and parameter.required}
    assert needing <= set(GOOD)


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which ``inboxd`` is ours."""
    script = f'inboxd() {{ "{sys.executable}" -m inboxd "$@"; }}\n{line}'
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [tool("bash", "bash"), "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an inbox and a database of some runs."""
    folder = tmp_path_factory.mktemp("loaded")
    with Home(folder) as home:
        for number in range(30):
            home.drop(f"{number}.json", [record(f"k{number}", ts=f"2026-01-{number + 1:02}T00:00:00Z")])
        home.run_once()
    return folder


@pytest.mark.parametrize(
    "command", ["status", "runs list", "runs list --json", "health", "config show", "dead-letters export", "--help"]
)
def test_a_full_disk_behind_the_output_is_told(loaded: Path, command: str) -> None:
    """Output that cannot be written ends in a sentence and exit code 1."""
    done = shell(loaded, f"inboxd {command} > /dev/full")
    if command == "dead-letters export":
        assert done.returncode == 0, "nothing was to be written"
    else:
        assert (done.returncode, done.stderr) == (
            1,
            "inboxd: the output cannot be written: No space left on device\n",
        )


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_nobody_can_read_and_the_exit_code_says_it(loaded: Path, locale: str) -> None:
    """With both streams full, or closed, the exit code is still that of what happened, in any locale."""
    for command, code in (
        ("inboxd status > /dev/full 2>&1", 1),
        ("inboxd undo 9 > /dev/full 2>&1", 1),
        ("inboxd undo x 2> /dev/full", 2),
        ("inboxd status >&- 2>&-", 0),
        ("inboxd status <&- >&- 2>&-", 0),
    ):
        assert shell(loaded, f"export LC_ALL={locale}; {command}").returncode == code


def test_a_reader_that_goes_away_ends_a_command_quietly(loaded: Path) -> None:
    """``runs list | head -1`` ends as a shell's own tools do: 141, and nothing is said."""
    done = shell(loaded, "inboxd runs list | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_an_output_that_is_no_file_is_written_to_and_not_replaced(loaded: Path) -> None:
    """``--output /dev/stdout`` prints, and what is a device or a pipe before is one afterwards."""
    os.mkfifo(loaded / "pipe")
    done = shell(loaded, "cat pipe > got & inboxd health --json --output pipe > printed; wait; cmp -s got printed")
    assert (loaded / "pipe").is_fifo(), done.stderr
    assert json.loads((loaded / "got").read_text("utf-8"))["runs_recorded"] == 30


@pytest.mark.parametrize(
    "name",
    ["data/inboxd.db", "data/inboxd.db-wal", "data/inboxd.log", "data/inboxd.state.json", "data/processed/1.json"],
)
def test_an_output_replaces_nothing_that_inboxd_needs(loaded: Path, name: str) -> None:
    """``--output`` over a file of inboxd's own, an archived one or one that is read: 78, and it stays as it is."""
    before = (loaded / name).read_bytes() if (loaded / name).exists() else None
    shutil.copy(loaded / "data" / "processed" / "1.json", loaded / "sample.json")
    for command in (
        f"health --output {name}",
        f"dead-letters export --output {name}",
        f"load sample.json --output {name}",
        f"init sample.json --force --output {name}",
        "load sample.json --output ./sample.json",
        "init sample.json --force --output ./sample.json",
    ):
        done = shell(loaded, f"inboxd {command}")
        assert done.returncode == 78, (command, done.stderr)
        assert "--output" in done.stderr
    assert ((loaded / name).read_bytes() if (loaded / name).exists() else None) == before


def test_a_pipe_in_the_place_of_a_database_is_none(tmp_path: Path) -> None:
    """Every command says so at once."""
    os.mkfifo(tmp_path / "x.db")
    for command in ("load --db sqlite:///x.db /dev/null", "db copy sqlite:///x.db postgresql://h/d"):
        done = shell(tmp_path, f"inboxd {command}")
        assert done.returncode in {2, 78}, done.stderr
    done = shell(tmp_path, "INBOXD_DATABASE__URL=sqlite:///x.db inboxd status")
    assert (done.returncode, "it is a pipe, not a regular file" in done.stderr) == (78, True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_the_characters_is_no_reason_to_fail(loaded: Path, encoding: str) -> None:
    """Where the output's encoding lacks a character, it is escaped."""
    done = shell(loaded, f"export PYTHONIOENCODING={encoding}; inboxd status && inboxd explain k1 && inboxd doctor")
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_was_deleted(loaded: Path) -> None:
    """With a config named by its absolute path every command works there; without, a sentence says why none does."""
    (loaded / "inboxd.toml").write_text("", encoding="utf-8")
    gone = "mkdir -p gone && cd gone && rmdir ../gone && "
    for command in ("status", "runs list", "explain k1", "config show", "doctor", "watermark reset events"):
        done = shell(loaded, f"{gone} inboxd --config {loaded}/inboxd.toml {command}")
        assert done.returncode == 0, done.stderr
    done = shell(loaded, f"{gone} inboxd --config {loaded}/inboxd.toml load {loaded}/data/processed/1.json")
    assert done.returncode == 0, done.stderr
    for command in ("status", "--config inboxd.toml status", "load x.json"):
        done = shell(loaded, f"{gone} inboxd {command}")
        assert done.returncode in {2, 78}, done.stderr
        assert "working folder" in done.stderr or "does not exist" in done.stderr


def test_a_working_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """Everything works in it: names that are not UTF-8 are shown and logged backslash-escaped."""
    folder = tmp_path / NOT_UTF8
    with Home(folder) as home:
        home.drop("a.json", [record("a"), record("b", value="x")])
        assert home.run_once() == 0
    for command in (
        "status",
        "status --json",
        "config show",
        "config show --json",
        "config check --json",
        "doctor --json",
        "runs list",
        "explain a",
        "retry a.json",
        "load data/processed/a.json",
        "check data/processed/a.json --json",
        "dead-letters export --output out.ndjson",
        "health --output out.json",
    ):
        done = home.call(*command.split())
        assert done.returncode in {0, 1}, (command, done.stderr)
        assert "Traceback" not in done.stderr, command
