"""Who is let in: a connection takes a file descriptor, and the daemon needs descriptors to open files.

There are so many places and no more. Who comes when all are taken gets the place of one who has asked for nothing yet;
so a probe is answered however many connections lie about. The others wait in the kernel, where they cost the daemon
nothing.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from inboxd.web.guard import Pace

MOST_PLACES: Final = 64
"""A browser opens at most 7 connections to one page: 6, and the events."""
FEWEST_PLACES: Final = 8
SHARE: Final = 8
"""Of the descriptors this process may have, an eighth is for visitors; the rest is the daemon's."""
AT_ONCE: Final = 8
"""Taken in one round of the loop: who has a place in this round can say what he wants in the next."""
PER_SECOND: Final = 500.0
BURST: Final = 500
"""Connections taken: more would take too much of the interpreter, which the page shares with the daemon."""
NO_PLACE_S: Final = 0.05
"""How soon it is looked again where every place is taken by one who is being answered."""
NO_DESCRIPTOR_S: Final = 1.0
SILENT_S: Final = 0.1
HALF_A_REQUEST_S: Final = 0.3
"""How long somebody who has said nothing, or half a request, keeps his place when others want it: a request comes right
behind its connection, so whoever has one is heard by then."""


class Visitor(Protocol):
    """A connection, as the door sees it."""

    @property
    def is_answered(self) -> bool:
        """Whether an answer is being made or sent."""
        ...

    @property
    def has_spoken(self) -> bool:
        """Whether anything was heard since the last answer."""
        ...

    @property
    def has_unread(self) -> bool:
        """Whether something it has said was not read yet."""
        ...

    @property
    def since(self) -> float:
        """Since when (the loop's time, s) there was no whole request."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether it is being closed."""
        ...

    def dismiss(self) -> None:
        """Close it now."""
        ...


def places() -> int:
    """Return how many connections there may be, by the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_PLACES
    return max(FEWEST_PLACES, min(MOST_PLACES, soft // SHARE))


class Door:
    """Takes connections from a listening socket. Owned by the page's event loop."""

    def __init__(
        self, listener: socket.socket, seat: Callable[[], asyncio.BaseProtocol], visitors: AbstractSet[Visitor]
    ) -> None:
        self._listener = listener
        self._seat = seat
        self._visitors = visitors
        """Those who have a place: each puts itself in and takes itself out."""
        self._arriving: set[asyncio.Task[object]] = set()
        self._places = places()
        self._pace = Pace(per_second=PER_SECOND, burst=BURST)
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def open(self) -> None:
        """Begin, or go on, to let connections in."""
        self._again = None
        self._loop.add_reader(self._listener.fileno(), self._knock)

    async def close(self) -> None:
        """Let nobody in any more, and wait for those on the doorstep: they are connections after this."""
        self._loop.remove_reader(self._listener.fileno())
        if self._again is not None:
            self._again.cancel()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _knock(self) -> None:
        for _ in range(AT_ONCE):
            if not self._has_place():
                self._pause(NO_PLACE_S)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor or no memory is left, in this process or on this machine
                self._pause(NO_DESCRIPTOR_S)
                return
            task = self._loop.create_task(self._let_in(connection))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
            if wait := self._pace.delay(self._loop.time()):
                self._pause(wait)
                return

    async def _let_in(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._seat, connection)
        except OSError:  # gone in the meantime
            connection.close()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(seconds, self.open)

    def _has_place(self) -> bool:
        """Tell whether there is a free place, after making one where that is possible."""
        there = [visitor for visitor in self._visitors if not visitor.is_leaving]
        if len(there) + len(self._arriving) < self._places:
            return True
        now = self._loop.time()
        idle = [visitor for visitor in there if not (visitor.is_answered or visitor.has_unread)]
        idle = [one for one in idle if now - one.since > (HALF_A_REQUEST_S if one.has_spoken else SILENT_S)]
        if not idle:
            return False
        min(idle, key=lambda visitor: (visitor.has_spoken, visitor.since)).dismiss()
        return True
