"""The names that the ledger knows, for whoever typed one that is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from inboxd.store.database import Store
from inboxd.store.tables import dead_letters, etl_runs

ASKED_AT_ONCE: Final = 500
"""Numbers in one question: SQLite takes 32,766 values."""


def job_names(store: Store) -> set[str]:
    """Return the feeds and imported jobs that have runs, those included that have left the config."""
    with store.reading() as connection:
        return {str(name) for name in connection.execute(sa.select(etl_runs.c.job_name).distinct()).scalars()}


def not_there(store: Store, dead_letter_ids: Iterable[int]) -> list[int]:
    """Return which of these numbers are of no dead letter."""
    wanted = sorted({*dead_letter_ids})
    found: set[int] = set()
    with store.reading() as connection:
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            some = dead_letters.c.id.in_(wanted[start : start + ASKED_AT_ONCE])
            found |= {int(number) for number in connection.execute(sa.select(dead_letters.c.id).where(some)).scalars()}
    return [number for number in wanted if number not in found]


def error_codes(store: Store) -> set[str]:
    """Return the codes that dead letters have."""
    with store.reading() as connection:
        return {str(code) for code in connection.execute(sa.select(dead_letters.c.error).distinct()).scalars()}
