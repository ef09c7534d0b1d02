"""What people type, and the one guard between it and whatever it is handed to: a query, a driver, the file system.

Every option and argument of a command has one of these types (a test holds that), so that what reaches a command is
text that a database takes, a number that it holds, a moment that it knows. What is none of it ends in a sentence and
exit code 2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

import click
from click.shell_completion import CompletionItem

from inboxd.cli import complete
from inboxd.clock import SystemClock, stamp
from inboxd.inbox.names import spellings
from inboxd.model import Limit, printable
from inboxd.records.times import timestamp

LARGEST: Final = 2**63 - 1
"""The largest number that both databases hold: run numbers, limits and ids end there."""
LONGEST_HOURS: Final = 36_500 * 24
"""A hundred years: what is further back is before every run."""
SHOWN: Final = 60
"""Characters of what was typed that a message repeats."""
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)

Value_co = TypeVar("Value_co", covariant=True)
Complete = Callable[[click.Context, str], list[str]]


def quoted(value: object) -> str:
    """Return what was typed for a message: quoted, printable, and cut where it is long."""
    text = printable(str(value))
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"


class Guarded(click.ParamType[Value_co]):
    """What the types of this module have in common: a name for the help, and perhaps a way to complete it."""

    def __init__(self, complete: Complete | None = None) -> None:
        self._complete = complete

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - as click calls it
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return what may follow; nothing where that cannot be found out, for a shell shows no errors."""
        if self._complete is None:
            return []
        try:
            return [CompletionItem(one) for one in self._complete(ctx, incomplete) if one.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - without a config or a database there is nothing to complete
            return []


def _without_null(
    kind: click.ParamType[object], text: str, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    """Return the text; U+0000 is taken by no database and no file system (a shell cannot type it, a program can)."""
    if "\0" in text:
        kind.fail(f"{quoted(text)} has U+0000 in it.", param, ctx)
    return text


class Text(Guarded[str]):
    """Text as databases take it."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; an argument's bytes that are not UTF-8 are no text."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{quoted(text)} is not UTF-8.", param, ctx)
        return _without_null(self, text, param, ctx)


class Names(Guarded[tuple[str, ...]]):
    """A path in a document: names with dots between them; nothing is the document itself."""

    name = "path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names."""
        from inboxd.config.paths import parse_names  # noqa: PLC0415 - the config costs time that `--help` has not

        try:
            return value if isinstance(value, tuple) else parse_names(Text().convert(value, param, ctx))
        except ValueError as error:
            self.fail(f"{quoted(value)} {error}.", param, ctx)


class LedgerName(Guarded[str]):
    """A file's name as the ledger keeps it: of any bytes, those that are not UTF-8 backslash-escaped."""

    name = "name"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 - as click calls it
        ctx: click.Context | None,  # noqa: ARG002 - the same
    ) -> str:
        """Return the name."""
        return printable(str(value)).replace("\0", "\\x00")


class FileName(Guarded[str]):
    """A file's name on this machine, of any bytes; whether there is such a file is for the command to see."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        return _without_null(self, str(value), param, ctx)


class OneFile(Guarded[Path]):
    """A file to be read or written, which need not be there."""

    name = "file"
    _path = click.Path(path_type=Path)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path as it was typed, relative or not."""
        path = Path(_without_null(self, str(value), param, ctx))
        if not path.name:
            self.fail(f"{quoted(value)} is not the name of a file.", param, ctx)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete file names."""
        return self._path.shell_complete(ctx, param, incomplete)


class GivenFile(Guarded[str]):
    """A file that is there and may be read, under the name as it was typed, of any bytes, or as it is shown."""

    name = "file"
    _path = click.Path(exists=True, dir_okay=False)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it was typed, or with the bytes that are written as escapes where names are shown."""
        typed = _without_null(self, str(value), param, ctx)
        name = next(filter(os.path.lexists, spellings(typed)), typed)
        return str(self._path.convert(name, param, ctx))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete file names."""
        return self._path.shell_complete(ctx, param, incomplete)


def one_more(limit: int) -> int:
    """Return a limit that tells whether there is more than so many."""
    return min(limit, LARGEST - 1) + 1


class Number(Guarded[int]):
    """A whole number from ``least`` to the largest that both databases hold."""

    name = "number"

    def __init__(self, least: int = 0, complete: Complete | None = None) -> None:
        super().__init__(complete)
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; digits alone, as in every table that shows one."""
        text = str(value)
        if not _DIGITS.fullmatch(text) or len(text) > len(str(LARGEST)) or not self._least <= int(text) <= LARGEST:
            self.fail(f"{quoted(text)} is not a whole number from {self._least} to {LARGEST}.", param, ctx)
        return int(text)


class Hours(Guarded[float]):
    """A number of hours, more than none and at most a hundred years."""

    name = "hours"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        text = str(value)
        number = float(text) if _DECIMAL.fullmatch(text) else 0.0
        if not 0 < number <= LONGEST_HOURS:
            self.fail(f"{quoted(text)} is not a number of hours above 0, up to a hundred years.", param, ctx)
        return number


class ShareOrCount(Guarded[Limit]):
    """A share (``20%``) or a count."""

    name = "limit"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Limit:
        """Return the limit that a person typed."""
        from inboxd.config.values import parse_limit  # noqa: PLC0415 - pydantic comes with it: `--version` needs none

        if isinstance(value, Limit):
            return value
        text = str(value)
        number = int(text) if _DIGITS.fullmatch(text) and len(text) < len(str(LARGEST)) else text
        try:
            return parse_limit(number)
        except ValueError as error:
            self.fail(f"{quoted(text)} {error}.", param, ctx)


class Moment(Guarded[str]):
    """A moment, as people type it: ``2026-01-15``, ``2026-01-15T10:30:00+01:00``, or ``24h`` for so long ago."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return canonical text."""
        from inboxd.config.values import parse_duration  # noqa: PLC0415 - pydantic comes with it: `--version` needs none

        text = str(value)
        if (exact := timestamp(text)) is not None:
            return exact
        try:
            return stamp(SystemClock().now() - timedelta(seconds=parse_duration(text)))
        except (ValueError, OverflowError):
            hint = "write 2026-01-15T10:30:00Z, 2026-01-15, or 24h for a day ago."
            self.fail(f"{quoted(text)} is not a time: {hint}", param, ctx)


FEED: Final = Text(complete.feeds)
RUN: Final = Number(complete=complete.runs)
FAILED_FILE: Final = FileName(complete.failed_files)
