"""``inboxd db``: the database itself."""

from __future__ import annotations

import time
from contextlib import ExitStack

import click

from inboxd import __version__
from inboxd.cli.arguments import Text
from inboxd.cli.context import print_json, settings_of, working_folder, writing_store
from inboxd.cli.progress import progress_of_rows
from inboxd.config import DatabaseSettings, Settings
from inboxd.config.database import absolute_url, check_url
from inboxd.errors import DATABASE_MISSING, EXIT_CONFIG, OperatorFault
from inboxd.locks import DaemonLock
from inboxd.operate.transfer import copy as copy_all
from inboxd.operate.transfer import rows_in
from inboxd.regular import kind_at
from inboxd.store import open_store
from inboxd.store.database import Store


@click.group()
def db() -> None:
    """Upgrade the database's tables, or copy them to another database."""


@db.command()
@click.pass_context
def upgrade(context: click.Context) -> None:
    """Bring the tables to this version's schema, and give each feed's table its columns.

    The daemon does the same at its start; this command does it before, so that a start is instant.

    \b
    Example:  inboxd db upgrade
    """
    settings = settings_of(context)
    with writing_store(settings):
        click.echo(f"{settings.database.shown_url}: the schema is that of inboxd {__version__}")


@db.command()
@click.argument("source_url", metavar="FROM", type=Text())
@click.argument("target_url", metavar="TO", type=Text())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def copy(context: click.Context, source_url: str, target_url: str, *, as_json: bool) -> None:
    """Copy the SQLite database FROM, with all that inboxd remembers, into the empty PostgreSQL database TO.

    Tables, runs, dead letters, lineage, watermarks and before-images go over in one transaction, which is read back and
    compared before it commits. Stop the daemon first; then set database.url to TO, and start it again: what was loaded
    is known there. The password of TO is found as the daemon finds it, and need not be in the URL.

    \b
    Example:  inboxd db copy sqlite:///data/inboxd.db postgresql://inboxd@db.example/inboxd
    """
    from inboxd.store.postgres import PostgresStore  # noqa: PLC0415 - the same

    began = time.monotonic()
    source, target = _sqlite(source_url), _postgres(context, target_url)
    with ExitStack() as stack:
        lock = DaemonLock()
        stack.callback(lock.release)
        lock.acquire_database(source.sqlite_path)
        reading = stack.enter_context(open_store(source.url, readonly=True))
        _refuse_old(reading, source)
        writing = stack.enter_context(writing_store(target))
        if not isinstance(writing, PostgresStore):
            raise click.UsageError("TO must be a postgresql:// URL")
        advance = stack.enter_context(progress_of_rows(2 * rows_in(reading, target.feeds)))
        copied = copy_all(reading, writing, target.feeds, progress=advance)
    seconds = time.monotonic() - began
    if as_json:
        tables = [{"table": one.table, "rows": one.rows, "checksum": one.checksum} for one in copied]
        shown = {"from": source.shown_url, "to": target.database.shown_url}
        print_json({**shown, "tables": tables, "duration_ms": round(seconds * 1000)})
        return
    for one in copied:
        click.echo(f"{one.rows:>14}  {one.table}")
    click.echo(f"copied and compared in {seconds:.1f} s; now set database.url to {target.database.shown_url}")


def _sqlite(url: str) -> DatabaseSettings:
    if not url.startswith("sqlite:"):
        raise click.UsageError("FROM must be a sqlite:/// URL: inboxd db copy moves from SQLite to PostgreSQL")
    try:
        found = DatabaseSettings(url=absolute_url(check_url(url), working_folder()))
    except ValueError as error:
        raise click.UsageError(f"FROM {error}") from error
    if not found.sqlite_path.exists():
        message, hint = f"there is no database {found.sqlite_path}", "name the file that database.url named"
        raise OperatorFault(DATABASE_MISSING, message, hint, exit_code=EXIT_CONFIG)
    if (kind := kind_at(found.sqlite_path)) is not None:
        message = f"{found.sqlite_path} is no database: {kind}"
        raise OperatorFault("not_a_database", message, "name the file that database.url named", exit_code=EXIT_CONFIG)
    return found


def _postgres(context: click.Context, url: str) -> Settings:
    if url.startswith("sqlite:"):
        raise click.UsageError("TO must be a postgresql:// URL: inboxd db copy moves from SQLite to PostgreSQL")
    return settings_of(context, database_url=url)


def _refuse_old(store: Store, source: DatabaseSettings) -> None:
    if not store.schema_current():
        message = f"{source.sqlite_path} has no tables of this version of inboxd"
        raise OperatorFault("schema_older", message, "run inboxd db upgrade on it first", exit_code=EXIT_CONFIG)
