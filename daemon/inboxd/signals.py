"""What signals asked for. Their handlers set flags and wake the loop, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, Self

from inboxd.clock import Clock, SystemClock
from inboxd.errors import Interrupted
from inboxd.wake import Wake

GRACE_S: Final = 5.0
"""After TERM the current file may take this long to finish; then it is rolled back. systemd allows ten seconds."""
LEAVE_S: Final = 2.5
"""What giving the claims back may take beyond that, where the database does not answer."""
TERMINAL: Final = "/dev/tty"


@dataclass(slots=True)
class Signals:
    """What signals asked for. Handlers only set flags and wake the loop; a second signal changes nothing."""

    wake: Wake = field(default_factory=Wake)
    clock: Clock = field(default_factory=SystemClock)
    stopping: bool = False
    reload: bool = False
    stop_by: float = float("inf")
    reason: str = ""
    _reported: bool = False
    _terminal: int = -1
    """The terminal that a HUP may be the end of; kept open, for its name means another one once it is gone."""

    @classmethod
    def installed(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Take TERM, INT and HUP from now on; the main thread must call this, before anything that takes its time.

        A HUP that comes when the terminal is gone is the terminal's end and the daemon's; under a service manager, or
        where ``nohup`` had it ignored, each HUP is a reload.
        """
        signals = cls()
        if not environ.get("NOTIFY_SOCKET") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals._terminal = _open_terminal()
        signal.signal(signal.SIGTERM, signals._stop)
        signal.signal(signal.SIGINT, signals._stop)
        signal.signal(signal.SIGHUP, signals._hang_up)
        return signals

    def close(self) -> None:
        """Give the descriptors back. Signals that come later are still harmless."""
        self.wake.close()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if not self.stopping:
            self.reason = signal.Signals(number).name
            self.stop_by = self.clock.monotonic() + GRACE_S
        self.stopping = True
        self.wake.set()

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._terminal >= 0 and not os.isatty(self._terminal):
            self._stop(number, frame)
            return
        self.reload = True
        self.wake.set()

    def is_stopping(self) -> bool:
        """Tell whether an orderly stop was asked for."""
        return self.stopping

    def newly_stopping(self) -> bool:
        """Tell, once, that a stop was asked for."""
        newly, self._reported = self.stopping and not self._reported, self.stopping
        return newly

    def check(self) -> None:
        """Raise ``Interrupted`` when the time a stop leaves to what is being done is over."""
        if self.stopping and self.clock.monotonic() > self.stop_by:
            raise Interrupted

    def leaving(self) -> None:
        """Leave some time for putting things back, whatever the stop had to wait for before."""
        self.stop_by = self.clock.monotonic() + LEAVE_S


def _open_terminal() -> int:
    try:
        return os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
