"""Connections, bounded in number and in patience: a client that is slow, silent or greedy is let go of.

uvicorn bounds the requests that are worked on, but not the connections that never become one: those hold a file
descriptor each, and the daemon needs descriptors to open files.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_CONNECTIONS: Final = 64
"""Open connections at a time; one more is closed at once. A browser opens at most 7 to one page (6, and the events)."""
CHECK_EVERY_S: Final = 2.0
SILENCE_S: Final = 10.0
"""How long a connection may be without a whole request."""
STUCK_S: Final = 15.0
"""How long a client may take nothing of an answer that waits for it."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection, which must make progress. Owned by the page's event loop."""

    _since = 0.0
    _unsent = 0
    _moved = 0.0
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._since = self._moved = self.loop.time()
        self._check = self.loop.call_later(CHECK_EVERY_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        """Let go of a client that neither asks nor listens."""
        now = self.loop.time()
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request, whatever uvicorn declares
        answering = cycle is not None and not cycle.response_complete
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        silent = not answering and now - self._since > SILENCE_S
        if silent or now - self._moved > STUCK_S:
            self.transport.abort()
            return
        self._check = self.loop.call_later(CHECK_EVERY_S, self._look)
