"""The names that a log line's fields have: inboxd's own, Elastic's, or OpenTelemetry's, for those who ship lines there.

A line is arranged once, just before it is encoded; what is logged knows nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Final

from inboxd import __version__
from inboxd.clock import EPOCH, moment
from inboxd.outcomes import TOLD
from inboxd.words import counted

Line = MutableMapping[str, Any]  # Any: structlog's own type for what a processor is given
ECS_VERSION: Final = "8.11.0"
"""Of the Elastic Common Schema; the names used here have been in it since 1.5."""
SERVICE: Final = "inboxd"
SEVERITY: Final = {"debug": ("DEBUG", 5), "info": ("INFO", 9), "warning": ("WARN", 13), "error": ("ERROR", 17)}
"""The short name and the number of each level, as in OpenTelemetry's log data model."""
ECS: Final = {
    "event": "event.action",
    "file": "file.path",
    "size": "file.size",
    "error_code": "error.code",
    "error": "error.message",
    "traceback": "error.stack_trace",
    "pid": "process.pid",
}
"""What has a name of its own there. All else is ``inboxd.…``: ECS keeps the first word of its names for itself."""
ATTRIBUTES: Final = {
    "file": "file.path",
    "size": "file.size",
    "error_code": "error.type",
    "error": "error.message",
    "traceback": "exception.stacktrace",
}
"""The same for OpenTelemetry's semantic conventions; the process is in the resource."""
OUTCOMES: Final = {"file_loaded": "success", "file_duplicate": "success", "file_failed": "failure"}


def arrangement(layout: str) -> Callable[[Line], Line]:
    """Return what gives a line (``timestamp``, ``level``, ``event`` and its values) the names of ``log.layout``."""
    host = os.uname().nodename
    if layout == "ecs":
        return lambda line: _ecs(line, host)
    if layout == "otel":
        resource: Line = {"service.name": SERVICE, "service.version": __version__, "host.name": host}
        resource["process.pid"] = os.getpid()
        return lambda line: _otel(line, resource)
    return lambda line: line


def message(line: Mapping[str, Any]) -> str:
    """Return a line's sentence: what happened, to which file, and why or with how many records."""
    parts = [str(line["event"]).replace("_", " ")]
    if line.get("file"):
        parts.append(str(line["file"]))
    why = line.get("error") or line.get("reason")
    if why:
        code = line.get("error_code")
        parts.append(f"{code}: {why}" if code else str(why))
    elif "rows_in" in line:
        outcomes = [f"{line[name]} {word}" for name, word in TOLD.items() if line.get(name)]
        parts.append(", ".join([counted(line["rows_in"], "record"), *outcomes]))
    return ": ".join(parts)


def _ecs(line: Line, host: str) -> Line:
    event = str(line["event"])
    arranged: Line = {
        "@timestamp": line["timestamp"],
        "log.level": line["level"],
        "message": message(line),
        "ecs.version": ECS_VERSION,
        "service.name": SERVICE,
        "service.version": __version__,
        "host.hostname": host,
        "event.kind": "event",
        "event.dataset": f"{SERVICE}.log",
    }
    if event in OUTCOMES:
        arranged["event.outcome"] = OUTCOMES[event]
    if "duration_ms" in line:
        arranged["event.duration"] = round(line["duration_ms"] * 1_000_000)  # nanoseconds
    return {**arranged, **_renamed(line, ECS, without=("timestamp", "level", "host", "version", "duration_ms"))}


def _otel(line: Line, resource: Mapping[str, Any]) -> Line:
    text, number = SEVERITY[line["level"]]
    nanoseconds = (moment(line["timestamp"]) - EPOCH) // timedelta(microseconds=1) * 1000
    return {
        "Timestamp": str(nanoseconds),  # as text, like OTLP's JSON: many readers know only doubles
        "SeverityText": text,
        "SeverityNumber": number,
        "EventName": line["event"],
        "Body": message(line),
        "Resource": resource,
        "Attributes": _renamed(line, ATTRIBUTES, without=("timestamp", "level", "event", "host", "version", "pid")),
    }


def _renamed(line: Line, names: Mapping[str, str], *, without: tuple[str, ...]) -> Line:
    return {names.get(key) or f"inboxd.{key}": value for key, value in line.items() if key not in without}
