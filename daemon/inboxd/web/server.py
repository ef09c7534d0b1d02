"""The page's own thread: an event loop with uvicorn on it, and the threads that ask the database for it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Final, Self, cast

import uvicorn

from inboxd.log import Logger
from inboxd.metrics import Metrics
from inboxd.outcomes import Verdict
from inboxd.presence import Published
from inboxd.web.address import Address
from inboxd.web.app import Page
from inboxd.web.door import Door
from inboxd.web.guard import LARGEST_HEAD, Guard
from inboxd.web.protocol import BoundedProtocol
from inboxd.web.reader import Reader

START_S: Final = 10.0
"""How long the event loop may take to come up; it takes milliseconds."""
GRACE_S: Final = 2
"""How long answers may take to end when the daemon stops; a stop has ten seconds in all."""


class _Uvicorn(uvicorn.Server):
    """uvicorn without its ten wake-ups a second: it sleeps until there is a request, or ``stop``."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, beside: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._beside = beside
        """Done once while requests are answered; given up when the server stops."""
        self.up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        """Let connections in until ``stop``."""
        self._loop = asyncio.get_running_loop()
        visitors = cast("set[BoundedProtocol]", self.server_state.connections)
        door = Door(self._listener, self._seat, visitors)
        door.open()
        self.up.set()
        beside = self._loop.create_task(self._beside())
        await self._ended.wait()
        beside.cancel()
        await door.close()

    def _seat(self) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state, self._loop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the connections in order, and then those that will not."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the loop closes an aborted transport on its next round

    def stop(self, before: Callable[[], None]) -> None:
        """End the server; called from another thread, after ``up``. ``before`` is called on the server's."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(before)
            self._loop.call_soon_threadsafe(self._ended.set)


class PageServer:
    """Serves while its block lasts. Made, entered and left by the main thread; leaves no thread behind."""

    def __init__(self, listener: socket.socket, address: Address, published: Published, log: Logger) -> None:
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        settings = published.settings
        self._metrics = Metrics(feed.name for feed in settings.feeds)
        self._reader = Reader(settings.database.url)
        self._prober = Reader(settings.database.url, threads=1)
        self._page = Page(published, self._reader, self._prober, self._metrics, log)
        for name in ("uvicorn.error", "uvicorn.access"):  # a hostile client must not be able to fill the journal
            logger = logging.getLogger(name)
            logger.propagate, logger.disabled = False, True
        config = uvicorn.Config(
            Guard(self._page.app, address),
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # the guard sets it: uvicorn's would need a wake-up a second
            h11_max_incomplete_event_size=LARGEST_HEAD,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=GRACE_S,
            proxy_headers=False,
        )
        self._server = _Uvicorn(config, listener, self._page.warm_up)
        self._thread = threading.Thread(target=self._run, name="inboxd-web", daemon=True)

    def count(self, verdict: Verdict) -> None:
        """Count a file's end in the metrics. Called from the daemon's thread."""
        self._metrics.count(verdict)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[]))

    def __enter__(self) -> Self:
        self._thread.start()
        self._server.up.wait(START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(before=self._page.end)
        self._thread.join(GRACE_S + START_S)
        self._reader.close()
        self._prober.close()
        self._listener.close()
