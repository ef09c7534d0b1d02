"""Opening the store for questions that have an answer even without a database, and for writing beside a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import click

from inboxd.cli.context import reading_store
from inboxd.config import Settings
from inboxd.errors import InboxdError, OperatorFault

if TYPE_CHECKING:
    from inboxd.store.base import Store

MISSING: Final = "database_missing"


@contextmanager
def store_if_there(settings: Settings) -> Iterator[Store | None]:
    """Open the store for reading; without a database yet, say so on standard error and give ``None``."""
    with ExitStack() as stack:
        try:
            store: Store | None = stack.enter_context(reading_store(settings))
        except OperatorFault as fault:
            if fault.code != MISSING:
                raise
            click.echo(f"inboxd: {fault.message}", err=True)
            store = None
        yield store


@contextmanager
def store_or_reason(settings: Settings) -> Iterator[tuple[Store | None, InboxdError | None]]:
    """Open the store for reading, or tell why it cannot be."""
    with ExitStack() as stack:
        try:
            store = stack.enter_context(reading_store(settings))
        except InboxdError as fault:
            yield None, fault
            return
        yield store, None
