"""Files loaded where they lie, in one shot: what ``inboxd load``, ``inboxd check`` and the library have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from inboxd.clock import SystemClock
from inboxd.config import Settings, captures, match_feed
from inboxd.errors import EXIT_USAGE, OperatorFault
from inboxd.inbox.source import Source
from inboxd.model import Feed, Origin, origin_of, printable
from inboxd.outcomes import Hook
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.store.database import Store


def pipeline_of(settings: Settings, store: Store, hook: Hook = lambda _step, _edge: None) -> Pipeline:
    """Return what takes a file all the way; ``hook`` is told of its steps."""
    return Pipeline(store, SystemClock(), os.uname().nodename, settings.inbox.max_file_size, hook)


def feed_of(settings: Settings, name: str, as_path: str | None = None) -> Feed:
    """Return the feed of a file: matched by its path in the inbox (``as_path``, or its own), or by its path's end.

    Raises ``OperatorFault`` where no feed takes it.
    """
    here = name if as_path is None else settings.inbox.path / as_path
    path = Path(os.path.abspath(here))  # noqa: PTH100 - Path.resolve would follow a symlink out of the inbox
    inside = path.is_relative_to(settings.inbox.path)
    found = match_feed(settings.feeds, str(path.relative_to(settings.inbox.path)) if inside else path.name)
    if found is None and not inside:
        found = next((feed for feed in settings.feeds if captures(feed, str(path), tail=True) is not None), None)
    if found is None:
        msg = f"no feed matches {printable(as_path or name)!r}"
        raise OperatorFault("no_such_feed", msg, "name the feed (--feed)", exit_code=EXIT_USAGE)
    return found


def hold_against_path(feed: Feed, name: str, as_path: str | None = None) -> None:
    """See that what the feed reads of a file's path is in it; raises ``OperatorFault`` where it is not."""
    reads_path = any(origin_of(path) is Origin.CAPTURE for path in feed.paths)
    if reads_path and captures(feed, as_path or name, tail=as_path is None) is None:
        msg = (
            f"feed {feed.name!r} reads parts of the path, and {printable(as_path or name)!r} ends in none of "
            f"{', '.join(map(repr, feed.match))}"
        )
        raise OperatorFault("path_unknown", msg, "say what its path in the inbox is (--as)", exit_code=EXIT_USAGE)


def job_of(
    settings: Settings,
    name: str,
    feed: Feed,
    *,
    as_path: str | None = None,
    force: bool = False,
    watching: Callable[[Source], Source] = lambda source: source,
) -> Job:
    """Return the work on one file; ``watching`` may follow how it is read. Raises ``OSError`` if there is none."""
    found = Path(name).stat()
    return Job(
        feed=feed,
        file_name=printable(name),
        size=found.st_size,
        facts=facts_of(feed, name if as_path is None else as_path, found.st_mtime_ns, tail=as_path is None),
        open=lambda: watching(Source(name, max_size=settings.inbox.max_file_size)),
        force=force,
    )
