"""The page, the metrics and the health endpoints: read-only, in a thread of their own, off unless an address is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.events import Event
from inboxd.extras import how_to_install
from inboxd.log import Logger, emit
from inboxd.presence import Published
from inboxd.web.address import Address, AddressError

if TYPE_CHECKING:
    from inboxd.web.server import PageServer

__all__ = ["serve"]


@contextmanager
def serve(listen: str, published: Published, log: Logger) -> Iterator[PageServer]:
    """Serve the page at ``listen`` until the block ends; yields what serves it.

    Raises ``OperatorFault`` where it cannot be served: who asked for a page, and for probes, must not believe that they
    are there. The socket is bound before the block begins, so port 0 is known by then.
    """
    try:
        address = Address.parse(listen)
        listener = address.bind()
    except AddressError as error:
        msg = f"the page cannot be served at {listen}: {error}"
        raise OperatorFault("http_unavailable", msg, error.hint, exit_code=error.exit_code) from error
    try:
        from inboxd.web.server import PageServer  # noqa: PLC0415 - the extra "web" may not be installed
    except ModuleNotFoundError as error:
        listener.close()
        msg, hint = f"the page cannot be served: {error.name} is not installed", how_to_install("web")
        raise OperatorFault("http_unavailable", msg, hint, exit_code=EXIT_CONFIG) from error
    with PageServer(listener, address, published, log) as server:
        emit(log, Event.HTTP_STARTED, address=server.url)
        if not address.is_loopback:
            hint = "it has no password: listen on 127.0.0.1, or keep others out with a firewall or a reverse proxy"
            emit(log, Event.HTTP_EXPOSED, address=server.url, hint=hint)
        yield server
