"""Names that people type: the one that is meant, or a sentence with those that are near (exit code 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from inboxd.cli.nearby import near
from inboxd.config import Settings
from inboxd.model import Feed

if TYPE_CHECKING:
    from inboxd.store.database import Store

PREFIXES: Final = ("missing", "invalid", "future")
ALWAYS: Final = ("not_an_object", "unexpected_field")
"""What a record of any feed may be refused with, beside the codes of its fields."""

LISTED: Final = 10
"""Numbers that a message repeats."""


def feed_named(settings: Settings, name: str) -> Feed:
    """Return the feed that an option or argument names; raises ``click.UsageError`` where the config has none."""
    for feed in settings.feeds:
        if feed.name == name:
            return feed
    names = [feed.name for feed in settings.feeds]
    raise click.UsageError(f"there is no feed {name!r}; {near(name, names, 'the config has')}")


def known_job(settings: Settings, store: Store | None, name: str | None) -> None:
    """Compare a filter's feed or job with those of the config and of the ledger; ``None`` is no filter."""
    names = {feed.name for feed in settings.feeds}
    if name is None or name in names:
        return
    if store is not None:
        from inboxd.operate.names import job_names  # noqa: PLC0415 - `--help` needs no database

        names |= job_names(store)
    if name not in names:
        raise click.UsageError(f"there is no feed or job {name!r}; {near(name, names, 'there are')}")


def known_code(settings: Settings, store: Store | None, code: str | None) -> None:
    """Compare a filter's error code with those that the feeds can give and those that the ledger has."""
    labels = {field.label for feed in settings.feeds for field in feed.fields}
    codes = {f"{prefix}_{label}" for prefix in PREFIXES for label in labels} | {*ALWAYS}
    if code is None or code in codes:
        return
    there: set[str] = set()
    if store is not None:
        from inboxd.operate.names import error_codes  # noqa: PLC0415 - `--help` needs no database

        there = error_codes(store)
    if code not in there:
        raise click.UsageError(f"there is no error code {code!r}; {near(code, codes | there, 'there are')}")


def known_run(store: Store | None, run_id: int | None) -> None:
    """Look for the run that a filter names; ``None`` is no filter."""
    if run_id is not None and (store is None or store.run(run_id) is None):
        raise click.UsageError(f"there is no run {run_id}; `inboxd runs list` lists the runs")


def known_letters(store: Store | None, ids: Sequence[int]) -> None:
    """Look for the dead letters that are named by their numbers, open or not."""
    if not ids:
        return
    unknown = list(ids)
    if store is not None:
        from inboxd.operate.names import not_there  # noqa: PLC0415 - `--help` needs no database

        unknown = not_there(store, ids)
    if unknown:
        some = ", ".join(map(str, unknown[:LISTED])) + (", …" if len(unknown) > LISTED else "")
        raise click.UsageError(f"there is no dead letter {some}; `inboxd dead-letters list --all` lists them")
