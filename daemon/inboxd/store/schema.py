"""Bringing the control tables to this version, inside the caller's transaction and lock."""

from __future__ import annotations

from importlib import resources

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.store.revision import HEAD, refuse_newer


def migrate(connection: sa.Connection) -> bool:
    """Migrate to ``HEAD``; tells whether anything was to do, which another process may have done meanwhile."""
    revision = None
    if sa.inspect(connection).has_table("alembic_version"):
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    refuse_newer(revision)
    if revision == HEAD:
        return False
    with resources.as_file(resources.files("inboxd.store") / "migrations") as folder:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        try:
            command.upgrade(config, "head")
        except ValueError as error:  # how a migration says that somebody else has changed or made a table of its
            hint = "nothing was changed; give your table another name, or put inboxd's table back as it was"
            raise OperatorFault("schema_mismatch", str(error), hint, exit_code=EXIT_CONFIG) from error
    return True
