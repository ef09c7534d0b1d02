"""What the commands say of themselves: help with an example in each, a manual page, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from daemons import Home
from inboxd.cli import COMMANDS, cli
from inboxd.cli.man import man_page
from places import SOURCE


def commands(group: click.Group, path: str = "inboxd") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("path", "command"), list(commands(cli)), ids=lambda one: one if isinstance(one, str) else "")
def test_the_help_of_every_command_has_an_example_of_it(path: str, command: click.Command) -> None:
    """``--help`` teaches: an example that can be typed is in each, and every option says what it does."""
    text = command.get_help(click.Context(command, info_name=path))
    example = text.partition("Example:")[2]
    assert path.split(maxsplit=1)[1] in example
    context = click.Context(command)
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    assert all(one.help for one in options), path


def test_the_manual_page_names_every_command_and_is_sound_roff(require_tool: Callable[[str, str], str]) -> None:
    """The page made from the help has a section for each command, and roff has nothing to complain of."""
    page = man_page()
    for path, _ in commands(cli):
        assert f".SS {path}".replace("-", "\\-") in page
    groff = require_tool("groff", "groff-base")
    done = subprocess.run(
        [groff, "-man", "-ww", "-z", "-Tutf8", "-k"], input=page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shell_completes_commands() -> None:
    """Typing ``inboxd dead<TAB>`` gives ``dead-letters``; the script for the shell is printed on request."""

    def inboxd(**environment: str) -> str:
        command = [sys.executable, "-m", "inboxd"]
        env = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout

    assert inboxd(_INBOXD_COMPLETE="bash_complete", COMP_WORDS="inboxd dead", COMP_CWORD="1") == "plain,dead-letters\n"
    assert "complete" in inboxd(_INBOXD_COMPLETE="zsh_source")


def test_the_contract_s_commands_are_all_there() -> None:
    """The commands that scripts rely on exist under their names."""
    wanted = "run load check status health runs dead-letters explain watermark retry undo init doctor config db"
    assert set(wanted.split()) <= set(COMMANDS)


def test_the_program_starts_without_what_only_some_commands_need() -> None:
    """``--version``, ``--help`` and completion of a command import no config and no database."""
    code = "import sys, inboxd.cli; print(*(n for n in ('pydantic', 'sqlalchemy', 'rich') if n in sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_summary_of_every_command_fits_a_line_of_eighty() -> None:
    """``inboxd --help`` cuts no summary, and breaks none."""
    text = cli.get_help(click.Context(cli, info_name="inboxd", terminal_width=80))
    assert "..." not in text.partition("Commands:")[2]
    for name, (_, summary) in COMMANDS.items():
        assert f"{name:<12}  {summary}\n" in f"{text}\n"


def test_a_mistyped_command_is_answered_with_the_near_ones() -> None:
    """Of the program and of each group of commands."""

    def asked(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-m", "inboxd", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        return done.stderr

    assert "did you mean status?" in asked("stauts")
    assert "there are: audit, check" in asked("zzzzzz")
    assert "list" in asked("runs", "lst")
    assert "--limit" in asked("runs", "list", "--limt", "1")


def test_the_shell_completes_feeds_runs_and_failed_files(tmp_path: Path) -> None:
    """TAB offers what there is: the config's feeds, the newest runs, the files in failed/; without them, nothing."""
    config = '[feeds.orders]\nmatch = ["**"]\n'
    config += 'key = ["k"]\ncursor = "t"\nfields = { k = { type = "text" }, t = { type = "date" } }\n'
    with Home(tmp_path, config) as home:

        def offered(words: str) -> list[str]:
            environment = {**home.environment(), "_INBOXD_COMPLETE": "bash_complete", "COMP_WORDS": f"inboxd {words}"}
            environment["COMP_CWORD"] = str(len(words.split(" ")))
            command = [*home.command]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.stderr == ""
            return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

        assert offered("undo ") == []
        home.drop("sub/bad.json", b"[1,")
        home.run_once()
        assert offered("runs list --feed or") == ["orders"]
        assert offered("watermark reset ") == ["orders"]
        assert offered("explain --run ") == ["1"]
        assert offered("undo ") == ["1"]
        assert offered("retry su") == ["sub/bad.json"]
        (tmp_path / "inboxd.toml").write_text("no config", encoding="utf-8")
        assert offered("watermark reset ") == []
