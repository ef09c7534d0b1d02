"""How the loop is woken: an eventfd, which threads and signal handlers may both write to.

``threading.Event`` will not do: a signal handler runs in the main thread, possibly inside ``Event.wait`` while it holds
the event's lock, and ``Event.set`` would then wait for itself.
"""

from __future__ import annotations

import os
import select


class Wake:
    """Wakes one waiting thread. ``set`` may be called from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Wake the waiting thread, now or at its next ``wait``."""
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; tell whether somebody called ``set`` since the last wait."""
        select.select([self._fd], [], [], max(timeout, 0.0))
        try:
            return os.eventfd_read(self._fd) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give the descriptor back; a later ``set`` does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
