"""The progress bar of long work: on a terminal only, and rich is imported only there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

LONG: Final = 8 * 1024 * 1024
"""Fewer bytes than this in all are done before a bar could be seen."""


class _Readable(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...
    def read(self, size: int, /) -> bytes: ...
    def seal(self) -> str: ...
    def drain(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts the bytes read of the files it is given."""

    advance: Callable[[int], None]

    def watching(self, source: _Readable) -> _Readable:
        """Return the source, its reading counted."""
        return _Watched(source, self.advance)


@dataclass(frozen=True, slots=True)
class _Watched:
    source: _Readable
    advance: Callable[[int], None]

    def __enter__(self) -> Self:
        self.source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self.source.__exit__(kind, error, trace)

    def read(self, size: int, /) -> bytes:
        data = self.source.read(size)
        self.advance(len(data))
        return data

    def seal(self) -> str:
        return self.source.seal()

    def drain(self) -> str:
        return self.source.drain()


@contextmanager
def progress_over(files: Sequence[str]) -> Iterator[Progress]:
    """Show a bar over the bytes of ``files`` on standard error, if a person is looking and there is enough to see."""
    total = sum(Path(name).stat().st_size for name in files)
    if total < LONG or not sys.stderr.isatty():
        yield Progress(lambda _size: None)
        return
    import rich.console  # noqa: PLC0415 - only here is a bar to be drawn
    import rich.progress  # noqa: PLC0415 - only here is a bar to be drawn

    columns = (
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield Progress(lambda size: bar.update(task, advance=size))


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
