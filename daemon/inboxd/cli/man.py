"""The manual page, made from the commands' own help: ``python -m inboxd.cli.man > inboxd.1``.

It cannot say anything else than ``--help`` does. Written in the man macros of man(7), which every ``man`` understands.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Final

import click

from inboxd import __version__
from inboxd.cli import cli

KEEP_LINES: Final = "\b"
"""Click's mark for a paragraph whose lines stay as they are."""

CODES: Final = (
    ("0", "all is well"),
    ("1", "a file failed, or a check found something"),
    ("2", "the command was called wrongly"),
    ("69", "the database is unavailable"),
    ("70", "a bug in inboxd"),
    ("75", "another daemon uses this SQLite database or its inbox, or a daemon of another database uses this archive"),
    ("77", "a permission is missing"),
    ("78", "the config is wrong"),
    ("130", "ended by Ctrl-C"),
    ("141", "nobody reads the output any more"),
)
FILES: Final = (
    ("./inboxd.toml", "the config, looked for after --config and $INBOXD_CONFIG"),
    ("$XDG_CONFIG_HOME/inboxd/inboxd.toml", "the config of a user"),
    ("/etc/inboxd/inboxd.toml", "the config of a machine"),
)
COMPLETION: Final = (
    "set to bash_source, zsh_source or fish_source inboxd prints what the shell needs to complete its commands: "
    'eval "$(_INBOXD_COMPLETE=bash_source inboxd)" in ~/.bashrc'
)
ENVIRONMENT: Final = (
    ("INBOXD_CONFIG", "the config file, if --config names none"),
    ("INBOXD_SECTION__KEY", "takes the place of a key of the config: INBOXD_DATABASE__URL for [database] url"),
    ("_INBOXD_COMPLETE", COMPLETION),
)


def man_page() -> str:
    """Return the page as roff."""
    context = click.Context(cli, info_name="inboxd")
    lines = [
        f'.TH INBOXD 1 "" "inboxd {__version__}" "User Commands"',
        ".SH NAME",
        "inboxd \\- JSON files dropped into a folder arrive in a SQL database, exactly once",
        ".SH SYNOPSIS",
        ".B inboxd",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]...",
        ".SH DESCRIPTION",
        *_text(cli.help or ""),
        *_options(context),
        ".SH COMMANDS",
    ]
    for command, within in _commands(cli, context):
        lines += [f".SS {_escaped(within.command_path)}", *_synopsis(command, within), *_text(command.help or "")]
        lines += _options(within)
    lines += [".SH EXIT STATUS", *_tagged(CODES), ".SH FILES", *_tagged(FILES)]
    lines += [".SH ENVIRONMENT", *_tagged(ENVIRONMENT)]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command, those of groups after their group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        within = click.Context(command, info_name=name, parent=context)
        yield command, within
        if isinstance(command, click.Group):
            yield from _commands(command, within)


def _synopsis(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    return [".PP", f"\\fB{_escaped(context.command_path)}\\fR {_escaped(usage)}"]


def _options(context: click.Context) -> list[str]:
    """Return the options with their help, each as a tagged paragraph."""
    records = (parameter.get_help_record(context) for parameter in context.command.get_params(context))
    return _tagged([record for record in records if record is not None])


def _tagged(pairs: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for tag, text in pairs:
        lines += [".TP", f"\\fB{_escaped(tag)}\\fR", _escaped(" ".join(text.split()))]
    return lines


def _text(text: str) -> list[str]:
    """Return paragraphs; one that begins with the mark keeps its lines."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.lstrip().startswith(KEEP_LINES):
            kept = paragraph.lstrip().removeprefix(KEEP_LINES).strip("\n").splitlines()
            lines += [".PP", ".nf", *map(_escaped, kept), ".fi"]
        else:
            lines += [".PP", _escaped(" ".join(paragraph.split()))]
    return lines


def _escaped(line: str) -> str:
    """Return text that roff takes as it is."""
    plain = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


if __name__ == "__main__":
    sys.stdout.write(man_page())
