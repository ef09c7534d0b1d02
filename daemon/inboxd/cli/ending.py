"""How a command ends: whatever happened becomes a sentence on standard error, and one of the documented exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import click

from inboxd.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOPERM,
    EXIT_PIPE,
    EXIT_SOFTWARE,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    DatabaseFault,
    InboxdError,
    Interrupted,
    OperatorFault,
)
from inboxd.model import printable
from inboxd.outlets import PRIORITIES, is_journal

STANDARD_ERROR: Final = 2
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def open_standard_streams() -> None:
    """Make sure that the three streams are there, and that they take any text.

    One that was closed (``>&-``) would give its number to the next file opened, which then got what is printed. A
    terminal whose encoding lacks a character, or a name that is not UTF-8, is no reason to fail.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        continue
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))
        else:
            stream.reconfigure(errors="backslashreplace")


def exit_code_of(command: Callable[[], object]) -> int:  # noqa: PLR0911 - one return for each kind of end
    """Run a command to its end, what it printed included; say what went wrong, and return the exit code."""
    try:
        result = command()
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        with _standard_error():
            error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    except SystemExit as end:  # asked to by TERM
        _tell_notes(end)
        raise
    except (click.Abort, KeyboardInterrupt, Interrupted) as end:
        _tell_notes(end)
        return EXIT_INTERRUPTED
    except InboxdError as error:
        _say(error.message, error.hint)
        return code_of(error)
    except OSError as error:
        return _system_error(error)
    except Exception:  # noqa: BLE001 - the last line of defence: a bug has an exit code of its own
        _complain(f"{traceback.format_exc()}inboxd: this is a bug in inboxd; please report it with the lines above")
        return EXIT_SOFTWARE
    return result if isinstance(result, int) else 0


def _say(message: str, hint: str = "") -> None:
    """Say what is wrong, and what to do."""
    _complain(f"inboxd: {message}" + (f"\n  {hint}" if hint else ""))


def _tell_notes(interruption: BaseException) -> None:
    """Say what was left undone."""
    for note in getattr(interruption, "__notes__", ()):
        _complain(f"inboxd: interrupted: {note}")


def _complain(text: str) -> None:
    """Write to standard error; to systemd's journal as an error, line by line.

    Where nobody can read it, the exit code has to do.
    """
    journal = is_journal(STANDARD_ERROR, os.environ.get("JOURNAL_STREAM", ""))
    mark = PRIORITIES["error"].decode() if journal else ""
    with _standard_error():
        click.echo("\n".join(mark + line for line in text.splitlines()), err=True)


@contextmanager
def _standard_error() -> Iterator[None]:
    """Write to standard error; what cannot be written there is dropped."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def _system_error(error: OSError) -> int:
    """Say what the system refused: a file that is named, or else the output, the one thing that has no name.

    Whoever read the output and went away (``| head -1``) has what was wanted: nothing is said.
    """
    if error.filename is None:
        _drop(sys.stdout)
    if error.errno == errno.EPIPE:
        return EXIT_PIPE
    what = "the output cannot be written" if error.filename is None else printable(os.fsdecode(error.filename))
    _say(f"{what}: {error.strerror or error}")
    return EXIT_NOPERM if error.errno in _FORBIDDEN else EXIT_FAILED


def _drop(stream: TextIO) -> None:
    """Let what is still in the buffers go nowhere, or the interpreter ends with a code of its own (120)."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def code_of(error: InboxdError) -> int:
    """Return the exit code that the contract gives to an error of ours."""
    if isinstance(error, OperatorFault):
        return error.exit_code
    return EXIT_UNAVAILABLE if isinstance(error, DatabaseFault) else EXIT_FAILED
