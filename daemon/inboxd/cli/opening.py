"""Opening the store for questions that have an answer even without a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from inboxd.cli.context import reading_store
from inboxd.config import Settings
from inboxd.errors import DATABASE_MISSING, EXIT_UNAVAILABLE, InboxdError, OperatorFault
from inboxd.store.database import Store


@contextmanager
def store_if_there(settings: Settings) -> Iterator[Store | None]:
    """Open the store for reading; without a database yet, say so on standard error and give ``None``."""
    with store_or_reason(settings) as (store, fault):
        if fault is not None:
            if fault.code != DATABASE_MISSING:
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
                raise OperatorFault(DATABASE_MISSING, message, hint, exit_code=EXIT_UNAVAILABLE)
        except InboxdError as fault:
            yield None, fault
            return
        yield store, None
