"""The command line. Each command's module is imported only when that command is called: start-up time counts."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import click

from inboxd import __version__
from inboxd.cli.arguments import OneFile
from inboxd.cli.ending import exit_code_of, open_standard_streams

COMMANDS: Final = {
    "run": "inboxd.cli.run:run",
    "load": "inboxd.cli.load:load",
    "check": "inboxd.cli.load:check",
    "init": "inboxd.cli.init:init",
    "status": "inboxd.cli.status:status",
    "health": "inboxd.cli.health:health",
    "runs": "inboxd.cli.runs:runs",
    "dead-letters": "inboxd.cli.letters:letters",
    "explain": "inboxd.cli.explain:explain",
    "watermark": "inboxd.cli.watermark:watermark",
    "retry": "inboxd.cli.retry:retry",
    "undo": "inboxd.cli.undo:undo",
    "doctor": "inboxd.cli.doctor:doctor",
    "notify": "inboxd.cli.notify:notify",
    "config": "inboxd.cli.config:config",
    "db": "inboxd.cli.db:db",
}
"""Each command and where it is, in the order in which ``--help`` lists them."""

COMPLETE: Final = "_INBOXD_COMPLETE"
"""The variable by which a shell asks for completion."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import and return one command."""
        target = COMMANDS.get(name)
        if target is None:
            return None
        if name != "run" and signal.getsignal(signal.SIGHUP) is _nothing_yet:
            signal.signal(signal.SIGHUP, _end)
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            msg = f"{target} is no command"
            raise TypeError(msg)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=OneFile(),
    help="The TOML file to use. Without it: $INBOXD_CONFIG, ./inboxd.toml, "
    "$XDG_CONFIG_HOME/inboxd/inboxd.toml, /etc/inboxd/inboxd.toml, else the defaults.",
)
@click.version_option(__version__, prog_name="inboxd")
@click.pass_context
def cli(context: click.Context, config_file: Path | None) -> None:
    """Drop JSON files into a folder; find their records in a database, exactly once, or learn why not.

    \b
    Try:  inboxd run                    watch the inbox
          inboxd check orders.json      see what a file would do
          inboxd status                 what waits, what failed, what was loaded
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    context.obj = config_file


def main() -> None:
    """Run the command line and exit with the code that the contract gives to each kind of end."""
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under `nohup`
        signal.signal(signal.SIGHUP, _nothing_yet)
    open_standard_streams()
    sys.exit(run_cli(sys.argv[1:]))


def _end(number: int, _frame: FrameType | None) -> None:
    """Let a command put right what it has begun, as for Control-C; ``run`` has a handler of its own."""
    raise SystemExit(128 + number)


def _nothing_yet(_number: int, _frame: FrameType | None) -> None:
    """Do nothing about a HUP before the command is known: to ``run`` it is a reload, and no config was read yet."""


def run_cli(arguments: list[str]) -> int:
    """Run one command; return its exit code. Errors of ours are one line and a remedy, never a traceback."""
    return exit_code_of(lambda: _invoke(_config_first(arguments)))


def _invoke(arguments: list[str]) -> object:
    """Run one command; return what it returned.

    Not by click's ``main``, which has ends of its own for a closed pipe and for Control-C; only completion needs that.
    """
    if COMPLETE in os.environ:
        return cli.main(arguments, prog_name="inboxd")
    with cli.make_context("inboxd", arguments) as context:
        return cli.invoke(context)


def _config_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--config FILE`` before the command: people write it anywhere."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for place, word in enumerate(arguments[:end]):
        if word == "--config" and place + 1 < end:
            return [*arguments[place : place + 2], *arguments[:place], *arguments[place + 2 :]]
        if word.startswith("--config="):
            return [word, *arguments[:place], *arguments[place + 1 :]]
    return arguments
