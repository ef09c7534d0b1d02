"""``inboxd init``: from sample files to a config that takes each of their records."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from inboxd.cli.arguments import GivenFile, Names, OneFile, Text
from inboxd.cli.context import refuse_to_replace_given, refuse_to_replace_own, settings_of, working_folder
from inboxd.config import Settings, is_one_file, literal, load_settings, match_feed
from inboxd.config.names import wrong_feed, wrong_table
from inboxd.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_NOPERM, MEND_AND_RETRY, FileFault, OperatorFault
from inboxd.infer.names import feed_name
from inboxd.infer.propose import NothingToTake, Wishes, WrongWish
from inboxd.infer.prove import Outcome
from inboxd.infer.render import quoted
from inboxd.infer.settle import Inferred, infer
from inboxd.model import Mode, printable
from inboxd.records.guess import LOOK, looks_like
from inboxd.records.unpack import unpacked
from inboxd.regular import read_regular
from inboxd.words import counted, escaped


@click.command()
@click.argument("names", metavar="FILE…", nargs=-1, required=True, type=GivenFile())
@click.option("--feed", type=Text(), help="The feed's name, and its table's; without it, one made from the file's.")
@click.option("--key", type=Text(), help="The fields that name a record, with commas between them.")
@click.option("--cursor", type=Text(), help="The field that tells when a record was made or changed.")
@click.option("--records", type=Names(), help='Where the records are in a document, such as "data.items".')
@click.option("--explode", type=Names(), help="The array inside each of the records whose elements are the records.")
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="What a file means.")
@click.option("--output", type=OneFile(), help="Write the config to this file.")
@click.option("--force", is_flag=True, help="Let --output replace a file.")
@click.option("--add", is_flag=True, help="Put the feed at the end of the config in force.")
@click.pass_context
def init(  # noqa: PLR0913, PLR0917 - one for each option
    context: click.Context,
    names: tuple[str, ...],
    feed: str | None,
    key: str | None,
    cursor: str | None,
    records: tuple[str, ...] | None,
    explode: tuple[str, ...] | None,
    mode: str | None,
    output: Path | None,
    *,
    force: bool,
    add: bool,
) -> int:
    """Infer a feed from sample files, prove it on them, and print its config.

    \b
    Example:  inboxd init export.json > inboxd.toml
              inboxd init --feed orders --key id --add orders/*.json
    """
    if output is not None and add:
        raise click.UsageError("--output writes a new config, --add changes the one in force: give one of the two")
    files = tuple(Path(name) for name in names)
    settings = settings_of(context) if add else None
    if output is not None:
        _refuse_to_replace(context, output, names)
    name = _feed_name(files[0], feed, settings)
    wishes = Wishes(
        feed=feed,
        key=tuple(part.strip() for part in key.split(",")) if key else None,
        cursor=cursor,
        records=records,
        explode=explode,
        mode=Mode(mode) if mode else None,
    )
    inferred = _infer(files, name, [f"{name}/**", f"**/{literal(files[0].name)}"] if add else ["**"], wishes)
    if settings is not None:
        _add(settings, inferred, files)
    else:
        _print(f"{_head(inferred, files)}{inferred.toml}", output, force=force)
    _say(inferred.outcome, inferred, files)
    return 0 if inferred.outcome.complete else EXIT_FAILED


def _refuse_to_replace(context: click.Context, output: Path, names: Sequence[str]) -> None:
    """Refuse what ``--output`` must not replace: of inboxd's own files it is the config that is written here."""
    refuse_to_replace_given(output, names)
    config_file: Path | None = context.find_root().obj
    try:
        settings = load_settings(config_file, os.environ, working_folder())
    except OperatorFault:  # it may be the config that is to be replaced
        return
    if settings.source is None or not is_one_file(settings.source, output):
        refuse_to_replace_own(settings, output)


def _infer(files: Sequence[Path], name: str, match: Sequence[str], wishes: Wishes) -> Inferred:
    opened: list[Path] = []

    def opener(path: Path) -> BinaryIO:
        opened.append(path)
        if not path.is_file():  # a pipe can be read once, and may never say anything
            raise FileFault(
                "unreadable", "it is not a regular file", "only regular files are read: save it as one first"
            )
        return path.open("rb")

    openers = [partial(opener, path) for path in files]
    stems = [path.name.split(".")[0] for path in files]
    try:
        return infer(openers, stems, name, match, wishes, now=datetime.now(UTC))
    except NothingToTake:
        what = printable(files[0].name) if len(files) == 1 else "the files"
        msg = f"there are no records in {what}"
        hint = "a record is an element of an array, a member of an object, a line, or the whole of a document"
        raise OperatorFault("nothing_to_take", msg, hint, exit_code=EXIT_FAILED) from None
    except WrongWish as error:
        raise OperatorFault("wrong_wish", str(error), exit_code=EXIT_CONFIG) from None
    except FileFault as fault:
        raise _explained(fault, opened[-1]) from None
    except OSError as error:
        msg = f"cannot read {printable(str(error.filename))}: {error.strerror}"
        raise OperatorFault("unreadable", msg, exit_code=EXIT_NOPERM) from error


def _explained(fault: FileFault, path: Path) -> FileFault:
    """Return the fault with the file's name, and with a hint that says what the file is, if it is no JSON."""
    name = printable(path.name)
    hint = f"mend {name}, or leave it out" if fault.hint == MEND_AND_RETRY else fault.hint
    if fault.code in ("invalid_json", "invalid_encoding"):
        with path.open("rb") as file:
            what = looks_like(unpacked(file).read(LOOK))
        hint = hint if what is None else f"{name} looks like {what}"
    return FileFault(fault.code, f"{name}: {fault.message}", hint)


def _feed_name(path: Path, given: str | None, settings: Settings | None) -> str:
    if given is not None:
        wrong = wrong_feed(given) or wrong_table(given)
        if wrong is not None or given == "events":
            why = wrong or "'events' is the built-in feed, from which it would take what it does not say"
            raise click.UsageError(f"--feed: {why}")
    name = given or feed_name(path.name.split(".")[0])
    if settings is not None and settings.source is not None:
        taken = {each.name.lower() for each in settings.feeds} | {each.table.lower() for each in settings.feeds}
        if given is not None and given.lower() in taken:
            raise click.UsageError(f"--feed: {given!r} is a feed or a table of the config already")
        number, plain = 1, name
        while name.lower() in taken:
            number += 1
            name = f"{plain[:58]}_{number}"
    return name


def _head(inferred: Inferred, files: Sequence[Path]) -> str:
    names = ", ".join(escaped(printable(path.name)) for path in files[:5]) + (", …" if len(files) > 5 else "")  # noqa: PLR2004 - a line
    return (
        f"# Made by `inboxd init` from {counted(inferred.outcome.records, 'record')} of {names}.\n"
        "# Look at each line; then try it: inboxd check FILE\n"
    ) + _suffixes(files)


def _suffixes(files: Sequence[Path]) -> str:
    """Return the setting with which the daemon takes files of such names; nothing where it does so anyway."""
    usual = [".json", ".ndjson", ".jsonl"]
    names = (path.name.lower().removesuffix(".gz").removesuffix(".zst") for path in files)
    suffixes = {Path(name).suffix for name in names}
    others = sorted({suffix if suffix.isprintable() else "" for suffix in suffixes} - {*usual})
    return f"[inbox]\nsuffixes = [{', '.join(map(quoted, usual + others))}]\n\n" if others else ""


def _print(text: str, output: Path | None, *, force: bool) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        msg = f"{printable(os.fspath(output))} already exists"
        raise OperatorFault(
            "file_exists", msg, "name another, or replace it with --force", exit_code=EXIT_FAILED
        ) from None
    except OSError as error:
        msg = f"cannot write {printable(os.fspath(output))}: {error.strerror}"
        raise OperatorFault("cannot_write", msg, "name a file that can be written", exit_code=EXIT_NOPERM) from error


def _add(settings: Settings, inferred: Inferred, files: Sequence[Path]) -> None:
    """Put the feed at the end of the config in force, whole or not at all; what is there stays, comments too."""
    path = settings.source
    if path is None:
        hint = "write a config first: inboxd init --output inboxd.toml FILE"
        raise OperatorFault("no_config", "there is no config file in force to add to", hint, exit_code=EXIT_CONFIG)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before = read_regular(path).decode()
        after = f"{before.rstrip()}\n\n{inferred.toml}"
        tomllib.loads(after)
        temporary.write_text(after, encoding="utf-8")
        temporary.chmod(path.stat().st_mode)
        temporary.replace(path)
    except tomllib.TOMLDecodeError as error:
        msg = f"the feed cannot stand at the end of {printable(os.fspath(path))}: {error}"
        hint = "its feeds are one inline table; write them as [feeds.NAME]"
        raise OperatorFault("cannot_add", msg, hint, exit_code=EXIT_CONFIG) from error
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        msg = f"cannot write {printable(os.fspath(path))}: {error.strerror}"
        raise OperatorFault("cannot_write", msg, "", exit_code=EXIT_NOPERM) from error
    _tell(f"added feed {inferred.proposal.feed!r} to {printable(os.fspath(path))}")
    first = match_feed(settings.feeds, files[0].name) if "[feeds" in before else None
    if first is not None:
        _tell(f"feed {first.name!r} stands before it and takes {printable(files[0].name)!r}, too: narrow its match")


def _say(outcome: Outcome, inferred: Inferred, files: Sequence[Path]) -> None:
    """Say on standard error what became of the sample."""
    part = "the sample" if not outcome.cut else "the part of the sample that was read"
    _tell(
        f"{counted(outcome.records, 'record')} in {part}: {counted(outcome.rows, 'row')}, {outcome.rejected} rejected"
        + (f", {outcome.filtered} filtered" if outcome.filtered else "")
        + (f", {outcome.repeated} with the key of an earlier one" if outcome.repeated else "")
    )
    if left_out := inferred.proposal.layout.left_out:
        _tell(
            f"left out, as no column can store what is there: {counted(len(left_out), 'field')}; the config names what"
        )
    for number in outcome.empty:
        _tell(f"{printable(files[number].name)} has nothing where the others have their records: it would fail")


def _tell(line: str) -> None:
    click.echo(f"inboxd: {line}", err=True)
