"""A new SQLite database's control tables, as the migrations leave them, without what it takes to migrate.

Importing SQLAlchemy and Alembic takes 0.3 s, a tenth of what loading a million records does, and most databases that
lack the tables are new. The script is written by hand from what the migrations made; a test holds it to them.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from inboxd.store.revision import HEAD
from inboxd.store.sqlite_driver import driver

HAS_REVISION: Final = "SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'"
STAMP: Final = "INSERT INTO alembic_version (version_num) VALUES (?)"


def make_tables(connection: driver.Connection) -> bool:
    """Make the control tables where there are none yet, in the caller's transaction; tells whether that was so."""
    if connection.execute(HAS_REVISION).fetchone() is not None:
        return False
    file = resources.files("inboxd.store") / "migrations" / "new" / f"{HEAD}.sqlite.sql"
    for statement in file.read_text(encoding="utf-8").split(";\n\n"):
        connection.execute(statement)
    connection.execute(STAMP, (HEAD,))
    return True
