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

    def wait(self, timeout: float, other: int = -1) -> bool:
        """Wait at most ``timeout`` seconds, or until another descriptor can be read from (-1: there is none).

        Tell whether somebody called ``set`` since the last wait.
        """
        wanted = select.poll()
        wanted.register(self._fd, select.POLLIN)
        if other >= 0:
            wanted.register(other, select.POLLIN)
        if all(fd != self._fd for fd, _ in wanted.poll(max(timeout, 0.0) * 1000)):
            return False
        return os.eventfd_read(self._fd) > 0

    def close(self) -> None:
        """Give the descriptor back; a later ``set`` does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
