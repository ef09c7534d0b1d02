"""Where the page listens, and by which names it may be asked for."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Final, Self

from inboxd.config import ip_of
from inboxd.errors import EXIT_CONFIG, EXIT_UNAVAILABLE

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
BACKLOG: Final = 256
"""Connections the kernel keeps until they are taken; more are refused by it, at no cost to the daemon."""
NEVER: Final = frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT})
"""Not permitted to this process, and not tomorrow either."""
HIGHEST_PORT: Final = 65_535


class AddressError(Exception):
    """The page cannot listen there."""

    def __init__(self, message: str, hint: str, exit_code: int = EXIT_CONFIG) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name or an IP address, without brackets) and a port; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, listen: str) -> Self:
        """Read ``127.0.0.1:8765``, ``[::1]:8765``, ``name:8765``; ``AddressError`` for anything else.

        Without a host (``:8765``) it is the loopback address: to be seen by others must be asked for.
        """
        host, colon, port = listen.strip().rpartition(":")
        if not (colon and port.isascii() and port.isdecimal() and int(port) <= HIGHEST_PORT):
            raise AddressError("is not an address with a port", "write it like 127.0.0.1:8765")
        host = host.removeprefix("[").removesuffix("]")
        if ":" in host and ip_of(host) is None:
            raise AddressError("is not a host and a port", "write it like 127.0.0.1:8765 or [::1]:8765")
        return cls(host or "127.0.0.1", int(port))

    def bind(self) -> socket.socket:
        """Return a listening socket; ``AddressError`` if it cannot be had: for now, or as long as nobody mends it."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, where = found[0]
            return socket.create_server((str(where[0]), self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in NEVER:
                hint = "choose a port above 1023; in the service, add the drop-in: make install DROPINS=page"
                raise AddressError(reason, hint) from error
            hint = "is another inboxd serving there? stop it, or choose another port"
            if isinstance(error, socket.gaierror):
                hint = "name an address of this machine, such as 127.0.0.1"
            raise AddressError(reason, hint, EXIT_UNAVAILABLE) from error

    @property
    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        return ip_of(self.host)

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach it."""
        return self.host.lower() == "localhost" or (self._ip is not None and self._ip.is_loopback)

    @property
    def is_everywhere(self) -> bool:
        """Tell whether it is every address of this machine."""
        return self._ip is not None and self._ip.is_unspecified

    def answers_to(self, host: str) -> bool:
        """Tell whether a request with this ``Host`` (without its port) is meant for us.

        A page of another site can make its own name lead to this machine (DNS rebinding), and its scripts may then read
        what the browser gets; but the browser still sends that name as ``Host``. On every address any IP literal is
        taken, because no name can be rebound to be one.
        """
        host = host.lower().removesuffix(".")
        if host in LOOPBACK_NAMES or host == self.host.lower():
            return True
        return self.is_everywhere and (ip_of(host) is not None or host == os.uname().nodename.lower())


def host_of(header: str) -> str:
    """Return the host of a ``Host`` header: without its port, and without the brackets of IPv6; "" if it is none."""
    found = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?", header)
    return (found["six"] or found["host"]) if found else ""
