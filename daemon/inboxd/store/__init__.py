"""The only code that speaks SQL: one file's one transaction, and what the ledger knows.

``open_store`` picks the database from the URL and imports only what that one needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from inboxd.errors import EXIT_CONFIG, EXIT_UNAVAILABLE, OperatorFault
from inboxd.extras import how_to_install
from inboxd.model import Feed
from inboxd.store.base import Turn
from inboxd.store.database import Store

__all__ = ["open_store", "writing_store"]

TURN_S: Final = 30.0
"""How long one who is no daemon waits for what another program holds, before it gives up."""


def open_store(
    url: str,
    *,
    readonly: bool = False,
    tick: Callable[[], None] = lambda: None,
    silence: Callable[[float], object] = lambda _seconds: None,
    turn: Turn | None = None,
) -> Store:
    """Open the database at ``url`` (``sqlite:///path`` or ``postgresql://…``).

    ``tick`` is called several times a second while a long statement runs; it may raise ``Interrupted`` (or
    anything else), which ends the statement, and rolls back the transaction that it belongs to. ``silence`` is told
    before the COMMIT of a large file on SQLite how many seconds may pass without a tick, and 0 after it.
    ``turn`` is for commands: how long one waits for a lock. A daemon puts its file off after a few seconds on SQLite,
    and on PostgreSQL waits as long as the server lets it.
    Raises ``TransientFault`` when the database cannot be reached, ``OperatorFault`` when it can never be used.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        from inboxd.store.sqlite import SqliteStore  # noqa: PLC0415 - the other database's driver stays unloaded

        return SqliteStore(url, readonly=readonly, tick=tick, silence=silence, turn=turn)
    if scheme in {"postgresql", "postgres"}:
        try:
            from inboxd.store.postgres import PostgresStore  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            message = f"PostgreSQL needs the package {error.name}, which is not installed"
            hint = how_to_install("postgres")
            raise OperatorFault("driver_missing", message, hint, exit_code=EXIT_UNAVAILABLE) from error
        return PostgresStore(url, readonly=readonly, tick=tick, turn=turn)
    message = f"database.url starts with {scheme!r}, but inboxd speaks sqlite and postgresql"
    hint = "write sqlite:///data/inboxd.db or postgresql://user@host/db"
    raise OperatorFault("invalid_database_url", message, hint, exit_code=EXIT_CONFIG)


@contextmanager
def writing_store(url: str, feeds: Sequence[Feed], waiting: Callable[[], None] = lambda: None) -> Iterator[Store]:
    """Open the database for one who writes and is no daemon, with its tables as the feeds want them.

    ``waiting`` is called, perhaps several times, while another program holds what is needed, such as the daemon that
    commits a large file. Raises ``TransientFault`` when that one is not done within ``TURN_S``.
    """
    with open_store(url, turn=Turn(TURN_S, waiting)) as store:
        store.upgrade()
        store.prepare(feeds)
        yield store
