"""The daemon as a process: builds everything, takes the locks, listens to signals."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from inboxd import __version__
from inboxd.clock import Clock, SystemClock, stamp
from inboxd.config import Settings
from inboxd.daemon import Daemon
from inboxd.errors import EXIT_FAILED, EXIT_UNAVAILABLE, Interrupted, TransientFault
from inboxd.events import Event
from inboxd.garbage import collect_seldom
from inboxd.inbox.settle import Kind
from inboxd.inbox.watch import Watch
from inboxd.libraries import listen_to_libraries
from inboxd.locks import DaemonLock
from inboxd.log import Logger, emit, is_logged, open_log
from inboxd.notify import Notifier
from inboxd.operate.retention import Retention
from inboxd.outbox.arrivals import Arrivals
from inboxd.outbox.notices import Receivers
from inboxd.outbox.outbox import Outbox
from inboxd.outcomes import Edge, Hook, Step, Verdict
from inboxd.pipeline import Pipeline
from inboxd.premises import hold_apart, make_folders, state_file
from inboxd.presence import LONGEST_WAIT_S, Published, clear_state
from inboxd.recovery import Recovery
from inboxd.reload import Reload, folders_of
from inboxd.signals import Signals
from inboxd.standing import STATE_EVERY_S, Standing
from inboxd.store import open_store
from inboxd.store.database import Store

MIGRATION_S: Final = 3_600.0
"""How long the service manager is asked to wait for a start that has to migrate a large database first."""
LAST_NOTICES_S: Final = 10.0
"""How long ``--once`` waits for its last notices; what is undelivered then, the next start delivers."""


@dataclass(slots=True)
class Service:
    """One run of the daemon, from its settings to its exit code."""

    settings: Settings
    """Those that it starts with; a reload may put others in force."""
    load_settings: Callable[[Path | None], Settings]
    """Loads them anew; it is told which file those in force are from."""
    http: str = ""
    signals: Signals = field(default_factory=Signals.installed)
    hook: Hook | None = None
    """Called at each edge of a step, in place of the timing at debug level."""
    clock: Clock = field(default_factory=SystemClock)
    _standing: Standing = field(init=False)
    _outbox: Outbox = field(init=False)
    _reload: Reload = field(init=False)
    _count: Callable[[Verdict], None] | None = None
    """Counts a file's end in the metrics, where there is a page to show them."""

    def __post_init__(self) -> None:
        """Make what tells others of events: it is there before the log is."""
        url, published = self.settings.database.url, Published(self.settings)
        notifier = Notifier.from_environment(os.environ)
        self._standing = Standing(published, self.clock, notifier, since=stamp(self.clock.now()))
        self._outbox = Outbox(Receivers(self.settings.notify), lambda tick: open_store(url, tick=tick), self.clock)
        self._reload = Reload(self.load_settings, published, self._outbox, self.clock)

    def run(self, *, once: bool = False) -> int:
        """Run until a signal (or, with ``once``, until the inbox is empty); return the exit code."""
        signals, lines = self.signals, self.settings.log
        log = open_log(
            fmt=lines.format, level=lines.level, file=lines.file, layout=lines.layout, noticing=self._outbox.on_line
        )
        code = files = 0
        with ExitStack() as stack:
            stack.callback(signals.close)
            stack.callback(listen_to_libraries(log, self.clock))
            stack.callback(self._outbox.stop)
            make_folders(self.settings)
            self._lock(stack)
            try:
                daemon = self._build(stack, log)
                ready = partial(self._ready, daemon)
                work = daemon.drain if once else daemon.run
                work(ready)
                files = daemon.tally.total
                if once:
                    self._outbox.settle(LAST_NOTICES_S)
                code = _exit_code(daemon) if once else 0
                self._standing.end()
            except (Interrupted, TransientFault):  # a stop may come into a wait for the database, also before the loop
                if not signals.is_stopping():
                    raise
            if signals.newly_stopping() or once:
                self._standing.notifier.stopping()
            emit(log, Event.DAEMON_STOPPED, reason=signals.reason or "once", files=files)
        return code

    def _lock(self, stack: ExitStack) -> None:
        lock = DaemonLock()
        stack.callback(lock.release)
        if not self.settings.database.is_postgres:
            lock.acquire_database(self.settings.database.sqlite_path)
            lock.acquire_inbox(self.settings.inbox.path)
        hold_apart(self.settings)

    def _build(self, stack: ExitStack, log: Logger) -> Daemon:
        """Open the database and put the daemon together, and the page if there is to be one."""
        store = stack.enter_context(self._store(log))
        self._reload.own_archive(store.identity())
        stack.callback(self._reload.release)
        clear_state(state_file(self.settings))
        self._outbox.start(log)
        self._standing.arrivals = Arrivals(store, log, self.clock, self._outbox.of_event, self._outbox.wake)
        daemon = self._daemon(store, log)
        daemon.on_pass = self._after_pass
        stack.callback(daemon.watch.stop)
        self._standing.follow(daemon)
        self._serve(stack, log)
        return daemon

    def _tick(self) -> None:
        """Be called at each sign of progress."""
        if self.signals.stopping:
            if self.signals.newly_stopping():
                self._standing.notifier.stopping()
            self.signals.check()
        self._standing.look_at_work(self._standing.beat())

    def _store(self, log: Logger) -> Store:
        notifier = self._standing.notifier
        store = open_store(self.settings.database.url, tick=self._tick, silence=notifier.silent)
        if not store.schema_current():
            notifier.need_time(MIGRATION_S)
        if store.upgrade():
            emit(log, Event.DATABASE_UPGRADED, version=__version__)
        store.prepare(self.settings.feeds)
        store.announce(os.uname().nodename)
        return store

    def _daemon(self, store: Store, log: Logger) -> Daemon:
        signals = self.signals
        folders = folders_of(self.settings, self._tick)
        host = os.uname().nodename
        timing = timed(log, self.clock) if self.settings.log.level == "debug" else None
        hook = self._standing.followed(self.hook or timing)
        limit = self.settings.inbox.max_file_size
        pipeline = Pipeline(store, self.clock, host, limit, hook, self._tick, self._outbox.of_verdict)
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

    def _ready(self, daemon: Daemon) -> None:
        """Say that the daemon has started, once all others that can be asked say so too."""
        self._standing.publish(daemon)
        self._standing.write(daemon)
        emit(
            daemon.log,
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
        self._standing.ready(daemon)

    def _after_pass(self, daemon: Daemon) -> None:
        standing = self._standing
        now = standing.beat()
        was_shown, standing.published.work = standing.published.work is not None, None
        if self.signals.reload or now >= self._reload.due:
            asked, self.signals.reload = self.signals.reload, False
            standing.notifier.reloading(now)
            self._reload.run(daemon, asked=asked)
            standing.ready(daemon)
        if self._count is not None:
            standing.publish(daemon)
        patience = min(
            max(self._reload.due - now, 0.0),
            standing.notifier.feed_every_s,
            self._outbox.look_at(daemon.pending, daemon.folders.inbox.aside),
        )
        if standing.arrivals is not None and not daemon.database_pauses():
            patience = min(patience, standing.arrivals.look(daemon.folders.feeds))
        if was_shown or standing.is_due(now):
            standing.tell(daemon)
            daemon.longest_wait_s = min(LONGEST_WAIT_S, patience)
        else:
            daemon.longest_wait_s = min(STATE_EVERY_S, patience)  # what was done since is not written yet

    def _has_ended(self, verdict: Verdict) -> None:
        self._outbox.wake()
        if self._standing.arrivals is not None:
            self._standing.arrivals.has_ended(verdict)
        if self._count is not None:
            self._count(verdict)

    def _serve(self, stack: ExitStack, log: Logger) -> None:
        listen = self.http or self.settings.http.listen
        if not listen:
            return
        from inboxd.web import serve  # noqa: PLC0415 - the web stack is imported only where a page is asked for

        self._count = stack.enter_context(serve(listen, self._standing.published, log)).count


def _exit_code(daemon: Daemon) -> int:
    """Return what ``run --once`` ends with."""
    failed = EXIT_FAILED if daemon.tally.failed or daemon.waiting else 0
    return EXIT_UNAVAILABLE if daemon.database_attempts else failed


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
