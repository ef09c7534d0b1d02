"""What the service manager is told, over the datagram socket that it names in ``$NOTIFY_SOCKET``.

The protocol is sd_notify(3) of systemd: newline-separated assignments in one datagram. Without the variable
(a terminal, a container without an init) nothing is sent and nothing fails. A manager that does not answer must
not hold up a file either: a datagram that cannot be handed over in time is dropped, and the caller is told.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

SEND_TIMEOUT_S: Final = 1.0
"""How long what must be heard may wait for room in the manager's queue; a status line does not wait for it."""
FEEDS_PER_PERIOD: Final = 4
"""How often the watchdog is fed in one period; sd_watchdog_enabled(3) advises at least two."""


@dataclass(slots=True)
class Notifier:
    """The line to the service manager, owned by the main thread. Methods tell whether the datagram was handed over."""

    address: str | None = None
    """Path of the manager's socket, ``@name`` for one in the abstract namespace, ``None`` for no manager."""
    watchdog_s: float | None = None
    """Seconds without ``watchdog()`` after which the manager kills the process; ``None`` if it does not watch."""
    _fed: float = float("-inf")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int | None = None) -> Self:
        """Read ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``; the watchdog of another ``WATCHDOG_PID`` is not ours."""
        address = environ.get("NOTIFY_SOCKET", "")
        period = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid() if pid is None else pid)}
        usec = int(period) if ours and period.isascii() and period.isdigit() else 0
        return cls(
            address=address if address.startswith(("/", "@")) else None,
            watchdog_s=usec / 1_000_000 if usec else None,
        )

    @property
    def feed_every_s(self) -> float:
        """How long the loop may sleep and still feed the watchdog in time; infinite without one."""
        return float("inf") if self.watchdog_s is None else self.watchdog_s / FEEDS_PER_PERIOD

    def send(self, *assignments: str, wait_s: float = 0.0) -> bool:
        """Send the assignments in one datagram; wait so long for room in the manager's queue."""
        if self.address is None:
            return False
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.connect(address)  # only a connected socket can wait for room without asking again and again
                line.settimeout(wait_s)
                line.send("\n".join(assignments).encode("utf-8", "replace"))
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        """Say that start-up, or a reload, is over."""
        return self.send("READY=1", f"STATUS={_one_line(status)}", wait_s=SEND_TIMEOUT_S)

    def status(self, status: str) -> bool:
        """Set the line that ``systemctl status`` shows."""
        return self.send(f"STATUS={_one_line(status)}")

    def watchdog(self, now: float) -> bool:
        """Say that there was progress by ``now`` (monotonic, s); to be called at every proof of it, sends when due."""
        if self.address is None or now - self._fed < self.feed_every_s:
            return False
        self._fed = now
        return self.send("WATCHDOG=1")

    def silent(self, seconds: float) -> bool:
        """Say that for so long there can be no proof of progress, as while a disk is waited for; 0 ends it."""
        if self.watchdog_s is None:
            return False
        period = int((self.watchdog_s + seconds) * 1_000_000)
        return self.send("WATCHDOG=1", f"WATCHDOG_USEC={period}", wait_s=SEND_TIMEOUT_S)

    def reloading(self, now: float) -> bool:
        """Say that a new configuration is being read; ``ready()`` ends it. ``Type=notify-reload`` wants the time."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}", wait_s=SEND_TIMEOUT_S)

    def stopping(self) -> bool:
        """Say that an orderly stop has begun."""
        return self.send("STOPPING=1", "STATUS=stopping", wait_s=SEND_TIMEOUT_S)

    def need_time(self, seconds: float) -> bool:
        """Ask for that much longer, from now, to start: a migration may outlast ``TimeoutStartSec=``."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
