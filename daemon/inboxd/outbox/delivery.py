"""One notice handed to one receiver, within a time limit, and never longer than until the daemon stops."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from inboxd import __version__
from inboxd.config import NotifySettings
from inboxd.regular import read_regular

LIMIT_S: Final = 15.0
"""How long a receiver may take, all in all."""
LONGEST_ANSWER: Final = 65_536
"""Bytes of an answer that are read, so that the connection may end in order; what they say is not looked at."""
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: a token (RFC 9110, 5.6.2)."""


class Undelivered(Exception):
    """A receiver did not take a notice; the message says why, and holds no secret."""


@dataclass(slots=True)
class Delivery:
    """Hands notices over, one at a time. ``deliver`` is for one thread, ``stop`` for any other."""

    limit_s: float = LIMIT_S
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _child: subprocess.Popen[bytes] | None = None
    _connection: http.client.HTTPConnection | None = None
    _stopped: bool = False

    def deliver(self, receiver: NotifySettings, body: str) -> None:
        """Hand a notice over; raises ``Undelivered``."""
        content = body.encode() + b"\n"
        if receiver.exec:
            self._run(receiver.exec, content)
        else:
            self._post(receiver, content)

    def stop(self) -> None:
        """End what is being delivered, and deliver nothing from now on."""
        with self._turn:
            self._stopped = True
            self._abort()

    def _abort(self) -> None:
        """End the program or the connection at once. The caller holds the turn."""
        if self._child is not None and self._child.returncode is None:  # else its number may be another one's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        connection = self._connection.sock if self._connection is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self, command: tuple[str, ...], content: bytes) -> None:
        with self._turn:
            if self._stopped:
                raise Undelivered("inboxd is stopping")
            try:  # a session of its own: what it starts in turn ends with it
                child = subprocess.Popen(  # noqa: S603 - the operator's own command
                    command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/"
                )
            except OSError as error:
                raise Undelivered(f"{command[0]} cannot be run: {error.strerror}") from error
            self._child = child
        try:
            child.communicate(content, timeout=self.limit_s)
        except subprocess.TimeoutExpired:
            raise Undelivered(f"{command[0]} took longer than {self.limit_s:g} s and was ended") from None
        finally:
            with self._turn:
                self._abort()
                self._child = None
            child.communicate()
        if child.returncode:
            how = f"was ended by signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
            raise Undelivered(f"{command[0]}: {how}")

    def _post(self, receiver: NotifySettings, content: bytes) -> None:
        parts = urlsplit(receiver.url)
        headers = _headers(receiver.headers_file)
        limit = threading.Timer(self.limit_s, self._out_of_time)  # a socket's own limit begins anew with each byte
        limit.daemon = True
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, self.limit_s)
        with self._turn:
            if self._stopped:
                raise Undelivered("inboxd is stopping")
            self._connection = connection
        limit.start()
        try:
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("POST", path, content, headers)
            answer = connection.getresponse()
            answer.read(LONGEST_ANSWER)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: what HTTP cannot say
            raise Undelivered(f"{parts.hostname}: {_reason(error)}") from None
        finally:
            limit.cancel()
            with self._turn:
                self._connection = None
            connection.close()
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - RFC 9110, 15.3: it was received and accepted
            raise Undelivered(f"{parts.hostname} answers {answer.status}")

    def _out_of_time(self) -> None:
        with self._turn:
            self._abort()


def _connection(scheme: str, host: str, port: int | None, limit_s: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=limit_s)
    return http.client.HTTPSConnection(host, port, timeout=limit_s, context=ssl.create_default_context())


def _headers(file: Path | None) -> dict[str, str]:
    """Return the headers of a notice, with those of a file: read each time, so that a new secret needs no reload."""
    headers = {"Content-Type": "application/json", "User-Agent": f"inboxd/{__version__}"}
    if file is None:
        return headers
    try:
        lines = read_regular(file).decode("latin-1").splitlines()
    except OSError as error:
        raise Undelivered(f"the headers cannot be read from {file}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or not _NAME.fullmatch(name.strip()):
            raise Undelivered(f"{file}, line {number}: not a header such as `Authorization: Bearer …`")
        headers[name.strip()] = value.strip()
    return headers


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"not HTTP ({type(error).__name__})"
