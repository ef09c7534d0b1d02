"""What libraries say, as lines of ours: whoever reads the log as JSON reads it to the end, and nobody can fill it."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from inboxd.clock import Clock
from inboxd.events import Event
from inboxd.log import Logger, emit

MOST: Final = 10
"""Messages that are said in one span; asyncio's alone were millions in two minutes when no descriptor was left."""
SPAN_S: Final = 60.0


@dataclass(slots=True)
class Voice:
    """Says what libraries say, but not more than ``MOST`` in ``SPAN_S``. Any thread may call it."""

    log: Logger
    clock: Clock
    _since: float = float("-inf")
    _said: int = 0
    _left_out: int = 0

    def say(self, event: Event, **values: object) -> None:
        """Write a line, or count it; the next one that is written tells how many were not."""
        now = self.clock.monotonic()
        if now - self._since > SPAN_S:
            self._since, self._said = now, 0
        if self._said >= MOST:
            self._left_out += 1
            return
        self._said += 1
        left_out, self._left_out = self._left_out, 0
        emit(self.log, event, **values, left_out=left_out or None)


class _Handler(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        self._voice.say(Event.LIBRARY_MESSAGE, library=record.name, message=record.getMessage(), traceback=trace)


def listen_to_libraries(log: Logger, clock: Clock) -> Callable[[], None]:
    """Turn what libraries log, warn of, or let end a thread into lines; return what undoes that."""
    voice = Voice(log, clock)

    def thread_ended(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not SystemExit and ended.exc_value is not None:
            trace = "".join(traceback.format_exception(ended.exc_value))
            voice.say(Event.BUG, thread=ended.thread.name if ended.thread else None, traceback=trace)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        trace = "".join(traceback.format_exception(found.exc_value)) if found.exc_value else None
        voice.say(Event.LIBRARY_MESSAGE, message=found.err_msg or f"ignored in {found.object!r}", traceback=trace)

    with ExitStack() as stack:
        root = logging.getLogger()
        handler = _Handler(voice)
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        logging.captureWarnings(capture=True)
        stack.callback(logging.captureWarnings, capture=False)
        for place, name, hook in ((threading, "excepthook", thread_ended), (sys, "unraisablehook", unraisable)):
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, hook)
        return stack.pop_all().close
