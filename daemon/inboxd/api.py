"""inboxd for programs that say themselves when a file is loaded (Airflow, Dagster, cron): see docs/library.md.

Each call opens the database, waits up to 30 s for a daemon or command that is writing, and leaves the files where they
are. Any number of programs and a daemon may load into one database; each content is loaded once.

Raised are, besides ``OSError`` where a file cannot be found or read:

* ``OperatorFault``: the config is wrong, no feed takes the file, the database can never be used;
* ``TransientFault``: the database is away, locked or full; the call can be made again;
* ``FileFault`` (by ``load_file`` alone): the file itself is at fault. Nothing of it was loaded, the ledger says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from inboxd.clock import stamp
from inboxd.config import Settings, load_settings, match_feed
from inboxd.errors import EXIT_USAGE, FileFault, OperatorFault, Place
from inboxd.inbox.notices import Once
from inboxd.inbox.tree import Folder
from inboxd.inbox.walk import Sieve, Walk
from inboxd.model import Feed
from inboxd.oneshot import feed_of, hold_against_path, inbox_path, job_of, pipeline_of
from inboxd.outcomes import Outcome, RunStatus, Verdict
from inboxd.store import open_store, writing_store
from inboxd.store.base import RunRow

Config = str | os.PathLike[str] | Mapping[str, object] | None
"""A config file, or what one says (``{"feeds": {…}}``); without it the file that the command line would use."""


def load_file(
    path: str | os.PathLike[str],
    *,
    config: Config = None,
    database: str | None = None,
    feed: str | None = None,
    as_path: str | None = None,
) -> Verdict:
    """Load one complete file, once, in one transaction; return what became of it.

    ``feed`` names the feed of the config to load by; without it the first whose ``match`` fits takes the file.
    ``as_path`` is the path in the inbox that the file is to be taken for. ``database`` is a URL that takes the place of
    the configured one. The verdict's ``outcome`` is ``loaded``, or ``duplicate`` with ``duplicate_of``, the run that
    loaded this content before. Raises ``FileFault`` where the file is at fault, with its ``code``, ``hint`` and
    ``place``; see the module for what else.
    """
    settings = _settings(config, database)
    name = os.fspath(path)
    as_path = None if as_path is None else inbox_path(as_path)
    wanted = feed_of(settings, name, as_path) if feed is None else _feed_named(settings, feed)
    hold_against_path(settings, wanted, name, as_path)
    with writing_store(settings.database.url, settings.feeds) as store:
        verdict = pipeline_of(settings, store).process(job_of(settings, store, name, wanted, as_path=as_path))
    if verdict.outcome is Outcome.FAILED:
        place = None if verdict.place is None else Place(*verdict.place)
        code, message = str(verdict.error_code), str(verdict.error)
        raise FileFault(code, message, verdict.hint, place=place, details=dict(verdict.details or {}))
    return verdict


def load_folder(
    folder: str | os.PathLike[str], *, config: Config = None, database: str | None = None, feed: str | None = None
) -> list[Verdict]:
    """Load every complete file of a folder and the folders in it, oldest first, each once and in its own transaction.

    Which files are taken is what the config says of the inbox (``inbox.suffixes``, ``inbox.ignore``, each feed's
    ``match``), with ``folder`` in its place; all others are left alone, and so are hidden files and links. A file that
    is at fault holds up no other: its verdict has the outcome ``failed``, with ``error_code``, ``error`` and ``hint``.
    """
    settings = _settings(config, database)
    feeds = {one.name: one for one in ([_feed_named(settings, feed)] if feed is not None else settings.feeds)}

    def match(name: str) -> str | None:
        found = feeds.get(feed) if feed is not None else match_feed(settings.feeds, name)
        return None if found is None else found.name

    walk = Walk(Sieve.of(match, settings.inbox.ignore, settings.inbox.suffixes), Once())
    with Folder.root(folder) as root:
        found = sorted(walk.below(root))
    verdicts = []
    with writing_store(settings.database.url, settings.feeds) as store:
        pipeline = pipeline_of(settings, store)
        for one in found:
            path = str(Path(folder, one.name))
            verdicts.append(pipeline.process(job_of(settings, store, path, feeds[one.feed], as_path=one.name)))
    return verdicts


def runs(
    *,
    config: Config = None,
    database: str | None = None,
    feed: str | None = None,
    status: RunStatus | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[RunRow]:
    """Ask the ledger: the runs of all feeds or of one, newest first, with the columns of ``etl_runs``.

    ``since`` is when they began, at the earliest; a time without a zone is UTC. A SQLite database that is not there yet
    raises ``OperatorFault``.
    """
    settings = _settings(config, database)
    began = None if since is None else stamp(since if since.tzinfo else since.replace(tzinfo=UTC))
    with open_store(settings.database.url, readonly=True) as store:
        return store.runs(job=feed, status=status, since=began, limit=limit)


def _settings(config: Config, database: str | None) -> Settings:
    given = config if config is None or isinstance(config, Mapping) else Path(config)
    options = {} if database is None else {"database.url": database}
    return load_settings(given, os.environ, Path.cwd(), options)


def _feed_named(settings: Settings, name: str) -> Feed:
    for feed in settings.feeds:
        if feed.name == name:
            return feed
    known = ", ".join(feed.name for feed in settings.feeds)
    raise OperatorFault("no_such_feed", f"there is no feed {name!r}", f"the config has: {known}", exit_code=EXIT_USAGE)
