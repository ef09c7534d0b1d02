"""The page, the metrics and the health endpoints: read-only, in a thread of their own, off unless an address is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inboxd.config import Settings
from inboxd.events import Event
from inboxd.log import Logger, emit
from inboxd.web.address import Address, AddressError

if TYPE_CHECKING:
    from inboxd.daemon import Daemon

__all__ = ["serve"]


@contextmanager
def serve(listen: str, settings: Settings, daemon: Daemon, log: Logger) -> Iterator[str]:
    """Serve the page at ``listen`` until the block ends; yields its URL, or "" if it cannot be served.

    A page that cannot be served is said in the log and is no reason not to load files. The socket is bound before the
    block begins, so port 0 is known by then.
    """
    try:
        address = Address.parse(listen)
        listener = address.bind()
    except AddressError as error:
        emit(log, Event.HTTP_FAILED, address=listen, error=str(error), hint=error.hint)
        yield ""
        return
    try:
        from inboxd.web.server import PageServer  # noqa: PLC0415 - the extra "web" may not be installed
    except ModuleNotFoundError as error:
        listener.close()
        hint = "pip install 'inboxd[web]'"
        emit(log, Event.HTTP_FAILED, address=listen, error=f"{error.name} is not installed", hint=hint)
        yield ""
        return
    with PageServer(listener, address, settings, daemon, log) as server:
        emit(log, Event.HTTP_STARTED, address=server.url)
        if not address.is_loopback:
            hint = "it has no password: listen on 127.0.0.1, or keep others out with a firewall or a reverse proxy"
            emit(log, Event.HTTP_EXPOSED, address=server.url, hint=hint)
        yield server.url
