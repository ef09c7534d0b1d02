"""What is said of a file that has ended: its log lines, and the report beside a failed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from inboxd.events import Event
from inboxd.log import NOTICED, Logger, emit
from inboxd.outcomes import Outcome, Verdict

Line = tuple[Event, dict[str, object]]
"""A line of the log before it is written: the event, and its fields (``None`` where there is none)."""

_EVENTS: Final = {
    Outcome.LOADED: Event.FILE_LOADED,
    Outcome.DUPLICATE: Event.FILE_DUPLICATE,
    Outcome.FAILED: Event.FILE_FAILED,
}


def log_verdict(log: Logger, verdict: Verdict, *, archived: str | None, recovered: bool = False) -> None:
    """Write the one line a file gets, then the warnings its counts call for."""
    for event, values in lines_of(verdict, archived=archived, recovered=recovered):
        emit(log, event, **values, **({} if recovered else NOTICED))


def lines_of(verdict: Verdict, *, archived: str | None, recovered: bool = False) -> Iterator[Line]:
    """Yield what is said of a file that has ended: its one line, then the warnings its counts call for."""
    loaded = verdict.outcome is Outcome.LOADED
    about = {"run_id": verdict.run_id, "feed": verdict.feed, "file": verdict.file_name}
    line = {
        **about,
        **verdict.counts.named(),
        "duration_ms": verdict.duration_ms,
        "size": verdict.size,
        "watermark": verdict.watermark,
        **({} if loaded else _why_not(verdict)),
        "archived": archived,
    }
    yield Event.FILE_RECOVERED if recovered else _EVENTS[verdict.outcome], line
    if loaded and not recovered:
        yield from _warnings(verdict, about)


def _why_not(verdict: Verdict) -> dict[str, object]:
    line, column, byte = verdict.place or (None, None, None)
    return {
        "duplicate_of": verdict.duplicate_of,
        "content_returned": verdict.content_returned or None,
        "error_code": verdict.error_code,
        "error": verdict.error,
        "hint": verdict.hint or None,
        "line": line,
        "column": column,
        "byte": byte,
    }


def _warnings(verdict: Verdict, about: Mapping[str, object]) -> Iterator[Line]:
    counts = verdict.counts
    if counts.all_rejected:
        rejected = {"rows_rejected": counts.rows_rejected, "first": list(verdict.errors[:3])}
        yield Event.ALL_REJECTED, {**about, **rejected}
    if counts.rows_filtered and counts.rows_filtered == counts.rows_in:
        yield Event.ALL_FILTERED, {**about, "rows_filtered": counts.rows_filtered}
    if verdict.keys_repeat:
        yield Event.KEYS_REPEAT, {**about, "keys_repeat": verdict.keys_repeat}
    if counts.rows_skipped:
        yield Event.RECORDS_SKIPPED, {**about, "rows_skipped": counts.rows_skipped}


def report_of(verdict: Verdict) -> dict[str, object]:
    """Return what ``NAME.error.json`` beside a failed file says."""
    line, column, byte = verdict.place or (None, None, None)
    return {
        "file": verdict.file_name,
        "feed": verdict.feed,
        "run_id": verdict.run_id,
        "code": verdict.error_code,
        "message": verdict.error,
        "hint": verdict.hint,
        "line": line,
        "column": column,
        "byte": byte,
        "size": verdict.size,
        "sha256": verdict.sha256,
        **(verdict.details or {}),
    }
