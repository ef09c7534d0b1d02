"""How watchdog is made to tell what happened at once, and to admit when it does not know."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Final

from watchdog.events import (
    DirCreatedEvent,
    DirModifiedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
)
from watchdog.observers.api import BaseObserver, EventEmitter
from watchdog.observers.inotify import InotifyFullEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)
from watchdog.observers.inotify_move_event_grouper import GroupedInotifyEvent, PathedInotifyEvent

logging.getLogger("watchdog").addHandler(logging.NullHandler())  # what it warns of, we notice; stderr is for our lines

EVENTS: Final = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_DELETE_SELF
)
"""No IN_MOVED_FROM: watchdog holds an unpaired one, and all behind it, for 0.5 s, so taking a file out would delay the
next one by 490 ms (measured; 0.05 ms without). And so few events that 50,000 files at once do not overflow the queue.
"""


class InboxFD(InotifyFD):
    """The kernel's queue of events. The callbacks are called from its own thread."""

    def __init__(self, root: str, *, on_overflow: Callable[[], None], on_gone: Callable[[], None]) -> None:
        super().__init__()
        self._root = os.fsencode(root)
        self._root_wd: WatchDescriptor | None = None
        self._on_overflow = on_overflow
        self._on_gone = on_gone
        self.limited: OSError | None = None
        """Why some folder below the inbox could not be watched."""

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        """Watch a folder, but none that is hidden: what inboxd itself does in ``.claimed`` wakes nobody.

        Unlike the original it takes a refusal (EACCES) for one, and a folder that was renamed within the inbox, and so
        keeps its descriptor, for no reason to warn.
        """
        if b"/." in path[len(self._root) :]:
            raise FileNotFoundError  # the caller passes over folders below the root that cannot be watched
        try:
            with self._lock:
                watch = self._get_or_create_watch(path, mask)
                watch.callbacks[id_] = callback
        except OSError as error:
            if error.errno == errno.ENOSPC and path != self._root:
                self.limited = error
            raise
        if watch.wd < 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        if path == self._root:
            self._root_wd = watch.wd
        return watch.wd

    def handle_event(self, event: InotifyEvent) -> None:
        """Pass an event on; say when some were lost, and when the inbox itself is not watched any more."""
        super().handle_event(event)
        if event.is_queue_overflow:
            self._on_overflow()
        elif event.is_ignored and event.wd == self._root_wd:  # deleted or unmounted
            self._on_gone()


class _InboxWatchGroup(InotifyWatchGroup):
    """The inbox and the folders in it."""

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:  # noqa: ARG002 - as inherited
        """Report nothing for what is in a new folder: it would be called created, though it may be complete.

        The folder's own event makes the scan look into it.
        """
        return []


class InboxEmitter(InotifyFullEmitter):
    """Tells a rename in from a file that is only being created; ``InotifyEmitter`` calls both created."""

    def on_thread_start(self) -> None:
        """Set the watches; raises ``OSError`` if the inbox itself cannot be watched."""
        self._inotify = _InboxWatchGroup(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            event_mask=self.get_event_mask_from_filter(),
            is_recursive=True,
        )

    def get_event_mask_from_filter(self) -> Mask:
        """Ask the kernel for what is needed, and nothing else."""
        return EVENTS

    def build_and_queue_event(self, event: GroupedInotifyEvent, *, full_events: bool = True) -> None:  # noqa: ARG002 - as inherited
        """Queue one event for one event: no modified parents, no made-up events for what a new folder holds.

        ``full_events`` is inherited: this is always full, that is, a rename in is told as one.
        """
        if not isinstance(event, PathedInotifyEvent):
            return  # a pair needs an IN_MOVED_FROM, which is not asked for
        happened = _event(event.ev, os.fsdecode(event.path))
        if happened is not None:
            self.queue_event(happened)


def _event(event: InotifyEvent, path: str) -> FileSystemEvent | None:
    if event.is_directory:
        return DirCreatedEvent(path) if event.is_create or event.is_moved_to else None
    if event.is_moved_to:
        return FileMovedEvent("", path)
    if event.is_close_write:
        return FileClosedEvent(path)
    return FileCreatedEvent(path) if event.is_create else None


class InboxObserver(BaseObserver):
    """Watches one inbox with inotify. Raises ``OSError`` when the kernel has no queue to give."""

    def __init__(self, root: str, *, on_overflow: Callable[[], None], on_gone: Callable[[], None]) -> None:
        self.fd = InboxFD(root, on_overflow=on_overflow, on_gone=on_gone)
        self.fd.start()
        super().__init__(InboxEmitter, inotify_fd=self.fd)

    def on_thread_stop(self) -> None:
        """Stop the emitter, then the thread that reads the kernel's queue."""
        super().on_thread_stop()
        self.fd.stop()
        self.fd.join()


class PollEmitter(EventEmitter):
    """Says every ``timeout`` seconds that something may have changed.

    watchdog's own holds two snapshots of the whole tree (100,000 files: 200 MB) to find out what did; the scan finds
    out anyway.
    """

    def queue_events(self, timeout: float) -> None:
        """Wait, then say so."""
        if not self.stopped_event.wait(timeout):
            self.queue_event(DirModifiedEvent(self.watch.path))


class PollObserver(BaseObserver):
    """Watches where the kernel cannot."""

    def __init__(self, interval: float) -> None:
        super().__init__(PollEmitter, timeout=interval)
