"""The commands that a user may type, found as the program finds them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from inboxd.cli import COMMANDS, cli


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its words after ``inboxd``."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for inner, leaf in command.commands.items():
                yield f"{name} {inner}", leaf
        else:
            yield name, command
