"""What a shell offers when somebody types TAB: the config's feeds, the newest runs, the files in ``failed/``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from inboxd.config import Settings

OFFERED: Final = 50
"""Of more, nobody reads the end."""


def feeds(context: click.Context, _incomplete: str) -> list[str]:
    """Return the names of the config's feeds."""
    return [feed.name for feed in _settings(context).feeds]


def runs(context: click.Context, _incomplete: str) -> list[str]:
    """Return the numbers of the newest runs."""
    from inboxd.cli.context import reading_store  # noqa: PLC0415 - a shell waits for this at each TAB

    with reading_store(_settings(context)) as store:
        return [str(run.id) for run in store.runs(limit=OFFERED)]


def failed_files(context: click.Context, incomplete: str) -> list[str]:
    """Return the paths below ``failed/`` that begin so."""
    from inboxd.operate.archived import all_failed  # noqa: PLC0415 - as above

    names = [os.fspath(one.name) for one in all_failed(_settings(context).archive)]
    return [name for name in names if name.startswith(incomplete)][:OFFERED]


def _settings(context: click.Context) -> Settings:
    from inboxd.cli.context import settings_of  # noqa: PLC0415 - as above

    root = context.find_root()
    root.obj = root.params.get("config_file")  # the command itself does not run
    return settings_of(context)
