"""Opening the store for questions that have an answer even without a database, and for writing beside a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click

from inboxd.cli.context import reading_store
from inboxd.config import Settings
from inboxd.errors import EXIT_UNAVAILABLE, InboxdError, OperatorFault, WorldFault

if TYPE_CHECKING:
    from inboxd.store.base import Store

MISSING: Final = "database_missing"
LOCKED: Final = "database_locked"
PAUSE_S: Final = 0.2
"""Between two tries of a command that waits; the store itself waits some seconds in each."""
LONGEST_WAIT_S: Final = 600.0
"""A database that is held for so long is not busy but stuck."""

Answer = TypeVar("Answer")


@contextmanager
def store_if_there(settings: Settings) -> Iterator[Store | None]:
    """Open the store for reading; without a database yet, say so on standard error and give ``None``."""
    with store_or_reason(settings) as (store, fault):
        if fault is not None:
            if fault.code != MISSING:
                raise fault
            click.echo(f"inboxd: {fault.message}", err=True)
        yield store


@contextmanager
def store_or_reason(
    settings: Settings, *, without_tables: bool = False
) -> Iterator[tuple[Store | None, InboxdError | None]]:
    """Open the store for reading, or tell why it cannot be. A database that has no tables of ours counts as missing."""
    with ExitStack() as stack:
        try:
            store = stack.enter_context(reading_store(settings))
            if not (without_tables or store.schema_current()):
                message = f"the database {settings.database.shown_url} has no tables of this version of inboxd yet"
                hint = "inboxd run, load or db upgrade make them"
                raise OperatorFault(MISSING, message, hint, exit_code=EXIT_UNAVAILABLE)
        except InboxdError as fault:
            yield None, fault
            return
        yield store, None


@contextmanager
def waiting_turn(
    opening: Callable[[], AbstractContextManager[Store]],
) -> Iterator[tuple[Store, Callable[[Callable[[], Answer]], Answer]]]:
    """Open a store for writing, and lend it with a function that does work as soon as the database lets it.

    SQLite has one writer at a time: while the daemon commits a large file, the command says that it waits, and waits.
    """
    with ExitStack() as stack:
        store = _patiently(lambda: stack.enter_context(opening()))
        yield store, _patiently


def _patiently(work: Callable[[], Answer]) -> Answer:
    """Do the work; when the database is held by somebody else, say so once, and try again until it is not."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    told = False
    while True:
        try:
            return work()
        except WorldFault as fault:
            if fault.code != LOCKED or time.monotonic() > deadline:
                raise
            if not told:
                click.echo("inboxd: the database is busy with another program; waiting for a turn …", err=True)
                told = True
        time.sleep(PAUSE_S)
