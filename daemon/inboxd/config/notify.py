"""Those who are told of events: each checked, and given a name that its notices are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from inboxd.config.database import MASK
from inboxd.config.faults import Faults, Key
from inboxd.config.schema import NotifyTable
from inboxd.config.settings import NotifySettings
from inboxd.events import Event

OWN: Final = frozenset({Event.NOTICE_DEFERRED, Event.NOTICE_DROPPED, Event.STEP_TIMED})
"""Nobody is told of these: a notice that a notice cannot be delivered would never end."""
NOTIFIABLE: Final = tuple(event.value for event in Event if event not in OWN)


def build_notify(
    tables: Sequence[NotifyTable], path: Callable[[str, str], Path], faults: Faults
) -> tuple[NotifySettings, ...]:
    """Return who is told. ``path`` makes a path absolute; what is wrong is added to ``faults``."""
    found: dict[str, NotifySettings] = {}
    for number, table in enumerate(tables):
        key: Key = ("notify", number)
        _check(table, key, faults)
        name = _name(table)
        if name in found:
            faults.add(key, "receives notices twice: put all of its events into one table")
        found[name] = NotifySettings(
            name=name,
            on=frozenset(table.on),
            exec=_program(table.exec, lambda value: path("exec", value)),
            url=table.url,
            headers_file=path("headers_file", table.headers_file) if table.headers_file else None,
            deferred_for=table.deferred_for,
        )
    return tuple(found.values())


def _check(table: NotifyTable, key: Key, faults: Faults) -> None:
    whole = not faults.under(key)
    if whole and bool(table.exec) == bool(table.url):
        faults.add(key, "needs either exec or url")
    if whole and not table.on and table.deferred_for is None:
        faults.add(key, 'receives nothing: name events, such as on = ["file_failed"], or set deferred_for')
    for place, event in enumerate(table.on):
        if event not in NOTIFIABLE:
            known = ", ".join(NOTIFIABLE)
            faults.add((*key, "on", place), f"is not an event that notices are sent of; these are: {known}")
    if any("\0" in word for word in table.exec):
        faults.add((*key, "exec"), "must not hold U+0000")
    if table.url and _address(table.url) is None:
        faults.add((*key, "url"), "must be https://host/path, or http:// for a receiver on this machine or network")
    if table.headers_file and not table.url:
        faults.add((*key, "headers_file"), "is only for url")


def _program(words: tuple[str, ...], path: Callable[[str], Path]) -> tuple[str, ...]:
    """Return a command of which the program is found: a bare name on PATH, all else as any path in the config."""
    return (str(path(words[0])), *words[1:]) if "/" in "".join(words[:1]) else words


def _address(url: str) -> SplitResult | None:
    """Return an address in its parts, ``None`` if nothing can be posted to it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port)
        (parts.hostname or "").encode("idna")  # as it will be looked up: a label of no or of 64 characters cannot be
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and " " not in url
    return parts if usable and plain and not parts.username and not parts.password else None


def shown_url(url: str) -> str:
    """Return an address for people: its path and query may be what lets others in."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/{MASK}" if parts.path.strip("/") or parts.query else url


def _name(table: NotifyTable) -> str:
    """Return a name that stays while the receiver does. The path of an address may be its secret: it is not shown."""
    parts = _address(table.url) if table.url else None
    shown = f"{parts.scheme}://{parts.hostname}" if parts else "".join(table.exec[:1])
    digest = hashlib.sha256(json.dumps([table.exec, table.url]).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{shown} #{digest[:8]}"
