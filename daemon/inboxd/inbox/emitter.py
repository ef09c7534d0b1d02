"""How watchdog is made to tell what happened at once, and to admit when it does not know."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from watchdog.events import DirModifiedEvent, FileSystemEvent
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch
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
from watchdog.observers.inotify_move_event_grouper import GroupedInotifyEvent

from inboxd.inbox.settle import Kind
from inboxd.inbox.tree import Folder, walk

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


class Listener(Protocol):
    """Who is told. All three are called from the watcher's thread."""

    def happened(self, path: str, kind: Kind) -> None:
        """Learn that something happened to ``path``."""

    def overflowed(self) -> None:
        """Learn that events were lost."""

    def gone(self) -> None:
        """Learn that what was watched is no more: deleted or unmounted."""


class InboxFD(InotifyFD):
    """The kernel's queue of events. The callbacks are called from its own thread."""

    def __init__(self, root: str, listener: Listener) -> None:
        super().__init__()
        self._root = os.fsencode(root)
        self._root_wd: WatchDescriptor | None = None
        self._listener = listener
        self.limited: OSError | None = None
        """Why some folder below the inbox could not be watched."""

    @property
    def queue(self) -> int:
        """The kernel's queue; readable while there are events that this thread has not read yet."""
        return self._inotify_fd

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
        try:
            super().handle_event(event)
        except Exception:  # noqa: BLE001 - the library's books are wrong: they are begun anew, as after an overflow
            self._listener.overflowed()
        if event.is_queue_overflow:
            self._listener.overflowed()
        elif event.is_ignored and event.wd == self._root_wd:  # deleted or unmounted
            self._listener.gone()


@dataclass
class _InboxWatchGroup(InotifyWatchGroup):
    """The inbox and the folders in it. Tells at once, in the thread that reads the kernel's queue.

    The original's way through two more threads and queues takes three times the processor time, which a burst of files
    takes from the loading of them.
    """

    listener: Listener | None = None

    def on_event(self, event: InotifyEvent) -> None:
        """Tell what happened; the original sees to the watches of new folders."""
        if event.mask & InotifyConstants.IN_ISDIR:
            super().on_event(event)
        kind = _kind(event.mask)
        folder = self._active_callbacks_by_watch.get(event.wd)
        if kind is not None and folder is not None and self.listener is not None:
            self.listener.happened(os.fsdecode(folder + b"/" + event.name), kind)

    def _add_all_callbacks(self, path: bytes) -> None:
        """Watch a folder and those below it, but none that the scan does not enter.

        The original goes into hidden ones as well, and down a thousand nested ones until its stack, and with it the
        thread, is at its end.
        """
        if b"/." in path[len(self.path) :]:
            return
        self._add_callback(path)
        start = os.fsdecode(path[len(self.path) + 1 :])

        def enter(name: str, _folder: Folder) -> bool:
            if name != start:
                self._add_callback(self.path + b"/" + os.fsencode(name))
            return True

        with suppress(OSError), Folder.root(os.fsdecode(self.path)) as inbox:  # gone, or shut: the scan says so
            for _ in walk(inbox, start=start, enter=enter, skip=_is_hidden):
                pass

    def deactivate(self) -> None:
        """Tell nothing any more. The kernel's watches end with its queue, which is this group's alone."""
        with self._lock:
            self._is_active = False
            self._move_event_grouper.close()

    def _remove_watch_internally(self, wd: WatchDescriptor) -> None:
        """Forget a watch.

        The original expects to know its path, which may be another folder's by now: of one that was moved away nothing
        is heard (``EVENTS``), and another may have taken its name, and have lost it again.
        """
        path = self._active_callbacks_by_watch.pop(wd, None)
        if path is not None and self._active_callbacks_by_path.get(path) == wd:
            del self._active_callbacks_by_path[path]

    def on_queue_overflow(self) -> None:
        """Leave it to ``Watch.check``, which watches anew: the original's books may be at odds with the folders."""

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:  # noqa: ARG002 - as inherited
        """Report nothing for what is in a new folder: the folder's own event makes the scan look into it."""
        return []


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _kind(mask: int) -> Kind | None:
    if mask & InotifyConstants.IN_ISDIR:
        return Kind.FOLDER if mask & (InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO) else None
    if mask & InotifyConstants.IN_MOVED_TO:
        return Kind.MOVED
    if mask & InotifyConstants.IN_CLOSE_WRITE:
        return Kind.CLOSED
    return Kind.CREATED if mask & InotifyConstants.IN_CREATE else None


class InboxEmitter(InotifyFullEmitter):
    """Tells a rename in from a file that is only being created; ``InotifyEmitter`` calls both created."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        timeout: float,
        event_filter: list[type[FileSystemEvent]] | None = None,
        inotify_fd: InotifyFD,
        listener: Listener,
    ) -> None:
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter, inotify_fd=inotify_fd)
        self._listener = listener

    def on_thread_start(self) -> None:
        """Set the watches; raises ``OSError`` if the inbox itself cannot be watched."""
        self._inotify = _InboxWatchGroup(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            event_mask=self.get_event_mask_from_filter(),
            is_recursive=True,
            listener=self._listener,
        )

    def get_event_mask_from_filter(self) -> Mask:
        """Ask the kernel for what is needed, and nothing else."""
        return EVENTS

    def build_and_queue_event(self, event: GroupedInotifyEvent, *, full_events: bool = True) -> None:
        """Queue nothing: everything was told already."""


class InboxObserver(BaseObserver):
    """Watches one inbox with inotify. Raises ``OSError`` when the kernel has no queue to give."""

    def __init__(self, root: str, listener: Listener) -> None:
        self.fd = InboxFD(root, listener)
        self.fd.start()
        super().__init__(InboxEmitter, inotify_fd=self.fd, listener=listener)

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
