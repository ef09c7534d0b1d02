"""What signals asked for. Their handlers set flags and wake the loop, and nothing else."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import FrameType
from typing import Final

from inboxd.clock import Clock
from inboxd.errors import Interrupted
from inboxd.wake import Wake

GRACE_S: Final = 5.0
"""After TERM the current file may take this long to finish; then it is rolled back. systemd allows ten seconds."""


@dataclass(slots=True)
class Signals:
    """What signals asked for. Handlers only set flags and wake the loop; a second signal changes nothing."""

    wake: Wake
    clock: Clock
    stopping: bool = False
    reload: bool = False
    stop_by: float = float("inf")
    reason: str = ""
    _told: bool = False

    def install(self) -> None:
        """Take TERM, INT and HUP; the main thread must call this."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if not self.stopping:
            self.reason = signal.Signals(number).name
            self.stop_by = self.clock.monotonic() + GRACE_S
        self.stopping = True
        self.wake.set()

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True
        self.wake.set()

    def is_stopping(self) -> bool:
        """Tell whether an orderly stop was asked for."""
        return self.stopping

    def newly_stopping(self) -> bool:
        """Tell, once, that a stop was asked for."""
        newly, self._told = self.stopping and not self._told, self.stopping
        return newly

    def check(self) -> None:
        """Raise ``Interrupted`` when the time a stop leaves to the current file is over."""
        if self.stopping and self.clock.monotonic() > self.stop_by:
            raise Interrupted
