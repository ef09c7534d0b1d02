"""Something happened in the inbox: what the loop waits for, hints at files, and that it can no longer tell."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from inboxd.inbox.emitter import InboxQueue, PollObserver
from inboxd.inbox.mounts import filesystem_of, is_remote
from inboxd.inbox.notices import INBOX_LOST, INBOX_OVERFLOW, INBOX_POLLED, INBOX_RESTORED, Notice
from inboxd.inbox.settle import Kind
from inboxd.inbox.tree import identity_of_listed

POLL_S: Final = 1.0
"""How often a polled inbox is looked at; an expensive look is taken less often (see ``Inbox.survey``)."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about the inbox, only that this process is short of something."""

Hint = Callable[[str, Kind], bool]
"""Takes a name relative to the inbox; tells whether it is worth a look."""


class Watch:
    """Watches one inbox. Owned by the loop's thread, which waits for what ``fileno`` says and then calls ``listen``.

    Only ``wake`` is called from another thread, where the inbox is polled. ``polling`` is ``auto``, ``always`` or
    ``never``.
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
        self._queue: InboxQueue | None = None
        self._poller: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._prefix = 0  # set while no watcher runs
        self._started = False
        self._said_polled = False
        self._heard = False  # something was, since the last `listen`, that is worth a look
        self._overflowed = False
        self._gone = False

    @property
    def lost(self) -> bool:
        """Whether the inbox is gone, or cannot be watched."""
        return self._started and self._identity is None

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

    def fileno(self) -> int:
        """Return the descriptor that can be read from once something has happened; -1 while there is none."""
        return -1 if self._queue is None else self._queue.fileno()

    def listen(self) -> bool:
        """Hint at what has happened; tell whether any of it is worth a look."""
        if self._queue is not None:
            self._queue.take()
        heard, self._heard = self._heard, False
        return heard

    def check(self) -> list[Notice]:
        """Compare the path with what is watched, and watch anew where they differ. Cheap (4 µs): for every look."""
        if not self._started:
            return []
        self.listen()
        notices: list[Notice] = []
        if self._identity is not None:
            lost = self._why_lost()
            if lost:
                self._end()
                notices.append(Notice(INBOX_LOST, "", lost))
            elif self._overflowed:
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
        self._end()
        reason, notices = self._begin()
        self._hint("", Kind.RESCAN)
        lost = [Notice(INBOX_LOST, "", reason)] if reason else []
        return [Notice(INBOX_OVERFLOW, "", "events were lost; the whole inbox is scanned"), *notices, *lost]

    def _why_lost(self) -> str:
        """Tell why the inbox is not what is being watched, or ``""``."""
        try:
            identity = identity_of_listed(self._root)
        except OSError as error:
            return "" if error.errno in _OURS else _reason(error)
        if identity != self._identity:
            return "another folder, or another filesystem, has taken its place"
        if self._gone:  # also where the new folder got the old one's inode number
            return "it was deleted or unmounted, and made again"
        if self._poller is not None and not _alive(self._poller):
            return "the poller's thread ended"
        return ""

    def _check_limit(self) -> list[Notice]:
        """Where some folder cannot be watched, poll as well."""
        if self._queue is None or self._queue.limited is None or self._poller is not None:
            return []
        self._poll()
        return self._polled(_limit_reason(self._queue.limited))

    def _begin(self) -> tuple[str, list[Notice]]:
        """Watch what is there now; return why that is not possible, or ``""``, and what else is to be said."""
        self._gone = self._overflowed = False
        try:
            identity = identity_of_listed(self._root)
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
        self._queue = InboxQueue(place, self)

    def _poll(self) -> None:
        poller = PollObserver(self._poll_s)
        poller.schedule(_Clockwork(self._wake), self._root)
        poller.start()
        self._poller = poller

    def _end(self) -> None:
        queue, poller = self._queue, self._poller
        self._queue = self._poller = self._identity = None
        if queue is not None:
            queue.close()
        if poller is not None:
            poller.stop()
            poller.join()

    def happened(self, path: str, kind: Kind) -> None:
        """Pass on what happened to a file."""
        self._heard |= self._hint(path[self._prefix :], kind)

    def overflowed(self) -> None:
        """Note that events were lost."""
        self._overflowed = self._heard = True

    def gone(self) -> None:
        """Note that what is watched is no more."""
        self._gone = self._heard = True


class _Clockwork(FileSystemEventHandler):
    """Wakes the loop whenever the poller says so."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def dispatch(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - as inherited
        """Wake the loop."""
        self._wake()


def _alive(poller: BaseObserver) -> bool:
    return poller.is_alive() and all(emitter.is_alive() for emitter in poller.emitters)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is gone; make it again, or mount it, and it is watched again"
    return f"it cannot be listed: {os.strerror(error.errno or 0)}"


def _limit_reason(error: OSError) -> str:
    limit = "max_user_instances" if error.errno == errno.EMFILE else "max_user_watches"
    return f"the kernel gives no more inotify watches: raise fs.inotify.{limit} with sysctl"
