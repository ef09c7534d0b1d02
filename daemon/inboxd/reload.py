"""The config anew: a changed one is taken over whole, or the one in force is kept whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Final

from inboxd.attempts import Folders
from inboxd.clock import Clock, stamp
from inboxd.config import Settings, match_feed
from inboxd.daemon import Daemon
from inboxd.errors import EXIT_CONFIG, InboxdError, OperatorFault, TransientFault
from inboxd.events import Event
from inboxd.garbage import collect_now
from inboxd.inbox.archive import Archive
from inboxd.inbox.scan import Inbox
from inboxd.locks import ArchiveLock
from inboxd.log import emit
from inboxd.model import Late
from inboxd.operate.retention import Retention
from inboxd.outbox.outbox import Outbox
from inboxd.pending import pause_after
from inboxd.premises import hold_apart, make_folders, own_archive, state_file
from inboxd.presence import Published, Refused, remove_state
from inboxd.records.fields import compile_feed

NEEDS_RESTART: Final = ("inbox.path", "inbox.polling", "database.url", "http.listen", "log")
"""The settings that a reload cannot change: what they name is watched, locked, connected to or open by then."""


@dataclass(slots=True)
class Reload:
    """Owned by the loop's thread."""

    load_settings: Callable[[Path | None], Settings]
    """Is told which file the settings in force are from."""
    published: Published
    outbox: Outbox
    clock: Clock
    due: float = float("inf")
    """When a config that a transient fault has kept out is loaded again (monotonic seconds)."""
    _tries: int = 0
    _database: str = ""
    _archive: ArchiveLock = field(default_factory=ArchiveLock)

    def own_archive(self, database: str) -> None:
        """Own the archive of the settings in force for a database (``Store.identity``); raises ``OperatorFault``."""
        self._database = database
        self._archive = own_archive(self.published.settings, database)

    def release(self) -> None:
        """Let go of the archive."""
        self._archive.close()

    def run(self, daemon: Daemon, *, asked: bool) -> None:
        """Take the config on disk over, or say why not; ``asked``: somebody wants it, it is not only tried again."""
        if asked:
            self._tries = 0
        old = self.published.settings
        try:
            new = self.load_settings(old.source)
            _refuse_what_needs_a_restart(old, new)
            make_folders(new)
            hold_apart(new)
            daemon.store.prepare(new.feeds)
            archive = own_archive(new, self._database)
        except InboxdError as fault:
            self._keep_old(daemon, fault)
        else:
            self._archive.close()
            self._archive = archive
            self._take_over(daemon, old, new)
        collect_now()

    def _take_over(self, daemon: Daemon, old: Settings, new: Settings) -> None:
        self.due = float("inf")
        self.published.settings, self.published.refused = new, None
        if state_file(new) != state_file(old):
            remove_state(state_file(old))  # nothing would ever correct the old one
        daemon.folders = folders_of(new, daemon.pipeline.progress, daemon.folders)
        daemon.pipeline = replace(daemon.pipeline, max_file_size=new.inbox.max_file_size)
        daemon.retention = Retention(daemon.store, new.archive, new.retention, self.clock)
        self.outbox.replace(new.notify)
        compile_feed.cache_clear()  # what it has of feeds that are no more would stay
        emit(daemon.log, Event.CONFIG_RELOADED, config=new.source, feeds=[feed.name for feed in new.feeds])

    def _keep_old(self, daemon: Daemon, fault: InboxdError) -> None:
        """Say, once, why the new config is not in force; where the fault is transient, it is loaded again later."""
        transient = isinstance(fault, TransientFault)
        self._tries += 1
        self.due = self.clock.monotonic() + (pause_after(self._tries) if transient else float("inf"))
        if not transient or self._tries == 1:
            emit(daemon.log, Event.CONFIG_REJECTED, error_code=fault.code, error=fault.message, hint=fault.hint)
        self.published.refused = Refused(fault.code, fault.message, fault.hint, stamp(self.clock.now()))


def folders_of(settings: Settings, tick: Callable[[], None], old: Folders | None = None) -> Folders:
    """Build the loop's hands on the filesystem from the settings; what the ``old`` ones know of the files is kept."""
    feeds = settings.feeds

    def feed_name(name: str) -> str | None:
        feed = match_feed(feeds, name)
        return feed.name if feed else None

    ordered = {feed.name for feed in feeds if feed.ordered or (feed.cursor is not None and feed.late is Late.SKIP)}
    inbox = Inbox(
        root=str(settings.inbox.path),
        ignore=settings.inbox.ignore,
        settle=settings.inbox.settle,
        settle_unproven=settings.inbox.settle_unproven,
        settle_moved=settings.inbox.settle_moved,
        suffixes=settings.inbox.suffixes,
        foreign=(str(settings.archive.processed), str(settings.archive.failed)),
        match=feed_name,
        ordered=ordered.__contains__,
    )
    if old is not None:
        inbox.take_over(old.inbox)
    return Folders(
        inbox=inbox,
        archive=Archive(settings.archive.processed, settings.archive.failed, tick, copy=settings.archive.copy_files),
        feeds=feeds,
        match=lambda name: match_feed(feeds, name),
        rescan_s=settings.inbox.rescan,
    )


def _refuse_what_needs_a_restart(old: Settings, new: Settings) -> None:
    changed = [name for name in NEEDS_RESTART if attrgetter(name)(old) != attrgetter(name)(new)]
    if changed:
        msg = f"changed, but only a restart can change it: {', '.join(changed)}"
        raise OperatorFault("restart_needed", msg, "restart inboxd, or put the old value back", exit_code=EXIT_CONFIG)
