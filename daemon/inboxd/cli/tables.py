"""Tables for people: aligned text, made to fit a terminal, with a little colour where that is wanted.

Everything shown goes through ``shown``: a file name or a record may hold escape sequences meant for the terminal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from inboxd.cli.context import on_terminal
from inboxd.cli.layout import Column, lay_out, wrapped
from inboxd.clock import SystemClock, moment, stamp
from inboxd.model import printable
from inboxd.words import counted, escaped, span

if TYPE_CHECKING:
    from datetime import datetime

    from inboxd.presence import ExpectedFeed
    from inboxd.store.base import RunRow

__all__ = ["Column"]

DETAIL: Final = Column("detail", cut="end", below=True)

WIDEST: Final = 200
"""Characters of one cell; what is longer ends in an ellipsis."""
NARROWEST: Final = 40
"""Columns below which no table is made to fit."""
MOST_UNNAMED: Final = 20
"""Fields that a feed has not of which a person is told; `--json` has them all."""
SPARKS: Final = " ▁▂▃▄▅▆▇█"
STYLES: Final[dict[str, dict[str, Any]]] = {  # Any: what click.style takes
    "success": {"fg": "green"},
    "loaded": {"fg": "green"},
    "load": {"fg": "green"},
    "ok": {"fg": "green"},
    "failure": {"fg": "red", "bold": True},
    "failed": {"fg": "red", "bold": True},
    "reject": {"fg": "red"},
    "wrong": {"fg": "red", "bold": True},
    "running": {"fg": "yellow"},
    "stale": {"fg": "yellow"},
    "skip": {"fg": "yellow"},
    "warning": {"fg": "yellow"},
    "all rejected": {"fg": "yellow", "bold": True},
}
"""How a cell that says one of these is coloured."""


def width_of_output() -> int | None:
    """Return how many columns there are: as COLUMNS says, or the terminal has; ``None`` for a pipe or a file."""
    width_set = os.environ.get("COLUMNS", "")
    if width_set.isdecimal() and int(width_set) > 0:
        return max(NARROWEST, int(width_set))
    return max(NARROWEST, shutil.get_terminal_size().columns) if on_terminal() else None


def shown(value: object) -> str:
    """Return a value as text for a terminal: control characters escaped, nothing for ``None``."""
    return "" if value is None else escaped(printable(str(value)))


def cut(text: str) -> str:
    """Return at most ``WIDEST`` characters."""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, or nothing when there are no rows."""
    cells = [[cut(shown(cell)) for cell in row] for row in rows]
    if not cells:
        return
    title, *lines = lay_out(columns, cells, width_of_output())
    click.echo("".join(click.style(before + text, dim=True) for before, text in title).rstrip())
    for line in lines:
        click.echo("".join(f"{before}{_coloured(text)}" for before, text in line))


def _coloured(cell: str) -> str:
    style = STYLES.get(cell)
    return click.style(cell, **style) if style else cell


def heading(text: str, *, fg: str | None = None) -> None:
    """Print a line above a group of lines."""
    click.echo()
    title(text, fg=fg)


def title(text: str, *, fg: str | None = None) -> None:
    """Print a line that stands out; where it is longer than the terminal is wide, in lines."""
    room = width_of_output()
    for line in [text] if room is None else wrapped(text, room):
        click.secho(line, bold=True, fg=fg)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, the values in line; a value of ``None`` is left out."""
    kept = [(name, shown(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    room = width_of_output()
    for name, value in kept:
        fits = room is None or len(value) + width + 2 <= room
        lines = [value] if room is None or fits else wrapped(value, room - width - 2)
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {lines[0] if lines else ''}".rstrip())
        for line in lines[1:]:
            click.echo(f"{' ' * width}  {line}")


def print_text(text: str, *, indent: int = 0, hanging: bool = False) -> None:
    """Print a sentence, broken between words where the terminal ends; ``hanging``: something stands before it."""
    room = width_of_output()
    for number, line in enumerate([shown(text)] if room is None else wrapped(shown(text), room - indent)):
        click.echo(line if hanging and not number else f"{' ' * indent}{line}")


def print_runs(runs: Sequence[RunRow]) -> None:
    """Print runs, one a line."""
    if not runs:
        click.echo("no runs")
        return
    seldom = [name for name in ("filtered", "deleted") if any(getattr(run, f"rows_{name}") for run in runs)]
    columns = (
        Column("run", number=True),
        Column("feed", cut="middle"),
        Column("status"),
        Column("in", number=True),
        Column("out", number=True),
        Column("rejected", number=True, goes=5),
        Column("skipped", number=True, goes=2),
        Column("stale", number=True, goes=3),
        *(Column(name, number=True, goes=3) for name in seldom),
        Column("ms", number=True, goes=1),
        Column("started", goes=4),
        Column("what", cut="middle", below=True),
    )
    print_table(columns, [_run_line(run, seldom) for run in runs])


def _run_line(run: RunRow, seldom: Sequence[str]) -> tuple[object, ...]:
    beside = (getattr(run, f"rows_{name}") for name in seldom)
    counts = (run.rows_in, run.rows_out, run.rows_rejected, run.rows_skipped, run.rows_stale, *beside, run.duration_ms)
    status = "all rejected" if run.all_rejected else run.status.value
    return (run.id, run.job_name, status, *counts, short_time(run.started_at), what_ran(run))


def all_rejected_line(files: object) -> str:
    """Return what is said of files that count as successes and loaded nothing."""
    what = "1 run that succeeded" if files == 1 else f"{files} runs that succeeded"
    return f"{what} loaded nothing: every record was rejected. `inboxd dead-letters list` tells why."


def late_lines(expected: Iterable[ExpectedFeed], now: datetime) -> list[str]:
    """Return what is said of feeds that are late."""
    late = ((one, span((now - moment(one.due)).total_seconds())) for one in expected if one.late and one.due)
    return [
        f"feed {shown(one.feed)} is late by {by}: "
        + (f"the last file came at {short_time(one.last_arrival)}" if one.last_arrival else "none that counts has come")
        for one, by in late
    ]


def what_ran(run: RunRow) -> str:
    """Return what a run was about, in a few words."""
    if run.undo_of is not None:
        return f"undo of run {run.undo_of}"
    what = run.file_name or ("replay of dead letters" if run.rows_rejected is not None else "imported")
    if run.error_code is not None:
        return f"{run.error_code}: {what}"
    if run.duplicate_of is not None:
        return f"{what} (duplicate of run {run.duplicate_of})"
    if run.superseded_by is not None:
        return f"{what} (superseded by run {run.superseded_by})"
    return what


def print_checks(found: Sequence[Mapping[str, object]]) -> None:
    """Print what ``check`` found: a line per file, then the first faults."""
    always, seldom = ("inserted", "changed", "stale", "skipped", "rejected"), ("filtered", "deleted")
    counts = (*always, *(name for name in seldom if any(one[name] for one in found)))
    columns = (
        Column("file", cut="middle"),
        Column("feed", cut="middle", goes=1),
        *(Column(name, number=True) for name in counts),
        Column("verdict"),
    )
    print_table(columns, [(one["file"], one["feed"], *(one[name] for name in counts), _verdict(one)) for one in found])
    for one in found:
        faults = one.get("faults")
        if isinstance(faults, Sequence) and faults:
            heading(f"{shown(one['file'])}: the first records that would be rejected")
            named = [Column("record", number=True), Column("key", cut="middle"), Column("code"), DETAIL]
            print_table(named, [[fault[key] for key in ("record_no", "key", "code", "detail")] for fault in faults])
        if one.get("error"):
            heading(f"{shown(one['file'])}: {shown(one['error'])}")
            if one.get("hint"):
                print_text(f"{one['hint']}", indent=2)
        if one.get("duplicate_of") is not None:
            print_text(
                f"{one['file']}: run {one['duplicate_of']} has loaded this content, so that it would change nothing; "
                "the counts are what it would do if it were new"
            )
        if one.get("outdated_by") is not None:
            print_text(
                f"{one['file']}: not newer than the snapshot that was applied last, of {one['outdated_by']}: "
                "it would be skipped"
            )
        if one.get("keys_repeat"):
            print_text(
                f"{one['file']}: keys_repeat: {counted(one['keys_repeat'], 'record')} with the key of an earlier one, "
                "and the cursor does not tell which is newer"
            )
        unnamed = one.get("unnamed")
        if isinstance(unnamed, Mapping) and unnamed:
            heading(f"{shown(one['file'])}: fields that its records have and the feed has not")
            _print_unnamed(unnamed)


def _print_unnamed(counts: Mapping[str, int]) -> None:
    most = list(counts.items())[:MOST_UNNAMED]
    print_table([Column("field"), Column("records", number=True)], most)
    if len(counts) > len(most):
        click.echo(f"and {len(counts) - len(most)} more")


def _verdict(one: Mapping[str, object]) -> str:
    if one.get("error_code"):
        return str(one["error_code"])
    if one.get("duplicate_of") is not None:
        return f"duplicate of run {one['duplicate_of']}"
    if one.get("outdated_by") is not None:
        return "skipped"
    return "wrong" if one["rejected"] else "ok"


def up_to(watermark: object, cursor: object) -> object:
    """Return how far a feed has come; one without a cursor never has a watermark."""
    return watermark or ("no cursor" if cursor is None else "none yet")


def sparkline(values: Sequence[float], taken: int = 0) -> str:
    """Return one block a value, the largest a full one; a value above zero is never shown as none.

    Where the terminal has no room for so many beside the ``taken`` columns, two neighbours become one.
    """
    room = width_of_output()
    while room is not None and len(values) > room - taken:
        values = [sum(values[at : at + 2]) for at in range(0, len(values), 2)]
    top = max(values, default=0)
    if top <= 0:
        return " " * len(values)
    return "".join(SPARKS[0 if value <= 0 else max(1, round(value / top * (len(SPARKS) - 1)))] for value in values)


def short_time(stamped: str | None) -> str:
    """Return canonical text of a moment to the second, in UTC; on a terminal today's without its date."""
    if stamped is None:
        return ""
    if width_of_output() is not None and stamped[:10] == stamp(now())[:10]:
        return stamped[11:19]
    return f"{stamped[:10]} {stamped[11:19]}"


def now() -> datetime:
    """Return the time."""
    return SystemClock().now()
