"""How a run's row is written and read, on both databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields, is_dataclass
from datetime import date, datetime
from typing import Final

from inboxd.clock import stamp
from inboxd.errors import FileFault
from inboxd.model import Feed
from inboxd.outcomes import RunStatus
from inboxd.store.base import NoticeRow, RunEnd, RunRow

RUN_COLUMNS: Final = ", ".join(field.name for field in fields(RunRow))

NOTICE_COLUMNS: Final = tuple(field.name for field in fields(NoticeRow))


def canonical(value: object) -> str | None:
    """Return a moment as canonical text, whichever of the databases it comes from."""
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, date):
        return value.isoformat()
    return None if value is None else str(value)


def success_values(end: RunEnd, feed: Feed) -> tuple[object, ...]:
    """Return what a success writes: counts, duration, finished_at, size, hash, watermark, duplicate_of, table."""
    verdict, counts = end.verdict, end.verdict.counts
    watermark = None if verdict.watermark is None else str(verdict.watermark)
    return (
        *counts.named().values(),
        verdict.duration_ms,
        end.finished_at,
        verdict.size,
        verdict.sha256,
        watermark,
        verdict.duplicate_of,
        feed.table,
    )


def refuse_replayed(run_id: int, replay: int | None) -> None:
    """Refuse to take a run's rows away while a replay of its dead letters stands: they would be there twice."""
    if replay is not None:
        message = f"dead letters of run {run_id} were replayed by run {replay}, whose rows stand beside its own"
        raise FileFault("replay_stands", message, f"undo the replay first: inboxd undo {replay}")


def failure_values(end: RunEnd) -> tuple[object, ...]:
    """Return what a failure writes: duration, finished_at, size, hash, code, message, the rest of the report."""
    verdict = end.verdict
    code, message = verdict.error_code or "internal_error", verdict.error or ""
    rest = {"hint": verdict.hint, "place": verdict.place, "details": verdict.details}
    report = json.dumps(rest, default=_plain)  # all ASCII: a detail may hold what no database's text can
    return (verdict.duration_ms, end.finished_at, verdict.size or None, verdict.sha256, code, message, report)


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def notice_values(end: RunEnd) -> list[tuple[object, ...]]:
    """Return the notices of a run in the order of ``NOTICE_COLUMNS``."""
    return [astuple(notice) for notice in end.notices]


def run_row(values: Sequence[object]) -> RunRow:
    """Return a row of ``RUN_COLUMNS`` as what it is."""
    named = dict(zip(RunRow.__slots__, values, strict=True))
    named |= {name: canonical(named[name]) for name in ("started_at", "finished_at", "file_mtime", "file_removed")}
    named["status"] = RunStatus(str(named["status"]))
    return RunRow(**named)  # type: ignore[arg-type]  # the columns are declared as RunRow's fields say
