"""Lines out: one JSON object per line for machines, a console form on a terminal.

Each line has ``timestamp``, ``level``, ``event``, then ``run_id``, ``feed``, ``file``, and the counts. Events are the
members of ``events.Event``.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import structlog

from inboxd.clock import SystemClock, stamp
from inboxd.console import colour_wanted, console_line
from inboxd.events import Event
from inboxd.layouts import arrangement
from inboxd.model import printable
from inboxd.outlets import PRIORITIES, LogFile, Outlet, is_journal, standard_stream
from inboxd.regular import open_regular

Logger = structlog.typing.FilteringBoundLogger
_EventDict = MutableMapping[str, Any]  # Any: structlog's own type for what a processor is given
_CLOCK: Final = SystemClock()
_ENCODER: Final = msgspec.json.Encoder(enc_hook=repr)
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FIRST: Final = dict.fromkeys(("timestamp", "level", "event", "run_id", "feed", "file"))
"""Keeps the fixed keys in front: what is put over a key takes its place."""


def emit(log: Logger, event: Event, **values: object) -> None:
    """Write one line for ``event``, at the event's own level."""
    log.log(_LEVELS[event.level], event, **values)


STANDARD_OUTPUT: Final = 1
NOTICED: Final = {"noticed": True}
"""Marks a line of which the file's own transaction wrote the notices. It is not written out."""


def open_log(
    *,
    fmt: str,
    level: str,
    file: Path | None,
    out: int | None = STANDARD_OUTPUT,
    layout: str = "inboxd",
    noticing: Callable[[Mapping[str, Any]], None] | None = None,
) -> Logger:
    """Return a logger that writes to the descriptor ``out``, if one is given, and, as JSON, to ``file``.

    ``fmt`` is ``json``, ``console``, or ``auto``: console on a terminal, else JSON. ``layout`` says how the fields of
    a JSON line are named. ``noticing`` is given each line of which a notice may be due, on whatever thread wrote it.
    """
    line = _json_line(layout)
    outputs = [_Output("log.file", LogFile(file), line)] if file is not None else []
    stream = None if out is None or sys.stdout is None else standard_stream(out)  # or started with it closed
    if out is not None and stream is not None:
        outputs.append(_Output("standard output", stream, _renderer(fmt, out, line)))
    logger = structlog.wrap_logger(
        structlog.ReturnLogger(),  # never called: the last processor drops the event (`None` would be standard output)
        processors=[_in_order, _Tee(outputs, noticing, _LEVELS[level])],
        wrapper_class=structlog.make_filtering_bound_logger(
            _LEVELS[level] if noticing is None else min(_LEVELS[level], logging.INFO)
        ),
    )
    return cast("Logger", logger.bind())  # what it gives out is a proxy that would be asked for this at each line


_VERDICT: Final = re.compile(
    rb'"(?:event|event\.action|EventName)":"(?:%b)"'
    % b"|".join(
        event.encode() for event in (Event.FILE_LOADED, Event.FILE_DUPLICATE, Event.FILE_FAILED, Event.FILE_RECOVERED)
    )
)
"""In any layout: it may have been changed since the line was written."""
_BLOCK: Final = 1 << 20
_FURTHEST: Final = 64 << 20
"""So many bytes back a line is looked for (some 200,000 files); a start must not read years of log."""


def is_logged(file: Path | None, run_id: int) -> bool:
    """Tell whether the log has a run's verdict: a crash may have come just after the line."""
    mark = re.compile(rb'"(?:inboxd\.)?run_id":%d[,}]' % run_id)
    try:
        return file is not None and any(mark.search(line) and _VERDICT.search(line) for line in _backwards(file))
    except OSError:
        return False


def _backwards(file: Path) -> Iterator[bytes]:
    """Yield a file's lines, the last one first, in no more memory than a block and a line."""
    with open_regular(file) as log:
        end = log.seek(0, os.SEEK_END)
        last = max(0, end - _FURTHEST)
        rest = b""
        while end > last:
            begin = max(last, end - _BLOCK)
            log.seek(begin)
            rest, *lines = (log.read(end - begin) + rest).split(b"\n")
            yield from reversed(lines)
            end = begin
        yield rest


class _Output:
    """One place that lines go to, and how many it could not take since it took the last one."""

    def __init__(self, name: str, outlet: Outlet, render: Callable[[_EventDict], bytes]) -> None:
        self._name = name
        self._outlet = outlet
        self._render = render
        self._dropped = 0

    def write(self, event: _EventDict) -> None:
        """Write a line, and before it how many are missing there."""
        if self._dropped and self._outlet.write(self._render(self._missing())):
            self._dropped = 0
        if self._dropped or not self._outlet.write(self._render(event)):
            self._dropped += 1

    def _missing(self) -> _EventDict:
        event = Event.LOG_LINES_DROPPED
        return _in_order(None, event.level, {"event": event, "output": self._name, "lines": self._dropped})


class _Tee:
    """The last processor: hands the finished line to every output, and stops there. Any thread may write a line."""

    def __init__(
        self, outputs: Sequence[_Output], noticing: Callable[[Mapping[str, Any]], None] | None, least: int
    ) -> None:
        self._outputs = outputs
        self._noticing = noticing
        self._least = least
        self._turn = threading.RLock()  # a finalizer, run in the middle of a line, may have one to say, too

    def __call__(self, _logger: object, method: str, event: _EventDict) -> _EventDict:
        noticed = event.pop("noticed", False)
        with self._turn:
            for output in self._outputs if _LEVELS[method] >= self._least else ():
                output.write(event)
        if self._noticing is not None and not noticed:
            self._noticing(event)
        raise structlog.DropEvent


def _in_order(_logger: object, method: str, event: _EventDict) -> _EventDict:
    """Put the fixed keys first and make every text encodable, whatever bytes a file's name has."""
    ordered = {**_FIRST, "timestamp": stamp(_CLOCK.now()), "level": method, **event}
    return {
        key: value if type(value) is int else printable_value(value)
        for key, value in ordered.items()
        if value is not None
    }


def printable_value(value: object) -> object:
    """Return a value that any JSON encoder takes."""
    if isinstance(value, str):
        return printable(value) if not value.isascii() else str(value)
    if isinstance(value, Path):
        return printable(str(value))
    return value


def _json_line(layout: str) -> Callable[[_EventDict], bytes]:
    arrange = arrangement(layout)
    return lambda event: _ENCODER.encode(arrange(event)) + b"\n"


def _renderer(fmt: str, out: int, line: Callable[[_EventDict], bytes]) -> Callable[[_EventDict], bytes]:
    """Return what makes a line for standard output."""
    terminal = os.isatty(out)
    if fmt == "console" or (fmt == "auto" and terminal):
        colours = colour_wanted(os.environ, terminal=terminal)
        return lambda event: f"{console_line(event, colours=colours)}\n".encode("utf-8", "replace")
    if is_journal(out, os.environ.get("JOURNAL_STREAM", "")):
        return lambda event: PRIORITIES.get(event["level"], b"") + line(event)
    return line
