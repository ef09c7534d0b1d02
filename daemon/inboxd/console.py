"""Log lines for people: what became of a file is one line of a terminal, everything else a line of names and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from inboxd.events import Event
from inboxd.outcomes import Counts
from inboxd.words import escaped, middle, milliseconds

WIDTH: Final = 120
"""Characters that a verdict's line has at most."""
LEAST: Final = 16
"""Characters that a file's name keeps, at least."""
VERDICTS: Final = frozenset({Event.FILE_LOADED, Event.FILE_DUPLICATE, Event.FILE_FAILED, Event.FILE_RECOVERED})
_COLOURS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[33m", "info": "\x1b[32m", "debug": "\x1b[2m"}
_PLAIN: Final = "\x1b[0m"
_HEAD: Final = ("timestamp", "level", "event")


def colour_wanted(environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Tell whether to colour what is printed: NO_COLOR, then CLICOLOR_FORCE and FORCE_COLOR, then the terminal say.

    As https://no-color.org, https://force-color.org and https://bixense.com/clicolors have it.
    """
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "") not in {"", "0"} for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    return terminal and environment.get("TERM") != "dumb" and environment.get("CLICOLOR") != "0"


def console_line(event: Mapping[str, object], *, colours: bool) -> str:
    """Return a log event as text, without its last line break; control characters in it are escaped."""
    name, level = str(event["event"]), str(event["level"])
    head = f"{str(event['timestamp'])[11:19]}Z {level:<7} {name}"
    rest = _verdict(event, WIDTH - len(head) - 2) if name in VERDICTS else _pairs(event)
    if colours:
        head = f"{head[:9]} {_COLOURS.get(level, '')}{level:<7} {name}{_PLAIN}"
    return "\n".join([f"{head}  {rest}".rstrip(), *_below(event)])


def _verdict(event: Mapping[str, object], room: int) -> str:
    """Return what became of a file, in so many characters: its name gives way first, then the error's end."""
    about = [f"run {event['run_id']}" if "run_id" in event else "", escaped(event.get("feed", ""))]
    result = ", ".join(_result(event))
    fixed = sum(len(part) + 2 for part in about if part)
    file = escaped(event.get("file", ""))
    if fixed + len(file) + 2 + len(result) > room:
        result = _end(result, max(room - fixed - LEAST - 2, room // 2))
        file = middle(file, max(LEAST, room - fixed - 2 - len(result)))
    return _end("  ".join(part for part in (*about, file, result) if part), room)


def _result(event: Mapping[str, object]) -> Iterator[str]:
    if event.get("error_code") is not None:
        yield f"{event['error_code']}: {escaped(event.get('error', ''))}"
        return
    if event.get("duplicate_of") is not None:
        yield f"duplicate of run {event['duplicate_of']}"
        return
    for key in Counts.__slots__:
        if event.get(key) or key in {"rows_in", "rows_out"}:
            yield f"{event.get(key, 0)} {key.removeprefix('rows_')}"
    if isinstance(duration := event.get("duration_ms"), int):
        yield milliseconds(duration)


def _pairs(event: Mapping[str, object]) -> str:
    parts = [f"run {event['run_id']}"] if "run_id" in event else []
    parts += [escaped(event[key]) for key in ("feed", "file") if key in event]
    shown = {"run_id", "feed", "file", "traceback", "hint", *_HEAD}
    return "  ".join([*parts, *(f"{key}={escaped(value)}" for key, value in event.items() if key not in shown)])


def _below(event: Mapping[str, object]) -> Iterator[str]:
    """Yield what stands under the line: what to do, and where a bug was."""
    if event.get("hint"):
        yield f"          {escaped(event['hint'])}"
    if event.get("traceback"):
        yield from (f"  {escaped(line)}" for line in str(event["traceback"]).splitlines())


def _end(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"
