"""What the service manager is told, over the datagram socket that it names in ``$NOTIFY_SOCKET``.

The protocol is sd_notify(3) of systemd: newline-separated assignments in one datagram. Without the variable
(a terminal, a container without an init) nothing is sent and nothing fails. A manager that does not answer must
not hold up a file either: a datagram that cannot be handed over at once is dropped, and the caller is told.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

SEND_TIMEOUT_S: Final = 1.0
"""How long a datagram may wait for room in the manager's queue; the shortest useful watchdog is a few seconds."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """The line to the service manager; every method tells whether the datagram was handed over."""

    address: str | None = None
    """Path of the manager's socket, ``@name`` for one in the abstract namespace, ``None`` for no manager."""
    watchdog_s: float | None = None
    """Seconds without ``alive()`` after which the manager kills the process; ``None`` if it does not watch."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Self:
        """Read ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``; the watchdog of another ``WATCHDOG_PID`` is not ours."""
        address = environ.get("NOTIFY_SOCKET", "")
        period = environ.get("WATCHDOG_USEC", "")
        watched = period.isascii() and period.isdigit() and environ.get("WATCHDOG_PID") in {None, "", str(pid)}
        usec = int(period) if watched else 0
        return cls(
            address=address if address.startswith(("/", "@")) else None,
            watchdog_s=usec / 1_000_000 if usec else None,
        )

    def send(self, *assignments: str) -> bool:
        """Send the assignments in one datagram."""
        if self.address is None:
            return False
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(SEND_TIMEOUT_S)
                line.sendto("\n".join(assignments).encode("utf-8", "replace"), address)
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        """Start-up, or a reload, is over."""
        return self.send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, status: str) -> bool:
        """One line for ``systemctl status``."""
        return self.send(f"STATUS={_one_line(status)}")

    def alive(self) -> bool:
        """Proven progress since the last call: put off the watchdog."""
        return self.send("WATCHDOG=1")

    def reloading(self) -> bool:
        """Say that a new configuration is being read; ``ready()`` ends it. ``Type=notify-reload`` wants the time."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "stopping") -> bool:
        """Say that an orderly stop has begun."""
        return self.send("STOPPING=1", f"STATUS={_one_line(status)}")

    def need_time(self, seconds: float) -> bool:
        """Ask for that much longer, from now, to start or to stop: a migration may outlast ``TimeoutStartSec=``."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
