"""Connections, bounded in patience: a client that is slow, silent or greedy is let go of."""

from __future__ import annotations

import asyncio
import fcntl
import termios
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

CHECK_EVERY_S: Final = 2.0
SILENCE_S: Final = 10.0
"""How long a connection may be without a whole request."""
STUCK_S: Final = 15.0
"""How long a client may take nothing of an answer that waits for it."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection, which must make progress. Owned by the page's event loop."""

    since = 0.0
    """Since when there was no whole request (the loop's time, s)."""
    has_spoken = False
    """Whether anything was heard since the last answer."""
    _unsent = 0
    _moved = 0.0
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Take the connection."""
        super().connection_made(transport)
        self.since = self._moved = self.loop.time()
        self._check = self.loop.call_later(CHECK_EVERY_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client says."""
        self.has_spoken = True
        super().data_received(data)

    @property
    def is_answered(self) -> bool:
        """Whether an answer is being made or sent."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request, whatever uvicorn declares
        return cycle is not None and not cycle.response_complete

    @property
    def has_unread(self) -> bool:
        """Whether the client has said something that was not read yet: the loop may be behind."""
        listening = self.transport.get_extra_info("socket")
        try:
            return fcntl.ioctl(listening.fileno(), termios.FIONREAD, bytes(4)) != bytes(4)
        except (OSError, ValueError):  # closed in between
            return False

    @property
    def is_leaving(self) -> bool:
        """Whether it is being closed."""
        return self.transport.is_closing()

    def dismiss(self) -> None:
        """Close it now."""
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.since = self.loop.time()
        self.has_spoken = False
        super().on_response_complete()

    def _look(self) -> None:
        """Let go of a client that neither asks nor listens."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        silent = not self.is_answered and now - self.since > SILENCE_S
        if silent or now - self._moved > STUCK_S:
            self.transport.abort()
            return
        self._check = self.loop.call_later(CHECK_EVERY_S, self._look)
