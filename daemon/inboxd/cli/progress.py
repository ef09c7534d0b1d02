"""The progress bar of long work: on a terminal only, and rich is imported only there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inboxd.inbox.source import Source
from inboxd.outcomes import Edge, Step
from inboxd.presence import PHASES, Phase
from inboxd.words import size

LONG: Final = 8 * 1024 * 1024
"""Fewer bytes than this in all are done before a bar could be seen."""


@dataclass(slots=True)
class Progress:
    """Follows the files it is given: how many bytes of them are read, and which phase the one in work is in."""

    advance: Callable[[int], None] = lambda _size: None
    enter: Callable[[Phase], None] = lambda _phase: None
    phase: Phase = Phase.READING

    def watching(self, source: Source) -> Source:
        """Follow the reading of a file's source; returns it."""
        self.phase = Phase.READING
        read = 0

        def moved() -> None:
            nonlocal read
            self.advance(source.offset - read)
            read = source.offset

        source.tick = moved
        return source

    def hook(self, step: Step, edge: Edge) -> None:
        """Be told of each step of a file's way."""
        if edge is Edge.BEFORE and step in PHASES:
            self.phase = PHASES[step]
            self.enter(self.phase)


@contextmanager
def progress_over(files: Sequence[str]) -> Iterator[Progress]:
    """Show on standard error how far ``files`` are, if a person is looking and there is enough to see.

    Reading has a bar of bytes; writing and committing are one statement each, of which only the time can be told.
    """
    total = sum(Path(name).stat().st_size for name in files)
    if total < LONG or not sys.stderr.isatty():
        yield Progress()
        return
    import rich.console  # noqa: PLC0415 - only here is a bar to be drawn
    import rich.progress  # noqa: PLC0415 - only here is a bar to be drawn

    columns = (
        rich.progress.TextColumn("{task.description:<10}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.fields[measure]}"),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        reading = bar.add_task(Phase.READING, total=total, measure="")
        lasting: list[rich.progress.TaskID] = []
        read = 0

        def advance(amount: int) -> None:
            nonlocal read
            read += amount
            bar.update(reading, completed=read, measure=f"{size(read)} of {size(total)}")

        def enter(phase: Phase) -> None:
            for task in lasting:
                bar.remove_task(task)
            lasting[:] = [] if phase is Phase.READING else [bar.add_task(phase, total=None, measure="")]

        yield Progress(advance, enter)


@contextmanager
def left_undone(what: Callable[[], str]) -> Iterator[None]:
    """Add to an interruption (Ctrl-C, or TERM) what it left undone; it is said when the command ends."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as interruption:
        interruption.add_note(what())
        raise


LONG_ROWS: Final = 200_000
"""Fewer rows than this are copied before a bar could be seen."""


@contextmanager
def progress_of_rows(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar over so many rows on standard error, if a person is looking; yields what moves it on."""
    if total < LONG_ROWS or not sys.stderr.isatty():
        yield lambda _rows: None
        return
    import rich.console  # noqa: PLC0415 - only here is a bar to be drawn
    import rich.progress  # noqa: PLC0415 - the same

    columns = (rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn())
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda rows: bar.update(task, advance=rows)
