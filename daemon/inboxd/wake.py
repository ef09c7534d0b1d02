"""How the loop is woken: an eventfd, which threads and signal handlers may both write to.

``threading.Event`` will not do: a signal handler runs in the main thread, possibly inside ``Event.wait`` while it holds
the event's lock, and ``Event.set`` would then wait for itself.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

READ_S: Final = 0.005
"""By then a thread that is awake has read its queue."""


class Wake:
    """Wakes one waiting thread. ``set`` may be called from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Wake the waiting thread, now or at its next ``wait``."""
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout: float, queue: int | None = None) -> bool:
        """Wait at most ``timeout`` seconds; tell whether somebody called ``set`` since the last wait.

        ``queue`` is a descriptor that a thread reads, to call ``set`` if that is worth it. Both wake at once then, not
        one after the other: a file is loaded 0.1 ms sooner.
        """
        until = time.monotonic() + timeout
        while self._ready(until - time.monotonic(), queue) == [queue]:
            if self._ready(READ_S) or time.monotonic() >= until:
                break
        try:
            return os.eventfd_read(self._fd) > 0
        except BlockingIOError:
            return False

    def _ready(self, timeout: float, queue: int | None = None) -> list[int]:
        """Wait for ``set``, or for something in the queue; return the descriptors that are ready."""
        asked = select.poll()
        for fd in (self._fd,) if queue is None else (self._fd, queue):
            asked.register(fd, select.POLLIN)
        return [fd for fd, _ in asked.poll(max(timeout, 0.0) * 1000)]

    def close(self) -> None:
        """Give the descriptor back; a later ``set`` does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
