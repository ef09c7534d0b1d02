"""What every request passes first, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inboxd.web.address import Address, host_of

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
READING: Final = frozenset({"GET", "HEAD"})
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
MAX_REQUESTS: Final = 48
"""Requests of pages that are worked on at a time, streams of events included; one more gets 503."""
LARGEST_HEAD: Final = 16_384
"""Bytes of a request's head."""
LONGEST_TARGET: Final = 8_192
"""Bytes of path and query: a key is at most 1,024 bytes, three times that when percent-encoded."""


@dataclass(slots=True)
class Pace:
    """How fast requests are taken, all clients together: a burst at once, then at a steady rate.

    The page shares the interpreter with the daemon: measured, 190 requests a second doubled a file's latency. A client
    that asks faster than this waits (it is the generic cell rate algorithm, as for ATM networks: ITU-T I.371).
    """

    per_second: float = 40.0
    burst: int = 80
    longest_s: float = float("inf")
    """Nobody waits longer than this."""
    _next: float = float("-inf")

    def delay(self, now: float) -> float:
        """Return how long a request that came at ``now`` (monotonic, s) has to wait (s)."""
        step = 1 / self.per_second
        self._next = min(max(self._next, now - self.burst * step) + step, now + self.longest_s)
        return max(self._next - now, 0.0)


class Guard:
    """Lets only reading requests through that are meant for this page; nothing here can change anything."""

    def __init__(self, app: ASGIApp, address: Address) -> None:
        self._app = app
        self._address = address
        self._pace = Pace()
        self._probes = Pace(per_second=200.0, burst=200, longest_s=0.5)
        self._looking = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Probes have a pace of their own, and there is always a place for them."""
        if scope["path"] in PROBES:
            await self._answer(self._refusal(scope), self._probes, scope, receive, send)
            return
        refusal = self._refusal(scope)
        if self._looking >= MAX_REQUESTS:
            refusal = _refuse(503, "Too many requests at a time. Try again in a moment.", **{"retry-after": "1"})
        self._looking += 1
        try:
            await self._answer(refusal, self._pace, scope, receive, send)
        finally:
            self._looking -= 1

    async def _answer(
        self, refusal: PlainTextResponse | None, pace: Pace, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if delay := pace.delay(asyncio.get_running_loop().time()):
            await asyncio.sleep(delay)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(message.get("headers", ()))
            await send(message)

        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._address.answers_to(host_of(hosts[0].decode("latin-1"))):
            return _refuse(400, "This page does not answer to that host name.")
        if scope["method"] not in READING:
            return _refuse(405, "This page can only be read.", allow="GET, HEAD")
        if any(_announces_a_body(name, value) for name, value in headers):
            return _refuse(413, "A request to this page has no body.")
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_TARGET:
            return _refuse(414, "The address is too long.")
        if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:  # h11 bounds only what is incomplete
            return _refuse(431, "The request's head is too large.")
        return None


def _announces_a_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")


def _refuse(status: int, text: str, **headers: str) -> PlainTextResponse:
    """Return an answer after which the connection ends: what else the client sends on it is not waited for."""
    return PlainTextResponse(text + "\n", status_code=status, headers={"connection": "close", **headers})


def _completed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    found = list(headers)
    names = {name for name, _ in found}
    if b"cache-control" not in names:
        found.append((b"cache-control", b"no-store"))
    return [*found, (b"date", formatdate(usegmt=True).encode()), *HEADERS]
