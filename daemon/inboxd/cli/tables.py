"""Tables for people: drawn with rich on a terminal, plain aligned text elsewhere.

Everything shown goes through ``shown``: a file name or a record may hold escape sequences meant for the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from inboxd.cli.context import on_terminal

if TYPE_CHECKING:
    from inboxd.store.base import RunRow

WIDEST: Final = 200
"""Characters of one cell; what is longer ends in an ellipsis."""
SPARKS: Final = " ▁▂▃▄▅▆▇█"
STYLES: Final = {
    "success": "green",
    "load": "green",
    "ok": "green",
    "failure": "bold red",
    "reject": "red",
    "wrong": "bold red",
    "running": "yellow",
    "stale": "yellow",
    "skip": "yellow",
    "warning": "yellow",
    "all rejected": "bold yellow",
}
"""How rich colours a cell that says one of these."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, and whether its cells are numbers (set to the right)."""

    title: str
    number: bool = False


def shown(value: object) -> str:
    """Return a value as text for a terminal: control characters escaped, nothing for ``None``."""
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def cut(text: str) -> str:
    """Return at most ``WIDEST`` characters."""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, or nothing when there are no rows."""
    cells = [[cut(shown(cell)) for cell in row] for row in rows]
    if not cells:
        return
    if on_terminal():
        _draw(columns, cells)
        return
    widths = [max(len(column.title), *(len(row[place]) for row in cells)) for place, column in enumerate(columns)]
    for line in ([column.title for column in columns], *cells):
        aligned = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def _draw(columns: Sequence[Column], cells: list[list[str]]) -> None:
    import rich.box  # noqa: PLC0415 - only on a terminal
    import rich.console  # noqa: PLC0415 - the same
    import rich.table  # noqa: PLC0415 - the same
    import rich.text  # noqa: PLC0415 - the same

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(rich.text.Text(cell, style=STYLES.get(cell, "")) for cell in row))
    rich.console.Console().print(table)


def heading(text: str) -> None:
    """Print a line above a group of lines."""
    click.secho(f"\n{text}", bold=True)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, the values in line; a value of ``None`` is left out."""
    kept = [(name, shown(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {value}")


def print_runs(runs: Sequence[RunRow]) -> None:
    """Print runs, one a line."""
    if not runs:
        click.echo("no runs")
        return
    columns = (
        Column("run", number=True),
        Column("feed"),
        Column("status"),
        Column("in", number=True),
        Column("out", number=True),
        Column("rejected", number=True),
        Column("skipped", number=True),
        Column("stale", number=True),
        Column("ms", number=True),
        Column("started"),
        Column("what"),
    )
    print_table(columns, [_run_line(run) for run in runs])


def _run_line(run: RunRow) -> tuple[object, ...]:
    counts = (run.rows_in, run.rows_out, run.rows_rejected, run.rows_skipped, run.rows_stale, run.duration_ms)
    status = "all rejected" if run.all_rejected else run.status.value
    return (run.id, run.job_name, status, *counts, short_time(run.started_at), what_ran(run))


def all_rejected_line(files: object) -> str:
    """Return what is said of files that count as successes and loaded nothing."""
    what = "1 run that succeeded" if files == 1 else f"{files} runs that succeeded"
    return f"{what} loaded nothing: every record was rejected. `inboxd dead-letters list` tells why."


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
    counts = ("inserted", "changed", "stale", "skipped", "rejected")
    columns = (Column("file"), Column("feed"), *(Column(name, number=True) for name in counts), Column("verdict"))
    print_table(columns, [(one["file"], one["feed"], *(one[name] for name in counts), _verdict(one)) for one in found])
    for one in found:
        faults = one.get("faults")
        if isinstance(faults, Sequence) and faults:
            heading(f"{shown(one['file'])}: the first records that would be rejected")
            named = [Column("record", number=True), Column("key"), Column("code"), Column("detail")]
            print_table(named, [[fault[key] for key in ("record_no", "key", "code", "detail")] for fault in faults])
        if one.get("error"):
            heading(f"{shown(one['file'])}: {shown(one['error'])}")
            if one.get("hint"):
                click.echo(f"  {shown(one['hint'])}")


def _verdict(one: Mapping[str, object]) -> str:
    if one.get("error_code"):
        return str(one["error_code"])
    if one.get("duplicate_of") is not None:
        return f"duplicate of run {one['duplicate_of']}"
    return "wrong" if one["rejected"] else "ok"


def sparkline(values: Sequence[float]) -> str:
    """Return one block a value, the largest a full one; a value above zero is never shown as none."""
    top = max(values, default=0)
    if top <= 0:
        return " " * len(values)
    return "".join(SPARKS[0 if value <= 0 else max(1, round(value / top * (len(SPARKS) - 1)))] for value in values)


def short_time(stamped: str | None) -> str:
    """Return canonical text of a moment to the second."""
    return "" if stamped is None else f"{stamped[:10]} {stamped[11:19]}"
