"""Something happened in the inbox: wakes the loop, hints at single files, and notices when it can no longer tell."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from inboxd.inbox.emitter import InboxObserver, PollObserver
from inboxd.inbox.mounts import filesystem_of, is_remote
from inboxd.inbox.notices import INBOX_LOST, INBOX_OVERFLOW, INBOX_POLLED, INBOX_RESTORED, Notice
from inboxd.inbox.settle import Kind
from inboxd.inbox.tree import Folder

POLL_S: Final = 1.0
"""How often a polled inbox is looked at; an expensive look is taken less often (see ``Inbox.survey``)."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about the inbox, only that this process is short of something."""

Hint = Callable[[str, Kind], bool]
"""Takes a name relative to the inbox; tells whether to wake the loop for it. Called from the watcher's thread."""


class Watch:
    """Watches one inbox. ``start``, ``check`` and ``stop`` belong to the loop's thread.

    ``wake`` and ``hint`` are called from the watcher's threads. ``polling`` is ``auto``, ``always`` or ``never``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        polling: str,
        wake: Callable[[], None],
        hint: Hint,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._root = os.fspath(root)
        self._polling = polling
        self._wake = wake
        self._hint = hint
        self._poll_s = poll_s
        self._observers: list[BaseObserver] = []
        self._inotify: InboxObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._prefix = 0  # set while no watcher runs
        self._started = False
        self._said_polled = False
        self._overflowed = threading.Event()  # set by the watcher's threads, cleared by the loop's
        self._gone = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether the inbox is gone, or cannot be watched."""
        return self._started and self._identity is None

    @property
    def queue(self) -> int | None:
        """The kernel's queue of events, if there is one; belongs to the loop's thread, which reads nothing from it."""
        return None if self._inotify is None else self._inotify.fd.queue

    def start(self) -> list[Notice]:
        """Set the watch. An inbox that is not there is no error: it is lost, and watched when it comes."""
        if self._started:
            return []
        self._started = True
        reason, notices = self._begin()
        return [*notices, Notice(INBOX_LOST, "", reason)] if reason else notices

    def stop(self) -> None:
        """End the watch and its threads. May be called twice, or before ``start``."""
        self._started = False
        self._end()

    def check(self, inbox: Folder | None = None) -> list[Notice]:
        """Compare the path with what is watched, and watch anew where they differ. Cheap (4 µs): for every wake.

        ``inbox``: what is at the path now, if it could be opened to be listed.
        """
        if not self._started:
            return []
        notices: list[Notice] = []
        if self._identity is not None:
            lost = self._why_lost(inbox)
            if lost:
                self._end()
                notices.append(Notice(INBOX_LOST, "", lost))
            elif self._overflowed.is_set():
                notices += self._anew()
            else:
                notices += self._check_limit()
        if self._identity is None:
            reason, begun = self._begin()
            if not reason:
                notices += [*begun, Notice(INBOX_RESTORED, "", "it is watched again, and scanned")]
                self._hint("", Kind.RESCAN)
        return notices

    def _anew(self) -> list[Notice]:
        """Watch anew after events were lost: folders may have come and gone with them."""
        self._overflowed.clear()
        self._end()
        reason, notices = self._begin()
        self._hint("", Kind.RESCAN)
        lost = [Notice(INBOX_LOST, "", reason)] if reason else []
        return [Notice(INBOX_OVERFLOW, "", "events were lost; the whole inbox is scanned"), *notices, *lost]

    def _why_lost(self, inbox: Folder | None) -> str:
        """Tell why the inbox is not what is being watched, or ``""``."""
        try:
            identity = self._found() if inbox is None else inbox.identity()
        except OSError as error:
            return "" if error.errno in _OURS else _reason(error)
        if identity != self._identity:
            return "another folder, or another filesystem, has taken its place"
        if self._gone.is_set():  # also where the new folder got the old one's inode number
            return "it was deleted or unmounted, and made again"
        if not all(_alive(observer) for observer in self._observers):
            return "the watcher's thread ended"
        return ""

    def _found(self) -> tuple[int, int]:
        """Return device and inode of what is at the path; raises ``OSError`` if it may not be listed and searched."""
        with Folder.root(self._root, listed=True) as inbox:
            return inbox.identity()

    def _check_limit(self) -> list[Notice]:
        """Where some folder cannot be watched, poll as well."""
        if self._inotify is None or self._inotify.fd.limited is None or len(self._observers) > 1:
            return []
        self._poll()
        return self._polled(_limit_reason(self._inotify.fd.limited))

    def _begin(self) -> tuple[str, list[Notice]]:
        """Watch what is there now; return why that is not possible, or ``""``, and what else is to be said."""
        self._gone.clear()
        self._overflowed.clear()
        try:
            identity = self._found()
        except OSError as error:
            return _reason(error), []
        place = os.path.realpath(self._root)  # inotify is told not to follow a symlink
        notices: list[Notice] = []
        if self._polling == "always" or (self._polling == "auto" and is_remote(place)):
            if self._polling == "auto":
                notices = self._polled(f"{filesystem_of(place)} does not tell what other hosts do")
            self._poll()
        else:
            try:
                self._listen(place)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS}:
                    self._end()
                    return _reason(error), []
                notices = self._polled(_limit_reason(error))
                self._poll()
        self._identity = identity
        return "", notices

    def _polled(self, reason: str) -> list[Notice]:
        if self._said_polled:
            return []
        self._said_polled = True
        return [Notice(INBOX_POLLED, "", reason)]

    def _listen(self, place: str) -> None:
        self._prefix = len(place) + 1
        observer = InboxObserver(place, self)
        try:
            observer.schedule(FileSystemEventHandler(), place, recursive=True)
            observer.start()
        except OSError:
            observer.fd.stop()
            observer.fd.join()
            raise
        self._inotify = observer
        self._observers.append(observer)

    def _poll(self) -> None:
        observer = PollObserver(self._poll_s)
        observer.schedule(_Clockwork(self._wake), self._root)
        observer.start()
        self._observers.append(observer)

    def _end(self) -> None:
        observers, self._observers = self._observers, []
        self._inotify, self._identity = None, None
        for observer in observers:
            observer.stop()
            observer.join()

    def happened(self, path: str, kind: Kind) -> None:
        """Pass on what happened to a file; wake the loop if that is worth it. Called from the watcher's thread."""
        if self._hint(path[self._prefix :], kind):
            self._wake()

    def overflowed(self) -> None:
        """Note that events were lost. Called from the watcher's thread."""
        self._overflowed.set()
        self._wake()

    def gone(self) -> None:
        """Note that what is watched is no more. Called from the watcher's thread."""
        self._gone.set()
        self._wake()


class _Clockwork(FileSystemEventHandler):
    """Wakes the loop whenever the poller says so."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def dispatch(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - as inherited
        """Wake the loop."""
        self._wake()


def _alive(observer: BaseObserver) -> bool:
    if isinstance(observer, InboxObserver):
        return observer.fd.is_alive()  # it alone reads events and tells; the library's other threads have nothing to do
    return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is gone; make it again, or mount it, and it is watched again"
    return f"it cannot be listed: {os.strerror(error.errno or 0)}"


def _limit_reason(error: OSError) -> str:
    limit = "max_user_instances" if error.errno == errno.EMFILE else "max_user_watches"
    return f"the kernel gives no more inotify watches: raise fs.inotify.{limit} with sysctl"
