"""Questions to the database: asked on threads of their own, by connections that cannot write, and never for long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from inboxd.errors import InboxdError
from inboxd.store import open_store
from inboxd.store.database import Store

THREADS: Final = 2
"""One slow question does not hold up the others; more threads would take more of the daemon's processor."""
LONGEST_S: Final = 5.0
"""How long the statements of one question may take."""
MOST_WAITING: Final = 32
UNREADABLE: Final = "The database cannot be read right now. Files wait in the inbox until it can."

Answer = TypeVar("Answer")
Question = Callable[[Store], Answer]


class Unanswered(Exception):
    """A question without an answer. The message is for anybody: it holds no path, no URL, no driver's words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _TooSlow(Exception):
    """Raised into a statement that has taken too long."""


@dataclass(slots=True)
class _Connection:
    """One thread's own connection and deadline."""

    store: Store | None = None
    deadline: float = float("inf")


@dataclass(slots=True)
class Reader:
    """``ask`` is for the event loop; ``close`` ends the threads, and whatever they are still asking."""

    url: str
    threads: int = THREADS
    _pool: ThreadPoolExecutor = field(init=False)
    _local: threading.local = field(default_factory=threading.local)
    _connections: list[_Connection] = field(default_factory=list)
    _waiting: int = 0
    _closed: bool = False

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="inboxd-web-reader")

    async def ask(self, question: Question[Answer]) -> Answer:
        """Return the answer; ``Unanswered`` if the database cannot be read, is too slow, or is asked too much."""
        if self._waiting >= MOST_WAITING or self._closed:
            raise Unanswered("busy", "Too many requests at a time. Try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)
        finally:
            self._waiting -= 1

    async def ask_on_every_thread(self, question: Question[Answer]) -> list[Answer]:
        """Ask each thread's own connection the same, one after another; each keeps what it has compiled."""
        turn = threading.Lock()

        def in_turn(store: Store) -> Answer:
            with turn:
                return question(store)

        return list(await asyncio.gather(*(self.ask(in_turn) for _ in range(self.threads))))

    def _answer(self, question: Question[Answer]) -> Answer:
        connection = self._connection()
        connection.deadline = time.monotonic() + LONGEST_S
        try:
            if connection.store is None:
                connection.store = open_store(self.url, readonly=True, tick=lambda: self._tick(connection))
            return question(connection.store)
        except (_TooSlow, InboxdError) as error:
            self._dismiss(connection)
            if self._closed:
                raise Unanswered("stopping", "inboxd is stopping.") from None
            if isinstance(error, _TooSlow) or time.monotonic() > connection.deadline:  # SQLite only says "interrupted"
                text = f"This took longer than {LONGEST_S:.0f} seconds and was given up."
                raise Unanswered("too_slow", text) from None
            raise Unanswered(error.code, UNREADABLE) from error
        finally:
            connection.deadline = float("inf")

    def _connection(self) -> _Connection:
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection()
            self._connections.append(connection)
        return connection

    def _tick(self, connection: _Connection) -> None:
        if self._closed or time.monotonic() > connection.deadline:
            raise _TooSlow

    def _dismiss(self, connection: _Connection) -> None:
        """Let go of a connection that may be broken; the next question opens another."""
        store, connection.store = connection.store, None
        if store is not None:
            try:
                store.close()
            except InboxdError:
                return

    def close(self) -> None:
        """End the threads and let go of the database; called once, by the thread that made it."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections:
            self._dismiss(connection)
