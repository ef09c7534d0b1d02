"""The daemon as a process: builds everything, takes the locks, listens to signals, tells systemd."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Final

from inboxd import __version__
from inboxd.attempts import Folders
from inboxd.clock import Clock, SystemClock, stamp
from inboxd.config import Settings, match_feed
from inboxd.daemon import Daemon
from inboxd.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    InboxdError,
    Interrupted,
    OperatorFault,
    TransientFault,
)
from inboxd.events import Event
from inboxd.garbage import collect_now, collect_seldom
from inboxd.inbox.archive import Archive
from inboxd.inbox.scan import Inbox
from inboxd.inbox.settle import Kind
from inboxd.inbox.watch import Watch
from inboxd.libraries import listen_to_libraries
from inboxd.locks import ArchiveLock, DaemonLock
from inboxd.log import Logger, emit, is_logged, open_log
from inboxd.model import Late
from inboxd.notify import Notifier
from inboxd.operate.retention import Retention
from inboxd.outbox.arrivals import Arrivals
from inboxd.outbox.notices import Receivers
from inboxd.outbox.outbox import Outbox
from inboxd.outcomes import Edge, Hook, Step, Verdict
from inboxd.pending import pause_after
from inboxd.pipeline import Pipeline
from inboxd.premises import hold_apart, make_folders, own_archive, state_file
from inboxd.presence import (
    LONGEST_WAIT_S,
    DaemonState,
    Published,
    Refused,
    Work,
    clear_state,
    remove_state,
    write_state,
)
from inboxd.records.fields import compile_feed
from inboxd.recovery import Recovery
from inboxd.signals import Signals
from inboxd.standing import WorkMonitor, state_of, status_line
from inboxd.store import open_store
from inboxd.store.database import Store

MIGRATION_S: Final = 3_600.0
"""How long the service manager is asked to wait for a start that has to migrate a large database first."""
STATE_EVERY_S: Final = 1.0
LAST_NOTICES_S: Final = 10.0
"""How long ``--once`` waits for its last notices; what is undelivered then, the next start delivers."""
NEEDS_RESTART: Final = ("inbox.path", "inbox.polling", "database.url", "http.listen", "log")
"""The settings that HUP cannot change: what they name is watched, locked, connected to or open by then."""


@dataclass(slots=True)
class Service:
    """One run of the daemon, from its settings to its exit code."""

    settings: Settings
    load_settings: Callable[[], Settings]
    http: str = ""
    signals: Signals = field(default_factory=Signals.installed)
    hook: Hook | None = None
    """Called at each edge of a step, in place of the timing at debug level."""
    clock: Clock = field(default_factory=SystemClock)
    _since: str = ""
    _state_written: float = float("-inf")
    _published: Published = field(init=False)
    _count: Callable[[Verdict], None] | None = None
    """Counts a file's end in the metrics, where there is a page to show them."""
    _work: WorkMonitor = field(init=False)
    _refused: Refused | None = None
    _reload_due: float = float("inf")
    """When a config that a transient fault has kept out is loaded again (monotonic seconds)."""
    _reload_tries: int = 0
    _outbox: Outbox = field(init=False)
    _arrivals: Arrivals | None = None
    _archive: ArchiveLock = field(default_factory=ArchiveLock)
    _database: str = ""
    """What tells the database from all others (``Store.identity``)."""

    def __post_init__(self) -> None:
        """Make what tells others of events: it is there before the log is."""
        self._published = Published(self.settings)
        self._work = WorkMonitor(self._published, self.clock)
        url = self.settings.database.url
        self._outbox = Outbox(Receivers(self.settings.notify), lambda tick: open_store(url, tick=tick), self.clock)

    def run(self, *, once: bool = False) -> int:
        """Run until a signal (or, with ``once``, until the inbox is empty); return the exit code."""
        settings, signals = self.settings, self.signals
        self._since = stamp(self.clock.now())
        lines = settings.log
        log = open_log(
            fmt=lines.format, level=lines.level, file=lines.file, layout=lines.layout, noticing=self._outbox.on_line
        )
        notifier = Notifier.from_environment(os.environ)
        code = files = 0
        with ExitStack() as stack:
            stack.callback(signals.close)
            stack.callback(listen_to_libraries(log, self.clock))
            stack.callback(self._outbox.stop)
            make_folders(settings)
            self._lock(stack)
            try:
                daemon = self._build(stack, log, notifier)
                ready = partial(self._ready, daemon, log, notifier)
                work = daemon.drain if once else daemon.run
                work(ready)
                files = daemon.tally.total
                if once:
                    self._outbox.settle(LAST_NOTICES_S)
                code = _exit_code(daemon) if once else 0
                remove_state(state_file(self.settings))
            except (Interrupted, TransientFault):  # a stop may come into a wait for the database, also before the loop
                if not signals.is_stopping():
                    raise
            if signals.newly_stopping() or once:
                notifier.stopping()
            emit(log, Event.DAEMON_STOPPED, reason=signals.reason or "once", files=files)
        return code

    def _lock(self, stack: ExitStack) -> None:
        lock = DaemonLock()
        stack.callback(lock.release)
        if not self.settings.database.is_postgres:
            lock.acquire_database(self.settings.database.sqlite_path)
            lock.acquire_inbox(self.settings.inbox.path)
        hold_apart(self.settings)

    def _build(self, stack: ExitStack, log: Logger, notifier: Notifier) -> Daemon:
        """Open the database and put the daemon together, and the page if there is to be one."""
        signals = self.signals

        def tick() -> None:
            if signals.stopping:
                if signals.newly_stopping():
                    notifier.stopping()
                signals.check()
            now = self._published.beat = self.clock.monotonic()
            notifier.watchdog(now)
            self._work.look(now)

        store = stack.enter_context(self._store(log, notifier, tick))
        self._database = store.identity()
        self._archive = own_archive(self.settings, self._database)
        stack.callback(lambda: self._archive.close())  # noqa: PLW0108 - a reload replaces it
        clear_state(state_file(self.settings))
        self._outbox.start(log)
        self._arrivals = Arrivals(store, log, self.clock, self._outbox.of_event, self._outbox.wake)
        daemon = self._daemon(store, log, tick)
        daemon.on_pass = lambda daemon: self._after_pass(daemon, notifier)
        stack.callback(daemon.watch.stop)
        self._work.begin(daemon, lambda work: self._tell(daemon, notifier, work))
        self._serve(stack, log)
        return daemon

    def _store(self, log: Logger, notifier: Notifier, tick: Callable[[], None]) -> Store:
        store = open_store(self.settings.database.url, tick=tick, silence=notifier.silent)
        if not store.schema_current():
            notifier.need_time(MIGRATION_S)
        if store.upgrade():
            emit(log, Event.DATABASE_UPGRADED, version=__version__)
        store.prepare(self.settings.feeds)
        store.announce(os.uname().nodename)
        return store

    def _daemon(self, store: Store, log: Logger, tick: Callable[[], None]) -> Daemon:
        signals = self.signals
        folders = folders_of(self.settings, tick)
        host = os.uname().nodename
        timing = timed(log, self.clock) if self.settings.log.level == "debug" else None
        hook = self._work.followed(self.hook or timing)
        limit = self.settings.inbox.max_file_size
        pipeline = Pipeline(store, self.clock, host, limit, hook, tick, self._outbox.of_verdict)
        daemon: Daemon

        def hint(name: str, kind: Kind) -> bool:
            return daemon.folders.inbox.hint(name, kind)

        daemon = Daemon(
            folders=folders,
            watch=Watch(folders.inbox.root, self.settings.inbox.polling, signals.wake.set, hint),
            store=store,
            pipeline=pipeline,
            recovery=Recovery(
                store,
                lambda: daemon.folders.inbox.root,
                lambda name: daemon.folders.match(name),  # noqa: PLW0108 - the folders are replaced by a reload
                self.clock,
                host,
                log,
                shared=self.settings.database.is_postgres,
                is_logged=lambda run_id: is_logged(self.settings.log.file, run_id),
                notices=self._outbox.of_verdict,
            ),
            retention=Retention(store, self.settings.archive, self.settings.retention, self.clock),
            log=log,
            clock=self.clock,
            wake=signals.wake,
            hook=hook,
            stopping=signals.is_stopping,
            leaving=signals.leaving,
            on_verdict=self._has_ended,
        )
        return daemon

    def _ready(self, daemon: Daemon, log: Logger, notifier: Notifier) -> None:
        """Say that the daemon has started, once all others that can be asked say so too."""
        self._publish(daemon)
        self._write_state(daemon)
        emit(
            log,
            Event.DAEMON_STARTED,
            pid=os.getpid(),
            host=os.uname().nodename,
            version=__version__,
            inbox=self.settings.inbox.path,
            database=self.settings.database.shown_url,
            config=self.settings.source or "none: the defaults are in force",
            reload="a new or changed config takes effect after a reload (HUP)",
            files_waiting=daemon.survey.total,
        )
        collect_seldom()
        notifier.ready(status_line(daemon, self._refused))

    def _after_pass(self, daemon: Daemon, notifier: Notifier) -> None:
        now = self._published.beat = self.clock.monotonic()
        notifier.watchdog(now)
        if self.signals.reload or now >= self._reload_due:
            self._reload_tries = 0 if self.signals.reload else self._reload_tries
            self.signals.reload = False
            notifier.reloading(now)
            self._reload(daemon)
            collect_now()
            notifier.ready(status_line(daemon, self._refused))
        shown, self._published.work = self._published.work, None
        if self._count is not None:
            self._publish(daemon)
        reload_in_s = max(self._reload_due - now, 0.0)
        patience = min(
            reload_in_s, notifier.feed_every_s, self._outbox.look_at(daemon.pending, daemon.folders.inbox.aside)
        )
        if self._arrivals is not None and not daemon.database_pauses():
            patience = min(patience, self._arrivals.look(daemon.folders.feeds))
        if now - self._state_written < STATE_EVERY_S and shown is None:
            daemon.longest_wait_s = min(STATE_EVERY_S, patience)  # what was done since is not written yet
            return
        self._tell(daemon, notifier)
        daemon.longest_wait_s = min(LONGEST_WAIT_S, patience)

    def _tell(self, daemon: Daemon, notifier: Notifier, work: Work | None = None) -> None:
        """Tell all who ask, and the service manager, how the daemon stands."""
        self._state_written = self.clock.monotonic()
        self._write_state(daemon)
        notifier.status(status_line(daemon, self._refused, work))

    def _has_ended(self, verdict: Verdict) -> None:
        self._outbox.wake()
        if self._arrivals is not None:
            self._arrivals.has_ended(verdict)
        if self._count is not None:
            self._count(verdict)

    def _reload(self, daemon: Daemon) -> None:
        """Take over a changed config whole, or keep the old one whole."""
        try:
            settings = self.load_settings()
            _refuse_what_needs_a_restart(self.settings, settings)
            make_folders(settings)
            hold_apart(settings)
            daemon.store.prepare(settings.feeds)
            archive = own_archive(settings, self._database)
        except InboxdError as fault:
            self._keep_old(daemon, fault)
            return
        self._refused, self._reload_due = None, float("inf")
        self._archive.close()
        self._archive = archive
        if state_file(settings) != state_file(self.settings):
            remove_state(state_file(self.settings))  # nothing would ever correct the old one
        self.settings = self._published.settings = settings
        daemon.folders = folders_of(settings, daemon.pipeline.progress, daemon.folders)
        daemon.pipeline = replace(daemon.pipeline, max_file_size=settings.inbox.max_file_size)
        daemon.retention = Retention(daemon.store, settings.archive, settings.retention, self.clock)
        self._outbox.replace(settings.notify)
        compile_feed.cache_clear()  # what it has of feeds that are no more would stay
        emit(daemon.log, Event.CONFIG_RELOADED, config=settings.source, feeds=[feed.name for feed in settings.feeds])

    def _keep_old(self, daemon: Daemon, fault: InboxdError) -> None:
        """Say, once, why the new config is not in force; where the fault is transient, it is loaded again later."""
        transient = isinstance(fault, TransientFault)
        self._reload_tries += 1
        pause = pause_after(self._reload_tries) if transient else float("inf")
        self._reload_due = self.clock.monotonic() + pause
        if not transient or self._reload_tries == 1:
            emit(daemon.log, Event.CONFIG_REJECTED, error_code=fault.code, error=fault.message, hint=fault.hint)
        self._refused = Refused(fault.code, fault.message, fault.hint, stamp(self.clock.now()))

    def _serve(self, stack: ExitStack, log: Logger) -> None:
        listen = self.http or self.settings.http.listen
        if not listen:
            return
        from inboxd.web import serve  # noqa: PLC0415 - the web stack is imported only where a page is asked for

        self._count = stack.enter_context(serve(listen, self._published, log)).count

    def _publish(self, daemon: Daemon) -> None:
        self._published.state = self._state(daemon)
        self._published.inbox_lost = daemon.lost

    def _write_state(self, daemon: Daemon) -> None:
        write_state(state_file(self.settings), self._state(daemon))

    def _state(self, daemon: Daemon) -> DaemonState:
        late = () if self._arrivals is None else self._arrivals.standing
        work = self._published.work
        return state_of(daemon, self.settings, since=self._since, refused=self._refused, expected=late, work=work)


def _exit_code(daemon: Daemon) -> int:
    """Return what ``run --once`` ends with."""
    failed = EXIT_FAILED if daemon.tally.failed or daemon.waiting else 0
    return EXIT_UNAVAILABLE if daemon.database_attempts else failed


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


def timed(log: Logger, clock: Clock) -> Hook:
    """Return a hook that logs, at debug level, how long each step took."""
    began: dict[Step, float] = {}

    def hook(step: Step, edge: Edge) -> None:
        if edge is Edge.BEFORE:
            began[step] = clock.monotonic()
        else:
            milliseconds = round((clock.monotonic() - began[step]) * 1000, 3)
            emit(log, Event.STEP_TIMED, step=step.value, duration_ms=milliseconds)

    return hook
