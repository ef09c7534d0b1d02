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
from inboxd.cli.arguments import OneFile, quoted
from inboxd.cli.ending import exit_code_of, open_standard_streams
from inboxd.cli.nearby import near
from inboxd.console import colour_wanted

COMMANDS: Final = {
    "run": ("inboxd.cli.run:run", "Watch the inbox and load what arrives."),
    "load": ("inboxd.cli.load:load", "Load files once, and leave them where they are."),
    "check": ("inboxd.cli.load:check", "Tell what files would do, and change nothing."),
    "init": ("inboxd.cli.init:init", "Infer a feed's config from sample files."),
    "status": ("inboxd.cli.status:status", "Show what runs, what waits, what failed."),
    "health": ("inboxd.cli.health:health", "Show success rate, durations and rows."),
    "runs": ("inboxd.cli.runs:runs", "List the runs, or import those of other jobs."),
    "dead-letters": ("inboxd.cli.dead_letters:dead_letters", "List refused records, export or replay them."),
    "explain": ("inboxd.cli.explain:explain", "Tell where a row, a run or a file comes from."),
    "watermark": ("inboxd.cli.watermark:watermark", "Show, set or reset a feed's watermark."),
    "retry": ("inboxd.cli.retry:retry", "Load files of failed/ or processed/ again."),
    "undo": ("inboxd.cli.undo:undo", "Take back what a run did to its table."),
    "audit": ("inboxd.cli.audit:audit", "Prove the database by the archived files."),
    "doctor": ("inboxd.cli.doctor:doctor", "Look for what is wrong, and how to mend it."),
    "notify": ("inboxd.cli.notify:notify", "Send a test notice."),
    "config": ("inboxd.cli.config:config", "Check, show or describe the config."),
    "db": ("inboxd.cli.db:db", "Upgrade the database's tables, or copy them."),
}
"""Each command, where it is, and what it does in a line that no terminal cuts; in the order of ``--help``."""

COMPLETE: Final = "_INBOXD_COMPLETE"
"""The variable by which a shell asks for completion."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import and return one command."""
        if name not in COMMANDS:
            return None
        target, _ = COMMANDS[name]
        if name != "run" and signal.getsignal(signal.SIGHUP) is _nothing_yet:
            signal.signal(signal.SIGHUP, _end)
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            msg = f"{target} is not a command"
            raise TypeError(msg)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was named; one that is none is answered with the near ones."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {quoted(args[0])}; {near(args[0], COMMANDS, 'there are')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their lines, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


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
    """
    context.color = colour_wanted(os.environ, terminal=sys.stdout.isatty())
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
