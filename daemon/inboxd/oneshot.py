"""Files loaded where they lie, in one shot: what ``inboxd load``, ``inboxd check`` and the library have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from inboxd.clock import SystemClock
from inboxd.config import Settings, captures, fits_tail, match_feed
from inboxd.errors import EXIT_USAGE, OperatorFault
from inboxd.inbox.source import Source
from inboxd.model import Feed, Origin, origin_of, printable
from inboxd.operate.archived import files_of_runs, name_in_inbox
from inboxd.outcomes import Hook
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.store.database import Store


def pipeline_of(settings: Settings, store: Store, hook: Hook = lambda _step, _edge: None) -> Pipeline:
    """Return what takes a file all the way; ``hook`` is told of its steps."""
    return Pipeline(store, SystemClock(), os.uname().nodename, settings.inbox.max_file_size, hook)


def inbox_path(said: str) -> str:
    """Return a path in the inbox as the daemon would write it; raises ``OperatorFault`` if no file can be there."""
    path = os.path.normpath(said)
    if not said or said.endswith("/") or path.startswith("/") or path.split("/")[0] in {".", ".."}:
        msg = f"{printable(said)!r} is not the path of a file in the inbox"
        raise OperatorFault(
            "path_unknown", msg, "write it without the inbox, such as EU/01/x.json", exit_code=EXIT_USAGE
        )
    return path


def feed_of(settings: Settings, name: str, as_path: str | None = None) -> Feed:
    """Return the feed of a file: matched by its path in the inbox (``as_path``, or its own), or by its path's end.

    Raises ``OperatorFault`` where no feed takes it.
    """
    here = name if as_path is None else settings.inbox.path / as_path
    path = Path(os.path.abspath(here))  # noqa: PTH100 - Path.resolve would follow a symlink out of the inbox
    inside = path.is_relative_to(settings.inbox.path)
    found = match_feed(settings.feeds, str(path.relative_to(settings.inbox.path)) if inside else path.name)
    if found is None and not inside:
        found = next((feed for feed in settings.feeds if fits_tail(feed, str(path))), None)
    if found is None:
        msg = f"no feed matches {printable(as_path or name)!r}"
        raise OperatorFault("no_such_feed", msg, "name the feed (--feed)", exit_code=EXIT_USAGE)
    return found


def hold_against_path(settings: Settings, feed: Feed, name: str, as_path: str | None = None) -> None:
    """See that what the feed reads of a file's path can be told; raises ``OperatorFault`` where it cannot."""
    reads_path = any(origin_of(path) is Origin.CAPTURE for path in feed.paths)
    if reads_path and _caught(feed, name, _path_in_inbox(settings, name, as_path)) is None:
        how = "ends in more than one way in" if fits_tail(feed, as_path or name) else "ends in none of"
        patterns = ", ".join(map(repr, feed.match))
        msg = f"feed {feed.name!r} reads parts of the path, and {printable(as_path or name)!r} {how} {patterns}"
        raise OperatorFault("path_unknown", msg, "say what its path in the inbox is (--as)", exit_code=EXIT_USAGE)


def _path_in_inbox(
    settings: Settings, name: str, as_path: str | None, file_of_run: Callable[[int], str | None] = lambda _run: None
) -> str | None:
    """Return the path that a file has in the inbox, or had before it was archived; ``None`` if it is not known."""
    if as_path is not None:
        return as_path
    path = Path(os.path.abspath(name))  # noqa: PTH100 - as above
    for folder in (settings.archive.processed, settings.archive.failed):
        if path.is_relative_to(folder):
            return name_in_inbox(file_of_run, str(path.relative_to(folder)))
    return str(path.relative_to(settings.inbox.path)) if path.is_relative_to(settings.inbox.path) else None


def _caught(feed: Feed, name: str, in_inbox: str | None) -> Mapping[str, str] | None:
    """Return what the feed's ``match`` catches of a file's path: of that in the inbox, else of how it ends."""
    return captures(feed, os.path.normpath(name) if in_inbox is None else in_inbox, tail=in_inbox is None)


def job_of(
    settings: Settings,
    store: Store,
    name: str,
    feed: Feed,
    *,
    as_path: str | None = None,
    force: bool = False,
    watching: Callable[[Source], Source] = lambda source: source,
) -> Job:
    """Return the work on one file; ``watching`` may follow how it is read. Raises ``OSError`` if there is none."""
    found = Path(name).stat()
    caught = _caught(feed, name, _path_in_inbox(settings, name, as_path, files_of_runs(store)))
    return Job(
        feed=feed,
        file_name=printable(name),
        size=found.st_size,
        facts=facts_of(feed, name if as_path is None else as_path, found.st_mtime_ns, caught=caught),
        open=lambda: watching(Source(name, max_size=settings.inbox.max_file_size)),
        force=force,
    )
