"""What every command starts from: the settings, a store, and a place to print to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import click
import msgspec

from inboxd import store as stores
from inboxd.cli.progress import left_undone
from inboxd.config import Settings, is_one_file, load_settings, own_file_at
from inboxd.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_NOPERM, OperatorFault
from inboxd.inbox.tree import is_within
from inboxd.model import printable
from inboxd.store.database import Store


def settings_of(context: click.Context, *, database_url: str | None = None, in_force: Path | None = None) -> Settings:
    """Load the settings this command was started with; ``database_url`` takes the place of the configured one.

    ``in_force`` is the file that a daemon which loads them anew has those from that it works by.
    """
    config_file: Path | None = context.find_root().obj
    options = {} if database_url is None else {"database.url": database_url}
    settings = load_settings(config_file, os.environ, working_folder(), options, in_force)
    output: Path | None = context.params.get("output")
    if output is not None:
        refuse_to_replace_given(output, context.params.get("files", ()))
        refuse_to_replace_own(settings, output)
    return settings


def refuse_to_replace_given(output: Path, given: Sequence[str]) -> None:
    """Refuse an ``--output`` that would replace a file that the command reads; raises ``OperatorFault`` (78)."""
    if any(is_one_file(Path(name), output) for name in given):
        raise _output_taken(output, "a file that is read")


def refuse_to_replace_own(settings: Settings, output: Path) -> None:
    """Refuse an ``--output`` that would replace one of inboxd's own files, or an archived one; raises the same."""
    if (own := own_file_at(settings, output)) is not None:
        raise _output_taken(output, own.what)
    for folder in (settings.archive.processed, settings.archive.failed):
        with suppress(OSError):  # a folder that is not there holds nothing
            if is_within(Path(os.path.realpath(output)).parent, folder):
                raise _output_taken(output, f"in {printable(str(folder))}, which holds senders' files alone")


def _output_taken(output: Path, what: str) -> OperatorFault:
    message = f"--output {printable(os.fspath(output))} is {what}"
    return OperatorFault("output_taken", message, "name another file", exit_code=EXIT_CONFIG)


def working_folder() -> Path | None:
    """Return the folder that relative paths start from; ``None`` where it was deleted: then only absolute ones work."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


@contextmanager
def writing_store(settings: Settings) -> Iterator[Store]:
    """Open the store for a command that writes, with its tables as the config wants them.

    While another program holds what it needs, such as the daemon that commits a large file, it says so and waits.
    """
    waiting = partial(_say_once, set())
    undone = "what was begun and not committed is rolled back, nothing is half done"
    with stores.writing_store(settings.database.url, settings.feeds, waiting) as store, left_undone(lambda: undone):
        yield store


def _say_once(said: set[str]) -> None:
    line = f"inboxd: the database is busy with another program; waiting for a turn, {stores.TURN_S:.0f} s at most …"
    if line not in said:
        said.add(line)
        click.echo(line, err=True)


@contextmanager
def reading_store(settings: Settings) -> Iterator[Store]:
    """Open the store for a command that only reads; the daemon may be running or not."""
    with stores.open_store(settings.database.url, readonly=True) as store:
        yield store


def print_json(value: object) -> None:
    """Print one JSON document, indented for eyes and exact for machines."""
    click.echo(_document(value).decode())


def _document(value: object) -> bytes:
    """Return a JSON document; a path whose bytes are not UTF-8 is in it backslash-escaped."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_printable(msgspec.to_builtins(value)))
    return msgspec.json.format(encoded, indent=2)


def _printable(value: object) -> object:
    if isinstance(value, dict):
        return {_printable(name): _printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def write_json(path: Path, value: object) -> None:
    """Write one JSON document to a file, whole or not at all; raises ``OperatorFault`` where that is not possible."""
    with written(path) as out:
        out.write(_document(value).decode() + "\n")


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """Lend a file that gets its name when it is complete; raises ``OperatorFault`` where it cannot be written.

    What is there and no file (``/dev/stdout``, a pipe) is written to as it is: a rename would put a file in its place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        special = path.exists() and not path.is_file()
        if not special:
            path.parent.mkdir(parents=True, exist_ok=True)
        with (path if special else temporary).open("w", encoding="utf-8", newline="\n") as out:
            yield out
            out.flush()
            if not special:
                os.fsync(out.fileno())
        if not special:
            temporary.replace(path)
    except OSError as error:
        msg = f"cannot write {printable(os.fspath(path))}: {error.strerror}"
        # A full or failing disk is a failure; any other reason is a place where this user cannot write.
        code = EXIT_FAILED if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO} else EXIT_NOPERM
        raise OperatorFault("cannot_write", msg, "name a file that can be written", exit_code=code) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def on_terminal() -> bool:
    """Tell whether a person is looking."""
    return sys.stdout.isatty()


@contextmanager
def checking_store(settings: Settings) -> Iterator[Store]:
    """Open the store for ``check``: as it is, or, where there is none yet, an empty one that is gone afterwards.

    PostgreSQL makes no temporary tables in a session that may only read.
    """
    postgres = settings.database.is_postgres
    if postgres or settings.database.sqlite_path.exists():
        with stores.open_store(settings.database.url, readonly=not postgres) as store:
            if store.schema_current():
                yield store
                return
    with ExitStack() as stack:
        empty = f"sqlite:///{stack.enter_context(TemporaryDirectory(prefix='inboxd-check-'))}/empty.db"
        yield stack.enter_context(stores.writing_store(empty, settings.feeds))
