"""The names that the ledger knows, for whoever typed one that is none."""

from __future__ import annotations

import sqlalchemy as sa

from inboxd.store.database import Store
from inboxd.store.tables import dead_letters, etl_runs


def job_names(store: Store) -> set[str]:
    """Return the feeds and imported jobs that have runs, those included that have left the config."""
    with store.reading() as connection:
        return {str(name) for name in connection.execute(sa.select(etl_runs.c.job_name).distinct()).scalars()}


def error_codes(store: Store) -> set[str]:
    """Return the codes that dead letters have."""
    with store.reading() as connection:
        return {str(code) for code in connection.execute(sa.select(dead_letters.c.error).distinct()).scalars()}
