"""From an event to notices: which receivers are told of it, and what they are told."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from inboxd.config import NotifySettings
from inboxd.events import Event
from inboxd.log import printable_value
from inboxd.outcomes import Verdict
from inboxd.store.base import NoticeRow
from inboxd.verdicts import lines_of

FIRST: Final = ("id", "event", "at", "run_id", "feed", "file")
"""What every notice has, ``null`` where there is none; the fields of the log's line follow."""
_ENCODER: Final = msgspec.json.Encoder(enc_hook=repr)


@dataclass(frozen=True, slots=True)
class Receivers:
    """Those of the config, as one that is replaced as a whole when the config is loaded anew."""

    settings: Sequence[NotifySettings] = ()

    def of_verdict(self, verdict: Verdict, at: str) -> tuple[NoticeRow, ...]:
        """Return what is told of a file that has ended, to be written in its own transaction."""
        if not self.settings:
            return ()
        lines = lines_of(verdict, archived=None)
        return tuple(
            row for event, values in lines for row in self.of_event(event, at, {"level": event.level, **values})
        )

    def of_event(self, event: Event, at: str, values: Mapping[str, object]) -> tuple[NoticeRow, ...]:
        """Return a notice for each receiver that is told of such events: all have the same ``id`` and ``body``."""
        receivers = [one.name for one in self.settings if event.value in one.on]
        return rows(event, at, values, receivers) if receivers else ()


def rows(event: str, at: str, values: Mapping[str, object], receivers: Iterable[str]) -> tuple[NoticeRow, ...]:
    """Return the notice of an event for each receiver that is named."""
    found = {name: printable_value(value) for name, value in values.items() if value is not None}
    notice = dict.fromkeys(FIRST) | {"id": str(uuid.uuid4()), "event": str(event), "at": at}
    notice |= found
    body = _ENCODER.encode(notice).decode()
    run_id, feed = found.get("run_id"), found.get("feed")
    return tuple(
        NoticeRow(
            id=str(notice["id"]),
            target=name,
            event=str(event),
            created=at,
            run_id=run_id if isinstance(run_id, int) else None,
            feed=None if feed is None else str(feed),
            body=body,
        )
        for name in receivers
    )
